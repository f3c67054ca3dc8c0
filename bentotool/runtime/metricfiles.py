"""The files in which one worker keeps its metrics: those of a place among the workers, whoever fills it.

Under a supervisor each worker writes into memory-mapped files in a private folder, in the format of prometheus_client's
multiprocess mode, whose collector reads and sums them. What is written there outlives the process however it ends, so a
count is never lost, and a file belongs to a place (its slot) rather than to a process id: a worker that replaces a dead
one goes on counting in the same file. So nothing is counted twice, and there are no more files than workers.

The writer is ours: five numbers change with each request, and prometheus_client's own takes five times as long for one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bentotool.sdk.metrics import DIRECTORY

__all__ = ["DIRECTORY", "SLOT", "reserve", "use_slot"]

_log = logging.getLogger("bentotool.runtime")

SLOT = "BENTOTOOL_WORKER_SLOT"
_INITIAL = 1 << 16
_LENGTH, _NUMBERS = struct.Struct("i"), struct.Struct("dd")
_PACK, _PACK_INTO = _NUMBERS.pack, _NUMBERS.pack_into
_LOCK = threading.Lock()


def reserve(descriptor: int, size: int) -> None:
    """Take the room of a file that is to be mapped: a write that finds none later would end the process (SIGBUS).

    Raises:
        OSError: there is none.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # else a file system that knows no such thing
            raise


class _File:
    """One file: 4 bytes say how many are used, 4 are unused, then entries. An entry is the length of its key (4 bytes),
    the key, blanks up to the next multiple of 8, the value and a time, 8 bytes each, in the machine's own byte order.

    Args:
        path: None for one in memory alone.

    Attributes:
        map: its bytes; another object after it has grown.
    """

    def __init__(self, path: Path | None) -> None:
        self.map: Any = bytearray(_INITIAL)
        self._stream: Any = None
        if path is not None:
            self._stream = path.open("a+b")
            size = os.fstat(self._stream.fileno()).st_size
            if not size:
                size = _INITIAL
                self._stream.truncate(size)
            self._map(size, path.read_bytes())
        self._used = _LENGTH.unpack_from(self.map, 0)[0] or 8
        self.map[:4] = _LENGTH.pack(self._used)
        self._places = dict(self._entries())

    def _entries(self) -> Iterator[tuple[str, int]]:
        at = 8
        while at < self._used:
            length = _LENGTH.unpack_from(self.map, at)[0]
            key = self.map[at + 4 : at + 4 + length].decode()
            place = at + 4 + length
            place += 8 - place % 8
            yield key, place
            at = place + 16

    def place(self, key: str) -> int:
        """Where the number of a key stands. Its caller holds the lock."""
        found = self._places.get(key)
        if found is None:
            encoded = key.encode()
            padding = 8 - (len(encoded) + 4) % 8
            entry = _LENGTH.pack(len(encoded)) + encoded + b" " * padding + _PACK(0.0, 0.0)
            self._make_room(len(entry))
            found = self._used + len(entry) - 16
            self.map[self._used : self._used + len(entry)] = entry
            self._used += len(entry)
            self.map[:4] = _LENGTH.pack(self._used)  # last: who reads meanwhile, or kills us, finds whole entries
            self._places[key] = found
        return found

    def _make_room(self, more: int) -> None:
        size = len(self.map)
        while self._used + more > size:
            size *= 2
        if self._stream is None:
            self.map.extend(bytes(size - len(self.map)))
        elif size > len(self.map):
            content = self.map[:]
            self.map.close()  # Windows grows no file that is mapped
            self._stream.truncate(size)
            self._map(size, content)

    def _map(self, size: int, content: bytes) -> None:
        try:
            reserve(self._stream.fileno(), size)
        except OSError as error:
            _log.warning("metrics are incomplete from now on: %s: %s", self._stream.name, error.strerror)
            self.map = bytearray(content.ljust(size, b"\0"))
            self._stream.close()
            self._stream = None
        else:
            self.map = mmap.mmap(self._stream.fileno(), size)

    def detach(self) -> None:
        """Go on in memory alone: the file is another process's."""
        self.map, self._stream = bytearray(self.map), None

    def items(self) -> Iterator[tuple[str, float, float]]:
        for key, place in self._places.items():
            yield (key, *_NUMBERS.unpack_from(self.map, place))

    def put(self, key: str, value: float, at: float) -> None:
        place = self.place(key)
        self.map[place : place + 16] = _PACK(value, at)

    def close(self) -> None:
        if self._stream is not None:
            self.map.close()
            self._stream.close()


class _Value:
    """One number, as the metric classes of prometheus_client want it."""

    _multiprocess = True
    _open: Callable[[str], _File]

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **_options: Any,
    ) -> None:
        labels = dict(zip(labelnames, labelvalues, strict=False))
        with _LOCK:
            self._file = type(self)._open(f"gauge_{multiprocess_mode}" if typ == "gauge" else typ)
            place = self._file.place(json.dumps([metric_name, name, labels, help_text], sort_keys=True))
            self._value: float = _NUMBERS.unpack_from(self._file.map, place)[0]
        self._place = place

    def inc(self, amount: float) -> None:
        with _LOCK:
            self._value = value = self._value + amount
            _PACK_INTO(self._file.map, self._place, value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        with _LOCK:
            self._value = value
            _PACK_INTO(self._file.map, self._place, value, timestamp or 0.0)

    def get(self) -> float:
        return self._value

    def set_exemplar(self, exemplar: Any) -> None:
        """There are none over several processes."""

    def get_exemplar(self) -> None:
        return None


def use_slot(slot: str) -> None:
    """Name this process's metric files after its slot. Comes before any metric is made."""
    from prometheus_client import values

    folder = Path(os.environ[DIRECTORY])
    for path in folder.glob(f"gauge_*_{slot}.db"):
        _take_over(path, path.name.split("_")[1], slot)
    files: dict[str, _File] = {}
    ours = True

    def open_file(prefix: str) -> _File:
        found = files.get(prefix)
        if found is None:
            found = files[prefix] = _File(folder / f"{prefix}_{slot}.db" if ours else None)
        return found

    def detach() -> None:
        nonlocal ours
        ours = False
        _LOCK.release()
        for file in files.values():
            file.detach()

    if hasattr(os, "register_at_fork"):  # a service that forks must not count in its worker's files
        os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=detach)
    # the metric classes look the name up in this module each time they make a value
    values.ValueClass = type("SlotValue", (_Value,), {"_open": staticmethod(open_file)})


def _latest(old: tuple[float, float], new: tuple[float, float]) -> tuple[float, float]:
    return new if new[1] >= old[1] else old


_Fold = Callable[[tuple[float, float], tuple[float, float]], tuple[float, float]]
_FOLDS: dict[str, _Fold] = {
    "sum": lambda old, new: (old[0] + new[0], new[1]),
    "max": max,
    "min": min,
    "mostrecent": _latest,
}


def _take_over(path: Path, mode: str, slot: str) -> None:
    """A predecessor of this slot left gauges. They are values of a process that is gone: the modes that count dead
    processes too find them in a file beside, all others begin anew.
    """
    fold = _FOLDS.get(mode)
    if fold is not None and path.stat().st_size:
        left, kept = _File(path), _File(path.with_name(f"gauge_{mode}_{slot}x.db"))
        known = {key: (value, at) for key, value, at in kept.items()}
        for key, value, at in left.items():
            kept.put(key, *(fold(known[key], (value, at)) if key in known else (value, at)))
        left.close()
        kept.close()
    with contextlib.suppress(OSError):
        path.unlink()
