"""Connections to a port that several workers share: each gets its part of them, also right after one has died."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import signal
from pathlib import Path
from typing import Any

from bentotool.runtime.accepting import Shares

SERVICE = """
import os
import bentotool

@bentotool.service(workers=4)
class Who:
    @bentotool.api
    def pid(self) -> int:
        return os.getpid()
"""
WORKERS = 4
HEADERS = {"Content-Type": "application/json"}


def ask(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", "/pid", b"{}", HEADERS)
    answer = connection.getresponse()
    return int(answer.read())


def spread(server: Any, count: int) -> collections.Counter[int]:
    """Who answers on so many connections that are open at the same time; all are made before the first request."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            stack.callback(connection.close)
            connection.connect()
            connections.append(connection)
        return collections.Counter(map(ask, connections))


def all_are_up(server: Any) -> bool:
    return len(spread(server, 12)) == WORKERS


def test_a_burst_of_connections_is_spread_over_the_workers(serving: Any, wire: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "service", SERVICE) as server:
        wire.wait_for(lambda: all_are_up(server))
        found = spread(server, 64)
        assert len(found) == WORKERS
        assert max(found.values()) <= 28, found  # 16 each; all 64 at one, when the system decides

        os.kill(next(iter(found)), signal.SIGKILL)
        assert sum(spread(server, 16).values()) == 16, "who is left takes the part of who died"
        wire.wait_for(lambda: all_are_up(server))
        again = spread(server, 64)
        assert max(again.values()) <= 28, again


def test_shares(tmp_path: Path) -> None:
    first, second = (Shares(tmp_path / "connections", index, 3) for index in range(2))
    assert not first.is_ahead(1)
    assert first.is_ahead(2), "the second has none; the third does not run"
    second.say(5)
    assert not first.is_ahead(6)
    assert first.is_ahead(7)
    second.say(80)
    assert not first.is_ahead(90), "an eighth more is fine"
    second.leave()
    assert not first.is_ahead(1000), "nobody else takes any"
