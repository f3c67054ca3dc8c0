"""Several transfers at once, stopped together: by the first failure or by ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

__all__ = ["run_all"]

_LOOK = 0.1  # seconds between looks at the threads: on Windows a join without a limit cannot be interrupted
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

    def work() -> None:
        while not stop.is_set():
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                task()
            except BaseException as error:  # handed to the caller below
                failures.append(error)
                stop.set()

    # Daemons: a thread that waits for a silent registry must not keep the process after ctrl-C.
    threads = [threading.Thread(target=work, daemon=True, name=f"transfer-{n}") for n in range(min(jobs, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        _join(threads)
    except BaseException:
        stop.set()
        _join(threads, _GRACE)
        raise
    if failures:
        raise failures[0]


def _join(threads: Sequence[threading.Thread], limit: float = float("inf")) -> None:
    waited = 0.0
    while waited < limit and (alive := next((thread for thread in threads if thread.is_alive()), None)):
        alive.join(_LOOK)
        waited += _LOOK
