"""The files in which one worker keeps its metrics: those of a place among the workers, whoever fills it.

Under a supervisor each worker writes into memory-mapped files in a private folder (prometheus_client's multiprocess
mode). What is written there outlives the process however it ends, so a count is never lost, and a file belongs to a
place (its slot) rather than to a process id: a worker that replaces a dead one goes on counting in the same file. So
nothing is counted twice, and there are no more files than workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bentotool.sdk.metrics import DIRECTORY

__all__ = ["DIRECTORY", "SLOT", "use_slot"]

SLOT = "BENTOTOOL_WORKER_SLOT"


def use_slot(slot: str) -> None:
    """Name this process's metric files after its slot. Comes before any metric is made."""
    from prometheus_client import values

    for path in Path(os.environ[DIRECTORY]).glob(f"gauge_*_{slot}.db"):
        _take_over(path, path.name.split("_")[1], slot)
    # the metric classes look the name up in this module each time they make a value
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


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
    from prometheus_client.mmap_dict import MmapedDict

    fold = _FOLDS.get(mode)
    if fold is not None and path.stat().st_size:
        kept: Any = MmapedDict(str(path.with_name(f"gauge_{mode}_{slot}x.db")))  # type: ignore[no-untyped-call]
        known = {key: (value, at) for key, value, at in kept.read_all_values()}
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            kept.write_value(key, *(fold(known[key], (value, at)) if key in known else (value, at)))
        kept.close()
    with contextlib.suppress(OSError):
        path.unlink()
