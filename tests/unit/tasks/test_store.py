"""The SQLite store: what one process does, others see; nothing gets two results."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bentotool.errors import ConfigError
from bentotool.runtime.tasks.records import MAX_LOSSES, Message, NewTask, QueueFull, TaskConflict, TaskRecord, TaskStore
from bentotool.runtime.tasks.sqlite import SQLiteStore, TemporaryStore
from bentotool.testing import ContractError, check_task_store

JSON = {"content-type": "application/json"}
LOST = Message(JSON, b'{"error":{}}', 500)


def new(number: int = 0, *, body: bytes = b"{}", **options: object) -> NewTask:
    return NewTask(f"{number:032x}", "work", Message(JSON, body), **options)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks" / "s.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(path)
    yield opened
    opened.close()


def submitted(store: TaskStore, task: NewTask) -> TaskRecord:
    (outcome,) = store.submit([task])
    assert isinstance(outcome, TaskRecord)
    return outcome


def test_it_keeps_the_contract(path: Path) -> None:
    check_task_store(lambda: SQLiteStore(path))


def test_the_check_finds_a_store_that_runs_tasks_twice(path: Path) -> None:
    class Careless(SQLiteStore):
        def finish(self, id_: str, owner: str, state: str, answer: Message) -> bool:
            super().finish(id_, owner, state, answer)
            return True

    with pytest.raises(ContractError, match="only the owner may finish"):
        check_task_store(lambda: Careless(path))


def test_a_task_goes_from_one_process_to_another(store: SQLiteStore, path: Path) -> None:
    record = submitted(store, new(1, body=b'{"x": 1}'))
    other = SQLiteStore(path)
    (claim,) = other.claim("work", "b", 5, 30)
    assert (claim.id, claim.attempt, claim.request.body) == (record.id, 1, b'{"x": 1}')
    assert store.claim("work", "a", 5, 30) == []
    assert other.tell(claim.id, "b", 0.5, "half")
    seen = store.get("work", claim.id)
    assert seen is not None
    assert (seen.state, seen.progress, seen.message) == ("in_progress", 0.5, "half")
    assert not store.finish(claim.id, "a", "completed", Message(JSON, b"wrong", 200))
    assert other.finish(claim.id, "b", "completed", Message(JSON, b"2", 200))
    assert not other.finish(claim.id, "b", "failed", Message(JSON, b"3", 500))
    other.close()
    answer = store.answer(claim.id)
    assert answer == Message(JSON, b"2", 200)
    assert store.get("other", claim.id) is None


def test_higher_priorities_come_first_and_then_older_ones(store: SQLiteStore) -> None:
    store.submit([new(1), new(2, priority=5), new(3, priority=-5), new(4, priority=5)])
    assert [int(claim.id, 16) for claim in store.claim("work", "a", 10, 30)] == [2, 4, 1, 3]


def test_the_queue_is_bounded(store: SQLiteStore) -> None:
    outcomes = store.submit([new(number, max_waiting=2) for number in range(3)])
    assert [type(outcome) for outcome in outcomes] == [TaskRecord, TaskRecord, QueueFull]
    store.claim("work", "a", 1, 30)
    assert isinstance(submitted(store, new(9, max_waiting=2)), TaskRecord)


def test_a_key_is_one_task(store: SQLiteStore) -> None:
    first = submitted(store, new(1, key="k"))
    assert submitted(store, new(2, key="k")).id == first.id
    assert [type(o) for o in store.submit([new(3, key="k", body=b"[]")])] == [TaskConflict]
    assert len(store.claim("work", "a", 10, 30)) == 1


def test_what_a_dead_worker_held_is_run_by_another(store: SQLiteStore) -> None:
    submitted(store, new(1))
    store.claim("work", "dead", 1, 0.0)
    time.sleep(0.01)
    assert store.reap(LOST) == 1
    (claim,) = store.claim("work", "b", 1, 30)
    assert claim.attempt == 2
    assert store.renew("dead", [claim.id], 30) == set()
    assert store.renew("b", [claim.id], 30) == {claim.id}


def test_a_task_that_kills_its_workers_is_given_up(store: SQLiteStore) -> None:
    record = submitted(store, new(1))
    for _ in range(MAX_LOSSES):
        assert store.claim("work", "host/1/0/x", 1, 30)
        assert store.reclaim("host/1/0/") == 1
        assert store.reap(LOST) == 1
    seen = store.get("work", record.id)
    assert seen is not None
    assert seen.state == "failed"
    assert store.answer(record.id) == LOST
    assert store.claim("work", "b", 1, 30) == []


def test_a_run_given_back_does_not_count_and_a_failed_one_waits(store: SQLiteStore) -> None:
    submitted(store, new(1))
    (claim,) = store.claim("work", "a", 1, 30)
    assert store.give_back(claim.id, "a", None)
    (claim,) = store.claim("work", "a", 1, 30)
    assert claim.attempt == 1
    assert store.give_back(claim.id, "a", 60.0)
    assert store.claim("work", "a", 1, 30) == []


def test_cancelled_stays_cancelled(store: SQLiteStore) -> None:
    submitted(store, new(1))
    submitted(store, new(2))
    (claim,) = store.claim("work", "a", 1, 30)
    for number in (1, 2):
        record = store.cancel("work", f"{number:032x}")
        assert record is not None
        assert record.state == "canceled"
    assert store.owned("a") == set()
    assert not store.finish(claim.id, "a", "completed", Message(JSON, b"1", 200))
    assert store.claim("work", "a", 1, 30) == []
    assert store.cancel("work", "f" * 32) is None


def test_large_bodies_lie_in_files_and_go_with_their_task(store: SQLiteStore, path: Path) -> None:
    body = os.urandom(600_000)
    record = submitted(store, new(1, body=body, ttl=0.01))
    (claim,) = store.claim("work", "a", 1, 30)
    assert claim.request.body == body
    store.finish(claim.id, "a", "completed", Message({}, body[::-1], 200))
    answer = store.answer(record.id)
    assert answer is not None
    assert answer.body == body[::-1]
    assert len(list(path.with_name("s.sqlite3.files").iterdir())) == 2
    time.sleep(0.05)
    assert store.purge() == 1
    assert list(path.with_name("s.sqlite3.files").iterdir()) == []
    assert store.get("work", record.id) is None


def test_an_input_that_somebody_removed_does_not_stop_the_queue(store: SQLiteStore, path: Path) -> None:
    submitted(store, new(1, body=b"x" * 600_000))
    for file in path.with_name("s.sqlite3.files").iterdir():
        file.unlink()
    assert [claim.request.body for claim in store.claim("work", "a", 1, 30)] == [b""]


def test_a_newer_or_a_damaged_file_is_refused(path: Path) -> None:
    SQLiteStore(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match="of a newer bentotool"):
        SQLiteStore(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="cannot be kept"):
        SQLiteStore(path)


def test_many_threads_with_stores_of_their_own_take_each_task_once(path: Path) -> None:
    SQLiteStore(path).close()
    taken: list[str] = []

    def work(name: str) -> None:
        own = SQLiteStore(path)
        own.submit([NewTask(f"{name}{number:031x}", "work", Message(JSON, b"{}")) for number in range(25)])
        while claims := own.claim("work", name, 3, 30):
            taken.extend(claim.id for claim in claims)
            for claim in claims:
                assert own.finish(claim.id, name, "completed", Message(JSON, b"1", 200))
        own.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == len(set(taken)) == 100


class Queue(RuleBasedStateMachine):
    """Two workers, deaths, cancellations, restarts, in any order: each task has one result, and it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.store = TemporaryStore()
        self.made = 0
        self.held: dict[str, str] = {}
        self.results: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(priority=st.integers(-2, 2))
    def submit(self, priority: int) -> None:
        self.made += 1
        submitted(self.store, new(self.made, priority=priority))

    @rule(owner=st.sampled_from("ab"), limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> None:
        for claim in self.store.claim("work", owner, limit, 1000):
            assert claim.id not in self.results
            self.held[claim.id] = owner

    @precondition(lambda self: self.made)
    @rule(data=st.data(), owner=st.sampled_from("ab"), state=st.sampled_from(["completed", "failed"]))
    def finish(self, data: st.DataObject, owner: str, state: str) -> None:
        id_ = f"{data.draw(st.integers(1, self.made)):032x}"
        result = f"{owner}{len(self.results)}".encode()
        kept = self.store.finish(id_, owner, state, Message(JSON, result, 200))
        assert kept == (self.held.get(id_) == owner)
        if kept:
            del self.held[id_]
            self.results[id_] = result

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id_ = f"{data.draw(st.integers(1, self.made)):032x}"
        record = self.store.cancel("work", id_)
        assert record is not None
        assert (record.state == "canceled") == (self.results.get(id_, b"") == b"")
        if record.state == "canceled":
            self.held.pop(id_, None)
            self.results[id_] = b""

    @rule(owner=st.sampled_from("ab"))
    def die(self, owner: str) -> None:
        self.store.reclaim(owner)
        self.store.reap(Message(JSON, b"lost", 500))
        for id_ in [id_ for id_, holder in self.held.items() if holder == owner]:
            del self.held[id_]
            record = self.store.get("work", id_)
            assert record is not None
            if record.state == "failed":
                self.results[id_] = b"lost"

    @invariant()
    def results_stay(self) -> None:
        for owner in "ab":
            assert self.store.owned(owner) == {id_ for id_, holder in self.held.items() if holder == owner}
        for id_, result in self.results.items():
            answer = self.store.answer(id_)
            assert (answer.body if answer else b"") == result


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
