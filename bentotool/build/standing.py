"""Answering a build in which nothing changed, without planning it.

A finished build leaves a record of everything its plan was made from: the project's folders and files, the files that
configure it, what importing the service depended on, the models' digests, the plugins, and bentotool itself. While all
of it stands, and the Bento is still the newest of its name with all its blobs, the same answer is given again. Whatever
cannot be told leads to a plan, never to a guess.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.arguments import read_arguments
from bentotool.build.journal import Journal
from bentotool.build.media import KIND
from bentotool.build.memory import Memory, document_digest, service_environment
from bentotool.build.result import BuildOptions, BuildResult
from bentotool.build.room import Room
from bentotool.build.stamps import Stamp, as_stamp, settled, stamp_at
from bentotool.errors import BentotoolError
from bentotool.models.declared import find_model, is_origin
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore

if TYPE_CHECKING:
    from bentotool.build.contain import Noted
    from bentotool.build.memory import Finding
    from bentotool.build.planning import Planned
    from bentotool.plugins import Plugins

__all__ = ["Records"]

_NO_MATTER = ("dry_run", "explain", "fresh", "offline", "probe_timeout", "replace", "show_output")
"""Options that do not change what an unchanged build answers."""
_TAKING_PART = frozenset(
    {"bentotool_plan_build", "bentotool_base_image", "bentotool_after_build", "bentotool_runtime_middleware"}
)
_SMALL = 16 << 20

Looks = dict[str, list[Any]]
"""Stamp and digest by path; an absent file has an empty stamp."""


@dataclass(frozen=True)
class Records:
    """The records of one project, built with some options."""

    folder: Path
    layout: Layout
    plugins: Plugins
    options: BuildOptions
    room: Room

    def _name(self, kind: str) -> str:
        given: dict[str, Any] = {name: value for name, value in asdict(self.options).items() if name not in _NO_MATTER}
        if kind == "journal":  # the same files whatever the Bento is called
            given = {"file": self.options.file}
        else:
            given["args"] = read_arguments(self.options.arg_file, self.options.args)
        if self.options.file:  # which may be named from the working directory
            given["from"] = os.getcwd()
        return self.room.key(kind, os.path.realpath(self.folder), str(self.layout.root.absolute()), given)

    def journal(self) -> Journal | None:
        """The journal of the last build."""
        return Journal.from_dict(self.room.read(self._name("journal")))

    def standing(self, before: Journal | None) -> tuple[BuildResult | None, str]:
        """The answer of the last build if it still holds, else None and what changed."""
        start, read_ns = time.monotonic(), time.time_ns()
        record = self.room.read(self._name("build"))
        if record is None or before is None:
            return None, "not built before"
        try:
            changed = self._difference(record, before)
            if isinstance(changed, str):
                return None, f"{changed} changed"
            result = BuildResult(**record["result"], seconds={"check": time.monotonic() - start}, lock_reused=True)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None, "not built before"
        if changed.misses or any(not settled(s, record["read_ns"]) for s in _stamps(record["reads"])):
            record["read_ns"] = read_ns
            record["reads"] = {path: [stamp_at(path) or [], digest] for path, (_, digest) in record["reads"].items()}
            self.room.write(self._name("journal"), changed.to_dict())
            self.room.write(self._name("build"), record)
        else:
            self.room.used(self._name("journal"))
            self.room.used(self._name("build"))
        return result, ""

    def _difference(self, record: dict[str, Any], before: Journal) -> Journal | str:
        """The project's new journal, or what is not as it was."""
        if record["tool"] != _tool():
            return "bentotool"
        if record["plugins"] != self._plugins():
            return "plugins"
        if changed := _changed(record["reads"], record["read_ns"]) or _changed(record["programs"], record["read_ns"]):
            return changed
        if any(_names(path) != names for path, names in record["folders"].items()):
            return "a folder"
        journal = before.stands(self.folder)
        if journal is None or _tree(journal) != record["tree"]:
            return "the project's files"
        service, root = record["service"], self.layout.root
        environment = service_environment(root)
        finding = Memory(self.room, before).recall(
            self.folder, service["name"], root, environment, given=service["given"]
        )
        if not finding.hit or document_digest(finding.document) != service["digest"]:
            return "the service"
        refs = RefStore(self.layout)
        for reference, digest in record["models"].items():
            try:
                if self._model(refs, reference) != digest or not self.layout.has(digest):
                    return f"model {reference}"
            except BentotoolError:
                return f"model {reference}"
        return journal if self._stored(refs, record) else "the Bento in the store"

    def _model(self, refs: RefStore, reference: str) -> str:
        if not is_origin(reference):
            return refs.get("models", reference).digest
        from bentotool.models.store import ModelStore

        return find_model(ModelStore(self.layout), reference).digest

    def _stored(self, refs: RefStore, record: dict[str, Any]) -> bool:
        """Whether the Bento is there, whole, and what ``latest`` means."""
        result = record["result"]
        newest = next(iter(refs.list(KIND, result["name"])), None)
        if newest is None or (newest.tag, newest.digest) != (result["version"], result["digest"]):
            return False
        return all(self.layout.has_sized(digest, size) for digest, size in record["blobs"].items())

    def _plugins(self) -> list[list[str]]:
        return [[p.name, p.target, p.distribution, p.version] for p in self.plugins.selection()]

    def keep(
        self, planned: Planned, finding: Finding | None, noted: Noted, ref: Ref, started_ns: int, notes: Sequence[str]
    ) -> None:
        """Write down what a finished build was made from, as far as that is known; ``notes`` are said again."""
        journal = planned.journal
        self.room.write(self._name("journal"), journal.to_dict())
        states = self.plugins.states()
        if finding is None or finding.trace is None or any(state.problem for state in states):
            return
        if notes and not planned.plan.lock.reused:  # which of them the next build would say again is not known
            return
        if any(_TAKING_PART & set(state.hooks) for state in states):
            return
        targets = {p.target.partition(":")[0].partition(".")[0] for p in self.plugins.selection()}
        programs = {
            *(str(path) for path in planned.loaders),
            *(str(m.__file__) for n, m in list(sys.modules.items()) if n.partition(".")[0] in targets and _has_file(m)),
        }
        base = os.path.realpath(self.folder)
        walked = {os.path.join(base, name) for name in journal.files}
        walked |= {target for _, _, target in journal.files.values()}
        lock = os.path.join(base, "bento.lock")
        reads = _look({path: stamp for path, stamp in noted.files.items() if path not in walked}, lock, planned)
        if reads is None:
            return
        document = {
            "read_ns": started_ns,
            "tool": _tool(),
            "plugins": self._plugins(),
            "programs": {path: [stamp_at(path) or [], _digest(path)] for path in sorted(programs)},
            "reads": reads,
            "folders": {path: _names(path) for path in noted.folders},
            "tree": _tree(journal),
            "service": {
                "name": planned.config.service or "service",
                "given": finding.given,
                "digest": document_digest(finding.document),
            },
            "models": dict(planned.models),
            "blobs": _blobs(self.layout, ref),
            "result": {**_facts(planned, ref), "notes": list(notes)},
        }
        self.room.write(self._name("build"), document)


def _facts(planned: Planned, ref: Ref) -> dict[str, Any]:
    plan = planned.plan
    return {
        "name": ref.name,
        "version": ref.tag,
        "digest": ref.digest,
        "size": ref.size,
        "packages": len(plan.lock.pins),
        "files": len(plan.files),
        "models": [model.brief() for model in plan.models],
        "cached": {
            "build": True, "service": True, "lock": True, "files": len(plan.files), "files_read": 0, "wheel": True,
            "bento": True,
        },
    }  # fmt: skip


def _blobs(layout: Layout, ref: Ref) -> dict[str, int]:
    from bentotool.oci.descriptor import Manifest

    manifest = Manifest.from_bytes(layout.read(ref.digest))
    parts = (ref.descriptor, manifest.config, *manifest.layers)
    return {part.digest: part.size for part in parts}


def _tool() -> str:
    """Digest of how bentotool's own modules look; those of the command line decide nothing here."""
    import bentotool

    root = os.path.dirname(os.path.abspath(str(bentotool.__file__)))
    digest = hashlib.sha256(f"{bentotool.__version__}\0{sys.version}\0{sys.prefix}".encode())
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", "cli", "_templates"))
        for name in sorted(files):
            path = os.path.join(folder, name)
            digest.update(f"{path}\0{stamp_at(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _tree(journal: Journal) -> str:
    """Digest of which files a project has, in which folders, with which content."""
    digest = hashlib.sha256()
    for name in sorted(journal.files):
        _, content, target = journal.files[name]
        digest.update(f"{name}\0{content}\0{target}\n".encode("utf-8", "surrogateescape"))
    for folder in sorted(journal.folders):
        digest.update("\0".join((folder, *journal.folders[folder], "\n")).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _look(files: Mapping[str, Stamp], lock: str, planned: Planned) -> Looks | None:
    """Stamps and digests of what configured a build; None where one changed since it was read."""
    looks: Looks = {}
    for path in {*files, lock}:
        stamp, digest = stamp_at(path), _digest(path)
        written = hashlib.sha256(planned.plan.lock.text.encode()).hexdigest()
        if stamp is None or (files.get(path) != stamp and not (path == lock and digest == written)):
            return None
        looks[path] = [stamp, digest]
    return looks


def _stamps(looks: Looks) -> Iterable[Stamp]:
    return (stamp for value, _ in looks.values() if (stamp := as_stamp(value)) is not None)


def _changed(looks: Looks, read_ns: int) -> str:
    """The first file that does not look as it did, or was young and has other content; empty where all do."""
    for path, (value, digest) in looks.items():
        now, then = stamp_at(path), as_stamp(value)
        if now is None or then is None or ((now != then or not settled(now, read_ns)) and _digest(path) != digest):
            return os.path.basename(path)
    return ""


def _has_file(module: object) -> bool:
    return isinstance(getattr(module, "__file__", None), str)


def _digest(path: str) -> str:
    try:
        if os.path.getsize(path) > _SMALL:
            return os.urandom(16).hex()
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
