"""``bentotool.monitor``: log what went into a model and what came out, for whoever looks at drift or trains again.

::

    with bentotool.monitor("iris") as mon:
        mon.log(5.1, name="sepal length", role="feature", data_type="numerical")
        mon.log("setosa", name="species", role="prediction", data_type="categorical")

The API is BentoML's. A record is complete when the block ends; a block that raises leaves none. Requests never wait for
a record to be stored.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.errors import UsageError
from bentotool.sdk.observation import MonitoringOptions

__all__ = ["MonitorBase", "NoOpMonitor", "Record", "base_folder", "close_all", "monitor", "use_folder", "use_options"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_KINDS = {"default": "bentotool.sdk.monitor_files:FileMonitor", "otlp": "bentotool.sdk.monitor_otlp:OtlpMonitor"}
_lock = threading.Lock()
_monitors: dict[str, MonitorBase] = {}
_defaults = [MonitoringOptions()]
_folders: list[Path] = []
_registered: list[bool] = []


class MonitorBase:
    """Where the records of one monitor go. Subclass it for a place of your own.

    Attributes:
        PRESERVED_COLUMNS: names that the place uses itself; a column of such a name gets ``_`` added.
    """

    PRESERVED_COLUMNS: tuple[str, ...] = ()

    def __init__(self, name: str, **_options: Any) -> None:
        self.name = name

    def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None:
        """Store the columns: name, role and type of each. Called before the first record, and when columns change."""
        raise NotImplementedError

    def export_data(self, datas: Mapping[str, Sequence[Any]]) -> None:
        """Store records: for each column its values, all of the same number. Called in the request: do not wait."""
        raise NotImplementedError

    def close(self, seconds: float) -> None:
        """The server ends: store what is buffered within so many seconds."""


class NoOpMonitor(MonitorBase):
    """Keeps nothing."""

    def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None: ...
    def export_data(self, datas: Mapping[str, Sequence[Any]]) -> None: ...


class Record:
    """What one ``with`` block logs. Blocks may be nested, and run at once in any number of threads and tasks."""

    def __init__(self, sink: MonitorBase) -> None:
        self._sink = sink
        self._columns: dict[str, list[Any]] = {}
        self._schema: dict[str, dict[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)  # what a class of one's own has beside

    def log(self, data: Any, name: str, role: str, data_type: str) -> None:
        """Add a value to a column.

        Args:
            role: ``feature``, ``prediction``, ``target``, or what the reader of the records understands.
            data_type: ``numerical``, ``categorical``, ``numerical_sequence``, or likewise.
        """
        self._column(name, role, data_type).append(data)

    def log_batch(self, data_batch: Iterable[Any], name: str, role: str, data_type: str) -> None:
        """Add several values to a column, one for each record.

        Raises:
            UsageError: it is a single value.
        """
        try:
            values = list(data_batch)
        except TypeError:
            raise UsageError(f"monitor {self._sink.name}: {name!r} is a single value", hint="use log()") from None
        self._column(name, role, data_type).extend(values)

    def log_table(self, data: Iterable[Iterable[Any]], schema: Mapping[str, str]) -> None:
        """Not there, in BentoML neither.

        Raises:
            UsageError: always.
        """
        raise UsageError("log_table is not implemented", hint="use log_batch() for each column")

    def _column(self, name: str, role: str, data_type: str) -> list[Any]:
        if name in self._sink.PRESERVED_COLUMNS:
            name += "_"
        self._schema.setdefault(name, {"name": name, "role": role, "type": data_type})
        return self._columns.setdefault(name, [])

    def finish(self) -> None:
        """Hand the record over. For `monitor`.

        Raises:
            UsageError: the columns are of unequal length.
        """
        if not self._columns:
            return
        lengths = {name: len(values) for name, values in self._columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
            raise UsageError(f"monitor {self._sink.name}: columns of unequal length: {told}")
        sink: Any = self._sink
        with _lock:
            known = sink.__dict__.setdefault("_bentotool_columns", {})
            changed = any(known.get(name) != column for name, column in self._schema.items())
            if changed:
                known.update(self._schema)
        if changed:
            sink.export_schema(dict(known))
        sink.export_data(self._columns)


@contextlib.contextmanager
def monitor(
    name: str, monitor_class: type[MonitorBase] | str | None = None, monitor_options: Mapping[str, Any] | None = None
) -> Iterator[Record]:
    """A block that logs one record, or several by `Record.log_batch`.

    Args:
        name: of the monitor. What it is told first, its class and options, holds for all blocks of the name.
        monitor_class: ``default`` (files), ``otlp``, a `MonitorBase`, or ``module.Class``; None for what the service's
            ``monitoring`` says.
        monitor_options: for the class; None likewise.

    Raises:
        UsageError: a name, class or option that is none, or columns of unequal length.
    """
    sink = _monitors.get(name) or _open(name, monitor_class, monitor_options)
    record = Record(sink)
    yield record
    record.finish()


def _open(name: str, kind: Any, options: Mapping[str, Any] | None) -> MonitorBase:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a monitor", hint="letters, digits, space and . _ -")
    with _lock:
        found = _monitors.get(name)
        if found is None:
            defaults = _defaults[0]
            if not defaults.enabled:
                found = NoOpMonitor(name)
            else:
                given = dict(defaults.options if options is None and kind is None else options or {})
                try:
                    found = _class_of(defaults.kind if kind is None else kind)(name, **given)
                except TypeError as error:
                    raise UsageError(f"monitor {name}: {error}") from None
            _monitors[name] = found
            if not _registered:
                _registered.append(True)
                atexit.register(close_all, 5.0)
        return found


def _class_of(kind: Any) -> type[MonitorBase]:
    if isinstance(kind, type):
        return kind
    if not isinstance(kind, str):
        raise UsageError(f"{kind!r} is not the class of a monitor", hint="default, otlp, module.Class or a class")
    module, _, name = _KINDS.get(kind, kind).replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the class of a monitor {kind!r} cannot be imported: {error}") from None
    if not isinstance(found, type):
        raise UsageError(f"{kind!r} is not the class of a monitor", hint="default, otlp, module.Class or a class")
    return found


def use_options(options: MonitoringOptions) -> None:
    """What monitors that are opened from now on do where they are not told otherwise. For the runtime."""
    with _lock:
        _defaults[:] = [options]


def use_folder(folder: Path) -> None:
    """Relative paths of monitors are below this folder, whatever the working folder becomes. For the runtime."""
    _folders[:] = [folder]


def base_folder() -> Path:
    """What relative paths of monitors are below: where the server was started, else the working folder."""
    return _folders[0] if _folders else Path.cwd()


def close_all(seconds: float) -> None:
    """Store what is buffered, and forget all monitors: the next block opens its own again. For the runtime."""
    with _lock:
        open_ones = list(_monitors.values())
        _monitors.clear()
    end = time.monotonic() + seconds
    for one in open_ones:
        one.close(max(0.0, end - time.monotonic()))
