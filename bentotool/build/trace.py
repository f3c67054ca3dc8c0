"""What a service's import depended on, and whether all of it is still the same.

Made from the probe's own account (``bentotool/runtime/witness.py``): the project's files by digest, all others by stamp
(and by digest where they were young), listed folders by their names, environment variables by a keyed digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.build.journal import Journal, hash_inside
from bentotool.build.stamps import SETTLED_NS, Stamp, as_stamp, settled, stamp_at, stamp_of
from bentotool.errors import BentotoolError

__all__ = ["Ground", "Trace", "data_digest", "names_digest", "take_trace", "touched_since"]

_CLOCK_NS = 50_000_000
_SECOND_NS = 1_000_000_000
_PASSING = ("_", "OLDPWD", "SHLVL")
"""Variables that differ from one shell to the next and that no service reads by iterating over all."""
_OURS = ("bento.lock", "__pycache__")
_CODE = (".py", ".pyi", ".md", ".rst")


@dataclass(frozen=True)
class Ground:
    """Where an import takes place.

    Args:
        project: the folder, its real path.
        store: the store's folder; blobs and views are named by content there, and not looked at.
        environment: that of the probe's process.
        salt: key of the digests of variables.
        journal: of an earlier build, to spare reading.
    """

    project: Path
    store: Path
    environment: Mapping[str, str]
    salt: bytes
    journal: Journal | None = None

    def inside(self, path: str) -> str | None:
        """The name in the project, or None for what lies elsewhere (installed packages count as elsewhere)."""
        base = str(self.project) + os.sep
        if not path.startswith(base) or any(part in path for part in ("site-packages", "dist-packages")):
            return None
        return Path(path[len(base) :]).as_posix()

    def digest(self, name: str) -> str:
        """Digest of a project's file; empty where there is none."""
        path = os.path.join(self.project, name)
        stamp = stamp_at(path)
        if stamp is None:
            return ""
        if self.journal is not None and not os.path.islink(path):
            known = self.journal.known(name, stamp)
            if known is not None:
                return known
        try:
            return hash_inside(self.project, name)[0]
        except BentotoolError:
            return "unreadable"

    def variable(self, name: str) -> str:
        """Keyed digest of a variable, or of all for ``*``; empty where it is not set."""
        # On Windows names have no case, and os.environ holds them in capitals.
        value: str | None = self.environment.get(name.upper() if os.name == "nt" else name)
        if name == "*":
            value = json.dumps(sorted(item for item in self.environment.items() if item[0] not in _PASSING))
        if value is None:
            return ""
        return hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16, key=self.salt).hexdigest()


@dataclass(frozen=True)
class Trace:
    """What an import depended on.

    Args:
        read_ns: before this time nothing of it was looked at.
        inside: digest by name in the project; empty for a file that was absent.
        outside: stamp and, where it was young, digest by absolute path.
        folders: mtime in ns and digest of the names, by absolute path.
        variables: keyed digest by name.
        data: digest of the project's data files where native code could have read them, else empty.
        names: digest of which files the project had: on some systems nothing tells that a service asked for one.
        asked: what was at each path that it asked for: ``file``, ``folder``, ``other``, or nothing.
    """

    read_ns: int
    inside: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, tuple[Stamp | None, str]] = field(default_factory=dict)
    folders: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    names: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)

    def difference(self, ground: Ground) -> str:
        """What is no longer the same, for a person; empty where all is."""
        for name, digest in self.variables.items():
            if ground.variable(name) != digest:
                return "the environment" if name == "*" else f"${name}"
        for name, digest in self.inside.items():
            if ground.digest(name) != digest:
                return name
        if changed := self._elsewhere():
            return changed
        if ground.journal is None or self.names != names_digest(ground.project, list(ground.journal.folders)):
            return "the list of the project's files"
        if self.data and self.data != data_digest(ground.project, ground.journal):
            return "a data file"
        return ""

    def _elsewhere(self) -> str:
        for path, (stamp, digest) in self.outside.items():
            now = stamp_at(path)
            if now != stamp or (stamp is not None and not settled(stamp, self.read_ns) and _digest(path) != digest):
                return path
        for path, (mtime, names) in self.folders.items():
            if not _folder_stands(path, mtime, names, self.read_ns):
                return path
        return next((path for path, there in self.asked.items() if _kind_at(path) != there), "")

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, document: Any) -> Trace | None:
        """A trace from its document; None where it is none."""
        try:
            return cls(
                int(document["read_ns"]),
                dict(document["inside"]),
                {path: (as_stamp(stamp), str(digest)) for path, (stamp, digest) in document["outside"].items()},
                {path: (int(mtime), str(names)) for path, (mtime, names) in document["folders"].items()},
                dict(document["variables"]),
                str(document["data"]),
                str(document["names"]),
                {str(path): str(there) for path, there in document["asked"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def take_trace(seen: Any, ground: Ground, started_ns: int, scratch: str) -> Trace | None:
    """The trace of an import that began at a time; None where it cannot be told what it depended on.

    Args:
        seen: the account of the probe.
        scratch: the probe's own temporary folder.
    """
    if not isinstance(seen, dict) or seen.get("unseen"):
        return None
    own = [os.path.join(os.path.realpath(ground.store), room) + os.sep for room in ("blobs", "views", "tmp", "cache")]
    skipped = (os.path.realpath(scratch), scratch, *own)
    inside: dict[str, str] = {}
    outside: dict[str, tuple[Stamp | None, str]] = {}
    folders: dict[str, tuple[int, str]] = {}
    for path in map(str, seen.get("opened", ())):
        if path.startswith(skipped):
            continue
        stamp = stamp_at(path)
        if stamp is not None and touched_since(max(stamp[1], stamp[3]), started_ns):
            return None
        name = ground.inside(path)
        if name is not None:
            inside[name] = ground.digest(name)
        else:
            young = stamp is not None and not settled(stamp, started_ns)
            outside[path] = (stamp, _digest(path) if young else "")
    for path in map(str, (*seen.get("listed", ()), *seen.get("path", ()))):
        if not path.startswith(skipped):
            folders[path] = _names(path)
    if any(touched_since(mtime, started_ns) for path, (mtime, _) in folders.items() if ground.inside(path) is None):
        return None
    variables = {str(name): ground.variable(str(name)) for name in seen.get("variables", ())}
    asked = {
        str(path): str(there)
        for path, there in seen.get("asked", {}).items()
        if not (path + os.sep).startswith(skipped)
    }
    if "both" in asked.values():
        return None
    native = "pending" if seen.get("native") else ""
    return Trace(started_ns, inside, outside, folders, variables, native, asked=asked)


def touched_since(changed_ns: int, started_ns: int) -> bool:
    """Whether a file may have changed after a time: by the clock of its file system, which may count whole seconds."""
    return changed_ns >= started_ns - (SETTLED_NS if changed_ns % _SECOND_NS == 0 else _CLOCK_NS)


def _kind_at(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):
        return "other"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return "unreadable"
    return digest.hexdigest()


def _names(path: str) -> tuple[int, str]:
    """Time of change and digest of the names in a folder; of anything else its own stamp."""
    try:
        mtime = os.stat(path).st_mtime_ns
        names = sorted(name for name in os.listdir(path) if name not in _OURS and not name.endswith(".tmp"))
    except NotADirectoryError:
        return mtime, repr(stamp_at(path))
    except OSError:
        return 0, ""
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return mtime, hashlib.blake2b(text, digest_size=16).hexdigest()


def _folder_stands(path: str, mtime: int, names: str, read_ns: int) -> bool:
    try:
        now = os.stat(path).st_mtime_ns
    except OSError:
        return not mtime and not names
    return (now == mtime and now < read_ns - SETTLED_NS) or _names(path)[1] == names


def names_digest(project: Path, folders: Sequence[str]) -> str:
    """Digest of the names in a project's folders."""
    listed = {folder: _names(os.path.join(project, folder))[1] for folder in folders}
    return hashlib.sha256(json.dumps(sorted(listed.items())).encode()).hexdigest()


def data_digest(project: Path, journal: Journal | None) -> str:
    """Digest of all files of a project but code and prose, by its journal; random where the journal does not stand."""
    unknown = os.urandom(16).hex()
    if journal is None:
        return unknown
    digest = hashlib.sha256()
    for name in sorted(journal.files):
        if name.endswith(_CODE):
            continue
        stamp, known, target = journal.files[name]
        try:
            now = stamp_of(os.stat(project / name))
        except OSError:
            return unknown
        if now != stamp or not settled(stamp, journal.read_ns):
            known = Ground(project, project, {}, b"").digest(name)
        digest.update(f"{name}\0{known}\0{target}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
