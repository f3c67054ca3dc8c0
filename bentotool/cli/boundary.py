"""The one place where a failure becomes what the user sees and the exit status.

A :class:`~bentotool.errors.BentotoolError` is one line, a hint and its own status; a wrong command line is status 2; an
interrupt is 130, a signal that asks to end is 128 and its number; anything else is a defect of ours and says so.
Tracebacks are shown on request and never carry the values of local variables, which may be credentials.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from bentotool.cli.console import printable
from bentotool.cli.state import State
from bentotool.cli.stopping import stopped_by
from bentotool.errors import BentotoolError, UsageError

__all__ = ["run_guarded"]

INTERRUPTED = 130
_USAGE_STATUS = 2
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")


def run_guarded(action: Callable[[], None], state: State) -> int:
    """Run ``action`` and turn its failure into output on stderr.

    Returns:
        The exit status. ``SystemExit`` passes through.
    """
    try:
        action()
        sys.stdout.flush()
    except typer.Exit as request:
        return _flushed(request.exit_code)
    except BrokenPipeError:
        _discard_output()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        number = stopped_by()
        error = _Terminated if number else _Interrupted
        _show(error("terminated" if number else "interrupted", hint=state.interrupt_hint), state)
        return 128 + number if number else INTERRUPTED
    except BentotoolError as error:
        _show(error, state, traceback=state.verbose > 1)
        return error.exit_status
    except typer.TyperException as error:
        _show(_usage(error), state)
        return error.exit_code
    except OSError as error:
        _show(_from_system(error), state, traceback=state.verbose > 0)
        return 1
    except Exception as error:
        _show(_Defect(error), state, traceback=state.verbose > 0)
        return 1
    return 0


class _Interrupted(BentotoolError):
    code = "interrupted"


class _Terminated(_Interrupted):
    code = "terminated"


class _SystemFailure(BentotoolError):
    code = "system"


class _DiskFull(BentotoolError):
    code = "disk_full"


class _Defect(BentotoolError):
    code = "internal"

    def __init__(self, error: Exception) -> None:
        said = str(error).strip().split("\n", 1)[0]
        super().__init__(
            f"unexpected failure: {type(error).__name__}{': ' + said if said else ''}",
            hint="this is a defect, please report it with the output of the same command and -v",
        )


def _usage(error: typer.TyperException) -> UsageError:
    message = " ".join(error.format_message().split())  # typer puts choices on lines of their own
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "bentotool"
    hint = f"{path} --help"
    message, asked, suggestion = message.partition(" Did you mean ")
    if not asked:
        message, asked, suggestion = message.partition(" (Possible options: ")
        suggestion = suggestion.rstrip(")") + "?"
    if asked:
        hint = f"did you mean {suggestion}"
    message = message.rstrip(".?! ")
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _from_system(error: OSError) -> BentotoolError:
    if error.errno == errno.ENOSPC:
        named = isinstance(error.filename, (str, bytes, os.PathLike))
        return _DiskFull(
            f"no space left on the disk{f' that holds {os.fsdecode(error.filename)}' if named else ''}",
            hint="free some space, or work on another disk; bentotool store gc frees what the store does not need",
        )
    if error.errno == errno.ENOENT and not os.path.isabs(error.filename or "") and _is_nowhere():
        return _SystemFailure("the working folder is gone", hint="go to a folder that is there, as with: cd ~")
    where = f" {os.fspath(error.filename)!r}" if isinstance(error.filename, (str, os.PathLike)) else ""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return _SystemFailure(f"the system refused{where}: {reason}")


def _is_nowhere() -> bool:
    """Whether the folder that this process was started in was removed; nothing relative to it can be found."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _redact(text: str) -> str:
    """Credentials in a URL are never shown, whatever the message they came in with."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)


def _show(error: BentotoolError, state: State, *, traceback: bool = False) -> None:
    try:
        sys.stdout.flush()
        if traceback:
            import traceback as tracebacks

            lines = tracebacks.format_exception(error.__cause__ or sys.exc_info()[1] or error)
            sys.stderr.write(_redact("".join(lines)))
        if state.json:
            document = json.dumps(error.to_dict(), default=str)
            sys.stderr.write(_redact(document) + "\n")
        elif isinstance(error, _Interrupted):
            sys.stderr.write(f"{error.message}{f'; {error.hint}' if error.hint else ''}\n")
        else:
            sys.stderr.write(_redact(state.console.error_text(printable(error.message), error.hint)))
        sys.stderr.flush()
    except BrokenPipeError:
        _discard_output()


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 1
    return status


def _discard_output() -> None:
    """The reader is gone: keep the interpreter's own flush at exit from failing too."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            try:
                os.dup2(nowhere.fileno(), stream.fileno())
            except (OSError, ValueError):
                continue
