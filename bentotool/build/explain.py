"""What changed since the last build of a name, and what each step of a build cost."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.result import BuildResult
from bentotool.build.room import Room
from bentotool.oci.descriptor import canonical_json

if TYPE_CHECKING:
    from bentotool.build.planning import Planned

__all__ = ["Change", "Past", "explanation", "inputs_of", "plan_digest"]

_STEPS = {"service": "service", "lock": "lock", "wheel": "wheel", "pack": "bento"}
_UNSAID = 80
"""Values longer than this are not shown; a person sees that they changed."""
_NAMED = 3
_FILES = ", files "
_SHOWN = ("arguments", "models", "packages", "runtime", "target")
"""Inputs whose values are shown. Of the others the names are enough, and a value may be nobody's business."""


@dataclass(frozen=True)
class Change:
    """One input that differs.

    Args:
        input: ``files``, ``config``, ``arguments``, ``requirements``, ``packages``, ``models``, ``runtime``,
            ``service``, ``plugins`` or ``target``.
        change: ``added``, ``removed`` or ``changed``.
        name: which file, key, package, model, or part.
        before, after: values, where they may be shown.
    """

    input: str
    change: str
    name: str
    before: str = ""
    after: str = ""

    def to_dict(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value}


class Past:
    """The inputs of the last build of a name in a project, kept in a room."""

    def __init__(self, room: Room, folder: Path, name: str) -> None:
        self._room, self._key = room, room.key("past", os.path.realpath(folder), name)
        self.document = room.read(self._key)

    def keep(self, document: Mapping[str, Any]) -> None:
        """Take the place of what was there."""
        self._room.write(self._key, dict(document))


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plan_digest(planned: Planned) -> str:
    """Digest of the whole plan: equal plans make equal Bentos."""
    return _digest(planned.plan.to_dict())


def inputs_of(planned: Planned) -> dict[str, dict[str, str]]:
    """All inputs of a plan: by kind, then by name, a value or its digest."""
    plan, addition, probe = planned.plan, planned.addition, planned.probe
    described = {
        "models": list(probe.models), "schema": probe.schema, "API document": probe.openapi, "config": probe.config,
        "labels": probe.labels, "envs": [dict(env) for env in probe.envs], "image": probe.image,
        "requirements": list(probe.requirements), "description": probe.description, "class": probe.service,
        "services": [dict(service) for service in probe.services],
    }  # fmt: skip
    added = {f"file {name}": hashlib.sha256(content).hexdigest() for name, content in addition.files.items()}
    added |= {f"requirement {line}": "" for line in addition.requirements}
    added |= {f"variable {name}": _digest(value) for name, value in addition.env.items()}
    added |= {f"label {name}": _digest(value) for name, value in addition.labels.items()}
    added |= {f"loader {name}": hashlib.sha256(content).hexdigest() for name, content in plan.loaders.items()}
    added |= {f"middleware {target}": "" for target in plan.middleware}
    return {
        "files": {file.name: file.digest for file in plan.files},
        "config": {key: _digest(value) for key, value in _keys(asdict(planned.config)) if not key.startswith("args.")},
        "arguments": {item["name"]: _argument(item) for item in plan.arguments},
        "requirements": dict.fromkeys((*planned.requirements.lines, *planned.requirements.constraints), ""),
        "packages": _packages(plan.lock.text),
        "models": {model.alias: f"{model.name}:{model.version}@{model.digest[:19]}" for model in plan.models},
        "runtime": {"version": plan.runtime_version, "content": hashlib.sha256(plan.wheel).hexdigest()[:12]},
        "service": {name: _digest(value) for name, value in described.items()},
        "plugins": added,
        "target": {"platform": plan.lock.platform, "python": plan.python},
    }


def _packages(lock: str) -> dict[str, str]:
    """Version and digest of the hashes of each package: a packed one may change and keep its version."""
    found: dict[str, str] = {}
    for pin in re.split(r"\n(?=[A-Za-z0-9])", f"\n{lock}")[1:]:
        name, _, version = pin.split(" \\")[0].split(" ;")[0].strip().replace(" @ ", "==").partition("==")
        hashes = sorted(re.findall(r"--hash=sha256:[0-9a-f]{64}", pin))
        found[name] = f"{version}{_FILES}{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:8]}"
    return found


def _versions(old: str | None, new: str | None) -> tuple[str, str]:
    """Two states of a package as a person reads them: files are named where nothing else differs."""
    versions = [(text or "").partition(_FILES)[0] for text in (old, new)]
    return (old or "", new or "") if versions[0] == versions[1] else (versions[0], versions[1])


def _argument(item: Mapping[str, Any]) -> str:
    """The value of an argument as it is recorded; of a secret nothing is."""
    if item["secret"]:
        return "secret"
    return canonical_json(item["value"]).decode() if "value" in item else "default"


def _keys(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _keys(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", _plain(item)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, bool, type(None))) else repr(value)


def _changes(before: Mapping[str, Any], after: Mapping[str, Mapping[str, str]]) -> Iterator[Change]:
    for kind, now in after.items():
        then = before.get(kind)
        then = then if isinstance(then, Mapping) else {}
        for name in sorted(now.keys() | then.keys()):
            old, new = then.get(name), now.get(name)
            if old != new:
                change = "added" if old is None else "removed" if new is None else "changed"
                shown = (str(old or ""), str(new or "")) if kind in _SHOWN else ("", "")
                shown = _versions(*shown) if kind == "packages" else shown
                yield Change(kind, change, name, *(value if len(value) <= _UNSAID else "" for value in shown))


def explanation(
    result: BuildResult,
    past: Mapping[str, Any] | None,
    inputs: Mapping[str, Mapping[str, str]],
    reasons: Mapping[str, str],
) -> dict[str, Any]:
    """What ``--explain`` says, as a JSON document.

    Args:
        past: the document of the last build of this name, or None.
        reasons: why a step could not be answered from an earlier build, by step.

    Returns:
        ``{"since": {"tag", "digest"} | None, "changes": [...], "steps": [{"step", "seconds", "cache", "because"}]}``;
        ``cache`` is ``hit``, ``miss`` or, for a step that never is answered from an earlier build, absent.
    """
    since = {"tag": past["tag"], "digest": past["digest"]} if past and "tag" in past and "digest" in past else None
    before = past.get("inputs") if past else None
    changes = list(_changes(before, inputs)) if since and isinstance(before, Mapping) else []
    reasons = {**_causes(changes), **reasons}
    return {
        "since": since,
        "changes": [change.to_dict() for change in changes],
        "steps": [_step(step, seconds, result.cached, reasons) for step, seconds in result.seconds.items()],
    }


def _causes(changes: Sequence[Change]) -> dict[str, str]:
    """Why the later steps had to be done."""
    asked = [change.name for change in changes if change.input in ("requirements", "target")]
    kinds = list(dict.fromkeys(change.input for change in changes))
    runtime = [change for change in changes if change.input == "runtime"]
    named = {"lock": asked, "pack": kinds, "wheel": ["bentotool"] if runtime else []}
    return {
        step: f"{', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''} changed"
        for step, names in named.items()
        if names
    }


def _step(step: str, seconds: float, cached: Mapping[str, bool | int], reasons: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"step": step, "seconds": round(seconds, 3)}
    if step == "check":
        said["cache"] = "hit" if cached.get("build") else "miss"
    elif step == "files":
        said["cache"] = "miss" if cached.get("files_read") else "hit"
        said["read"], said["unchanged"] = cached.get("files_read", 0), cached.get("files", 0)
    elif _STEPS.get(step) in cached:
        said["cache"] = "hit" if cached[_STEPS[step]] else "miss"
    if said.get("cache") == "miss" and reasons.get(step):
        said["because"] = reasons[step]
    return said
