"""Several transfers at once, stopped together."""

from __future__ import annotations

import _thread
import threading
from functools import partial

import pytest

from bentotool.errors import RemoteError
from bentotool.oci.workers import run_all


def test_all_tasks_run_within_the_limit() -> None:
    lock, running, most, done = threading.Lock(), 0, 0, []

    def task(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
            done.append(number)

    run_all([partial(task, number) for number in range(12)], 3, threading.Event())
    assert sorted(done) == list(range(12))
    assert 1 < most <= 3


def test_nothing_to_do() -> None:
    run_all([], 4, threading.Event())


def test_the_first_failure_stops_the_others_and_is_told() -> None:
    stop = threading.Event()
    begun: list[int] = []

    def fail() -> None:
        raise RemoteError("first")

    def wait() -> None:
        begun.append(1)
        if stop.wait(10):
            raise RemoteError("stopped")

    with pytest.raises(RemoteError, match="first"):
        run_all([wait, fail, wait, wait, wait], 2, stop)
    assert stop.is_set()
    assert len(begun) <= 2


def test_an_interrupt_of_a_task_is_an_interrupt() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([interrupt], 1, threading.Event())


def test_an_interrupted_wait_lets_the_tasks_tidy_up() -> None:
    stop, tidied = threading.Event(), threading.Event()

    def task() -> None:
        for _ in range(25):  # again: one that arrives inside a callback of the garbage collector is lost
            _thread.interrupt_main()
            if stop.wait(0.2):
                break
        threading.Event().wait(0.3)  # longer than the interruption takes to arrive
        tidied.set()

    with pytest.raises(KeyboardInterrupt):
        run_all([task], 1, stop)
    assert tidied.is_set()
