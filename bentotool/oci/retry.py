"""When a request to a registry is worth a second try, and how long to wait for it."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bentotool.errors import BentotoolError, RemoteError

__all__ = ["RETRIED_STATUSES", "RetryPolicy", "TransientError", "retry_after_seconds"]

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
T = TypeVar("T")


class TransientError(Exception):
    """A failure that may pass by itself; never leaves this package.

    Args:
        error: what the user is told when no further try is left.
        retry_after: seconds the registry asked for, if it did.
    """

    def __init__(self, error: BentotoolError, retry_after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after


def retry_after_seconds(value: str | None, *, now: float | None = None) -> float | None:
    """Seconds in a ``Retry-After`` header (RFC 9110 §10.2.3: a number or a date); None when absent or unreadable."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter, bounded in tries and in time.

    Args:
        attempts: tries in all.
        base: upper bound of the first wait, in seconds; doubles with each further one.
        cap: longest wait of our own choice, in seconds.
        budget: seconds of waiting allowed in all; a registry that asks for more gets a clear error instead.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 15.0
    budget: float = 120.0

    def run(self, operation: Callable[[], T], stop: threading.Event) -> T:
        """Call ``operation`` until it does not raise :class:`TransientError`, or the policy is used up.

        Args:
            operation: makes one whole try; it must not depend on a body that an earlier try consumed.
            stop: ends the waiting at once when set (ctrl-C, or another transfer failed).

        Raises:
            BentotoolError: the error of the last try.
        """
        waited = 0.0
        for attempt in range(1, self.attempts + 1):
            try:
                return operation()
            except TransientError as failure:
                delay = self._delay(attempt, failure)
                if attempt == self.attempts or waited + delay > self.budget or stop.is_set():
                    raise failure.error from failure.__cause__
            if stop.wait(delay):
                raise RemoteError("the transfer was stopped")
            waited += delay
        raise AssertionError("a retry policy needs at least one attempt")

    def _delay(self, attempt: int, failure: TransientError) -> float:
        # Jitter is about spreading load, not about secrets.
        jittered = random.uniform(0, min(self.cap, self.base * 2 ** (attempt - 1)))  # noqa: S311
        return jittered if failure.retry_after is None else failure.retry_after + jittered / 10
