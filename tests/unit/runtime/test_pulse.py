"""Signs of life: what a worker tells of its event loop, and when the supervisor gives one up. Clocks are injected."""

from __future__ import annotations

import asyncio
import os
import threading
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bentotool
from bentotool.runtime.pulse import Pulse, patience
from bentotool.runtime.slots import Slot

HERE = Path(__file__)


class Process(SimpleNamespace):
    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def slot() -> Slot:
    """Of a ready worker that may be silent for 20 seconds, so that it is asked every 5."""
    found = Slot(0, 0, patience=20.0)
    found.process, found.ready = Process(pid=os.getpid(), killed=False), True  # type: ignore[assignment]
    return found


def test_who_never_answers_is_given_up(slot: Slot) -> None:
    for now in range(5, 25, 5):
        slot.ask(now)
        assert slot.stuck(now) is None
    slot.ask(25.0)
    assert slot.stuck(25.0) == "it gave no sign of life for 20 seconds"


def test_a_server_that_was_frozen_as_a_whole_gives_nobody_up(slot: Slot) -> None:
    """``docker pause``, ctrl-Z: an hour passes between two turns of the supervisor."""
    slot.ask(5.0)
    slot.hear_pulse(0, None)
    slot.ask(3605.0)
    assert slot.stuck(3605.0) is None
    slot.ask(7205.0)
    assert slot.stuck(7205.0) is None


def test_who_is_asked_no_more_is_not_judged_by_silence(slot: Slot) -> None:
    """A server that is told to end asks nobody: what is in flight may take its whole grace."""
    slot.ask(5.0)
    for now in range(10, 10_000, 100):
        assert slot.stuck(now) is None


def test_a_worker_that_loads_is_not_asked(slot: Slot) -> None:
    slot.ready = False
    for now in range(0, 1000, 5):
        slot.ask(now)
        assert slot.stuck(now) is None


def test_a_blocked_event_loop_is_told_once_and_then_given_up(slot: Slot) -> None:
    notes = [slot.hear_pulse(missed, "service.py:3 (/predict)") for missed in range(4)]
    assert notes == [None, None, "its event loop has been blocked for 10 seconds, at service.py:3 (/predict)", None]
    assert slot.stuck(0.0) is None
    slot.hear_pulse(4, None)
    assert slot.stuck(0.0) == "its event loop was blocked for 20 seconds"
    slot.kill()
    assert slot.stuck(0.0) is None, "once is enough"


def test_one_turn_of_the_event_loop_is_enough(slot: Slot) -> None:
    slot.hear_pulse(3, None)
    slot.hear_pulse(0, None)
    assert slot.stuck(0.0) is None
    slot.hear_pulse(1, None)
    assert slot.stuck(0.0) is None


def _wait(begun: threading.Event, go: threading.Event) -> None:
    begun.set()
    go.wait(30)


prompt = types.FunctionType(_wait.__code__, {"__name__": "pdb"})


@bentotool.service(traffic={"timeout": 300})
class Busy:
    go = threading.Event()
    begun = threading.Event()

    @bentotool.api(timeout=500)
    async def block(self) -> None:
        _wait(self.begun, self.go)

    @bentotool.api(timeout=7)
    async def debugged(self) -> None:
        prompt(self.begun, self.go)


def answers(method: str) -> list[dict[str, Any]]:
    """To three pings while that method blocks the loop, and to one after it has ended."""
    Busy.inner.go.clear()
    Busy.inner.begun.clear()
    made: list[Pulse] = []

    async def run() -> None:
        made.append(Pulse(Busy, asyncio.get_running_loop(), HERE.parent))
        await getattr(Busy(), method)()
        await asyncio.sleep(0.01)
        found.append(made[0].answer())

    found: list[dict[str, Any]] = []
    loop = threading.Thread(target=lambda: asyncio.run(run()))
    loop.start()
    try:
        assert Busy.inner.begun.wait(30)
        found += [made[0].answer() for _ in range(3)]
    finally:
        Busy.inner.go.set()
        loop.join(30)
    return found


def test_it_is_told_for_how_long_the_loop_is_blocked_and_where() -> None:
    free, first, second, after = answers("block")
    assert free == after == {"type": "pong"}
    assert (first["missed"], second["missed"]) == (1, 2)
    assert first["at"].startswith(f"{HERE.name}:")
    assert first["at"].endswith("(/block)")


def test_whoever_debugs_the_code_there_is_not_disturbed() -> None:
    assert answers("debugged") == [{"type": "pong"}] * 4


def test_patience_is_what_the_longest_call_may_take_unless_it_is_said() -> None:
    assert patience(Busy) == 500

    @bentotool.service
    class Plain: ...

    @bentotool.service(traffic={"timeout": 300, "max_stall": 30})
    class Said: ...

    assert (patience(Plain), patience(Said)) == (120, 30)
