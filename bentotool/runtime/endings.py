"""The signals that ask a server to end: held back while nobody is there who answers them in order.

They stay held back from one program to the next (`execve`), and are not lost by it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "held", "hold", "ignore_terminal", "numbers", "raise_ended", "release", "status"]


class Ended(KeyboardInterrupt):
    """Raised in the main thread, before there is a supervisor.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status(number: int) -> int:
    """The exit status of a process that a signal ended before it had done what it was for."""
    return 128 + number


def numbers() -> tuple[int, ...]:
    """SIGINT, SIGTERM and, where whoever started this process has not had it ignore that, SIGHUP."""
    hangup = getattr(signal, "SIGHUP", None)
    ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (hangup,)))


def hold() -> None:
    """Hold the signals back from now on. Windows has no such thing."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers())


def release() -> None:
    """Let them in: those that came meanwhile come now."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers())


@contextmanager
def held() -> Iterator[None]:
    """Hold back those of a terminal while a child is started: it begins without them, see :func:`ignore_terminal`.

    A child that ends to SIGTERM before it has begun is as good as one that never was.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
    """In a child: what a terminal sends reaches the whole group, and the supervisor decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})


def raise_ended() -> None:
    """Have the signals raise :class:`Ended` from now on."""
    for number in numbers():
        signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Ended(number)
