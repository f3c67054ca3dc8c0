"""The Open Inference Protocol, version 2 over HTTP, of a service that is one model (`Service.card`).

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with its extension
for tensors as bytes. An inference goes through the queue, the batches and the limits of the API that the card names.
Errors are the protocol's: ``{"error": "..."}``, with the status that the same error has elsewhere.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from bentotool.runtime.body import Disconnected, check_headers, check_size, in_time, read_binary
from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.endpoint import Endpoint
from bentotool.runtime.failing import failure
from bentotool.runtime.inputs import refuse_foreign_page
from bentotool.runtime.readiness import why_not_ready
from bentotool.sdk.exceptions import InvalidArgument, InvalidOutput, ServiceError
from bentotool.sdk.inference_documents import model_metadata, routes_of
from bentotool.sdk.inference_protocol import LENGTH_HEADER, InferenceRequest, read_inference, write_inference
from bentotool.sdk.tensors import Tensor, tensor_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bentotool.runtime.app import Application
    from bentotool.runtime.routing import Handler
    from bentotool.sdk.named_arrays import ModelCard

__all__ = ["OpenInference"]

_EXTENSIONS = ["binary_tensor_data"]
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BASE = "/v2"
_REST = f"{_BASE}/{{path:path}}"
_JSON = "application/json"


class _NotServed(ServiceError):
    code = "not_found"
    http_status = 404


class OpenInference:
    """Answers below ``/v2`` for one application.

    Args:
        app: the application.
        card: of its model.
        asked: the endpoint of the API that the card names.
    """

    def __init__(self, app: Application, card: ModelCard, asked: Endpoint) -> None:
        self._app, self._card = app, card
        self.inference = InferenceEndpoint(app, card, asked)

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """Method, route and what answers; the last route catches what is none of the protocol's."""
        answers: dict[str, Handler] = {
            "server": self._server,
            "live": self._live,
            "server_ready": self._ready,
            "model": self._model,
            "model_ready": self._ready,
            "infer": self.inference,
        }
        for route in routes_of(self._card):
            wrong = partial(self._wrong_method, route.method)
            for method in _METHODS:
                yield method, route.path, answers[route.what] if method == route.method else wrong
        for method in _METHODS:
            yield method, f"{_BASE}/", self._unknown
            yield method, _REST, self._unknown

    async def _server(self, scope: Scope, _receive: Receive, send: Send) -> None:
        from bentotool import __version__

        await self._send(scope, send, {"name": "bentotool", "version": __version__, "extensions": _EXTENSIONS})

    async def _live(self, scope: Scope, _receive: Receive, send: Send) -> None:
        live = await self._app.probe("__is_alive__")
        await self._send(scope, send, {"live": live}, 200 if live else 503)

    async def _ready(self, scope: Scope, _receive: Receive, send: Send) -> None:
        problem = await why_not_ready(self._app)
        named = {"name": self._card.name} if "/models/" in scope["path"] else {}
        told = {} if problem is None else {"error": problem}
        await self._send(scope, send, {**named, "ready": problem is None, **told}, 200 if problem is None else 503)

    async def _model(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await self._send(scope, send, model_metadata(self._card))

    async def _unknown(self, scope: Scope, _receive: Receive, send: Send) -> None:
        card = self._card
        error = _NotServed(f"nothing is at {scope['path']}: the model here is {card.name}, version {card.version}")
        await self._fail(scope, send, error)

    async def _wrong_method(self, right: str, scope: Scope, _receive: Receive, send: Send) -> None:
        error = ServiceError(f"{scope['method']} is not answered at {scope['path']}: use {right}", 405)
        await self._fail(scope, send, error, {"allow": right})

    async def _fail(self, scope: Scope, send: Send, error: Exception, extra: Mapping[str, str] | None = None) -> None:
        started, metrics = time.monotonic(), self._app.metrics
        status = await send_failure(error, send, self._app.request_id(dict(scope["headers"])), scope["path"], extra)
        if metrics is not None:
            metrics.unanswered(self._app.answer.template(scope), status, time.monotonic() - started)

    async def _send(self, scope: Scope, send: Send, document: object, status: int = 200) -> None:
        body = msgspec.json.encode(document)
        headers = [
            (b"content-type", _JSON.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self._app.request_id(dict(scope["headers"]))),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class InferenceEndpoint(Endpoint):
    """The protocol's way into an API's queue: bodies and answers are the protocol's, everything else is the API's."""

    def __init__(self, app: Application, card: ModelCard, asked: Endpoint) -> None:
        route = next(route.path for route in routes_of(card) if route.what == "infer")
        super().__init__(replace(asked.spec, route=route), app)
        self._card, self._asked = card, asked

    @property
    def takes_json_only(self) -> bool:
        """Its JSON is not that of the API, so it has no short way."""
        return False

    def bind(self, instance: object) -> None:
        """Share the batches of the API, which is bound already."""
        self._bound = self.spec.func.__get__(instance)
        self.batched = self._asked.batched
        if self.batched is not None:
            self._invoke = self.batched

    def close(self) -> None:
        """The batcher is the API's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, held = time.monotonic(), 499, 0
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self.app.request_id(headers)
        self.enter()
        try:
            try:
                deadline = self.admit(headers, request_id, started)
                self._check(headers)
                held = self._hold(headers)
                body = await in_time(read_binary(receive, self._limit), receive, deadline)
                request = self._read(body, headers)
                args, named = self.spec.decode_tree(request.tensors)
                del body
                result = await self.run(args, named, deadline, receive)
                status = await self._respond(result, request, send, request_id)
            except Disconnected:
                return
            except Exception as error:
                status = await send_failure(error, send, request_id, self.spec.name)
        finally:
            self.leave(status, started, held)

    def _check(self, headers: Mapping[bytes, bytes]) -> None:
        if LENGTH_HEADER in headers:  # which no page of another site may send unasked
            check_size(headers, self._limit)
            return
        if b"content-type" not in headers:
            refuse_foreign_page(headers, self.app.service.config.cors)
        check_headers(headers, self._limit)

    def _read(self, body: bytearray, headers: Mapping[bytes, bytes]) -> InferenceRequest:
        try:
            request = read_inference(body, headers.get(LENGTH_HEADER))
        except ValueError as error:
            raise InvalidArgument(f"$: {error}", details={"path": "$"}) from None
        known = [spec.name for spec in self._card.outputs]
        for name in request.outputs:
            if name not in known:
                raise InvalidArgument(f"there is no output {name!r}: the model has {', '.join(known)}")
        return request

    async def _respond(self, result: Any, request: InferenceRequest, send: Send, request_id: bytes) -> int:
        wanted = request.outputs or result
        try:
            tensors = {name: _tensor(result[name]) for name in wanted}
            pieces, length = write_inference(self._card.name, tensors, request, self._card.version)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidOutput(f"the model gave what has no form in the protocol: {error}") from error
        start = [
            (b"content-type", b"application/octet-stream" if len(pieces) > 1 else _JSON.encode()),
            (b"content-length", b"%d" % sum(memoryview(piece).nbytes for piece in pieces)),
            (b"x-request-id", request_id),
        ]
        if len(pieces) > 1:
            start.append((LENGTH_HEADER, b"%d" % length))
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": b"".join(pieces)})
        return 200


def _tensor(array: Any) -> Tensor | Any:
    return array if array.dtype.kind in "OU" else tensor_of(array)


async def send_failure(
    error: Exception, send: Send, request_id: bytes, where: str, extra: Mapping[str, str] | None = None
) -> int:
    """Answer with the protocol's error; give the status. What a caller may know of it, `failure` decides."""
    status, headers, body = failure(error, request_id, where, extra)
    try:
        told = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):  # an error may have a form of its own
        told = body.decode()
    text = msgspec.json.encode({"error": told})
    length = (b"content-length", b"%d" % len(text))
    headers = [length if name == length[0] else (name, value) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
    return status
