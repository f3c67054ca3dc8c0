"""From options to a running server."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.runtime import endings
from bentotool.runtime.bento import find_target, given_arguments
from bentotool.runtime.leftovers import PrivateFolder
from bentotool.runtime.listening import bind, report
from bentotool.runtime.options import log_format, read_options
from bentotool.runtime.supervisor import Settings, Supervisor

__all__ = ["start"]

_VERIFY = "BENTOTOOL_VERIFY"  # that of verifying.py, which is imported only where it is set


def start(argv: Sequence[str]) -> int:
    """Serve until a signal comes; give the exit status.

    Raises:
        Ended: a signal came before there was a supervisor.
    """
    form = log_format(argv)
    try:
        options = read_options(argv)
        form = options.log_format
        with _own_folder(options):
            endings.raise_ended()
            endings.release()  # those that were held back since this process began
            return _serve(options)
    except BentotoolError as error:
        report(error, form)
        return error.exit_status
    except OSError as error:
        named = f" {os.fspath(error.filename)!r}" if isinstance(error.filename, (str, os.PathLike)) else ""
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        report(BentotoolError(f"the system refused{named}: {reason}"), form)
        return 1


@contextlib.contextmanager
def _own_folder(options: argparse.Namespace) -> Iterator[None]:
    """What was made for this server goes with it."""
    if not options.own_folder:
        yield
        return
    folder = PrivateFolder(Path(options.target).absolute())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder.path.parent)  # Windows removes no folder that somebody is in
        folder.remove()


def _serve(options: argparse.Namespace) -> int:
    target = find_target(options.target, options.service, given_arguments())
    if os.environ.get(_VERIFY):
        _verify(target.bento.path if target.bento else None, options)
    if options.plan:
        from bentotool.runtime.planning import print_plan

        return print_plan(target, options.workers, options.log_format, inside=options.development)
    settings = Settings(
        host=options.host,
        port=options.port,
        workers=options.workers,
        drain_delay=options.drain_delay,
        grace=options.grace,
        port_file=options.port_file.absolute() if options.port_file else None,
        log_format=options.log_format,
        quiet=options.quiet,
        development=options.development or options.reload,
        watcher="bentotool.runtime.watching" if options.reload else None,
    )
    endings.hold()  # until the supervisor answers them
    return Supervisor(target, settings, bind(settings.host, settings.port)).run()


def _verify(bento: Path | None, options: argparse.Namespace) -> None:
    """Check every byte where the environment asks for it, and say so."""
    from bentotool.runtime.verifying import check_started

    done = check_started(bento)
    if done is not None and not options.quiet:
        told = f"verified {done.files} files, {done.size / 1e6:.1f} MB, against {done.digest} in {done.seconds:.1f} s"
        sys.stderr.write((json.dumps({"message": told}) if options.log_format == "json" else told) + "\n")
