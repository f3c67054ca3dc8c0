"""The floor: an ASGI application that decodes and encodes the same JSON, and runs no model."""

import msgspec

decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    out = encode([[row[0]] for row in decode(body)["x"]]) if body else b"[]"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": out})
