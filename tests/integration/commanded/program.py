"""A server that is no service: what a command of a service may start."""

import asyncio
import gzip
import hashlib
import os
import sys
import time
from pathlib import Path

import uvicorn

STARTED = time.monotonic()
WARM_UP = float(os.environ.get("WARM_UP", "0"))


async def answer(send, status, body, *headers):
    start = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def talk(receive, send, scope):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
            return
        kept = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **kept})


async def stream(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.3)
    await send({"type": "http.response.body", "body": b""})


async def forever(receive, send):
    """Until the caller leaves, and then a file says so."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    left = asyncio.ensure_future(gone(receive))
    while not left.done():
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await asyncio.sleep(0.05)
    Path("left").touch()


async def gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def half(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    os._exit(4)


async def summed(receive, send):
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        size, more = size + len(message.get("body", b"")), message.get("more_body")
    await answer(send, 200, f"{size} {digest.hexdigest()}".encode())


async def program(scope, receive, send):  # noqa: C901 - one branch for each page
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await talk(receive, send, scope)
        return
    path = scope["path"]
    if path == "/health":
        await answer(send, 503 if time.monotonic() - STARTED < WARM_UP else 200, b"")
    elif path == "/die":
        os._exit(3)
    elif path == "/gzip":
        body = gzip.compress(b"hello" * 1000, mtime=0)
        cookies = (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")
        await answer(send, 200, body, (b"content-encoding", b"gzip"), *cookies)
    elif path == "/stream":
        await stream(send)
    elif path == "/forever":
        await forever(receive, send)
    elif path == "/half":
        await half(send)
    elif path == "/slow":
        await asyncio.sleep(float(scope["query_string"] or 5))
        await answer(send, 200, b"slow")
    elif path == "/sum":
        await summed(receive, send)
    elif path == "/environment":
        await answer(send, 200, repr(dict(os.environ)).encode())
    elif path == "/pid":
        await answer(send, 200, b"%d" % os.getpid())
    else:
        seen = (scope["method"], scope["raw_path"], scope["query_string"], scope["headers"])
        await answer(send, 404 if path == "/none" else 200, repr(seen).encode())


uvicorn.run(program, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
