"""The way of answers from the executor of a batcher to the event loop: in one piece, with one wake-up per batch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bentotool.runtime.batchqueue import Entry

__all__ = ["Answer", "Outbox"]

_log = logging.getLogger("bentotool.batcher")

Answer = Callable[[Any, "BaseException | None"], None]
"""Takes (result, None) or (None, error)."""


class Outbox:
    """Answers and figures on their way to the event loop, in the order in which they were settled.

    Args:
        loop: where they are handed out.
        clock: monotonic seconds.
        sent: is told, on the loop, how many seconds it took from here until those who waited had done the next step
            with their answers, which is to send them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], sent: Callable[[float], None]
    ) -> None:
        self._loop, self._clock, self._sent = loop, clock, sent
        self._settled: deque[tuple[Answer, Any, BaseException | None]] = deque()
        self._batches: deque[tuple[list[Entry], Sequence[Any]]] = deque()
        self._told: deque[Callable[[], None]] = deque()
        self._since: float | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to hand out."""
        return bool(self._settled or self._batches)

    def hand_over(self, batch: list[Entry], results: Sequence[Any]) -> None:
        """Settle a batch, in one piece: the executor has the next one to run."""
        self._batches.append((batch, results))

    def settler(self, answer: Answer) -> Callable[[Any, BaseException | None], None]:
        return lambda result, error: self._settled.append((answer, result, error))

    def tell(self, report: Callable[[], None]) -> None:
        """Have something done on the loop, after the answers: the executor has no time for it."""
        self._told.append(report)

    def send(self) -> None:
        """Hand out what was settled. May be called from any thread."""
        if self._settled or self._batches or self._told:
            if self._since is None:
                self._since = self._clock()
            try:
                self._loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                _log.debug("an answer came after its event loop was closed")

    def deliver(self) -> None:
        """Hand out, on the loop, what there is."""
        since, self._since = self._since, None
        answered = bool(self._batches)
        while self._batches:
            batch, results = self._batches.popleft()
            for entry, result in zip(batch, results, strict=True):
                _do(entry.answer, result, None)
        while self._settled:
            _do(*self._settled.popleft())
        if answered and since is not None:  # comes after the steps of those who waited
            self._loop.call_soon(lambda: self._sent(self._clock() - since))
        while self._told:
            _do(self._told.popleft())


def _do(step: Callable[..., None], *args: Any) -> None:
    """Whatever one step raises, the others are done."""
    try:
        step(*args)
    except BaseException:
        _log.exception("an answer could not be given")
