"""The access log: one record for each request, with what it asked and what it got, structured."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bentotool.runtime.deadlines import Scope
from bentotool.sdk.observation import AccessLogOptions

__all__ = ["AccessLog", "Exchange"]

_log = logging.getLogger("bentotool.access")
_FAILED = 500


class Exchange:
    """One request and its answer, as far as it went.

    Attributes:
        request_id: as it was answered; empty until that is known.
        status: 499 as long as there is no answer: the client has left before one came.
        answer: headers of the answer.
        size: bytes of the answer's body.
        trace: ids of the trace and the span, where it is traced.
    """

    __slots__ = ("answer", "request_id", "scope", "size", "status", "trace")

    def __init__(self, scope: Scope) -> None:
        self.scope, self.request_id = scope, b""
        self.status, self.size = 499, 0
        self.answer: Sequence[tuple[bytes, bytes]] = ()
        self.trace: tuple[int, int] | None = None

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Of the request."""
        return dict(self.scope["headers"])

    @property
    def content_type(self) -> bytes | None:
        """Of the answer."""
        return next((bytes(value) for name, value in self.answer if bytes(name).lower() == b"content-type"), None)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


class AccessLog:
    """Writes to the logger ``bentotool.access``.

    Args:
        options: what is logged, and which part of it.
        template: gives the route of a request as it was declared; empty where none answers its path.
    """

    def __init__(self, options: AccessLogOptions, template: Callable[[Scope], str]) -> None:
        self._options, self._template = options, template
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
        _log.info("%s", _Line(fields), extra={"fields": fields})

    def _fields(self, exchange: Exchange, seconds: float) -> dict[str, Any]:
        scope, options = exchange.scope, self._options
        client, headers = scope.get("client"), exchange.headers
        length = headers.get(b"content-length")
        found: dict[str, Any] = {
            "client": f"{client[0]}:{client[1]}" if client else None,
            "scheme": scope.get("scheme", "http"),
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope["path"],
            "route": self._template(scope) or None,
            "status": exchange.status,
            "duration_ms": round(seconds * 1000, 3),
            "request_id": _text(exchange.request_id),
        }
        if options.request_content_type:
            found["request_content_type"] = _text(headers.get(b"content-type"))
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


class _Line:
    """The record for people. What callers chose is quoted, so that no line of theirs looks like one of ours."""

    _OWN = frozenset(("client", "method", "path", "status", "duration_ms", "scheme"))

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        fields = self._fields
        rest = " ".join(f"{name}={_shown(value)}" for name, value in fields.items() if name not in self._OWN)
        client, path = fields.get("client", "-"), _shown(fields["path"])
        return f"{client} {fields['method']} {path} {fields['status']} {fields['duration_ms']}ms {rest}"


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and '"' not in text else ascii(text)
