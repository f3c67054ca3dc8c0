"""The files of a worker's metrics where the disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bentotool.runtime.accepting import Shares
from bentotool.runtime.metricfiles import _File, reserve

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken ahead here")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def count_on(file: _File) -> None:
    for number in range(2000):  # more than the file has at first
        file.put(f"key {number} {'x' * 40}", float(number), 0.0)
    assert [value for _, value, _ in file.items()] == [float(number) for number in range(2000)]
    file.close()


@pytest.mark.usefixtures("full_disk")
def test_a_worker_counts_on_in_memory_where_there_is_no_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A write into a mapped file that finds no room ends the process with SIGBUS."""
    path = tmp_path / "counter_0.db"
    count_on(_File(path))
    assert caplog.text.count("metrics are incomplete from now on") == 1
    assert set(path.read_bytes()) == {0}, "who scrapes finds a file with nothing in it"


def test_a_disk_that_becomes_full_leaves_what_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "counter_0.db"
    file = _File(path)
    file.put("before", 7.0, 0.0)
    request.getfixturevalue("full_disk")
    for number in range(2000):
        file.put(f"key {number} {'x' * 40}", float(number), 0.0)
    assert {key: value for key, value, _ in file.items()}["before"] == 7.0
    monkeypatch.undo()
    left = _File(path)
    found = {key: value for key, value, _ in left.items()}
    left.close()
    assert found["before"] == 7.0
    assert 0 < len(found) < 2001


def test_room_is_really_taken(tmp_path: Path) -> None:
    path = tmp_path / "counter_0.db"
    _File(path).close()
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_a_file_system_that_takes_no_room_ahead_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_descriptor: int, _start: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    count_on(_File(tmp_path / "counter_0.db"))
    with (tmp_path / "any").open("wb") as stream:
        reserve(stream.fileno(), 100)


@pytest.mark.usefixtures("full_disk")
def test_connections_are_not_shared_out_where_there_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        Shares(tmp_path / "connections", 0, 2)
