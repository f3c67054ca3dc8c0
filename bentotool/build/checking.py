"""Building a project twice, in two ways that must not matter, and saying what differs.

The first build is as the person would make it. The second has another folder with its files made in another order and
dated otherwise, another umask, time zone, locale, home and hash seed. Neither leaves anything in the store or the
project, and neither uses what earlier builds left but the project's lock.

``python -m bentotool.build.checking`` is one of the two; its request comes on stdin and its answer goes to a file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess  # the interpreter is started with an argument list
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.result import BuildOptions
from bentotool.errors import BentotoolError, BuildError, NotFoundError
from bentotool.oci.layout import Layout

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["Checked", "check_build"]

_LEFT_OUT = (".git", ".venv", "venv", "__pycache__", "node_modules", ".tox", ".nox")
_OTHER = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "PYTHONHASHSEED": "4242", "COLUMNS": "40"}
_TIMEOUT_S = 3600.0
_FOLLOWS = "file home/bento/bento.json differs"


@dataclass(frozen=True)
class Checked:
    """What two builds gave.

    Args:
        digests: of the two Bentos.
        differences: one line for each layer, file or part that differs.
    """

    name: str
    version: str
    digests: tuple[str, str]
    differences: tuple[str, ...]

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def equal(self) -> bool:
        return self.digests[0] == self.digests[1]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the command prints."""
        return {
            "name": self.name,
            "version": self.version,
            "tag": self.tag,
            "equal": self.equal,
            "digest": self.digests[0],
            "other_digest": self.digests[1],
            "differences": list(self.differences),
        }


def check_build(project: Path, *, layout: Layout, plugins: Plugins, options: BuildOptions) -> Checked:
    """Build a project twice and compare.

    Raises:
        BentotoolError: a build fails; as :func:`bentotool.build.api.build_bento`.
    """
    if not project.is_dir():
        raise NotFoundError(f"no folder {str(project)!r}", hint="bentotool init DIR makes a project")
    request = {
        "store": str(layout.root.absolute()),
        "options": asdict(replace(options, fresh=True, dry_run=True, explain=False)),
        "disabled": sorted(plugins.disabled),
    }
    with tempfile.TemporaryDirectory(prefix="bentotool-check-") as scratch:
        folder = Path(scratch) / "another place" / project.resolve().name
        one = _build({**request, "umask": 0o022}, project, {"PYTHONHASHSEED": "1"}, Path(scratch) / "1")
        _copy(project.resolve(), folder, layout.root)
        (folder / "bento.lock").write_text(one["lock"], encoding="utf-8", newline="\n")
        (Path(scratch) / "home").mkdir()
        home = dict.fromkeys(("HOME", "USERPROFILE"), str(Path(scratch) / "home"))
        other = _build({**request, "umask": 0o077}, folder, {**_OTHER, **home}, Path(scratch) / "2")
    differences = () if one["digest"] == other["digest"] else tuple(_differences(one, other))
    if len(differences) > 1:  # it holds the version, which is made from all the rest
        differences = tuple(line for line in differences if line != _FOLLOWS)
    return Checked(one["name"], one["version"], (one["digest"], other["digest"]), differences)


def _build(request: Mapping[str, Any], project: Path, environment: Mapping[str, str], scratch: Path) -> dict[str, Any]:
    scratch.mkdir()
    answer = scratch / "answer.json"
    asked = {**request, "project": str(project.absolute()), "scratch": str(scratch), "answer": str(answer)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bentotool.build.checking"],
            input=json.dumps(asked).encode(),
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"a build took more than {_TIMEOUT_S:.0f} s") from None
    try:
        document: dict[str, Any] = json.loads(answer.read_bytes())
    except (OSError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise BuildError(f"a build ended with status {done.returncode}: {''.join(last)[:300]}") from None
    if "error" in document:
        raise _failed(document)
    return document


def _failed(document: Mapping[str, Any]) -> BentotoolError:
    """The failure of a build in the other process, as if it had happened here."""
    error = document["error"]
    kinds: list[type[BentotoolError]] = [BentotoolError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    fitting = [kind for kind in kinds if kind.__name__ == document.get("kind")]
    made = (fitting or [BuildError])[0](str(error.get("message", "")), hint=error.get("hint"))
    return made


def _copy(source: Path, target: Path, store: Path) -> None:
    """A copy of a project whose files are made in reverse order and are of another time."""
    target.mkdir(parents=True)
    kept = os.path.realpath(store)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name, reverse=True):
        place = target / entry.name
        if entry.name in _LEFT_OUT or os.path.realpath(entry.path) == kept:
            continue
        if entry.is_symlink():
            inside = os.path.relpath(os.path.realpath(entry.path), source)
            place.symlink_to(os.readlink(entry.path) if inside.startswith("..") else inside)
        elif entry.is_dir():
            _copy(Path(entry.path), place, store)
        elif entry.is_file():
            shutil.copyfile(entry.path, place)
            os.utime(place, (1, 1))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The most telling level first: files and parts; layers where no part tells."""
    told = False
    for what in ("file", "setting", "API"):
        first, second = one[what], other[what]
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                told = True
                how = "is in one alone" if name not in first or name not in second else "differs"
                yield f"{what} {name} {how}"
    for name in one["layer"]:
        if one["layer"][name] != other["layer"].get(name) and not (told and name in ("code", "api", "config")):
            yield f"layer {name} differs"


def _one(request: Mapping[str, Any]) -> dict[str, Any]:
    """One build: everything but the name, in a layout that is thrown away."""
    from bentotool.build.memory import Memory
    from bentotool.build.pack import code_files, write
    from bentotool.build.planning import Work
    from bentotool.build.room import Room
    from bentotool.oci.descriptor import Manifest
    from bentotool.oci.digest import sha256_bytes
    from bentotool.plugins import load_plugins

    os.umask(request["umask"])
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in request["options"].items()}
    project, layout, spare = Path(request["project"]), Layout(Path(request["store"])), Layout(Path(request["scratch"]))
    room = Room(layout.root, writing=False)
    memory = Memory(room, None, fresh=True)
    options = BuildOptions(**given)
    plan = Work(project, layout, load_plugins(request["disabled"]), options, lambda _: None, room, memory).plan().plan
    descriptor, _ = write(plan, project, spare)
    manifest = Manifest.from_bytes(spare.read(descriptor.digest))
    api = json.loads(plan.api)
    files = {file.name: file.digest for file in plan.files}
    files |= {name: sha256_bytes(content) for name, content in code_files(plan).items()}
    names = {layer.media_type.rpartition("bento.")[2].partition(".")[0]: layer.digest for layer in manifest.layers}
    return {
        "name": plan.name,
        "version": plan.version,
        "digest": descriptor.digest,
        "lock": plan.lock.text,
        "file": files,
        "setting": {k: v for k, v in _flat(plan.config()) if k not in ("version", "lock.digest", "runtime.digest")},
        "API": dict(_flat(api)),
        "layer": {**names, "config": manifest.config.digest},
    }


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a document by dotted path."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not items:
        yield above, value
    for key, item in items:
        yield from _flat(item, f"{above}.{key}" if above else str(key))


def main() -> int:
    """Read a request, build, write the answer; 0, or 1 where it is a failure."""
    request = json.loads(sys.stdin.buffer.read())
    try:
        answer, status = _one(request), 0
    except BentotoolError as error:
        answer, status = {**error.to_dict(), "kind": type(error).__name__}, 1
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
