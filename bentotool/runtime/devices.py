"""Who gets which GPU. ``CUDA_VISIBLE_DEVICES`` is the allowed set, in each of its forms.

A number of GPUs is given to a service: its workers share them, and `server_context.worker_index` tells them apart, as
in BentoML. With ``workers=[{"gpus": 1}, ...]`` each worker has its own. No device is given out twice, and shares of one
device never exceed it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.errors import UsageError
from bentotool.runtime.parts import Part

__all__ = ["OFF", "SWITCH", "VISIBLE", "Plan", "make_plan", "visible_devices"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
SWITCH = "BENTOTOOL_GPU_ALLOCATION"
OFF = ("off", "0", "false", "no")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*", re.ASCII)
_NEARLY = 1e-9


def visible_devices(value: str | None, present: Sequence[str]) -> tuple[str, ...]:
    """The devices that a value of ``CUDA_VISIBLE_DEVICES`` allows, each as it may be named in that variable.

    As CUDA reads it: indices and UUIDs (``GPU-…``, ``MIG-…``, unique beginnings too), up to the first that is none of
    them; an entry twice, ``-1``, ``NoDevFiles`` or an empty value leave nothing from there on.

    Args:
        value: None where it is not set.
        present: UUIDs of the machine's devices, in order; an empty text for one whose UUID is not known.
    """
    if value is None:
        return tuple(str(number) for number in range(len(present)))
    found: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if entry.isascii() and entry.isdigit():
            if present and int(entry) >= len(present):
                break
            name = str(int(entry))
        elif _UUID.fullmatch(entry):
            matching = [uuid for uuid in present if uuid and uuid.lower().startswith(entry.lower())]
            if entry.startswith("GPU-") and any(present) and len(matching) != 1:
                break
            name = entry
        else:
            break
        if name in found:  # CUDA then gives none at all
            return ()
        found.append(name)
    return tuple(found)


def present_devices() -> list[str]:
    """UUIDs of the GPUs of this machine."""
    try:
        ran = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        ran = None
    if ran is not None and ran.returncode == 0:
        return [line.strip() for line in ran.stdout.splitlines() if line.strip().startswith("GPU-")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [""] * len(list(folder.iterdir())) if folder.is_dir() else []


@dataclass(frozen=True)
class Plan:
    """Who gets what.

    Attributes:
        allowed: devices that may be given out.
        given: by service, for each worker, its devices; a service that is not here is left as it is.
        notes: what is worth a line.
    """

    allowed: tuple[str, ...] = ()
    given: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def variables(self, service: str, index: int) -> dict[str, str]:
        """What a worker has in its environment; `index` counts from 0."""
        workers = self.given.get(service)
        return {} if workers is None else {VISIBLE: ",".join(workers[min(index, len(workers) - 1)])}

    def to_dict(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The plan as a JSON document."""
        services = [
            {
                "name": part.name,
                "depends": list(part.depends),
                "gpu": part.gpu or None,
                "workers": [
                    {"index": index + 1, "devices": self._devices(part.name, index)} for index in range(part.workers)
                ],
            }
            for part in parts
        ]
        return {"devices": list(self.allowed), "services": services, "notes": list(self.notes)}

    def _devices(self, service: str, index: int) -> list[str] | None:
        workers = self.given.get(service)
        return None if workers is None else list(workers[min(index, len(workers) - 1)])


class _Free:
    """What is left of each device."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.left = dict.fromkeys(allowed, 1.0)

    def take(self, amount: float, who: str) -> tuple[str, ...]:
        if amount < 1:
            fitting = [name for name, left in self.left.items() if left + _NEARLY >= amount]
            if not fitting:
                raise self._short(who, f"{amount:g} of a GPU")
            # the fullest that it fits on: whole ones stay whole
            chosen = [min(fitting, key=lambda name: self.left[name])]
            self.left[chosen[0]] -= amount
            return tuple(chosen)
        if amount != int(amount):
            raise UsageError(f"{who} asks for {amount:g} GPUs", hint="whole numbers, or a share below 1")
        whole = [name for name, left in self.left.items() if left > 1 - _NEARLY][: int(amount)]
        if len(whole) < amount:
            raise self._short(who, f"{amount:g} GPU{'s' if amount > 1 else ''}")
        for name in whole:
            self.left[name] = 0.0
        return tuple(whole)

    def take_these(self, positions: Sequence[int], who: str) -> tuple[str, ...]:
        names = list(self.left)
        if len(set(positions)) != len(positions):
            raise UsageError(f"{who} names a GPU twice: {list(positions)}")
        for position in positions:
            if not 0 <= position < len(names):
                raise UsageError(f"{who} asks for GPU {position}, there are {len(names)}")
            if self.left[names[position]] < 1 - _NEARLY:
                raise UsageError(f"{who} asks for GPU {position}, which another one has")
        for position in positions:
            self.left[names[position]] = 0.0
        return tuple(names[position] for position in positions)

    def _short(self, who: str, what: str) -> UsageError:
        whole = sum(left > 1 - _NEARLY for left in self.left.values())
        return UsageError(
            f"{who} asks for {what}, {whole} of {len(self.left)} are free",
            hint=f"ask for less in resources.gpu, or {SWITCH}=off to give out none",
        )


def make_plan(
    parts: Sequence[Part], environment: Mapping[str, str] = os.environ, present: Sequence[str] | None = None
) -> Plan:
    """Decide who gets which GPU. Nothing is looked for where no service asks for one.

    Args:
        parts: the services.
        environment: has ``CUDA_VISIBLE_DEVICES``.
        present: UUIDs of the machine's devices; None to ask the machine.

    Raises:
        UsageError: a service asks for more than there is.
    """
    asking = [part for part in parts if part.wants_gpu]
    if not asking:
        return Plan()
    if environment.get(SWITCH, "").lower() in OFF:
        return Plan(notes=(f"{SWITCH} is off: no GPU is given out",))
    found = present_devices() if present is None else present
    allowed = visible_devices(environment.get(VISIBLE), found)
    if not allowed:
        why = f"{VISIBLE}={environment[VISIBLE]!r} allows none" if VISIBLE in environment else "this machine has none"
        names = ", ".join(part.name for part in asking)
        return Plan(notes=(f"no GPU: {why}; {names} runs without",))
    free = _Free(allowed)
    given: dict[str, tuple[tuple[str, ...], ...]] = {}
    # those that name devices first, then whole ones, then shares: so a share never takes what was asked for
    for part in sorted(
        asking, key=lambda part: (not any(isinstance(g, tuple) for g in part.worker_gpus), part.gpu < 1)
    ):
        who = f"service {part.name}"
        if part.worker_gpus:
            given[part.name] = tuple(
                free.take_these(wanted, who) if isinstance(wanted, tuple) else free.take(wanted, who) if wanted else ()
                for wanted in part.worker_gpus
            )
        else:
            given[part.name] = (free.take(part.gpu, who),) * part.workers
    return Plan(allowed, given)
