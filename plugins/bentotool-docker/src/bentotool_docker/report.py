"""What a failed build said, as one line and the next step."""

from __future__ import annotations

import json
import re

from bentotool.build.uvrun import explain
from bentotool.errors import BentotoolError, BuildError, NotFoundError, RemoteError
from bentotool.images.buildscripts import CONDA_PREFIX, MARK
from bentotool.images.recipe import CONDA_VARIABLE
from bentotool.imagespec import ImagePlan

__all__ = ["explained_build"]

_STEP = re.compile(r"^ > \[[^\]]*\] (?P<what>.*?):?$\n(?P<said>.*?)^-{3,}$", re.MULTILINE | re.DOTALL)
_ANNOUNCED = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: .*$", re.MULTILINE)  # podman, buildah
_FAILED = re.compile(r"^(?:Error: )?(?:error )?building at STEP \"(?P<what>.*?)\": ", re.MULTILINE | re.DOTALL)
_NOISE = re.compile(r"^(?:subprocess exited with status \d+|exit status \d+)$\n?", re.MULTILINE)
_TIME = re.compile(r"^(?:#\d+ )?\d+\.\d+ ", re.MULTILINE)
_LINE = rf"^(?:#\d+ )?(?:\d+\.\d+ )?{MARK}"  # said, not the script's text
_NO_PYTHON = re.compile(rf"{_LINE} no-python:", re.MULTILINE)
_NO_CONDA = re.compile(rf"{_LINE} no-conda:", re.MULTILINE)
_END = re.compile(r"exit (?:code|status)[: ]+(\d+)|returned a non-zero code: (\d+)")
_FULL = re.compile(r"no space left on device|disk quota exceeded|not enough space", re.IGNORECASE)
_ABSENT = re.compile(
    r"failed to resolve source metadata|pull access denied|manifest unknown|no such image|not found: manifest"
    r"|initializing source|short-name resolution",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"temporary failure (?:in name resolution|resolving)|could not resolve|connection (?:refused|timed out)"
    r"|network is unreachable",
    re.IGNORECASE,
)
_WHEEL = re.compile(r"no wheels|has no (?:usable )?wheels|building from source is disabled|only.binary", re.IGNORECASE)
_FOREIGN = re.compile(r"exec format error", re.IGNORECASE)
_REASON = re.compile(r"(?:E|error|fatal|[\w.]*Error): ", re.IGNORECASE)
_LINES = 3


def explained_build(plan: ImagePlan, report: str, base: str) -> BentotoolError:
    """Why a build failed.

    Args:
        report: what the program wrote on its error output, and on the other one.
        base: reference of the base image.
    """
    report = re.sub(r"//[^/@\s]+@", "//***@", report)
    if _FULL.search(report):
        return BuildError(
            f"the image of {plan.tag} cannot be made: no space left on the engine's disk",
            hint="docker system df shows what takes it; docker builder prune frees what builds left",
        )
    if _NO_CONDA.search(report):
        return BuildError(
            f"the image that makes conda's environment for {plan.tag} has none of micromamba, mamba and conda",
            hint=f"correct {CONDA_VARIABLE}, or unset it",
        )
    if _NO_PYTHON.search(report):
        return BuildError(
            f"base image {base} has no Python {plan.python}",
            hint=f"name one that has it: --base docker.io/library/python:{plan.python}-slim",
        )
    if _FOREIGN.search(report):
        return BuildError(
            f"the engine cannot run programs of {plan.platform}, which the image of {plan.tag} needs",
            hint="give it an emulator (qemu-user-static), build on such a machine, or use --builder oci",
        )
    what, said = _failed(report)
    if not what and _ABSENT.search(report):
        return NotFoundError(
            f"base image {base}: {_last(report)}", hint="name another with --base, or log in to its registry"
        )
    if "source=packages,target=" in what:
        return _packages(plan, said)
    if CONDA_PREFIX in what and "create --yes" in what:
        return BuildError(
            f"the conda packages of {plan.tag} cannot be installed for {plan.platform}: {_last(said)}",
            hint="check conda.dependencies and conda.channels; in a network with a proxy: --ca-bundle FILE",
        )
    return _step(plan, what, said, report)


def _failed(report: str) -> tuple[str, str]:
    """The step that failed, empty where none is named, and what it said."""
    if found := _STEP.search(report):
        return found["what"], _TIME.sub("", found["said"])
    found = _FAILED.search(report)
    if found is None:
        return "", report
    before = report[: found.start()]
    start = max((each.end() for each in _ANNOUNCED.finditer(before)), default=0)
    return found["what"], _NOISE.sub("", before[start:])


def _packages(plan: ImagePlan, said: str) -> BentotoolError:
    error = explain(said, offline=False)
    reason = re.sub(r"^requirements cannot be resolved:? ?", "", error.message)
    message = f"the packages of {plan.tag} cannot be installed for {plan.platform}: {reason}"
    if isinstance(error, RemoteError):
        return RemoteError(message, hint="check the network of the engine; in one with a proxy: --ca-bundle FILE")
    if _WHEEL.search(said):
        hint = f"pack a wheel for {plan.platform} (python.wheels), or allow its source and build the Bento again"
        return BuildError(message, hint=hint)
    return BuildError(message, hint=error.hint)


def _step(plan: ImagePlan, what: str, said: str, report: str) -> BentotoolError:
    end = _END.search(report)
    status = f" (exit status {end[1] or end[2]})" if end else ""
    name = _named(plan, what)
    message = f"{name} of the image of {plan.tag} failed{status}: {_last(said)}"
    if _NETWORK.search(said):
        return BuildError(message, hint="the step has no network: check the engine's, and drop --offline")
    if name.startswith("system package"):
        return BuildError(message, hint="check the names under docker.system_packages for the base's distribution")
    return BuildError(
        message, hint="correct it and build again; bentotool containerize --print-dockerfile shows all steps"
    )


def _named(plan: ImagePlan, what: str) -> str:
    """Which step a builder's line speaks of."""
    for when, steps in (("before", plan.steps), ("after", plan.post_steps)):
        for index, step in enumerate(steps):
            if "script" in step and f"/scripts/{when}-{index}" in what:
                return f"script {str(step['script'])[:100]}"
            if "run" in step and _stands_in(str(step["run"]), what):
                return f"command {str(step['run'])[:60]!r}"
            packages = step.get("system_packages")
            if isinstance(packages, (list, tuple)) and packages and _stands_in(str(packages[-1]), what[-400:]):
                return f"system packages {', '.join(map(str, packages))[:100]}"
    return "a step"


def _stands_in(text: str, what: str) -> bool:
    """Whether a builder's line has a word of the Dockerfile, as it is written or as it is meant."""
    start = text[:40]
    return start in what or json.dumps(start)[1:-1].replace("<", "\\u003c") in what


def _last(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines()]
    kept = [line for line in lines if line and not re.fullmatch(r"[-=\s]*|Dockerfile:\d+|\d+ \|.*|>>> .*", line)]
    reasons = [line for line in kept if _REASON.match(line)]
    text = " | ".join((reasons or kept)[-_LINES:]) or "it said nothing"
    return "".join(char if char.isprintable() else " " for char in text)[:400].removeprefix("ERROR: ")
