"""``python -m bentotool.runtime TARGET``: serve a Bento on disk, or a project folder.

Each option that says how to listen, log and end has its default from a variable, ``BENTOTOOL_`` and its name; the port
from ``PORT`` too, as platforms that run containers give it. So an image is set up without a shell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

from bentotool.errors import BentotoolError, UsageError
from bentotool.runtime.bento import find_target, given_arguments
from bentotool.runtime.listening import bind, report
from bentotool.runtime.supervisor import Settings, Supervisor

__all__ = ["main"]

_FORMATS = ("text", "json")
_VERIFY = "BENTOTOOL_VERIFY"  # that of verifying.py, which is imported only where it is set


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(text)
    return seconds


def _set(name: str, default: str) -> str:
    """A default that the environment sets; argparse judges it as if it had been given."""
    return os.environ.get(f"BENTOTOOL_{name}") or default


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bentotool.runtime", description=__doc__)
    parser.add_argument("target", nargs="?", default=".", help="a Bento on disk, its home/bento, or a project folder")
    # what platforms put behind the entrypoint of an image that serves a model, such as SageMaker
    parser.add_argument("word", nargs="?", choices=("serve",), help="may follow; changes nothing")
    parser.add_argument("--service", help="module:Class, for a project folder")
    parser.add_argument("--host", default=_set("HOST", "127.0.0.1"))
    port = _set("PORT", os.environ.get("PORT") or "3000")
    parser.add_argument("--port", type=int, default=port, help="0 picks a free one")
    workers = _set("WORKERS", "") or None
    parser.add_argument("--workers", type=int, default=workers, help="processes; default: what the service declares")
    drain, grace, form = _set("DRAIN_DELAY", "0"), _set("GRACE", "30"), _set("LOG_FORMAT", "text")
    parser.add_argument("--drain-delay", type=_seconds, default=drain, help="seconds to go on accepting after SIGTERM")
    parser.add_argument("--grace", type=_seconds, default=grace, help="seconds for requests in flight after SIGTERM")
    parser.add_argument("--port-file", type=Path, help="gets the port when the server is ready")
    parser.add_argument("--log-format", choices=_FORMATS, default=form, help="json: standard output too")
    parser.add_argument("--reload", action="store_true", help="serve anew when a file of the project changes")
    parser.add_argument("--development", action="store_true", help="dependencies run in the service's own process")
    parser.add_argument("--plan", action="store_true", help="print services, workers and devices; serve nothing")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    return parser


def _verify(bento: Path | None, options: argparse.Namespace) -> None:
    """Check every byte where the environment asks for it, and say so."""
    from bentotool.runtime.verifying import check_started

    done = check_started(bento)
    if done is not None and not options.quiet:
        told = f"verified {done.files} files, {done.size / 1e6:.1f} MB, against {done.digest} in {done.seconds:.1f} s"
        sys.stderr.write((json.dumps({"message": told}) if options.log_format == "json" else told) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal comes; give the exit status."""
    options = _parser().parse_args(argv)
    try:
        if options.log_format not in _FORMATS:  # argparse does not look at a default among choices
            options.log_format = "text"
            raise UsageError("BENTOTOOL_LOG_FORMAT is neither text nor json")
        if options.workers is not None and options.workers < 1:
            raise UsageError(f"--workers {options.workers}: at least 1 is needed")
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
        return Supervisor(target, settings, bind(settings.host, settings.port)).run()
    except BentotoolError as error:
        report(error, options.log_format)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
