"""``python -m bentotool`` and the ``bentotool`` script."""

from __future__ import annotations

import sys

__all__ = ["run"]


def run() -> None:
    """Run the command line and leave with its exit status."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):  # answered before typer is imported: scripts ask for it often
        from bentotool import __version__

        sys.stdout.write(f"bentotool {__version__}\n")
        return
    import gc

    gc.disable()  # nothing is garbage while modules are imported: saves 5 ms; on again once the command is loaded
    from bentotool.cli.main import main

    sys.exit(main(arguments))


if __name__ == "__main__":
    run()
