"""What waits, by key, and whose turn it is.

Only entries of one key share a batch, so the keys take turns. Two rules, after which no key starves:

1. **The oldest goes first**: the key with the entry that has waited longest, and this entry is in the batch.
2. **But who is in a hurry may pass**: the key whose most urgent entry would be late if that batch ran first, where the
   oldest can wait for it. Passing is lent: the seconds that were spent on it are paid back by batches of the oldest, so
   that those in a hurry, however many they are, get about half of the time and no more.

With equal deadlines only the first one ever applies.
"""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bentotool.runtime.batchqueue import Entry

__all__ = ["Keys", "Line"]

_deadline = operator.attrgetter("deadline")
_arrived = operator.attrgetter("arrived")


class Line:
    """What waits of one key, in order of deadline."""

    __slots__ = ("_oldest", "_units", "entries")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self._oldest: float | None = None
        self._units: int | None = None

    @property
    def oldest(self) -> float:
        """When the entry came that has waited longest."""
        if self._oldest is None:
            self._oldest = min(map(_arrived, self.entries))
        return self._oldest

    @property
    def units(self) -> int:
        if self._units is None:
            self._units = sum(entry.units for entry in self.entries)
        return self._units

    def add(self, entry: Entry) -> None:
        """An entry that came just now."""
        if not self.entries or self.entries[-1].deadline <= entry.deadline:  # as it is with most
            self.entries.append(entry)
        else:
            bisect.insort(self.entries, entry)
        if self._units is not None:
            self._units += entry.units


class Keys:
    """The lines of all keys.

    Attributes:
        size: entries of all keys.

    Args:
        seconds: how long a batch of so many units takes until its answers are out.
        max_units: units in one batch at most.
    """

    _LENT = 2.0
    """Passing may be ahead of its pay by so many full batches."""
    _PRESSING = 1.5
    """Who could wait for one batch and half of another is in no hurry yet: so that it is not late by a small error."""

    def __init__(self, seconds: Callable[[float], float], max_units: int) -> None:
        self._seconds, self._max_units = seconds, max_units
        self._lines: dict[object, Line] = {}
        self._owed = 0.0
        self._deadlines: list[float] | None = []
        self._turns: list[float] | None = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Entry]:
        return itertools.chain.from_iterable(line.entries for line in self._lines.values())

    def __getitem__(self, key: object) -> list[Entry]:
        return self._lines[key].entries

    def clear(self) -> None:
        self._lines.clear()
        self._deadlines, self._turns, self.size, self._owed = [], [], 0, 0.0

    def add(self, entry: Entry) -> None:
        line = self._lines.get(entry.key)
        if line is None:
            line = self._lines[entry.key] = Line([])
            if self._turns is not None:
                self._turns.append(entry.arrived)
        line.add(entry)
        if self._deadlines is not None:
            bisect.insort(self._deadlines, entry.deadline)
        self.size += 1

    def replace(self, key: object, left: list[Entry]) -> None:
        """So much is left of a key."""
        removed = len(self._lines[key].entries) - len(left)
        if not removed:
            return
        self.size -= removed
        self._deadlines = self._turns = None
        if left:
            self._lines[key] = Line(left)
        else:
            del self._lines[key]

    def discard(self, is_gone: Callable[[Entry], bool]) -> None:
        for key, line in list(self._lines.items()):
            self.replace(key, [entry for entry in line.entries if not is_gone(entry)])

    def is_only(self, key: object) -> bool:
        """Whether nothing of another key waits."""
        return not self._lines or (len(self._lines) == 1 and key in self._lines)

    # -- what is ahead of one that comes; one look through all after each batch, else in O(log n)

    def more_urgent(self, deadline: float) -> int:
        """Entries of all keys with an earlier deadline."""
        if self._deadlines is None:
            self._deadlines = sorted(map(_deadline, self))
        return bisect.bisect_left(self._deadlines, deadline)

    def before(self, key: object, deadline: float, usual_units: float) -> tuple[float, int, float]:
        """For an entry that would come now: batches of other keys before its own, entries of all keys that are more
        urgent, and the units ahead of it that run in its own batch.

        Those in a hurry pass the others, so no more are counted than there are entries more urgent than it.
        """
        if self._turns is None:
            self._turns = sorted(line.oldest for line in self._lines.values())
        line = self._lines.get(key)
        if line is None:
            older, own, others = len(self._turns), 0.0, len(self._turns)
        else:
            older, others = bisect.bisect_left(self._turns, line.oldest), len(self._turns) - 1
            own = bisect.bisect_left(line.entries, deadline, key=_deadline) * usual_units
        rounds, own = divmod(own, self._max_units)
        urgent = self.more_urgent(deadline)
        return min(older + rounds * others, urgent), urgent, own

    # -- whose turn it is

    def turn(self, now: float) -> tuple[object, Entry | None]:
        """The key that goes next, and the entry of it that has to be in the batch, where there is one."""
        lines = self._lines
        if len(lines) == 1:
            return next(iter(lines)), None
        first = min(lines, key=lambda key: lines[key].oldest)
        urgent = self._in_a_hurry(first, now) if self._owed < self._LENT * self._seconds(self._max_units) else None
        if urgent is not None:
            return urgent[0], None
        return first, min(lines[first].entries, key=_arrived)

    def ran(self, seconds: float, *, passed: bool) -> None:
        """A batch was taken."""
        self._owed = max(0.0, self._owed + (seconds if passed else -seconds))

    def _in_a_hurry(self, first: object, now: float) -> tuple[object, float] | None:
        """The key that has to pass `first`, and what time its most urgent entry has to spare."""
        run, full = self._batch(first), self._seconds(self._max_units)
        soon = now + self._PRESSING * run + full
        near = [key for key, line in self._lines.items() if line.entries[0].deadline < soon and key != first]
        found = min(((key, self._spare(key, now)) for key in near), key=operator.itemgetter(1), default=None)
        if found is None or found[1] >= self._PRESSING * run or self._spare(first, now) < self._batch(found[0]):
            return None
        return found

    def _batch(self, key: object) -> float:
        return self._seconds(min(self._max_units, self._lines[key].units))

    def _spare(self, key: object, now: float) -> float:
        """Seconds that a key's next batch can be put off with nobody late who can still be in time."""
        entries = self._lines[key].entries
        at = bisect.bisect_left(entries, now + self._seconds(1), key=_deadline)
        return entries[at].deadline - now - self._batch(key) if at < len(entries) else math.inf
