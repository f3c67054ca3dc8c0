"""Answers that an API returns whole: ours, Starlette's and Litestar's responses are sent as they are."""

from __future__ import annotations

import logging
from typing import Any

from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.headers import replaced
from bentotool.sdk.context import Context
from bentotool.sdk.response import is_response_type

__all__ = ["is_response", "send_response"]

_log = logging.getLogger("bentotool.service")
_known: dict[type, bool] = {}
_MEMORY = 1024


def is_response(value: Any) -> bool:
    """Whether a result decides the whole answer. Asked for each answer, so the types seen are kept."""
    kind = type(value)
    known = _known.get(kind)
    if known is None:
        known = is_response_type(kind)
        if len(_known) < _MEMORY:
            _known[kind] = known
    return known


async def send_response(
    response: Any, scope: Scope, receive: Receive, send: Send, request_id: bytes, context: Context | None
) -> int:
    """Send it; its own status and headers stand, those of the context and the request id come beside them."""
    if hasattr(response, "to_asgi_response"):  # litestar.Response is made into an application per request
        from litestar import Request

        response = response.to_asgi_response(None, Request(scope))  # type: ignore[arg-type]
    status, begun = 500, False

    async def noticing(message: dict[str, Any]) -> None:
        nonlocal status, begun
        if message["type"] == "http.response.start":
            status = message["status"]
            own = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            beside = context.response.raw_headers() if context is not None else []
            headers = replaced([(b"x-request-id", request_id), *beside], own)
            message = {**message, "headers": headers}
            begun = True
        await send(message)

    try:
        await response(scope, receive, noticing)
    except Exception:
        if not begun:
            raise
        _log.exception("an answer broke off")  # it is not ended properly, so that the server cuts the connection
    return status
