"""Being asked to end: SIGTERM, or the loss of the terminal, ends a command as ctrl-C does, so that it cleans up.

Only the tool's own process asks for this. The server has handlers of its own, and programs that are started get the
system's.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

__all__ = ["StopRequest", "end_on_signals", "hold_back", "stopped_by"]

_SAME = 1.0  # seconds within which a signal again is the same request: some senders tell the process and its group


class StopRequest(KeyboardInterrupt):
    """Raised in the main thread; what knows how to be interrupted knows how to be ended."""


_received: list[tuple[float, int]] = []


def end_on_signals() -> None:
    """Have the signals raise :class:`StopRequest` from now on, but for those that whoever started us had us ignore."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no second one, and ends a process without a word
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


def hold_back(held: bool) -> None:
    """Hold the signals back, ctrl-C among them, or let those in that came meanwhile. Windows has no such thing."""
    if sys.platform != "win32":
        how = signal.SIG_BLOCK if held else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def _stop(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    again = bool(_received) and now - _received[-1][0] < _SAME
    _received.append((now, number))
    if not again:
        raise StopRequest


def stopped_by() -> int | None:
    """The first signal that asked this process to end, if one did; whatever became of its exception."""
    return _received[0][1] if _received else None
