"""Records as JSON Lines in files: ``<log_path>/<monitor>/data/data.<worker>.log``, columns beside in ``schema``.

A file belongs to one worker. It is put aside with the time in its name when a day is over or it has reached its size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from bentotool.errors import UsageError
from bentotool.sdk.codecs import to_plain
from bentotool.sdk.current import server_context
from bentotool.sdk.monitor import MonitorBase, base_folder
from bentotool.sdk.monitor_buffer import Buffer
from bentotool.sdk.requested import request_id, trace_ids

__all__ = ["COLUMNS", "FileMonitor", "about", "encode_records"]

COLUMNS = ("timestamp", "request_id", "trace_id")
"""What every record has beside its own columns."""
_MIB = 1024 * 1024


def _plain(value: Any) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def encode_records(datas: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """One JSON object for each record, as its columns are now: whatever becomes of an array later."""
    trace = trace_ids()
    beside = (datetime.now(timezone.utc).isoformat(timespec="milliseconds"), request_id(), trace and trace[0])
    own = dict(zip(COLUMNS, beside, strict=True))
    return [_ENCODER.encode({**dict(zip(datas, row, strict=True)), **own}) for row in zip(*datas.values(), strict=True)]


def about(columns_schema: Mapping[str, Mapping[str, str]], name: str) -> dict[str, Any]:
    """The columns, and whose they are, in BentoML's form."""
    meta = {
        "monitor_name": name,
        "bento_name": server_context.bento_name,
        "bento_version": server_context.bento_version,
    }
    return {"meta_data": meta, "schema": list(columns_schema.values())}


class _File:
    """One file that grows, and is put aside."""

    def __init__(self, path: Path, max_bytes: int, backups: int | None) -> None:
        self._path, self._max_bytes, self._backups = path, max_bytes, backups
        self._handle: Any = None
        self._size, self._day = 0, ""

    def write(self, lines: Sequence[bytes]) -> int:
        """Give how many lines were written. Raises: OSError: not one."""
        written = start = 0
        while start < len(lines):
            self._open()
            end, size = start, self._size
            while end < len(lines) and (end == start or size + len(lines[end]) < self._max_bytes):
                size += len(lines[end]) + 1
                end += 1
            data = b"\n".join([*lines[start:end], b""])
            try:
                self._put(data)
            except OSError:
                self.close()
                if not written:
                    raise
                return written
            written, start, self._size = written + end - start, end, size
        return written

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._handle.write(view) :]

    def _open(self) -> None:
        today = datetime.now(timezone.utc).strftime("%Y%m%d")
        if self._handle is not None and (today != self._day or self._size >= self._max_bytes):
            self.close()
            self._put_aside()
        if self._handle is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._is_over(today):
                self._put_aside()
            self._handle = self._path.open("ab", buffering=0)
            self._size, self._day = self._path.stat().st_size, today
            if self._size and not self._ends_with_a_line():  # a predecessor was killed while it wrote
                self._put(b"\n")

    def _is_over(self, today: str) -> bool:
        found = self._path.stat()
        then = datetime.fromtimestamp(found.st_mtime, timezone.utc).strftime("%Y%m%d")
        return found.st_size >= self._max_bytes or (found.st_size > 0 and then != today)

    def _ends_with_a_line(self) -> bool:
        with self._path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"

    def _put_aside(self) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        self._path.rename(self._path.with_name(f"{self._path.name}.{stamp}"))
        if self._backups is not None:
            old = sorted(self._path.parent.glob(f"{self._path.name}.*"))
            for path in old[: max(0, len(old) - self._backups)]:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class FileMonitor(MonitorBase):
    """Writes files.

    Args:
        log_path: the folder; a relative one is below the folder where the server was started.
        max_bytes: of a file, before it is put aside.
        backups: files put aside that are kept for each worker; None for all.
        buffer_records: that may wait to be written; more are dropped and counted.
        buffer_bytes: the same in bytes.
        log_config_file: BentoML's; has to be None.
    """

    PRESERVED_COLUMNS = COLUMNS

    def __init__(
        self,
        name: str,
        log_path: str | Path = "monitoring",
        max_bytes: int = 64 * _MIB,
        backups: int | None = None,
        buffer_records: int = 10_000,
        buffer_bytes: int = 16 * _MIB,
        log_config_file: str | None = None,
    ) -> None:
        super().__init__(name)
        if log_config_file is not None:
            raise UsageError(
                "monitoring.options.log_config_file is not taken", hint="log_path, max_bytes and backups say where"
            )
        slot = os.environ.get("BENTOTOOL_WORKER_SLOT", "")
        worker = int(slot) + 1 if slot.isdecimal() else 1  # over all services of a server, unlike the worker's index
        folder = base_folder() / log_path / name
        self._data = _File(folder / "data" / f"data.{worker}.log", max_bytes, backups)
        self._columns = _File(folder / "schema" / f"schema.{worker}.log", max_bytes, backups)
        self._schemas: list[bytes] = []
        self._lock = threading.Lock()
        self._buffer = Buffer(name, self._write, buffer_records, buffer_bytes)

    def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None:
        with self._lock:
            self._schemas.append(_ENCODER.encode(about(columns_schema, self.name)))

    def export_data(self, datas: Mapping[str, Sequence[Any]]) -> None:
        self._buffer.put(encode_records(datas))

    def _write(self, records: Sequence[bytes]) -> int:
        with self._lock:
            schemas, self._schemas = self._schemas, []
        if schemas:
            self._columns.write(schemas)
        return self._data.write(records)

    def close(self, seconds: float) -> None:
        self._buffer.close(seconds)
        self._data.close()
        self._columns.close()
