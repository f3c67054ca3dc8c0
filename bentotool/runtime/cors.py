"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): outermost, so that errors carry its headers too."""

from __future__ import annotations

from typing import Any

from bentotool.runtime.deadlines import Scope, Send
from bentotool.runtime.headers import Pair
from bentotool.sdk.cors import CorsOptions

__all__ = ["Cors"]


_OURS = (b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers")


def _value(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


class Cors:
    """Answers preflight requests, and says on every answer which page may read it."""

    def __init__(self, options: CorsOptions) -> None:
        self._options = options
        self._any = "*" in options.origins

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may call."""
        return self._options.allows(origin)

    def _headers(self, origin: str | None) -> list[Pair]:
        """For an answer. Where the answer depends on the origin, caches are told."""
        found: list[Pair] = [] if self._any else [(b"vary", b"Origin")]
        if origin is None or not self._options.allows(origin):
            return found
        found.append((b"access-control-allow-origin", b"*" if self._any else origin.encode("latin-1")))
        if self._options.credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if self._options.expose:
            found.append((b"access-control-expose-headers", ", ".join(self._options.expose).encode("latin-1")))
        return found

    def around(self, scope: Scope, send: Send) -> Send:
        """`send` that adds the headers to the answer."""
        added = self._headers(_value(scope, b"origin"))
        if not added:
            return send

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                theirs = [
                    (name, value)
                    for name, value in message.get("headers", ())
                    if bytes(name).lower() not in _OURS  # one voice: two origins are none
                ]
                message = {**message, "headers": [*theirs, *added]}
            await send(message)

        return sending

    @staticmethod
    def is_preflight(scope: Scope) -> bool:
        """Whether a browser asks if it may ask."""
        return (
            scope["method"] == "OPTIONS"
            and _value(scope, b"origin") is not None
            and _value(scope, b"access-control-request-method") is not None
        )

    async def answer_preflight(self, scope: Scope, send: Send) -> None:
        """Answer it; `send` is one of `around`."""
        options = self._options
        origin = _value(scope, b"origin") or ""
        method = _value(scope, b"access-control-request-method") or ""
        asked = _value(scope, b"access-control-request-headers") or ""
        names = [name.strip().lower() for name in asked.split(",") if name.strip()]
        allowed = {name.lower() for name in options.headers}
        good = options.allows(origin) and ("*" in options.methods or method in options.methods)
        good = good and ("*" in allowed or allowed.issuperset(names))
        headers: list[Pair] = [(b"content-length", b"0"), (b"vary", b"Access-Control-Request-Headers")]
        if good:
            methods = method if "*" in options.methods else ", ".join(options.methods)
            headers.append((b"access-control-allow-methods", methods.encode("latin-1")))
            if names:
                headers.append((b"access-control-allow-headers", ", ".join(names).encode("latin-1")))
            headers.append((b"access-control-max-age", b"%d" % options.max_age))
        await send({"type": "http.response.start", "status": 204 if good else 403, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
