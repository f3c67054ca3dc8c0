"""Accepting when there are no descriptors left: the connection waits, and so does the worker."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.runtime import accepting
from bentotool.runtime.accepting import Shares


class Loop:
    """Of an event loop what accepting asks for; time passes when it is told to."""

    def __init__(self) -> None:
        self.reader: Callable[[], None] | None = None
        self.later: list[Callable[[], None]] = []

    def add_reader(self, _descriptor: int, call: Callable[[], None]) -> None:
        self.reader = call

    def remove_reader(self, _descriptor: int) -> None:
        self.reader = None

    def call_later(self, _seconds: float, call: Callable[[], None]) -> None:
        self.later.append(call)

    def turn(self) -> None:
        """All timers are due; the listener is readable."""
        due, self.later = self.later, []
        for call in due:
            call()
        if self.reader is not None:
            self.reader()


class Listener(SimpleNamespace):
    tries = 0

    def accept(self) -> Any:
        self.tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    def setblocking(self, _flag: bool) -> None: ...

    def fileno(self) -> int:
        return 7


def test_one_try_at_a_time_while_there_are_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, listener = Loop(), Listener()
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    server: Any = SimpleNamespace(server_state=SimpleNamespace(connections=set()))
    acceptor = accepting._Acceptor(server, listener, Shares(tmp_path / "shares", 0, 2))  # type: ignore[arg-type]
    for number in range(1, 20):
        loop.turn()
        assert listener.tries == number
        assert len(loop.later) == 1
    acceptor.close()
    loop.turn()
    assert (loop.reader, loop.later, listener.tries) == (None, [], 19)
