"""The ASGI application of one service: a small dispatcher in front of Litestar.

The exact routes of APIs are answered by the dispatcher itself, which is one dictionary look-up; this is where requests
per second are won. Everything else (probes, metrics, documents, the Swagger page, unknown paths) goes to Litestar.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.direct import Direct
from bentotool.runtime.endpoint import Endpoint
from bentotool.runtime.failing import failure
from bentotool.runtime.gate import Gate
from bentotool.runtime.lane import Lane
from bentotool.runtime.limits import Admission, BodyRoom, share
from bentotool.runtime.middleware import around
from bentotool.runtime.monitoring import close_monitors, open_monitors
from bentotool.runtime.observing import OBSERVED, count_unanswered, observing
from bentotool.runtime.parts import has_command
from bentotool.runtime.requestids import make_request_ids
from bentotool.runtime.routing import Routes
from bentotool.runtime.tasks import make_tasks
from bentotool.runtime.tracing import make_tracing
from bentotool.sdk.current import forget_current, use_current
from bentotool.sdk.exceptions import ServiceError

if TYPE_CHECKING:
    from bentotool.runtime.command import Command
    from bentotool.runtime.metrics import Metrics
    from bentotool.runtime.proxy import Proxy
    from bentotool.sdk.named_arrays import ModelCard
    from bentotool.sdk.service import Service

__all__ = ["Application"]

_log = logging.getLogger("bentotool.service")


class Application:
    """An ASGI application.

    Args:
        service: what to serve.
        workers: how many workers share the service's limits.
        loopback: the server listens on a loopback address only: then only loopback Host names are answered.

    Attributes:
        workers: of the service, this one among them.
        state: of all contexts of this process.
        ready: started, and not shutting down.
        problem: why the server as a whole is not ready (the supervisor tells), or None.
        drain_by: until when tasks that run may go on (monotonic); None while the server is not shutting down.
        tasks: of the service; None where it has none.
        command: the program that answers the service's requests; None where it has none.
        proxy: what passes requests on to it.
    """

    def __init__(self, service: Service[Any], *, workers: int = 1, loopback: bool = False) -> None:
        self.service = service
        self.state: dict[str, Any] = {}
        self.ready = False
        self.problem: str | None = None
        self.in_flight = 0
        self.instance: Any = None
        config = service.config
        self.lane = Lane(config.threads, config.max_queue)
        self.metrics: Metrics | None = None
        if config.metrics_enabled:
            from bentotool.runtime.metrics import Metrics

            self.metrics = Metrics(service)
        self.workers = workers
        self._admission = self.share_of(config.max_concurrency)
        self.bodies = BodyRoom(config.max_queue_bytes)
        self.request_id = make_request_ids()
        self.composed = bool(service.dependencies)  # then calls to others take the deadline along
        self._endpoints = [Endpoint(spec, self) for spec in service.apis.values()]
        self.answer = Routes(self)
        for endpoint in self._endpoints:
            self.answer.add(endpoint.spec.options.method, endpoint.spec.route, endpoint)
        self.command, self.proxy = self._make_command(workers)
        self.drain_by: float | None = None
        self.tasks = make_tasks(self)
        for route, method, answer in self.tasks.routes() if self.tasks else ():
            self.answer.add(method, route, answer)
        if service.card is not None:
            self._speak_inference(service.card)
        self._exact = self.answer.exact
        self._direct: dict[str, Direct] = {}
        self._gate = Gate(self, loopback)
        self.tracing = make_tracing(service)
        self._observing = observing(self)
        for made, options in reversed(service.middlewares):
            self.use(partial(made, **options), getattr(made, "__qualname__", str(made)))

    def _speak_inference(self, card: ModelCard) -> None:
        """Answer the Open Inference Protocol too."""
        from bentotool.runtime.openinference import OpenInference

        asked = self.endpoint(card.api)
        assert asked is not None
        protocol = OpenInference(self, card, asked)
        self._endpoints.append(protocol.inference)
        for method, route, answer in protocol.routes():
            self.answer.add(method, route, answer)

    def use(self, make: Callable[[Any], Any], name: str) -> None:
        """Put middleware around all there is so far. It runs after the Host check and the keys, within CORS.

        Args:
            make: is called with an ASGI application and gives one.

        Raises:
            ServiceLoadError: it fails.
        """
        self._gate.wrap(around(self._gate.inner, make, name, self))

    def _make_command(self, workers: int) -> tuple[Command | None, Proxy | None]:
        """What runs the service's own command, and passes requests on to it; nothing where it has none."""
        if not has_command(self.service):
            return None, None
        from bentotool.runtime.command import Command
        from bentotool.runtime.proxy import Proxy

        command = Command(self.service, workers)
        return command, Proxy(self, command)

    def share_of(self, limit: int | None) -> Admission | None:
        """What refuses requests above this worker's share of a limit; None where there is none."""
        found = share(limit, self.workers)
        return None if found is None else Admission(found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._observing is not None and OBSERVED not in scope:
            await self._observing(scope, receive, send)
            return
        kind, gate = scope["type"], self._gate
        if kind == "http" and gate.open:  # nothing to pass but the Host check: the way of most requests
            methods = self._exact.get(scope["path"])
            handler = methods.get(scope["method"]) if methods is not None else None
            if handler is not None and (not gate.hosts.active or gate.hosts.allows(scope, self.service.path_prefix)):
                await handler(scope, receive, send)
                return
        if kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "http" and self.metrics is not None:
            await count_unanswered(self, gate, scope, receive, send)
        else:
            await gate(scope, receive, send)

    def direct(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Direct | None:
        """What answers a request without a task of its own; None where it has to be awaited."""
        found, gate = self._direct.get(scope["path"]), self._gate
        if found is None or not gate.open or scope["method"] != found.method or not found.takes(headers):
            return None
        return found if not gate.hosts.active or gate.hosts.knows(headers.get(b"host", b"")) else None

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of an API, by its name."""
        return next((endpoint for endpoint in self._endpoints if endpoint.spec.name == name), None)

    def admit(self) -> None:
        """Raises: ServiceError: not started, or too many requests in flight."""
        if self.instance is None:
            raise ServiceError("the service has not started", 503, retry_after=1.0)
        if self._admission is not None:
            self._admission.check(self.in_flight)

    async def send_failure(
        self, error: Exception, send: Send, request_id: bytes, where: str, extra: Mapping[str, str] | None = None
    ) -> int:
        """Answer with the error envelope; give the status."""
        status, headers, body = failure(error, request_id, where, extra)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return status

    async def start(self) -> None:
        """Make the service's instance, those of its dependencies, and run their `on_startup` and `on_warmup` hooks."""
        started = time.monotonic()
        open_monitors(self.service)
        for part in self._parts():
            instance = part.shared_instance()
            for name in part.hooks("startup"):
                await _maybe_await(getattr(instance, name)())
        self.instance = self.service.shared_instance()
        self._bind()
        for mounted in self.answer.mounted:
            await mounted.start()
        use_current(self.service, self.instance)
        for part in self._parts():
            for name in part.hooks("warmup"):
                await _maybe_await(getattr(part.shared_instance(), name)())
        if self.tasks:
            await self.tasks.start(self.instance)
        if self.command is not None:
            await self.command.start(self.instance)
        if self.metrics is not None:
            self.metrics.startup.set(time.monotonic() - started)
        self.ready = True

    def _bind(self) -> None:
        for endpoint in self._endpoints:
            endpoint.bind(self.instance)
            if self._observing is None and not self.composed and Direct.suits(endpoint):
                self._direct[self.service.path_prefix + endpoint.spec.route] = Direct(endpoint)

    async def stop(self) -> None:
        """Run the `on_shutdown` methods, the service's own first. A failing one is logged."""
        self.ready = False
        if self.tasks:
            await self.tasks.stop()
        for mounted in self.answer.mounted:
            await mounted.stop()
        for direct in self._direct.values():
            direct.open = False
        self._direct.clear()
        for endpoint in self._endpoints:
            endpoint.close()
        if self.command is not None:
            await self.command.stop()
        for part in reversed(self._parts()):
            for name in part.hooks("shutdown"):
                try:
                    await _maybe_await(getattr(part.shared_instance(), name)())
                except Exception:
                    _log.exception("%s.%s failed", part.name, name)
            part.forget_instance()
        forget_current(self.instance)
        self.instance = None
        self.lane.close()
        await close_monitors()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    def _parts(self) -> list[Service[Any]]:
        """The service and what it depends on, dependencies first."""
        found: list[Service[Any]] = []

        def visit(service: Service[Any]) -> None:
            for dependency in service.dependencies.values():
                if dependency.local and dependency.on is not None:
                    visit(dependency.on)
            if service not in found:
                found.append(service)

        visit(self.service)
        return found

    async def probe(self, method: str) -> bool:
        """What the service's own ``__is_ready__`` or ``__is_alive__`` says; True where there is none."""
        question = getattr(self.instance, method, None)
        if question is None:
            return True
        try:
            return bool(await _maybe_await(question()))
        except Exception:
            _log.exception("%s failed", method)
            return False

    async def edit_metrics(self, text: bytes) -> bytes:
        """What the service's ``__metrics__`` makes of the exposition; the exposition itself where that fails."""
        edit = getattr(self.instance, "__metrics__", None)
        if edit is None:
            return text
        try:
            return str(await _maybe_await(edit(text.decode()))).encode()
        except Exception:
            _log.exception("__metrics__ failed")
            return text

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except Exception as error:
                    _log.exception("the service did not start")
                    await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _maybe_await(value: Any | Awaitable[Any]) -> Any:
    return await value if inspect.isawaitable(value) else value
