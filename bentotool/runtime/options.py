"""The options of ``python -m bentotool.runtime``: from its command line, and from the environment.

Each option that says how to listen, log and end has its default from a variable, ``BENTOTOOL_`` and its name; the port
from ``PORT`` too, as platforms that run containers give it. So an image is set up without a shell.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bentotool.errors import UsageError
from bentotool.runtime.bounds import check_port, check_seconds, check_workers

__all__ = ["log_format", "read_options"]

_FORMATS = ("text", "json")
_DEFAULTS = {"host": "127.0.0.1", "port": "3000", "drain_delay": "0", "grace": "30", "log_format": "text"}
_VARIABLES = {name: [f"BENTOTOOL_{name.upper()}"] for name in (*_DEFAULTS, "workers")}
_VARIABLES["port"].append("PORT")
_Number = TypeVar("_Number", int, float)


class _Parser(argparse.ArgumentParser):
    """What is wrong is one line, as everywhere, and not the list of all options."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="python -m bentotool.runtime --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m bentotool.runtime", description=__doc__)
    parser.add_argument("target", nargs="?", default=".", help="a Bento on disk, its home/bento, or a project folder")
    # what platforms put behind the entrypoint of an image that serves a model, such as SageMaker
    parser.add_argument("word", nargs="?", choices=("serve",), help="may follow; changes nothing")
    parser.add_argument("--service", help="module:Class, for a project folder")
    parser.add_argument("--host")
    parser.add_argument("--port", help="0 picks a free one")
    parser.add_argument("--workers", help="processes; default: what the service declares")
    parser.add_argument("--drain-delay", help="seconds to go on accepting after SIGTERM")
    parser.add_argument("--grace", help="seconds for requests in flight after SIGTERM")
    parser.add_argument("--port-file", type=Path, help="gets the port when the server is ready")
    parser.add_argument("--log-format", help="text, or json: standard output too")
    parser.add_argument("--reload", action="store_true", help="serve anew when a file of the project changes")
    parser.add_argument("--development", action="store_true", help="dependencies run in the service's own process")
    parser.add_argument("--plan", action="store_true", help="print services, workers and devices; serve nothing")
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    parser.add_argument("--own-folder", action="store_true", help="the target was made for this server; it is removed")
    return parser


def _number(
    given: tuple[str, str], make: Callable[[str], _Number], check: Callable[[_Number, str], _Number]
) -> _Number:
    text, said = given
    try:
        number = make(text)
    except (ValueError, OverflowError):
        what = "a whole number" if make is int else "a number of seconds"
        raise UsageError(f"{said} {text[:40]!r}: not {what}") from None
    return check(number, said)


def _given(options: argparse.Namespace, name: str) -> tuple[str, str] | None:
    """A value and what it was said by: the command line, a variable, or nobody."""
    if (text := getattr(options, name)) is not None:
        return str(text), f"--{name.replace('_', '-')}"
    for variable in _VARIABLES[name]:
        value = os.environ.get(variable)
        # a Service of a cluster that has our name gives us a variable of ours, with an address in it
        if value and not (name == "port" and value.startswith("tcp://")):
            return value, variable
    return (_DEFAULTS[name], name) if name in _DEFAULTS else None


def log_format(argv: Sequence[str] | None) -> str:
    """How to say that the options are wrong."""
    words = " ".join(argv or ())
    said = "--log-format json" in words or "--log-format=json" in words
    return "json" if said or os.environ.get("BENTOTOOL_LOG_FORMAT") == "json" else "text"


def read_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked, with what the environment says where the command line says nothing.

    Raises:
        UsageError: an unknown one, or a value that cannot be.
    """
    options = _parser().parse_args(argv)
    found: dict[str, Any] = {name: _given(options, name) for name in _VARIABLES}
    form, said = found["log_format"]
    if form not in _FORMATS:
        raise UsageError(f"{said} {form[:40]!r}: neither text nor json")
    options.log_format, options.host = form, found["host"][0]
    options.port = _number(found["port"], int, lambda port, _said: check_port(port))
    options.workers = _number(found["workers"], int, check_workers) if found["workers"] else None
    options.drain_delay = _number(found["drain_delay"], float, check_seconds)
    options.grace = _number(found["grace"], float, check_seconds)
    return options
