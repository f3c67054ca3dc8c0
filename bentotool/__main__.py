"""``python -m bentotool`` and the ``bentotool`` script."""

from __future__ import annotations

import os
import sys

__all__ = ["run"]

_INTERRUPTED = 130
_SIGNALLED = 128


def run() -> None:
    """Run the command line and leave with its exit status."""
    try:
        _open_closed_streams()
        status = _run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules are imported; later the boundary answers it
        from bentotool.cli.stopping import stopped_by

        number = stopped_by()
        sys.stderr.write("terminated\n" if number else "interrupted\n")
        status = 128 + number if number else _INTERRUPTED
    if status >= _SIGNALLED:
        from bentotool.runtime.endings import hold

        hold()  # it ends: another signal, such as a second ctrl-C, changes nothing
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):  # answered before typer is imported: scripts ask for it often
        from bentotool import __version__

        sys.stdout.write(f"bentotool {__version__}\n")
        return 0
    import gc

    from bentotool.cli.stopping import end_on_signals, hold_back

    end_on_signals()
    hold_back(True)  # raised in the middle of an import, an interrupt may be lost, and a traceback be printed instead
    gc.disable()  # nothing is garbage while modules are imported: saves 5 ms; on again once the command is loaded
    from bentotool.cli.main import main

    hold_back(False)
    return main(arguments)


def _open_closed_streams() -> None:
    """Who closed a standard stream (``>&-``, some daemons) wants nothing of it: it leads nowhere, and is no failure.

    In the order of their numbers, so that no file opened later gets the number of a standard stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - stays open


if __name__ == "__main__":
    run()
