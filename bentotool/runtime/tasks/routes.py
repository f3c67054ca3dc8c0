"""What a caller says to the queue: ``POST /<task>/submit``, ``GET .../status``, ``.../get``, ``PUT .../cancel``, ...

Paths, bodies and statuses are those of BentoML 1.4; what it does not have: the state ``pending`` before a worker takes
a task, ``progress``, ``Idempotency-Key``, ``X-Task-Priority``, a cancellation that cancels.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from bentotool.runtime.body import Disconnected, in_time, read_binary, read_body
from bentotool.runtime.inputs import Inputs
from bentotool.runtime.tasks.records import CANCELED, ENDED, Message, NewTask, QueueFull, TaskConflict, TaskRecord
from bentotool.runtime.tasks.replay import Replay
from bentotool.runtime.tasks.runner import TaskRunner
from bentotool.sdk.calling import carried
from bentotool.sdk.exceptions import InvalidArgument, NotFound, ServiceError, ServiceUnavailable
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.task import PRIORITIES, TaskOptions
from bentotool.sdk.taskrun import TaskRun

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Tasks"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_DROPPED = {
    *("authorization", "cookie", "proxy-authorization", "x-api-key"),
    *("content-length", "transfer-encoding", "connection", "host", "expect", "accept-encoding"),
    *("idempotency-key", "x-task-priority", "x-request-timeout-ms"),
}
"""Headers of a request that are not kept: secrets, what belongs to the connection, what was said to the queue."""
_JSON = "application/json"
_log = logging.getLogger("bentotool.tasks")
T = TypeVar("T")
_LONGEST_KEY = 255


class _NotFinished(ServiceError):
    code = "task_not_finished"
    http_status = 400  # BentoML's status, which its clients know


class _Finished(ServiceError):
    code = "task_finished"
    http_status = 400


class _Canceled(ServiceError):
    code = "task_canceled"
    http_status = 400


class _KeyReused(ServiceError):
    code = "idempotency_key_reused"
    http_status = 422


def _untold(_fraction: float | None, _message: str | None) -> None:
    """No task runs, so nothing is told."""


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _document(record: TaskRecord) -> dict[str, Any]:
    return {
        "task_id": record.id,
        "status": record.state,
        "created_at": _time(record.created),
        "executed_at": _time(record.started),
        "completed_at": _time(record.finished),
        "attempt": record.attempt,
        "priority": record.priority,
        "progress": record.progress,
        "message": record.message,
    }


async def _kept(work: Awaitable[T]) -> T:
    """What the store does. Raises: ServiceUnavailable: it cannot do it now, as with a full disk."""
    try:
        return await work
    except ServiceError:
        raise
    except Exception as error:
        _log.error("the store of the tasks does not answer: %s", error)
        raise ServiceUnavailable("the queue of the tasks cannot be used now", retry_after=5.0) from error


def _json(document: Mapping[str, Any]) -> Message:
    return Message({"content-type": _JSON}, msgspec.json.encode(document), 200)


def _task_id(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    found = dict(parse_qsl(query.decode("latin-1"))).get("task_id")
    if not found:
        raise InvalidArgument("task_id is required", hint="add ?task_id=… to the address")
    return found


def _priority(headers: Mapping[bytes, bytes], default: int) -> int:
    given = headers.get(b"x-task-priority")
    if given is None:
        return default
    try:
        number = int(given)
    except ValueError:
        number = PRIORITIES.stop
    if number not in PRIORITIES:
        raise InvalidArgument("X-Task-Priority is not a whole number from -100 to 100")
    return number


class _Route:
    """One path, as something that the application calls."""

    def __init__(self, tasks: Tasks, spec: MethodSpec, word: str, answer: Callable[..., Awaitable[Message]]) -> None:
        self._app, self._answer, self._spec = tasks.app, answer, spec
        self.path = f"{spec.route.rstrip('/')}/{word}"
        self._metrics = self._app.metrics.route(self.path) if self._app.metrics else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), 499
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._app.request_id(headers)
        try:
            try:
                message = await self._answer(self._spec, scope, receive, headers)
                await self._send(message, send, request_id)
                status = message.status
            except Disconnected:
                return
            except Exception as error:
                status = await self._app.send_failure(error, send, request_id, f"{self._spec.name}: {self.path}")
        finally:
            if self._metrics is not None:
                self._metrics.done(status, time.monotonic() - started)

    @staticmethod
    async def _send(message: Message, send: Send, request_id: bytes) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers.items()]
        headers = [pair for pair in headers if pair[0] not in (b"x-request-id", b"content-length")]
        headers += [(b"content-length", b"%d" % len(message.body)), (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": message.status, "headers": headers})
        await send({"type": "http.response.body", "body": message.body})


class Tasks:
    """The tasks of a service behind HTTP.

    Args:
        app: the application.
        specs: the tasks by name; at least one.
    """

    def __init__(self, app: Application, specs: Mapping[str, MethodSpec]) -> None:
        self.app, self._specs = app, specs
        self.runner = TaskRunner(app, specs)
        self._limit = app.service.config.max_body_bytes
        cors = app.service.config.cors
        self._inputs = {name: Inputs(spec, self._limit, cors) for name, spec in specs.items()}

    def routes(self) -> Iterator[tuple[str, str, Any]]:
        """Path without the service's prefix, method, what answers."""
        answers: tuple[tuple[str, tuple[str, ...], Any], ...] = (
            ("submit", ("POST",), self._submit),
            ("status", ("GET",), self._status),
            ("get", ("GET",), self._get),
            ("cancel", ("PUT", "POST"), self._cancel),
            ("retry", ("POST", "PUT"), self._retry),
        )
        for spec in self._specs.values():
            for word, methods, answer in answers:
                route = _Route(self, spec, word, answer)
                for method in methods:
                    yield route.path, method, route

    async def start(self, instance: object) -> None:
        """Begin to run tasks."""
        await self.runner.start(instance)

    async def stop(self) -> None:
        """See `TaskRunner.stop`."""
        await self.runner.stop()

    def _count(self, spec: MethodSpec, event: str) -> None:
        if self.runner.metrics is not None:
            self.runner.metrics.count(spec.name, event)

    async def _submit(self, spec: MethodSpec, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Message:
        self.app.admit()
        held = self.app.bodies.take(headers.get(b"content-length"))
        try:
            body = await self._body(spec, receive, headers)
        finally:
            self.app.bodies.give_back(held)
        kept = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        kept = {**{name: value for name, value in kept.items() if name not in _DROPPED}, **carried()}
        request = Message(kept, body, query=scope.get("query_string", b"").decode("latin-1"))
        key = headers.get(b"idempotency-key", b"").decode("latin-1") or None
        if key is not None and len(key) > _LONGEST_KEY:
            raise InvalidArgument(f"Idempotency-Key has {len(key)} characters, at most {_LONGEST_KEY} are taken")
        assert isinstance(spec.options, TaskOptions)
        return await self._enter(spec, request, _priority(headers, spec.options.priority), key)

    async def _body(self, spec: MethodSpec, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        """The body as it came. It is read as input too, so that a wrong one is refused now and not found later."""
        inputs = self._inputs[spec.name]
        form = inputs.form_of(headers)
        inputs.in_memory(form, headers)
        reading = read_body(receive, headers, self._limit) if form is None else read_binary(receive, self._limit)
        body = bytes(await in_time(reading, receive, time.monotonic() + self.app.service.config.timeout))
        folder = inputs.folder()
        try:
            await inputs.read(form, Replay(Message({}, body), "", TaskRun("", 0, _untold)).receive, headers, folder)
        finally:
            folder.close()
        return body

    async def _enter(self, spec: MethodSpec, request: Message, priority: int, key: str | None) -> Message:
        options = spec.options
        assert isinstance(options, TaskOptions)
        new = NewTask(secrets.token_hex(16), spec.name, request, priority, key, options.result_ttl, options.max_waiting)
        outcome = await _kept(self.runner.clerk.submit(new))
        if isinstance(outcome, QueueFull):
            self._count(spec, "refused")
            message = f"{outcome.waiting} tasks wait for {spec.name!r}, and no more may"
            raise ServiceUnavailable(message, retry_after=5.0)
        if isinstance(outcome, TaskConflict):
            raise _KeyReused("the idempotency key belongs to a task with another input", hint="use a new key")
        if outcome.id == new.id:
            self._count(spec, "submitted")
            self.runner.wake()
        return _json({"task_id": outcome.id, "status": outcome.state})

    async def _record(self, spec: MethodSpec, scope: Scope) -> TaskRecord:
        id_ = _task_id(scope)
        record = await _kept(self.runner.clerk.ask(lambda store: store.get(spec.name, id_)))
        if record is None:
            raise NotFound(f"{spec.name!r} has no task {id_[:64]!r}", hint="results are kept for a limited time")
        return record

    async def _status(self, spec: MethodSpec, scope: Scope, _receive: Receive, _headers: Any) -> Message:
        return _json(_document(await self._record(spec, scope)))

    async def _get(self, spec: MethodSpec, scope: Scope, _receive: Receive, _headers: Any) -> Message:
        record = await self._record(spec, scope)
        if record.state == CANCELED:
            raise _Canceled(f"task {record.id} was cancelled", hint="POST …/retry runs it anew")
        if record.state not in ENDED:
            raise _NotFinished(f"task {record.id} is not completed yet", retry_after=1.0)
        answer = await _kept(self.runner.clerk.ask(lambda store: store.answer(record.id)))
        if answer is None:
            raise NotFound(f"the result of task {record.id} is gone")
        return answer

    async def _cancel(self, spec: MethodSpec, scope: Scope, _receive: Receive, _headers: Any) -> Message:
        before = await self._record(spec, scope)
        if before.state in ENDED and before.state != CANCELED:
            raise _Finished(f"task {before.id} is {before.state}", hint="what has ended cannot be cancelled")
        record = await _kept(self.runner.clerk.ask(lambda store: store.cancel(spec.name, before.id)))
        assert record is not None
        if record.state != CANCELED:  # it ended in between
            raise _Finished(f"task {record.id} is {record.state}", hint="what has ended cannot be cancelled")
        self.runner.stop_run(spec.name, record.id)
        if before.state != CANCELED:
            self._count(spec, CANCELED)
        return _json(_document(record))

    async def _retry(self, spec: MethodSpec, scope: Scope, _receive: Receive, _headers: Any) -> Message:
        self.app.admit()
        record = await self._record(spec, scope)
        if record.state not in ENDED:
            raise _NotFinished(f"task {record.id} is not completed yet", retry_after=1.0)
        request = await _kept(self.runner.clerk.ask(lambda store: store.request(record.id)))
        if request is None:
            raise NotFound(f"the input of task {record.id} is gone")
        return await self._enter(spec, request, record.priority, None)
