"""Sizes of an instance: what is asked for, what the services of the Bento declare, and what Cloud Run has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.deployspec import DeployService
from bentotool.errors import UsageError

__all__ = ["Size", "size_of"]

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_UNITS = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_GIB = 2**30
_CPUS = (1, 2, 4, 6, 8)
# the least CPUs for so much memory, and the least of both beside a GPU: cloud.google.com/run/docs/configuring
_FOR_MEMORY = ((24, 8), (16, 6), (8, 4), (4, 2))
_BESIDE_GPU = {"nvidia-l4": (4, 16), "nvidia-rtx-pro-6000": (20, 80)}
_USUAL_MEMORY = _GIB


@dataclass(frozen=True)
class Size:
    """What an instance has.

    Args:
        cpu, memory: as the API takes them.
        gpus: 0 or 1.
        gpu_type: of the accelerator; empty without one.
    """

    cpu: str
    memory: str
    gpus: int = 0
    gpu_type: str = ""


def size_of(values: Mapping[str, Any], services: Iterable[DeployService]) -> Size:
    """The size of an instance, which runs all services of a graph: what they declare is added up.

    Raises:
        UsageError: a value that is none, or that Cloud Run has not.
    """
    declared = [service.resources for service in services]
    gpus, kind = _gpus(values, declared)
    least_cpu, least_gib = _BESIDE_GPU.get(kind, (1, 0)) if gpus else (1, 0)
    if values["memory"]:
        memory, bytes_ = str(values["memory"]), _quantity(str(values["memory"]), "memory")
    else:
        asked = sum(_quantity(str(each["memory"]), "memory") for each in declared if each.get("memory"))
        bytes_ = max(asked or _USUAL_MEMORY, least_gib * _GIB)
        memory = f"{math.ceil(bytes_ / 2**20)}Mi"
    if values["cpu"]:
        _quantity(str(values["cpu"]).removesuffix("m"), "cpu")
        return Size(str(values["cpu"]), memory, gpus, kind)
    asked_cpu = sum(_cpus(str(each["cpu"])) for each in declared if each.get("cpu"))
    for_memory = next((cpus for gib, cpus in _FOR_MEMORY if bytes_ > gib * _GIB), 1)
    wanted = max(asked_cpu, for_memory, least_cpu)
    cpu = next((count for count in _CPUS if count >= wanted), math.ceil(wanted))
    return Size(str(cpu), memory, gpus, kind)


def _gpus(values: Mapping[str, Any], declared: list[Mapping[str, Any]]) -> tuple[int, str]:
    text = str(values["gpus"] if values["gpus"] is not None else sum(_count(each.get("gpu")) for each in declared))
    if text not in ("0", "1"):
        raise UsageError(
            f"gpus {text[:40]!r}: an instance of Cloud Run has one GPU at most", hint="--gpus 1, or 0 for none"
        )
    if text == "0":
        return 0, ""
    types = [str(each["gpu_type"]) for each in declared if each.get("gpu_type")]
    kind = str(values["gpu-type"] or (types[0] if types else "nvidia-l4"))
    kind = kind.removeprefix("nvidia-").removeprefix("tesla-").lower()
    return 1, f"nvidia-{kind}"


def _count(value: Any) -> int:
    """GPUs that a service declares: a number, or a list of devices."""
    if isinstance(value, (list, tuple)):
        return len(value)
    text = str(value or 0)
    return int(text) if text.isdigit() else 0


def _quantity(text: str, what: str) -> float:
    found = _QUANTITY.fullmatch(text.strip())
    if found is None or found[2].removesuffix("B") not in _UNITS or not float(found[1]):
        example = "--memory 512Mi, or 4Gi" if what == "memory" else "--cpu 2"
        raise UsageError(f"{what} {text[:40]!r} is not a size", hint=example)
    return float(found[1]) * _UNITS[found[2].removesuffix("B")]


def _cpus(text: str) -> float:
    if text.endswith("m"):
        return _quantity(text[:-1], "cpu") / 1000
    return _quantity(text, "cpu")
