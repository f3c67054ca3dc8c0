"""How far something is: a bar on a terminal, or JSON Lines for a program. Both beside the result, on stderr.

Beside :mod:`bentotool.cli.console` the only module that imports rich, and only when a bar is drawn.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, Protocol

__all__ = ["Bar", "JsonLines", "Progress", "Silent"]


class Progress(Protocol):
    """Something that is told how much has been done; a negative amount takes some of it back."""

    def advance(self, amount: int) -> None: ...

    def expect(self, total: int) -> None:
        """The final amount has become known."""
        ...

    def part(self, name: str, total: int) -> AbstractContextManager[Progress]:
        """One of several things done at once; what it is told counts for the whole too."""
        ...


class Silent:
    """Shows nothing."""

    def advance(self, amount: int) -> None:
        """Nothing is shown."""

    def expect(self, total: int) -> None:
        """Nothing is shown."""

    @contextmanager
    def part(self, name: str, total: int) -> Iterator[Progress]:
        yield self


class _Gathered:
    """Adds up amounts from any thread, and shows the sum at intervals, so that telling costs next to nothing."""

    interval_s = 0.05
    """At most twenty times a second."""
    delay_s = 0.0
    """How long nothing is shown at first."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.before = 0
        """What was there when the clock started, such as an earlier try's bytes: they say nothing of the rate."""
        self.started: float | None = None
        self._lock = Lock()
        self._next = 0.0

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount
            now = time.monotonic()
            if self.started is None:
                self.started = now
                self.before = amount
                self._next = now + self.delay_s
            if now >= self._next:
                self._next = now + self.interval_s
                self.show(now)

    def expect(self, total: int) -> None:
        with self._lock:
            self.total = total

    def show(self, now: float) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Nothing more will be done."""

    def _new_part(self, name: str, total: int) -> _Gathered:
        raise NotImplementedError

    @contextmanager
    def part(self, name: str, total: int) -> Iterator[Progress]:
        """See :class:`Progress`."""
        shown = self._new_part(name, total)
        try:
            yield _Part(self, shown)
        finally:
            shown.finish()


class _Part:
    """Tells both the whole and the part."""

    def __init__(self, whole: _Gathered, shown: _Gathered) -> None:
        self._whole, self._shown = whole, shown

    def advance(self, amount: int) -> None:
        self._whole.advance(amount)
        self._shown.advance(amount)

    def expect(self, total: int) -> None:
        self._shown.expect(total)

    def part(self, name: str, total: int) -> AbstractContextManager[Progress]:
        return self._whole.part(name, total)


class JsonLines(_Gathered):
    """One JSON object a line on stderr: at most twice a second, from the first second on, and a last one.

    What fails at once thus leaves nothing but its error on stderr.
    """

    interval_s = 0.5
    delay_s = 1.0

    def __init__(self, label: str, total: int | None, unit: str, part: str | None = None) -> None:
        super().__init__(label, total, unit)
        self._part = part
        self._shown = False

    def show(self, now: float) -> None:
        seconds = max(0.0, now - (self.started or now))
        # All in one piece tells nothing of the rate.
        rate = (self.done - self.before) / seconds if seconds and self.done > self.before else None
        left = max(0, self.total - self.done) / rate if rate and self.total is not None else None
        self._shown = True
        facts = {
            "label": self.label,
            **({"part": self._part} if self._part is not None else {}),
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "seconds": round(seconds, 3),
            "rate": None if rate is None else round(rate, 1),
            "seconds_left": None if left is None else round(left, 1),
        }
        sys.stderr.write(json.dumps({"progress": facts}) + "\n")

    def finish(self) -> None:
        """The last line, when there was anything to tell; of a part, when it was told of before and is done.

        What broke off has often taken back what did not arrive: nought would be told of it.
        """
        done = self.total is None or self.done >= self.total
        if self.started is not None and (self._part is None or (self._shown and done)):
            self.show(time.monotonic())

    def _new_part(self, name: str, total: int) -> _Gathered:
        return JsonLines(self.label, total, self.unit, name)


def facts_text(done: int, total: int | None, unit: str, rate: float | None, left: float | None) -> str:
    """What stands beside the bar: done and total, rate, time left.

    Args:
        rate: per second.
        left: seconds.
    """
    from bentotool.cli.formats import human_size

    if unit == "bytes":
        parts = [human_size(done) if total is None else f"{human_size(done)}/{human_size(total)}"]
        parts += [f"{human_size(int(rate))}/s"] if rate else []
    else:
        parts = [f"{done} {unit}" if total is None else f"{done}/{total} {unit}"]
        parts += [f"{rate:.0f}/s"] if rate else []
    if left is not None:
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left")
    return "  ".join(parts)


class Bar(_Gathered):
    """A bar drawn by rich on stderr. It appears when something was done, and goes when it is closed.

    Args:
        label: printable text.
        appears: called before it is drawn; whatever else is drawn must go then.
    """

    def __init__(self, label: str, total: int | None, unit: str, appears: Callable[[], None]) -> None:
        super().__init__(label, total, unit)
        self._appears = appears
        self.drawn: Any = None
        self._closed = False

    def show(self, now: float) -> None:
        if self._closed:
            return
        if self.drawn is None:
            self._appears()
            self.drawn = _drawn(self.label, self.total, self.unit)
        self.drawn.update(self.drawn.task_ids[0], completed=self.done, total=self.total)

    def _new_part(self, name: str, total: int) -> _Gathered:
        from bentotool.cli.console import printable

        return _BarPart(self, printable(name), total)

    def close(self) -> None:
        """Remove it from the terminal, also when the work was interrupted."""
        self._closed = True
        if self.drawn is not None:
            self.drawn.stop()


class _BarPart(_Gathered):
    """A line below the bar, as long as the part is being done; not for what is done at once."""

    delay_s = 0.5

    def __init__(self, whole: Bar, name: str, total: int) -> None:
        super().__init__(name, total, whole.unit)
        self._whole = whole
        self._task: Any = None

    def show(self, now: float) -> None:
        drawn = self._whole.drawn
        if drawn is None:
            return
        if self._task is None:
            self._task = drawn.add_task(f"  {self.label}", total=self.total)
        drawn.update(self._task, completed=self.done)

    def finish(self) -> None:
        if self._task is not None:
            self._whole.drawn.remove_task(self._task)
            self._task = None


def _drawn(label: str, total: int | None, unit: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        def render(self, task: Task) -> Text:
            amount = None if task.total is None else int(task.total)
            return Text(facts_text(int(task.completed), amount, unit, task.speed, task.time_remaining), no_wrap=True)

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=40)),
        BarColumn(table_column=Column()),  # the one that gives way where the terminal is narrow
        Facts(table_column=Column(no_wrap=True)),
    )
    # What is printed to stdout meanwhile goes where it always goes, which may be a pipe.
    drawn = Progress(*columns, console=Console(file=sys.stderr, highlight=False), transient=True, redirect_stdout=False)
    drawn.add_task(label, total=total)
    drawn.start()
    return drawn
