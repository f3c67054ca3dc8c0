"""What is tried again, how often, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bentotool.errors import RemoteError
from bentotool.oci.retry import RetryPolicy, TransientError, retry_after_seconds


def failing(times: int, retry_after: float | None = None) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def operation() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise TransientError(RemoteError(f"failure {len(calls)}"), retry_after)
        return "done"

    return operation, calls


class Waits(threading.Event):
    """Notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0)
        return self.is_set()


def test_trouble_that_passes() -> None:
    operation, calls = failing(4)
    stop = Waits()
    assert RetryPolicy().run(operation, stop) == "done"
    assert len(calls) == 5
    assert all(wait <= 0.5 * 2**index for index, wait in enumerate(stop.seconds))


def test_the_last_error_is_the_one_told() -> None:
    operation, calls = failing(99)
    with pytest.raises(RemoteError, match="failure 5"):
        RetryPolicy().run(operation, Waits())
    assert len(calls) == 5


def test_other_errors_are_not_retried() -> None:
    with pytest.raises(ZeroDivisionError):
        RetryPolicy().run(lambda: 1 // 0, Waits())


def test_the_registry_may_name_the_wait_within_limits() -> None:
    operation, _ = failing(1, 7)
    stop = Waits()
    RetryPolicy().run(operation, stop)
    assert 7 <= stop.seconds[0] <= 7.1
    operation, calls = failing(1, 100_000)
    with pytest.raises(RemoteError):
        RetryPolicy().run(operation, Waits())
    assert len(calls) == 1
    operation, calls = failing(9, 50)
    with pytest.raises(RemoteError):
        RetryPolicy().run(operation, Waits())
    assert len(calls) == 3  # two waits of 50 seconds fit into the budget of 120


def test_a_stop_ends_the_tries() -> None:
    operation, calls = failing(9)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RemoteError):
        RetryPolicy().run(operation, stop)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("-3", None),
        ("soon", None),
        ("٣", None),
        ("9" * 50, 999999999.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, now=100.0) == seconds
