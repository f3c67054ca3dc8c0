"""A stored request, played to an endpoint as a server would, and the answer that it gives, kept.

So a task reads its input and writes its result by the very code that answers its direct calls, whatever their types.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bentotool.runtime.lane import Lane
from bentotool.runtime.tasks.records import Message
from bentotool.sdk.taskrun import TaskRun

__all__ = ["Backstage", "CountingLane", "Replay"]

_KEPT = ("content-type", "content-disposition", "content-encoding", "retry-after")


class Replay:
    """One run of a task, from the endpoint's point of view: a connection.

    Args:
        request: as it was submitted.
        path: of the task.
        run: gone when it is cancelled, as a client would be.
    """

    def __init__(self, request: Message, path: str, run: TaskRun) -> None:
        self._run, self._body, self._sent = run, request.body, False
        self._status, self._headers, self._pieces = 0, {}, []  # type: tuple[int, dict[str, str], list[bytes]]
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": request.query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
            "client": None,
            "server": None,
        }

    @property
    def disconnected(self) -> bool:
        """What the endpoint asks before it starts something: see `endpoint.disconnect_probe`."""
        return self._run.canceled

    async def receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        while not self._run.canceled:
            await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            pairs = [
                (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
                for name, value in message["headers"]
            ]
            self._headers = {name: value for name, value in pairs if name in _KEPT or name.startswith("x-")}
        elif message["type"] == "http.response.body":
            self._pieces.append(bytes(message.get("body", b"")))

    @property
    def answer(self) -> Message:
        """What the endpoint answered."""
        return Message(self._headers, b"".join(self._pieces), self._status)


class CountingLane(Lane):
    """Threads for tasks, which know how many of them work: a call that nobody waits for keeps its thread."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, threads * 2 + 16)
        self.busy = 0

    async def run(self, call: Any, **options: Any) -> Any:
        def counted() -> Any:
            self.busy += 1  # within the lock of the interpreter, and read as an estimate
            try:
                return call()
            finally:
                self.busy -= 1

        return await super().run(counted, **options)


class Backstage:
    """The application as a task's endpoint sees it: without limits on requests, their metrics and their threads."""

    metrics = None

    def __init__(self, app: Any, lane: CountingLane) -> None:
        self._app, self.lane, self.in_flight = app, lane, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def admit(self) -> None:
        """A task was admitted when it was submitted."""
