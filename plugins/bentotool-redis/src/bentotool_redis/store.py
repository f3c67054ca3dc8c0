"""The store: what goes into the scripts and comes out of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.runtime.tasks.records import (
    MAX_LOSSES,
    PENDING,
    Claim,
    Message,
    NewTask,
    QueueFull,
    TaskConflict,
    TaskRecord,
)
from bentotool_redis.scripts import SCRIPTS

__all__ = ["RedisStore"]

_RECORD = ("name", "state", "priority", "created", "started", "finished", "attempt", "progress", "message")


def _head(message: Message) -> str:
    return json.dumps({"headers": dict(message.headers), "status": message.status, "query": message.query})


def _message(head: bytes, body: bytes) -> Message:
    found = json.loads(head)
    return Message(found["headers"], body, found["status"], found["query"])


def _number(text: bytes | None) -> float | None:
    return None if text is None else float(text)


class RedisStore:
    """A `bentotool.runtime.tasks.records.TaskStore` in Redis.

    Expired tasks go by themselves, by the server's own means.

    Args:
        client: a `redis.Redis`; closed with the store.
        prefix: of all keys.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._scripts = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    def _run(self, script: str, *arguments: str | bytes | float) -> Any:
        return self._scripts[script](keys=[self._prefix], args=arguments)

    def submit(self, tasks: Sequence[NewTask]) -> list[TaskRecord | QueueFull | TaskConflict]:
        pipeline = self._client.pipeline(transaction=False)  # all are sent, and then all answers are read
        for task in tasks:
            self._submit(task, pipeline)
        return [self._outcome(task, answer) for task, answer in zip(tasks, pipeline.execute(), strict=True)]

    def _submit(self, task: NewTask, pipeline: Any) -> None:
        kind = task.request.headers.get("content-type", "").partition(";")[0]
        fingerprint = hashlib.sha256(kind.encode() + b"\n" + task.request.body).hexdigest() if task.key else ""
        is_form = str(int(kind == "multipart/form-data"))  # whose boundary is another each time
        arguments = (
            *(task.id, task.name, task.priority, task.ttl, task.key or "", fingerprint, task.max_waiting, is_form),
            *(_head(task.request), task.request.body),
        )
        self._scripts["submit"](keys=[self._prefix], args=arguments, client=pipeline)

    def _outcome(self, task: NewTask, answer: Sequence[bytes]) -> TaskRecord | QueueFull | TaskConflict:
        outcome, found, created = answer
        if outcome == b"new":
            return TaskRecord(task.id, task.name, PENDING, task.priority, float(created), None, None, 0, None, None)
        if outcome == b"full":
            return QueueFull(int(found))
        record = None if outcome == b"conflict" else self.get(task.name, found.decode())
        return TaskConflict() if record is None else record

    def claim(self, name: str, owner: str, limit: int, lease: float) -> list[Claim]:
        claims = self._run("claim", name, owner, limit, lease)
        return [Claim(id_.decode(), name, int(attempt), _message(head, body)) for id_, attempt, head, body in claims]

    def renew(self, owner: str, ids: Sequence[str], lease: float) -> set[str]:
        self._run("renew", owner, lease, *ids)
        return self.owned(owner)

    def owned(self, owner: str) -> set[str]:
        return {id_.decode() for id_ in self._run("owned", owner)}

    def tell(self, id_: str, owner: str, progress: float | None, message: str | None) -> bool:
        told: list[str | float] = [] if progress is None else ["progress", progress]
        told += [] if message is None else ["message", message]
        return bool(self._run("tell", id_, owner, *told))

    def finish(self, id_: str, owner: str, state: str, answer: Message) -> bool:
        return bool(self._run("finish", id_, owner, state, _head(answer), answer.body))

    def give_back(self, id_: str, owner: str, delay: float | None) -> bool:
        return bool(self._run("give_back", id_, owner, "" if delay is None else delay))

    def reclaim(self, owners: str) -> int:
        return int(self._run("reclaim", owners))

    def reap(self, answer: Message) -> int:
        return int(self._run("reap", MAX_LOSSES, _head(answer), answer.body))

    def cancel(self, name: str, id_: str) -> TaskRecord | None:
        self._run("cancel", name, id_)
        return self.get(name, id_)

    def get(self, name: str, id_: str) -> TaskRecord | None:
        found, state, priority, created, started, finished, attempt, progress, message = self._client.hmget(
            f"{self._prefix}:task:{id_}", _RECORD
        )
        if found is None or found.decode() != name:
            return None
        return TaskRecord(
            *(id_, name, state.decode(), int(priority), float(created), _number(started), _number(finished)),
            *(int(attempt), _number(progress), None if message is None else message.decode()),
        )

    def _side(self, id_: str, side: str) -> Message | None:
        head, body = self._client.hmget(f"{self._prefix}:task:{id_}", (f"{side}_head", side))
        return None if head is None or body is None else _message(head, body)

    def answer(self, id_: str) -> Message | None:
        return self._side(id_, "result")

    def request(self, id_: str) -> Message | None:
        return self._side(id_, "input")

    def counts(self) -> Mapping[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for name, state, number in self._run("counts"):
            key = (name.decode(), state.decode())
            found[key] = found.get(key, 0) + int(number)
        return found

    def purge(self) -> int:
        return 0

    def close(self) -> None:
        self._client.close()
