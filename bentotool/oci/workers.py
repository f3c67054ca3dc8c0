"""Several transfers at once, stopped together: by the first failure or by ctrl-C."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

__all__ = ["run_all"]

_LOOK = 0.1  # seconds between looks: on Windows a wait without a limit cannot be interrupted
_GRACE = 5.0  # seconds for threads to end and tidy up after a stop


def run_all(tasks: Sequence[Callable[[], None]], jobs: int, stop: threading.Event) -> None:
    """Run tasks in up to ``jobs`` threads, in order of their start.

    Args:
        stop: set here when a task fails or the wait is interrupted; tasks watch it and end soon after.

    Raises:
        BaseException: the first failure of a task, or the interruption.
    """
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    failures: list[BaseException] = []
    count = min(jobs, len(tasks))
    ended = threading.Semaphore(0)

    def work() -> None:
        try:
            _work(waiting, failures, stop)
        finally:
            ended.release()

    # Daemons: a thread that waits for a silent registry must not keep the process after ctrl-C.
    threads = [threading.Thread(target=work, daemon=True, name=f"transfer-{n}") for n in range(count)]
    left = count
    try:
        for thread in threads:
            thread.start()
        # Not Thread.join: interrupted, that of Python 3.10 and 3.11 takes the thread for ended.
        while left:
            left -= ended.acquire(timeout=_LOOK)
    except BaseException:
        stop.set()
        deadline = time.monotonic() + _GRACE
        while left and time.monotonic() < deadline:
            left -= ended.acquire(timeout=_LOOK)
        raise
    if failures:
        raise failures[0]


def _work(waiting: queue.SimpleQueue[Callable[[], None]], failures: list[BaseException], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            task()
        except BaseException as error:  # handed to the caller of run_all
            failures.append(error)
            stop.set()
