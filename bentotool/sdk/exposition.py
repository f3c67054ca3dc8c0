"""The text of all workers' metrics, from the files that they write (see `runtime/metricfiles.py`).

The same as prometheus_client's collector of such files and its writer of the text format give, in a third of the time:
numbers of one name and the same labels are added before anything is looked at. Source of the format:
https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec

__all__ = ["exposition"]

_LENGTH, _NUMBERS = struct.Struct("i"), struct.Struct("dd")
_KEY: msgspec.json.Decoder[tuple[str, str, dict[str, str], str]] = msgspec.json.Decoder(
    tuple[str, str, dict[str, str], str]
)
_ODD = re.compile(r"[^a-zA-Z0-9_:]")
_Labels = tuple[tuple[str, str], ...]


@dataclass
class _Family:
    """All samples of one metric.

    Attributes:
        samples: value and time by name and labels.
        buckets: values by bound, by labels without the bound.
        bounds: how they are written.
    """

    kind: str
    help: str
    samples: dict[tuple[str, _Labels], tuple[float, float]] = field(default_factory=dict)
    buckets: dict[_Labels, dict[float, float]] = field(default_factory=dict)
    bounds: dict[float, str] = field(default_factory=dict)


def _entries(path: Path) -> Iterator[tuple[bytes, float, float]]:
    """Key, value and time of each number in a file; of one that has gone, or is just being made, none."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    end = _LENGTH.unpack_from(data, 0)[0] if len(data) >= 8 else 0
    at = 8
    while at < min(end, len(data)):
        length = _LENGTH.unpack_from(data, at)[0]
        place = at + 4 + length
        place += 8 - place % 8
        yield data[at + 4 : at + 4 + length], *_NUMBERS.unpack_from(data, place)
        at = place + 16


def exposition(folder: Path) -> bytes:
    """The text exposition format of everything in a folder."""
    sums: dict[str, dict[bytes, float]] = {}
    families: dict[str, _Family] = {}
    gauges = []
    for path in sorted(folder.glob("*.db")):
        kind, _, rest = path.stem.partition("_")
        if kind == "gauge":
            mode, _, place = rest.rpartition("_")
            gauges += [(mode, place, *entry) for entry in _entries(path)]
            continue
        known = sums.setdefault(kind, {})
        for key, value, _at in _entries(path):
            known[key] = known.get(key, 0.0) + value
    for kind, numbers in sums.items():
        for key, value in numbers.items():
            _add(families, kind, key, value)
    for mode, place, key, value, at in gauges:
        _add_gauge(families, mode, place, key, value, at)
    return "".join(line for name, family in families.items() for line in _lines(name, family)).encode()


def _add(families: dict[str, _Family], kind: str, key: bytes, value: float) -> None:
    metric, name, labels, text = _KEY.decode(key)
    family = families.setdefault(metric, _Family(kind, text))
    if kind == "histogram" and "le" in labels:
        told = labels.pop("le")
        family.bounds[bound := float(told)] = told
        known = family.buckets.setdefault(tuple(labels.items()), {})
        known[bound] = known.get(bound, 0.0) + value
    else:
        family.samples[name, tuple(labels.items())] = (value, 0.0)


def _add_gauge(families: dict[str, _Family], mode: str, place: str, key: bytes, value: float, at: float) -> None:
    metric, name, labels, text = _KEY.decode(key)
    family = families.setdefault(metric, _Family("gauge", text))
    mode = mode.removeprefix("live")
    if mode == "all":
        labels["pid"] = place
    where = name, tuple(labels.items())
    old = family.samples.get(where)
    if old is not None:
        if mode == "sum":
            value += old[0]
        elif (
            (mode == "max" and old[0] > value) or (mode == "min" and old[0] < value)
            or (mode == "mostrecent" and old[1] > at)
        ):  # fmt: skip
            value, at = old
    family.samples[where] = (value, at)


def _lines(name: str, family: _Family) -> Iterator[str]:
    shown = _name(f"{name}_total" if family.kind == "counter" else name)
    told = family.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {shown} {told}\n# TYPE {shown} {family.kind}\n"
    for labels, buckets in family.buckets.items():
        count = 0.0
        for bound in sorted(buckets):
            count += buckets[bound]
            yield _sample(f"{name}_bucket", (*labels, ("le", family.bounds[bound])), count)
        yield _sample(f"{name}_count", labels, count)
    for (sample, labels), (value, _at) in family.samples.items():
        yield _sample(sample, labels, value)


def _sample(name: str, labels: _Labels, value: float) -> str:
    if not labels:
        return f"{_name(name)} {_number(value)}\n"
    inner = ",".join(f'{_name(key)}="{_escaped(text)}"' for key, text in sorted(labels))
    return f"{_name(name)}{{{inner}}} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@lru_cache(maxsize=4096)
def _name(given: str) -> str:
    """A name of the plain text format, which knows no others."""
    return _ODD.sub("_", given)


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
