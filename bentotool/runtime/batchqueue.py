"""The policy of the adaptive batcher: what waits, what runs next, and what is refused because it cannot be in time.

No threads, no event loop and an injected clock: its owner calls it and holds a lock. Four rules, all of them from one
model of what a batch costs (`CostModel`):

1. **Work-conserving.** Whoever is free takes what waits, at once. Requests gather only while something runs, so an idle
   service adds no delay and a busy one finds its batch size by itself.
2. **In order of deadline.** A batch grows as long as its most urgent entry is still in time with it.
3. **Shed first what is lost.** What cannot be in time any more is answered at once and never run. Where not all that
   waits fits into a batch, it starts at the entry from which it and the next one answer most per second; the oldest are
   not always worth it.
4. **Refuse at the door.** What is going to be shed is better refused before its body is read (`BatchQueue.admit`), or
   where its key is known and has its turn too late (`BatchQueue.put`).

Whose turn it is among several keys: `bentotool.runtime.batchkeys`.

`Policy` is what the executor needs; another implementation of it may be given to an API as ``batch_policy``.
"""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from bentotool.runtime.batchkeys import Keys
from bentotool.runtime.costmodel import CostModel
from bentotool.sdk.exceptions import ClientGone, DeadlineExceeded, ServiceUnavailable

__all__ = ["BatchQueue", "Entry", "Observer", "Policy", "is_gone"]

_numbers = itertools.count()


@dataclass(eq=False, slots=True)
class Entry:
    """One item in the queue.

    Attributes:
        value: the input.
        units: its rows, or what its API counts instead; the units of a batch have a limit.
        key: only entries with the same key share a batch.
        deadline: on the queue's clock, seconds.
        gone: tells whether nobody waits for the answer any more.
        settle: called exactly once with (result, None) or (None, error), unless its batch is settled in one piece.
        answer: called on the event loop with what it was settled with.
        origin: what `Observer.origin` gave for it.
        arrived: when it was put into the queue.
        at_once: nothing ran and nothing waited when it came.
    """

    value: Any
    units: int
    key: object
    deadline: float
    gone: Callable[[], bool]
    settle: Callable[[Any, BaseException | None], None]
    answer: Callable[[Any, BaseException | None], None] = lambda result, error: None
    origin: Any = None
    arrived: float = 0.0
    at_once: bool = False
    number: int = field(default_factory=_numbers.__next__)

    def __lt__(self, other: Entry) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class Observer:
    """What the batcher reports; the metrics subclass it."""

    def waited(self, seconds: Sequence[float]) -> None:
        """How long the items of a batch had waited when it started."""

    def executed(self, units: int, seconds: float) -> None:
        """A batch ran."""

    def shed(self, cause: str) -> None:
        """An item was refused or dropped."""

    def origin(self) -> Any:
        """What an item brings along for `running`; asked where the item is put in."""

    def running(self, batch: Sequence[Entry]) -> AbstractContextManager[None]:
        """Around the run of a batch."""
        return nullcontext()


class Policy(Protocol):
    """What an executor asks. Not thread-safe: its owner holds a lock while it calls."""

    max_items: int
    lag: float

    def admit(self, deadline: float) -> None:
        """A request came, its body is not read yet. Raises: ServiceUnavailable: it would be shed later."""

    def put(self, entry: Entry) -> None:
        """Raises: ServiceUnavailable: no room or no time. ValueError: the entry alone is larger than a batch may be."""

    def take(self) -> list[Entry]:
        """The next batch; empty when nothing is to be run now. Settles what is given up."""

    def drain(self) -> list[Entry]:
        """Remove and return everything."""


class Arrivals:
    """Arrivals per second of late, those that were refused among them."""

    def __init__(self, clock: Callable[[], float], memory: float = 0.2) -> None:
        self._clock, self._memory = clock, memory
        self._count, self._last = 0.0, clock()

    def note(self) -> None:
        now = self._clock()
        self._count = self._count * math.exp((self._last - now) / self._memory) + 1.0
        self._last = now

    def rate(self) -> float:
        return self._count * math.exp((self._last - self._clock()) / self._memory) / self._memory


class BatchQueue:
    """What waits, per key in order of deadline.

    Args:
        max_units: units in one batch at most.
        max_items: entries that may wait.
        cost: learns the time of a batch.
        clock: monotonic seconds.
        observer: is told what was shed.

    Attributes:
        lag: seconds from the end of a batch until its answers are sent, as its owner has measured them; counts as a
            part of the time that a batch takes.
    """

    def __init__(
        self, max_units: int, max_items: int, cost: CostModel, clock: Callable[[], float], observer: Observer
    ) -> None:
        self.max_units, self.max_items, self.cost = max_units, max_items, cost
        self.clock, self.observer = clock, observer
        self.lag = 0.0
        self._keys = Keys(self._time, max_units)
        self._usual_units = self._least_units = 1.0
        self._busy_until: float | None = None
        self._trial_at = clock() + _TRIAL_S
        self._arrivals = Arrivals(clock)

    def __len__(self) -> int:
        return self._keys.size

    # -- the door

    def admit(self, deadline: float) -> None:
        """Refuse a request that would be shed. Looks at all that waits once for each batch and else costs O(log n), so
        that refusing stays cheap.

        A request runs with the batch that gathers until what runs now is done. From the rate of arrivals, with those
        that are refused, follows how large that batch can be when its entries have as much time as this one.
        Its key is not known yet: where several wait, `put` looks at their turns.
        """
        self._arrivals.note()
        if self._keys.size >= self.max_items:
            self._keys.discard(is_gone)
        if self._keys.size >= self.max_items:
            raise self._full()
        now = self.clock()
        if self._busy_until is None or not self.cost.known:
            return
        left, rest = deadline - now, max(0.0, self._busy_until - now)
        ahead = self._keys.more_urgent(deadline) * self._usual_units + self._least_units
        batches, last = divmod(ahead, self.max_units)
        wait = rest + batches * self.cost(self.max_units) + self.cost(last)
        bound = left if len(self._keys) <= 1 else left / _TURN
        if wait > bound or rest + self._time(self._next_batch(left)) > left * _SLACK:
            raise self._refused(wait)

    def _refused(self, wait: float) -> ServiceUnavailable:
        self.observer.shed("refused")
        return ServiceUnavailable("the service is overloaded: no answer in time", retry_after=max(1.0, wait))

    def _next_batch(self, left: float) -> float:
        """Units of a batch that fills while it waits for as long as its entries can: n = λ·(left − t(b)) entries, this
        one among them. Its size is not known yet; it may be as small as any.
        """
        rate, cost, usual = self._arrivals.rate(), self.cost, self._usual_units
        rate /= max(1, len(self._keys))  # only those of one key share its batch
        entries = rate * (left - cost.alpha) / (1.0 + rate * usual * cost.beta)
        return min(self.max_units, self._least_units + max(0.0, entries - 1.0) * usual)

    def put(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ServiceUnavailable: the queue is full, or the turn of the entry's key comes too late for it.
            ValueError: the entry alone is larger than a batch may be.
        """
        if entry.units > self.max_units:
            raise ValueError(f"{entry.units} units do not fit into a batch of {self.max_units}")
        if self._keys.size >= self.max_items:
            self._keys.discard(is_gone)
        if self._keys.size >= self.max_items:
            raise self._full()
        entry.arrived, entry.at_once = self.clock(), not self._keys.size and self._busy_until is None
        self._await_turn(entry)
        self._keys.add(entry)
        self._usual_units += 0.05 * (entry.units - self._usual_units)
        self._least_units = min(entry.units, self._least_units + 0.01 * (entry.units - self._least_units))

    def _await_turn(self, entry: Entry) -> None:
        """Refuse an entry whose key is behind too many others. At the door its key was not known."""
        keys, now = self._keys, entry.arrived
        if self._busy_until is None or keys.is_only(entry.key) or not self.cost.known:
            return
        usual = self._usual_units
        turns, urgent, own = keys.before(entry.key, entry.deadline, usual)
        if not turns:
            return
        units = min(turns * min(self.max_units, keys.size * usual / len(keys)), urgent * usual)
        until = max(0.0, self._busy_until - now) + (turns * self.cost.alpha + units * self.cost.beta) * _TURN
        # what gathers by then runs with it, as much of all as is of its key now
        own += entry.units + self._arrivals.rate() * until * own / max(1, keys.size)
        wait = until + self.cost(min(self.max_units, own))
        if wait > entry.deadline - now:
            raise self._refused(wait)

    def _full(self) -> ServiceUnavailable:
        self.observer.shed("queue_full")
        drain = self.cost(self.max_units) * self._keys.size * self._usual_units / self.max_units
        return ServiceUnavailable("the service is overloaded: its queue is full", retry_after=max(1.0, drain))

    def drain(self) -> list[Entry]:
        """Remove and return everything."""
        entries = list(self._keys)
        self._keys.clear()
        return entries

    # -- the next batch

    def take(self) -> list[Entry]:
        """Remove and return the next batch, at most `max_units` of one key; empty when nothing waits.

        What nobody waits for is dropped, what cannot be in time is answered with an error, and neither is ever run.
        """
        while len(self._keys):
            shared = len(self._keys) > 1
            key, oldest = self._keys.turn(self.clock())
            waiting = self._feasible(self._keys[key], self.clock(), idle=True)
            start, end = self._choose(waiting) if waiting else (0, 0)
            batch, left = waiting[start:end], waiting[:start] + waiting[end:]
            if oldest is not None and oldest in left[start:]:
                batch, left = self._with(oldest, batch, left)
            if batch:
                seconds = self.cost(sum(entry.units for entry in batch))
                self._keys.ran(seconds, passed=shared and oldest is None)
                self._busy_until = self.clock() + seconds
                self._trial_at = self._busy_until + _TRIAL_S
                left = self._feasible(left, self._busy_until)  # who has no chance after it need not wait for it
            self._keys.replace(key, left)
            if batch:
                return batch
        self._busy_until = None
        return []

    @staticmethod
    def _with(oldest: Entry, batch: list[Entry], left: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """A batch of the same length with an entry that is less urgent, in the place of the least urgent of it."""
        room = max(sum(entry.units for entry in batch), oldest.units) - oldest.units
        kept = bisect.bisect_right(list(itertools.accumulate(entry.units for entry in batch)), room)
        left = sorted([*batch[kept:], *(entry for entry in left if entry is not oldest)])
        return [*batch[:kept], oldest], left

    def _feasible(self, waiting: list[Entry], start: float, *, idle: bool = False) -> list[Entry]:
        """Those that can still be in time when they run at `start` and alone; the others are answered.

        Where nothing has run for long, one is run although it is expected to be late: an estimate that is too high, as
        after a model's first run or one that hung, would else let nothing run that could correct it.
        """
        now, beta = self.clock(), self.cost.beta
        ends = start + self.cost.alpha
        feasible = []
        for entry in waiting:
            if is_gone(entry):
                self.observer.shed("gone")
            elif entry.deadline <= now:
                self.observer.shed("expired")
                entry.settle(None, DeadlineExceeded("the deadline passed while the request was queued"))
            elif entry.deadline >= ends + beta * entry.units:
                feasible.append(entry)
            elif idle and now >= self._trial_at:
                self._trial_at = math.inf
                self.cost.doubt()
                feasible.append(entry)
            else:
                self.observer.shed("infeasible")
                entry.settle(None, self._too_late(entry))
        return feasible

    def _too_late(self, entry: Entry) -> Exception:
        run = self.cost(entry.units)
        if entry.at_once or entry.deadline < entry.arrived + run:  # no load is to blame: it never was possible
            return DeadlineExceeded(f"the deadline is shorter than a run takes, about {run * 1000:.3g} ms")
        return ServiceUnavailable("the service is overloaded: no answer in time", retry_after=1.0)

    def _time(self, units: float) -> float:
        """Seconds until the answers of a batch are out, with a margin for what the cost model does not know."""
        return self.cost(units) * _SURE + 3.0 * self.cost.margin + self.lag

    def _choose(self, waiting: list[Entry]) -> tuple[int, int]:
        """Start and end of the batch which, with the one after it, answers most per second.

        The one after it is reckoned with what is left by then and what comes meanwhile at the present rate, so that no
        large batch is taken whose length costs the next one more than it brings.

        Entries are passed over, to be given up, only where they have less time than a full batch takes, and only for
        others of about their size. So neither small nor large ones starve.
        """
        now, cost, tail = self.clock(), self.cost, self._time(0)
        beta = max(cost.beta * _SURE, 1e-12)
        before = [0, *itertools.accumulate(entry.units for entry in waiting)]
        last, count = waiting[-1], len(waiting)
        rate = self._arrivals.rate() * self._usual_units * count / max(1, self._keys.size)
        starts = min(count, 2 * self.max_units)
        best, best_rate = (0, 1), 0.0
        least = most = waiting[0].units
        for start in range(0, starts, -(-starts // _STARTS)):
            first = waiting[start]
            least, most = min(least, first.units), max(most, first.units)
            if most > _ALIKE * least:
                break
            # the largest batch that its first, most urgent entry can wait for
            room = (first.deadline - now - tail) / beta
            end = bisect.bisect_right(before, before[start] + min(self.max_units, room), start + 1) - 1
            end = max(start + 1, end)
            if end - start == count:
                return start, end
            units = before[end] - before[start]
            seconds = cost(units)
            then = now + seconds + tail
            left = bisect.bisect_left(waiting, then + beta, end, key=_deadline)
            spare = (waiting[left].deadline - then) if left < count else last.deadline - last.arrived - seconds - tail
            gathered = before[-1] - before[left] + rate * seconds
            following = max(1.0, min(self.max_units, gathered, spare / beta))
            answered = (units + following) / max(seconds + cost(following), 1e-9)
            if answered > best_rate * 1.0005:
                best, best_rate = (start, end), answered
            if end == count or room >= self.max_units:  # it is not time that bounds it
                break
        return best


_TRIAL_S = 1.0
"""After so long without a batch the cost model is put to the test."""
_SURE = 1.015
"""By how much longer a batch may take than expected: a pause of the machine hits long ones more often, and makes more
answers late with them."""
_ALIKE = 8
"""Entries whose units differ by a larger factor are not given up for each other."""
_STARTS = 128
"""So many beginnings of a batch are compared at most: choosing must cost nothing beside running."""
_TURN = 1.25
"""By how much longer the turns of other keys are reckoned: one that comes at the last moment gives a small batch."""
_SLACK = 1.1
"""How far above a request's time the estimate at the door may lie: it is rough, and `take` decides exactly."""


_deadline = operator.attrgetter("deadline")


def is_gone(entry: Entry) -> bool:
    """Whether nobody waits for an entry any more; then it is settled."""
    if not entry.gone():
        return False
    entry.settle(None, ClientGone("the client went away before its request was run"))
    return True
