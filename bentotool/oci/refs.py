"""Names for digests: one small file per name and version, so that two writers never overwrite each other's work.

``refs/<kind>/<name>/<version>.json`` is the truth. ``index.json``, which the image-layout format asks for, is made from
it after every change, so that other tools can read the layout; a reader of ours never needs it.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UsageError, VerificationError
from bentotool.oci.descriptor import INDEX, Descriptor, canonical_json
from bentotool.oci.fileview import FileViews
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.names import check_name, check_version, is_name, split_reference
from bentotool.oci.reach import reach
from bentotool.oci.refcache import RefCache, Stamp, stamp_of, without_cycles
from bentotool.paths import make_folder, write_atomic

__all__ = ["Ref", "RefStore", "check_name", "check_version", "split_reference"]

_NEARNESS = 0.8  # of a name that is suggested: a letter or two of ten apart
_KINDS = {"models": "model", "bentos": "Bento"}
_DERIVED = re.compile("[0-9a-f]{12,64}")
_TELLING = 4  # characters of a version made from content that stand for it where it is deleted
_PAUSES = (0.0, 0.05, 0.2, 1.0)
"""Seconds to wait, in turn, for a collection to put back what it had set aside."""


@dataclass(frozen=True)
class Ref:
    """A name and version of a stored artifact.

    Attributes:
        created: when it came into this store, RFC 3339 in UTC.
        size: bytes of all its content, models of a Bento not counted.
    """

    kind: str
    name: str
    tag: str
    descriptor: Descriptor
    created: str
    size: int

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.tag}"


def _listed(descriptor: Descriptor, name: str, kind: str) -> dict[str, Any]:
    """An entry of ``index.json``. No artifactType: older readers of layouts refuse a descriptor that has one."""
    notes = {"org.opencontainers.image.ref.name": name, "io.bentotool.kind": kind}
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, notes).to_dict()


def _document(ref: Ref) -> dict[str, Any]:
    return {"descriptor": ref.descriptor.to_dict(), "created": ref.created, "size": ref.size}


class RefStore:
    """The names in a layout. ``kind`` is ``"models"`` or ``"bentos"`` throughout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._root = layout.root / "refs"
        self._cache = RefCache(self._root / ".cache.json")
        self.damaged: list[Path] = []
        """Entries that the last :meth:`list` could not read and left out."""

    def _path(self, kind: str, name: str, tag: str) -> Path:
        return self._root / kind / name / f"{tag}.json"

    def set(
        self,
        kind: str,
        name: str,
        tag: str,
        descriptor: Descriptor,
        *,
        size: int = 0,
        created: str | None = None,
        replace: bool = True,
    ) -> Ref:
        """Give an artifact a name and version.

        Args:
            size: bytes of all its content.
            created: RFC 3339 time; now when absent.
            replace: whether another digest under this name and version is replaced.

        Raises:
            ConflictError: when ``replace`` is False and the version stands for another digest, or when part of the
                content is not stored: a name never leads to what is not there.
        """
        name, tag = check_name(name), check_version(tag)
        created = created or datetime.now(timezone.utc).isoformat(timespec="microseconds")
        ref = Ref(kind, name, tag, descriptor, created, size)
        document = canonical_json(_document(ref))
        path = self._path(kind, name, tag)
        self._layout.prepare()
        content = self._claim(ref)
        try:
            if replace or not self._create(path, document):
                standing = None if replace else self._read(kind, name, tag)
                if standing and standing.digest != descriptor.digest:
                    raise ConflictError(
                        f"{_KINDS[kind]} {ref.ref} already exists with other content",
                        hint="choose another version, or give --replace",
                    )
                if standing:
                    return standing
                write_atomic(path, document)
            self._confirm(ref, content, path)
            self.write_index(ref.digest)
        except OSError as error:
            raise storage_error(error, self._layout.root) from None
        return ref

    def _claim(self, ref: Ref) -> list[str]:
        """Renew all content of an artifact before it gets a name, so that a collection beside us spares it."""
        for pause in _PAUSES:
            time.sleep(pause)
            content = list(reach(self._layout, ref.digest).blobs)
            missing = [each for each in content if not self._layout.renew(each)]
            if not missing:
                return content
        raise self._incomplete(ref)

    def _confirm(self, ref: Ref, content: Sequence[str], path: Path) -> None:
        """Look again after naming. What a collection took before it saw the name, it puts back within moments."""
        for pause in _PAUSES:
            time.sleep(pause)
            if all(self._layout.has(each) for each in content):
                return
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        raise self._incomplete(ref)

    def _incomplete(self, ref: Ref) -> ConflictError:
        return ConflictError(
            f"part of {_KINDS[ref.kind]} {ref.ref} is missing from the store, or was collected as garbage meanwhile",
            hint="add it again",
        )

    @staticmethod
    def _create(path: Path, document: bytes) -> bool:
        """Write a new file; False when one stands there already. Of two at once, exactly one succeeds."""
        if path.exists():  # found out here, it takes no room on a full disk
            return False
        make_folder(path.parent)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}.draft")
        write_atomic(draft, document)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links on this file system: the check is then not atomic, the write still is
            if path.exists():
                return False
            os.replace(draft, path)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        return True

    def _read(self, kind: str, name: str, tag: str) -> Ref | None:
        path = self._path(kind, name, tag)
        try:
            return self._decode(kind, name, tag, json.loads(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, BentotoolError):
            self.damaged.append(path)
            return None

    @staticmethod
    def _decode(kind: str, name: str, tag: str, document: Any) -> Ref:
        described = Descriptor.from_dict(document["descriptor"])
        return Ref(kind, name, tag, described, str(document["created"]), int(document["size"]))

    def _read_cached(self, kind: str, name: str, tag: str, stamp: Stamp) -> Ref | None:
        """As :meth:`_read`, by way of the cache: for a list of all, where opening each file would take the time."""
        key = f"{kind}/{name}:{tag}"
        if document := self._cache.get(key, stamp):
            try:
                return self._decode(kind, name, tag, document)
            except (ValueError, KeyError, TypeError, BentotoolError):
                pass  # the cache is damaged: the file counts
        if ref := self._read(kind, name, tag):
            self._cache.put(key, stamp, _document(ref))
            return ref
        return None

    def names(self, kind: str) -> list[str]:
        """All names of a kind, sorted."""
        try:
            with os.scandir(self._root / kind) as entries:
                return sorted(entry.name for entry in entries if is_name(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _scan(self, kind: str, names: Iterable[str]) -> Iterator[tuple[str, str, Stamp]]:
        """Name, tag and stamp of every entry. Plain strings: paths as objects would take most of the time of a list."""
        folder = os.fspath(self._root / kind)
        for name in names:
            try:
                with os.scandir(f"{folder}/{name}") as entries:
                    found = [entry.name for entry in entries if entry.name.endswith(".json") and entry.name[0] != "."]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                self.damaged.append(self._root / kind / name)
                continue
            for file in found:
                try:
                    facts = os.stat(f"{folder}/{name}/{file}")
                except FileNotFoundError:
                    continue
                except OSError:
                    facts = None
                if facts and stat.S_ISREG(facts.st_mode):
                    yield name, file[:-5], stamp_of(facts)
                else:  # to open a pipe would wait forever
                    self.damaged.append(self._root / kind / name / file)

    def list(self, kind: str, name: str | None = None) -> list[Ref]:
        """Entries, newest first; a damaged one is left out and remembered in :attr:`damaged`."""
        self.damaged = []
        names = self.names(kind) if name is None else [check_name(name)]
        cached = name is None
        found = (
            self._read_cached(kind, *entry) if cached else self._read(kind, *entry[:2])
            for entry in self._scan(kind, names)
        )
        with without_cycles():
            refs = [ref for ref in found if ref]
        return sorted(refs, key=lambda ref: (ref.created, ref.name, ref.tag), reverse=True)

    def get(self, kind: str, reference: str) -> Ref:
        """Find one entry by ``name``, ``name:version``, ``name@sha256:…``, ``name:latest`` or a unique version prefix.

        Raises:
            NotFoundError: when there is none, with what is near.
            UsageError: when a prefix fits several digests.
            VerificationError: when the entry is damaged, or a damaged one may be newer than the newest sound one, which
                must not stand in for it.
        """
        name, version, digest = split_reference(reference)
        self.damaged = []
        exact = self._read(kind, name, version) if version and version != "latest" else None
        if exact and digest in (None, exact.digest):
            return exact
        if self.damaged:
            raise self._is_damaged(kind, reference)
        refs = self.list(kind, name)
        if self.damaged and not digest and version in (None, "", "latest") and not self._surely_newest(kind, refs):
            raise self._is_damaged(kind, reference)
        if digest:
            refs = [ref for ref in refs if ref.digest == digest]
        elif version and version != "latest":
            refs = [ref for ref in refs if ref.tag.startswith(version)]
            if len({ref.digest for ref in refs}) > 1:
                raise UsageError(
                    f"{reference} fits {len(refs)} versions", hint="one of: " + ", ".join(ref.ref for ref in refs[:5])
                )
        if not refs:
            raise self._missing(kind, reference, name)
        return refs[0]

    def _is_damaged(self, kind: str, reference: str) -> BentotoolError:
        try:
            os.stat(self.damaged[-1])
        except PermissionError:
            hint = "ask who owns it, or choose a store of yours with --store"
            return BentotoolError(f"{self._layout.root} cannot be read: Permission denied", hint=hint)
        except OSError:
            pass  # gone, or worse
        what = f"{_KINDS[kind]} {reference} is damaged in the store {self._layout.root}: {self.damaged[-1].name}"
        return VerificationError(what, hint="see: bentotool store verify; --repair sets it aside")

    def _surely_newest(self, kind: str, refs: Sequence[Ref]) -> bool:
        """Whether the newest sound entry was written after every damaged one was last changed."""
        try:
            known = self._path(kind, refs[0].name, refs[0].tag).stat().st_mtime_ns
            return all(path.stat().st_mtime_ns < known for path in self.damaged)
        except (IndexError, OSError):
            return False

    def _missing(self, kind: str, reference: str, name: str) -> NotFoundError:
        word = _KINDS[kind]
        versions = [ref.ref for ref in self.list(kind, name)]
        names = [] if versions else self.names(kind)
        longer = [other for other in names if other.startswith(name)][:3]
        near = versions[:3] or difflib.get_close_matches(name, names, 3, _NEARNESS) or longer
        listing = "bentotool model list" if kind == "models" else "bentotool list"
        hint = f"did you mean {' or '.join(near)}?" if near else f"see what there is with: {listing}"
        return NotFoundError(f"{word} {reference} is not in the store {self._layout.root}", hint=hint)

    def stands(self, ref: Ref) -> bool:
        """Whether an entry is still as it was read; a list is soon out of date where others work on the store."""
        return self._read(ref.kind, ref.name, ref.tag) == ref

    def matching(self, kind: str, reference: str) -> tuple[Ref, ...]:
        """What a command that takes several versions means: all of a bare name, else the one that fits.

        It deletes them, so ``:1`` never stands for ``:10``: a prefix has four characters at least, and is that of a
        version made from content.

        Raises:
            NotFoundError: when there is none.
        """
        name, version, digest = split_reference(reference)
        if not version and not digest:
            return tuple(self.list(kind, name)) or (self.get(kind, reference),)
        found = self.get(kind, reference)
        told = len(version or "") >= _TELLING and _DERIVED.fullmatch(found.tag)
        if version not in (None, "", "latest", found.tag) and not told:
            raise self._missing(kind, reference, name)
        return (found,)

    def alias(self, kind: str, reference: str, version: str, *, replace: bool = False) -> Ref:
        """Give an entry one more version name. It keeps its age, so ``latest`` does not move.

        Args:
            version: the new version, or ``name:version`` for a new name as well.
            replace: as in :meth:`set`, which says what is raised.
        """
        ref = self.get(kind, reference)
        name, new_version, _ = split_reference(version) if ":" in version else (ref.name, version, None)
        tag, size, created = new_version or ref.tag, ref.size, ref.created
        return self.set(kind, name, tag, ref.descriptor, size=size, created=created, replace=replace)

    def delete(self, kind: str, name: str, tag: str) -> None:
        """Forget a name and version. Its content stays until it is collected."""
        path = self._path(kind, check_name(name), check_version(tag))
        try:
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self.write_index()
        except FileNotFoundError:
            raise NotFoundError(f"{_KINDS[kind]} {name}:{tag} is not in the store {self._layout.root}") from None
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def _stamp(self) -> frozenset[tuple[str, Stamp]]:
        """What the files look like from outside; equal stamps mean equal content, as files are only replaced."""
        return frozenset(
            (f"{kind}/{name}:{tag}", stamp)
            for kind in _KINDS
            for name, tag, stamp in self._scan(kind, self.names(kind))
        )

    def write_index(self, new: str | None = None) -> None:
        # Another process may change a reference between our look and our write. Whoever writes looks again afterwards,
        # so the last to write has seen everything; no lock is needed. The bound only guards against endless company.
        views = FileViews(self._layout)
        for _ in range(8):
            before = self._stamp()
            entries: list[dict[str, Any]] = []
            for kind, word in _KINDS.items():
                for ref in reversed(self.list(kind)):
                    entries.append(_listed(ref.descriptor, f"{kind}/{ref.ref}", word.lower()))
                    view = views.of(ref.digest, renew=ref.digest == new) if kind == "models" else None
                    # Tools that take FOLDER:NAME split at the last colon, so this name has none.
                    entries += [_listed(view, f"{ref.name}/{ref.tag}", "files")] if view else []
            write_atomic(
                self._layout.root / "index.json",
                canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}),
            )
            self._cache.save({key for key, _ in before})
            views.save({entry["digest"] for entry in entries})
            if self._stamp() == before:
                return
