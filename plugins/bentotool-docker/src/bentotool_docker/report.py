"""What a failed build said, as one line and the next step."""

from __future__ import annotations

import re

from bentotool.build.uvrun import explain
from bentotool.errors import BentotoolError, BuildError, NotFoundError, RemoteError
from bentotool.images.recipe import MARK
from bentotool.imagespec import ImagePlan

__all__ = ["explained_build"]

_STEP = re.compile(r"^ > \[(?P<stage>[a-z]+)[^\]]*\] (?P<what>.*?):?$\n(?P<said>.*?)^-{3,}$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"^(?:#\d+ )?\d+\.\d+ ", re.MULTILINE)
_NO_PYTHON = re.compile(rf"^(?:#\d+ )?(?:\d+\.\d+ )?{MARK} no-python:", re.MULTILINE)  # said, not the script's text
_END = re.compile(r"exit (?:code|status)[: ]+(\d+)|returned a non-zero code: (\d+)")
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_ABSENT = re.compile(
    r"failed to resolve source metadata|pull access denied|manifest unknown|no such image|not found: manifest",
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
    found = _STEP.search(report)
    if found is None and _ABSENT.search(report):
        return NotFoundError(
            f"base image {base}: {_last(report)}", hint="name another with --base, or log in to its registry"
        )
    said = _TIME.sub("", found["said"]) if found else report
    if found and found["stage"] == "packages" and "@compilers" not in found["what"]:
        return _packages(plan, said)
    return _step(plan, found["what"] if found else "", said, report)


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
            if "run" in step and _shown(str(step["run"])) in what:
                return f"command {str(step['run'])[:60]!r}"
            packages = step.get("system_packages")
            if isinstance(packages, (list, tuple)) and packages and _shown(str(packages[-1])) in what[-400:]:
                return f"system packages {', '.join(map(str, packages))[:100]}"
    return "a step"


def _shown(text: str) -> str:
    return text[:40]


def _last(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines()]
    kept = [line for line in lines if line and not re.fullmatch(r"[-=\s]*|Dockerfile:\d+|\d+ \|.*|>>> .*", line)]
    reasons = [line for line in kept if _REASON.match(line)]
    text = " | ".join((reasons or kept)[-_LINES:]) or "it said nothing"
    return "".join(char if char.isprintable() else " " for char in text)[:400].removeprefix("ERROR: ")
