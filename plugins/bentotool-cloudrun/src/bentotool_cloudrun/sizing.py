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
# the least memory for so many CPUs, and the most in all
_LEAST_MEMORY = ((8, 4), (6, 4), (4, 2))
_MOST_MEMORY, _MOST_BESIDE_GPU = 32, 176
_LEAST_CPU, _LEAST_BYTES = 0.08, 128 * 2**20
_FOR_PARTS = ((_GIB, 1.0), (_GIB // 2, 0.5))  # the least part of a CPU for more memory than that
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
    cpus = _asked_cpus(str(values["cpu"]), kind if gpus else "") if values["cpu"] else None
    if values["memory"]:
        memory, bytes_ = _asked_memory(str(values["memory"]), kind if gpus else "")
    else:
        asked = sum(_quantity(str(each["memory"]), "memory") for each in declared if each.get("memory"))
        bytes_ = max(asked or _USUAL_MEMORY, least_gib * _GIB, _least_memory(cpus or 0))
        memory = ""
    if cpus is not None:
        _check_pair(str(values["cpu"]), cpus, memory or f"{math.ceil(bytes_ / 2**20)}Mi", bytes_)
        return Size(str(values["cpu"]), memory or f"{math.ceil(bytes_ / 2**20)}Mi", gpus, kind)
    asked_cpu = sum(_cpus(str(each["cpu"])) for each in declared if each.get("cpu"))
    wanted = max(asked_cpu, _cpus_for(bytes_), least_cpu)
    cpu = next((count for count in _CPUS if count >= wanted), math.ceil(wanted))
    if not memory:
        memory = f"{math.ceil(max(bytes_, _least_memory(cpu)) / 2**20)}Mi"
    return Size(str(cpu), memory, gpus, kind)


def _cpus_for(bytes_: float) -> int:
    """The least CPUs beside so much memory."""
    return next((cpus for gib, cpus in _FOR_MEMORY if bytes_ > gib * _GIB), 1)


def _least_memory(cpus: float) -> int:
    """The least memory beside so many CPUs, in bytes; 0 where any will do."""
    return next((gib * _GIB for count, gib in _LEAST_MEMORY if cpus >= count), 0)


def _asked_cpus(text: str, accelerator: str) -> float:
    """CPUs as an option says them.

    Raises:
        UsageError: Cloud Run has no such number.
    """
    cpus = _cpus(text)
    least = _BESIDE_GPU.get(accelerator, (0, 0))[0]
    if cpus in _CPUS or _LEAST_CPU <= cpus < 1 or (least > max(_CPUS) and cpus >= least and cpus == int(cpus)):
        return cpus
    raise UsageError(
        f"cpu {text[:40]!r}: Cloud Run gives 1, 2, 4, 6 or 8 CPUs, or less than one from {_LEAST_CPU:g} on",
        hint=f"--cpu {next((count for count in _CPUS if count >= cpus), max(_CPUS))}",
    )


def _asked_memory(text: str, accelerator: str) -> tuple[str, float]:
    """Memory as an option says it, as the API takes it, and in bytes.

    Raises:
        UsageError: Cloud Run does not give so much, or so little.
    """
    bytes_ = _quantity(text, "memory")
    most = _MOST_BESIDE_GPU if _BESIDE_GPU.get(accelerator, (0, 0))[1] > _MOST_MEMORY else _MOST_MEMORY
    if not _LEAST_BYTES <= bytes_ <= most * _GIB:
        nearest = "128Mi" if bytes_ < _LEAST_BYTES else f"{most}Gi"
        raise UsageError(f"memory {text[:40]!r}: Cloud Run gives from 128Mi to {most}Gi", hint=f"--memory {nearest}")
    plain = "".join(text.split()).removesuffix("B")
    return plain.replace("k", "K") if plain.endswith("k") else plain, bytes_


def _check_pair(cpu: str, cpus: float, memory: str, bytes_: float) -> None:
    """Refuse CPUs and memory that Cloud Run does not give together, which it would say after the image was pushed."""
    needed = next((part for bound, part in _FOR_PARTS if bytes_ > bound), 0.0) if cpus < 1 else float(_cpus_for(bytes_))
    if needed > cpus:
        raise UsageError(f"memory {memory} takes a cpu of {needed:g} or more in Cloud Run, not {cpu}",
                         hint=f"--cpu {needed:g}, or less --memory")  # fmt: skip
    if bytes_ < (least := _least_memory(cpus)):
        raise UsageError(
            f"cpu {cpu} takes a memory of {least // _GIB}Gi or more in Cloud Run, not {memory}",
            hint=f"--memory {least // _GIB}Gi, or fewer CPUs",
        )


def _gpus(values: Mapping[str, Any], declared: list[Mapping[str, Any]]) -> tuple[int, str]:
    text = str(values["gpus"] if values["gpus"] is not None else sum(_count(each.get("gpu")) for each in declared))
    if text not in ("0", "1"):
        raise UsageError(
            f"gpus {text[:40]!r}: an instance of Cloud Run has one GPU at most", hint="--gpus 1, or 0 for none"
        )
    if text == "0":
        if alone := next((name for name in ("gpu-type", "gpu-zonal-redundancy") if values[name]), None):
            raise UsageError(f"--{alone} has no effect without a GPU", hint=f"--gpus 1, or leave --{alone} out")
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
