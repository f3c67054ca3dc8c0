"""What a store of tasks must do, checked against the store itself; see `bentotool.runtime.tasks.records.TaskStore`."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from bentotool.runtime.tasks.records import (
    CANCELED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    MAX_LOSSES,
    PENDING,
    Claim,
    Message,
    NewTask,
    QueueFull,
    TaskConflict,
    TaskRecord,
    TaskStore,
)
from bentotool.testing.contract import ContractError

__all__ = ["check_task_store"]

_JSON = {"content-type": "application/json"}
_LOST = Message(_JSON, b'{"error": {}}', 500)
_LONG = 60.0


def _hold(condition: object, rule: str) -> None:
    if not condition:
        raise ContractError(f"the store of tasks breaks a rule: {rule}")


class _Bench:
    """Stores on the same queue, and tasks under a name of this check's own."""

    def __init__(self, open_store: Callable[[], TaskStore]) -> None:
        self.open_store, self.name = open_store, f"check-{secrets.token_hex(6)}"
        self.store, self.other = open_store(), open_store()

    def new(self, body: bytes = b"{}", **options: Any) -> NewTask:
        request = Message({"content-type": "application/json", "x-a": "é"}, body, query="a=1")
        return NewTask(secrets.token_hex(16), options.pop("name", self.name), request, **options)

    def submit(self, body: bytes = b"{}", **options: Any) -> TaskRecord:
        (outcome,) = self.store.submit([self.new(body, **options)])
        _hold(isinstance(outcome, TaskRecord), "submit gives a record for a task that it takes")
        assert isinstance(outcome, TaskRecord)
        return outcome

    def claim(self, owner: str = "a", limit: int = 1, lease: float = _LONG, name: str = "") -> list[Claim]:
        return self.other.claim(name or self.name, owner, limit, lease)

    def state(self, id_: str, name: str = "") -> TaskRecord:
        found = self.store.get(name or self.name, id_)
        _hold(found is not None, "a task that was submitted is known")
        assert found is not None
        return found

    def another(self) -> _Bench:
        """The same with an empty queue."""
        self.close()
        return _Bench(self.open_store)

    def close(self) -> None:
        self.store.close()
        self.other.close()


def _one_task(bench: _Bench) -> None:
    body = os.urandom(1_000_000)
    record = bench.submit(body, priority=7)
    seen = bench.state(record.id)
    _hold((seen.state, seen.priority, seen.attempt) == (PENDING, 7, 0), "a new task is pending, with no run yet")
    _hold(seen.started is None and seen.finished is None, "what waits has neither begun nor ended")
    _hold(abs(seen.created - time.time()) < _LONG, "times are seconds since 1970")
    (claim,) = bench.claim("host/1/x")
    expected = Message({"content-type": "application/json", "x-a": "é"}, body, query="a=1")
    _hold((claim.id, claim.attempt, claim.request) == (record.id, 1, expected), "a claim has the request as submitted")
    _hold(bench.store.claim(bench.name, "b", 1, _LONG) == [], "what one worker has, another does not get")
    _hold(bench.other.tell(claim.id, "host/1/x", 0.5, "half"), "the owner may tell")
    _hold(bench.other.tell(claim.id, "host/1/x", 0.75, None), "the owner may tell")
    seen = bench.state(record.id)
    _hold((seen.state, seen.progress, seen.message) == (IN_PROGRESS, 0.75, "half"), "None leaves what was told")
    _hold(not bench.store.tell(claim.id, "b", 1.0, None), "only the owner may tell")
    _hold(not bench.store.finish(claim.id, "b", COMPLETED, _LOST), "only the owner may finish")
    _hold(bench.store.answer(claim.id) is None, "a task that has not ended has no answer")
    _hold(bench.other.finish(claim.id, "host/1/x", COMPLETED, Message(_JSON, body[::-1], 200)), "the owner may finish")
    _hold(not bench.other.finish(claim.id, "host/1/x", FAILED, _LOST), "a task has one result")
    _hold(bench.store.answer(claim.id) == Message(_JSON, body[::-1], 200), "the answer is kept as it was given")
    _hold(bench.store.request(claim.id) == expected, "the input is kept too")
    _hold(bench.state(record.id).finished is not None, "what has ended has a time of its end")
    _hold(bench.store.get("other", claim.id) is None, "a task is known by its name and id")
    _hold(bench.store.answer("0" * 32) is None, "what is unknown has no answer")


def _order(bench: _Bench) -> None:
    ids = [bench.submit(priority=priority).id for priority in (0, 5, -5, 5)]
    wanted = [ids[1], ids[3], ids[0], ids[2]]
    found = [claim.id for claim in bench.claim(limit=10)]
    _hold(found == wanted, "higher priorities come first, then older tasks")


def _bounds(bench: _Bench) -> None:
    outcomes = bench.store.submit([bench.new(max_waiting=2) for _ in range(3)])
    _hold([type(one) for one in outcomes] == [TaskRecord, TaskRecord, QueueFull], "no more wait than may")
    bench.claim()
    bench.submit(max_waiting=2)
    first = bench.submit(key="k", max_waiting=9)
    _hold(bench.submit(key="k", max_waiting=9).id == first.id, "an idempotency key makes one task")
    (outcome,) = bench.store.submit([bench.new(b"[]", key="k", max_waiting=9)])
    _hold(isinstance(outcome, TaskConflict), "a key with another input is refused")
    counts = bench.other.counts()
    _hold((counts.get((bench.name, PENDING)), counts.get((bench.name, IN_PROGRESS))) == (3, 1), "counts are right")


def _deaths(bench: _Bench) -> None:
    record = bench.submit()
    bench.claim("dead", lease=0.05)
    _hold(bench.store.renew("dead", [record.id], 0.05) == {record.id}, "a lease may be renewed by its owner")
    time.sleep(0.1)
    bench.store.reap(_LOST)
    _hold(bench.state(record.id).state == PENDING, "a task whose lease passed is pending again")
    _hold(bench.store.renew("dead", [record.id], _LONG) == set(), "what was taken from a worker is not its own")
    _hold(not bench.store.finish(record.id, "dead", COMPLETED, _LOST), "nor does it finish it")
    for left in reversed(range(MAX_LOSSES - 1)):
        owner = f"host/{bench.name}/1/x{left}"
        (claim,) = bench.claim(owner)
        _hold(bench.store.owned(owner) == {claim.id}, "a worker's own are known")
        bench.store.reap(_LOST)
        _hold(bench.store.owned(owner) == {claim.id}, "a lease that has not passed holds")
        bench.store.reclaim(f"host/{bench.name}/1/")
        bench.store.reap(_LOST)
        _hold(bench.state(record.id).state == (PENDING if left else FAILED), f"{MAX_LOSSES} deaths end a task")
    _hold(bench.store.answer(record.id) == _LOST, "a task that kills its workers has the answer given to reap")
    _hold(bench.state(record.id).attempt == MAX_LOSSES, "runs are counted")


def _again(bench: _Bench) -> None:
    record = bench.submit()
    (claim,) = bench.claim("a")
    _hold(not bench.store.give_back(claim.id, "b", None), "only the owner gives back")
    _hold(bench.store.give_back(claim.id, "a", None), "the owner may give back")
    (claim,) = bench.claim("a")
    _hold(claim.attempt == 1, "a run that was given back does not count")
    _hold(bench.store.give_back(claim.id, "a", 0.3), "a failed run may be given back for later")
    _hold(bench.claim("a") == [], "a failed run waits for its delay")
    time.sleep(0.35)
    _hold([claim.attempt for claim in bench.claim("b")] == [2], "and is run after it")
    _hold(bench.state(record.id).started is not None, "what runs has begun")


def _cancelling(bench: _Bench) -> None:
    owner = f"a-{bench.name}"
    ids = [bench.submit().id for _ in range(2)]
    (claim,) = bench.claim(owner)
    for id_ in ids:
        record = bench.store.cancel(bench.name, id_)
        _hold(record is not None and record.state == CANCELED, "what waits and what runs can be cancelled")
    _hold(bench.other.owned(owner) == set(), "what is cancelled is nobody's")
    _hold(not bench.other.finish(claim.id, owner, COMPLETED, _LOST), "cancelled stays cancelled")
    _hold(bench.claim(owner, 9) == [], "what is cancelled is not run")
    _hold(bench.store.cancel(bench.name, "f" * 32) is None, "an unknown task cannot be cancelled")
    done = bench.submit()
    bench.claim(owner)
    bench.other.finish(done.id, owner, COMPLETED, _LOST)
    record = bench.store.cancel(bench.name, done.id)
    _hold(record is not None and record.state == COMPLETED, "what has ended is not cancelled")


def _expiry(bench: _Bench) -> None:
    short, long = bench.submit(ttl=0.05, key="k"), bench.submit(ttl=_LONG)
    for claim in bench.claim("a", 2):
        bench.other.finish(claim.id, "a", COMPLETED, _LOST)
    time.sleep(0.1)
    bench.store.purge()
    _hold(bench.store.get(bench.name, short.id) is None, "an ended task goes when its time has passed")
    _hold(bench.store.answer(short.id) is None and bench.store.request(short.id) is None, "with its input and result")
    _hold(bench.state(long.id).state == COMPLETED, "others stay")
    _hold(bench.submit(key="k").id != short.id, "its key may be used again")


def _reopened(bench: _Bench) -> None:
    waiting, running = bench.submit(), bench.submit(priority=1)
    bench.claim("a")
    bench.close()
    bench.store, bench.other = bench.open_store(), bench.open_store()
    _hold(bench.state(waiting.id).state == PENDING, "what waits survives")
    _hold(bench.state(running.id).state == IN_PROGRESS, "what runs survives")
    _hold([claim.id for claim in bench.claim("b", 9)] == [waiting.id], "and belongs to whom it belonged")


def _crowd(bench: _Bench) -> None:
    taken: list[str] = []
    failures: list[BaseException] = []

    def work(owner: str) -> None:
        try:
            own = bench.open_store()
            own.submit([bench.new() for _ in range(25)])
            while claims := own.claim(bench.name, owner, 3, _LONG):
                taken.extend(claim.id for claim in claims)
                for claim in claims:
                    _hold(own.finish(claim.id, owner, COMPLETED, _LOST), "an owner finishes what it has")
            own.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(owner,)) for owner in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    _hold(len(taken) == len(set(taken)) == 100, "many workers at once take each task once")


_RULES = (_one_task, _order, _bounds, _deaths, _again, _cancelling, _expiry, _reopened, _crowd)


def check_task_store(open_store: Callable[[], TaskStore]) -> None:
    """Check a store of tasks: every rule of `TaskStore`, by tasks that it submits under names of its own.

    Args:
        open_store: opens the same queue each time, from any thread.

    Raises:
        ContractError: a rule is broken; the text says which.
    """
    bench = _Bench(open_store)
    for rule in _RULES:
        rule(bench)
        bench = bench.another()
    bench.close()
