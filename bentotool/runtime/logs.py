"""Logs of a worker: text for people or JSON Lines, with the request that a record belongs to, without secrets."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

from bentotool.runtime.requestids import mark_log_records
from bentotool.sdk.service import Service

__all__ = ["set_up_logging", "take_loggers"]

_MARKS = ("request_id", "trace_id", "span_id")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        request = getattr(record, "request_id", None)
        if request is None or hasattr(record, "fields"):
            return line
        first, ended, rest = line.partition("\n")  # a traceback follows in lines of its own
        trace = getattr(record, "trace_id", None)
        marks = f"request_id={request}" + (f" trace_id={trace}" if trace else "")
        return f"{first} [{marks}]{ended}{rest}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{now}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if fields is None else "{method} {path} {status}".format(**fields),
            "worker": os.environ.get("BENTOTOOL_WORKER_SLOT"),
            **{name: getattr(record, name, None) for name in _MARKS},
            **(fields or {}),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in found.items() if value is not None}, default=str)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable in Python 3.10
    """To standard error, without the secrets that the service was given."""

    def format(self, record: logging.LogRecord) -> str:
        from bentotool.sdk.arguments import redacted

        return redacted(super().format(record))


def _handler(form: str) -> logging.Handler:
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(levelname)s %(name)s: %(message)s"))
    return handler


def set_up_logging(form: str, quiet: bool) -> None:
    """Before the service is imported: our own loggers, and what every record says of its request."""
    if form == "json":  # standard output is the supervisor's alone, whatever the service prints
        sys.stdout.flush()
        os.dup2(2, 1)
    mark_log_records()
    handler = _handler(form)
    logger = logging.getLogger("bentotool")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    logging.getLogger("uvicorn").addHandler(handler)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").propagate = False  # `take_loggers` hears the rest
    if quiet:
        return
    logging.getLogger("bentotool.access").setLevel(logging.INFO)


def take_loggers(service: Service[Any], form: str, quiet: bool) -> None:
    """After the service was imported: its own loggers, unless it has set up logging itself.

    What its package logs is heard from ``info`` on, what libraries log from ``logging.level`` on (else ``warning``).
    """
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(_handler(form))
    level = service.config.log_level
    if level is not None:
        root.setLevel(level.upper())
    elif not quiet:
        own = logging.getLogger(service.inner.__module__.partition(".")[0])
        if own.level == logging.NOTSET:
            own.setLevel(logging.INFO)
