"""Refusing a websocket where the library ``websockets`` reads them. Imported only there."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["RefusingProtocol"]


class RefusingProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own does not count an answer over HTTP as the end of the handshake.

    It would log an error for each websocket that is refused with one, which anyone can ask for who has no key.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True
