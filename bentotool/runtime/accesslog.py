"""The access log: one record for each request, with what it asked and what it got, structured."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.runtime.deadlines import Scope
from bentotool.sdk.observation import AccessLogOptions

__all__ = ["AccessLog", "Exchange"]

_log = logging.getLogger("bentotool.access")
_FAILED = 500


@dataclass
class Exchange:
    """One request and its answer, as far as it went.

    Attributes:
        route: the route as it was declared; empty where none answers the path.
        status: 499 as long as there is no answer: the client has left before one came.
        size: bytes of the answer's body.
    """

    scope: Scope
    headers: Mapping[bytes, bytes]
    request_id: bytes
    route: str
    status: int = 499
    content_type: bytes | None = None
    size: int = 0
    trace: tuple[int, int] | None = None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


class AccessLog:
    """Writes to the logger ``bentotool.access``.

    Args:
        options: what is logged, and which part of it.
    """

    def __init__(self, options: AccessLogOptions) -> None:
        self._options = options
        self._skipped = options.skip_paths
        self._below = tuple(f"{path}/" for path in options.skip_paths if path != "/")

    def skips(self, path: str) -> bool:
        """Whether a path, without the service's prefix, is not logged."""
        return path in self._skipped or path.startswith(self._below)

    def write(self, exchange: Exchange, seconds: float) -> None:
        """Log a request that is over, unless the sample leaves it out."""
        options = self._options
        if options.sample < 1 and exchange.status < _FAILED and random.random() >= options.sample:  # noqa: S311
            return
        fields = self._fields(exchange, seconds)
        _log.info(_line(fields), extra={"fields": fields})

    def _fields(self, exchange: Exchange, seconds: float) -> dict[str, Any]:
        scope, options = exchange.scope, self._options
        client = scope.get("client")
        length = exchange.headers.get(b"content-length")
        found: dict[str, Any] = {
            "client": f"{client[0]}:{client[1]}" if client else None,
            "scheme": scope.get("scheme", "http"),
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope["path"],
            "route": exchange.route or None,
            "status": exchange.status,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": _text(exchange.request_id),
        }
        if options.request_content_type:
            found["request_content_type"] = _text(exchange.headers.get(b"content-type"))
        if options.request_content_length:
            found["request_content_length"] = int(length) if length is not None and length.isdigit() else None
        if options.response_content_type:
            found["response_content_type"] = _text(exchange.content_type)
        if options.response_content_length:
            found["response_content_length"] = exchange.size
        if exchange.trace is not None:
            found["trace_id"] = format(exchange.trace[0], options.trace_id)
            found["span_id"] = format(exchange.trace[1], options.span_id)
        return {name: value for name, value in found.items() if value is not None}


def _line(fields: Mapping[str, Any]) -> str:
    """The record for people. What callers chose is quoted, so that no line of theirs looks like one of ours."""
    own = ("client", "method", "path", "status", "duration_ms")
    rest = " ".join(f"{name}={_shown(value)}" for name, value in fields.items() if name not in (*own, "scheme"))
    client, path = fields.get("client", "-"), _shown(fields["path"])
    return f"{client} {fields['method']} {path} {fields['status']} {fields['duration_ms']}ms {rest}"


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and '"' not in text else ascii(text)
