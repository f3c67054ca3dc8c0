"""Collecting garbage: what no name leads to, and what interrupted work left behind.

No lock is taken. Whoever adds an artifact renews the time of its blobs before naming it and looks again afterwards
(``RefStore.set``). A collection takes only blobs older than a grace period; it moves each aside first, looks at its
time again, then reads all names again, and puts back what was renewed or named meanwhile. What a killed collection
left aside is put back or removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bentotool.errors import VerificationError
from bentotool.oci.attached import ROOMS, forget_missing
from bentotool.oci.descriptor import MANIFEST_LIMIT
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.reach import Reach, reach, subject_of
from bentotool.oci.refs import Ref, RefStore
from bentotool.paths import remove_folder

__all__ = ["KINDS", "Collected", "collect", "mark", "own_bytes", "restore_set_aside", "stored_blobs", "strange_blobs"]

KINDS = ("models", "bentos")
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ASIDE = re.compile(r"collected-([0-9a-f]{64})-[0-9a-f]+", re.ASCII)


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or would remove.

    Attributes:
        blobs: digests of blobs.
        size: bytes of the blobs and of the leftovers.
        leftovers: names of entries of ``tmp`` that nobody finished.
        views: digests of manifests whose folders of files went.
        kept: number of blobs that names lead to.
        young: number of blobs that nothing names and that are younger than the grace period.
    """

    blobs: tuple[str, ...]
    size: int
    leftovers: tuple[str, ...]
    views: tuple[str, ...]
    kept: int
    young: int


def stored_blobs(layout: Layout) -> Iterator[tuple[str, int]]:
    """Digest and size in bytes of every file that lies in the layout's blob folder under a proper name."""
    for entry in _blob_entries(layout):
        with contextlib.suppress(OSError):
            if entry.is_file(follow_symlinks=False):
                yield f"sha256:{entry.name}", entry.stat().st_size


def strange_blobs(layout: Layout) -> list[str]:
    """Digests under which something else than a file lies: a folder, a pipe, a link."""
    return [f"sha256:{entry.name}" for entry in _blob_entries(layout) if not _is_file(entry)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        # what was collected since the folder was read is nothing strange
        return entry.is_file(follow_symlinks=False) or not os.path.lexists(entry.path)
    except OSError:
        return False


def _blob_entries(layout: Layout) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(layout.blobs) as entries:
        for entry in entries:
            if _HEX.fullmatch(entry.name):
                yield entry


def mark(layout: Layout, refs: RefStore, advance: Callable[[int], None] = lambda amount: None) -> Reach:
    """Everything that a name leads to, directly, through a Bento's models, or as the subject of a signature or view.

    Args:
        advance: told of each name that was followed.

    Raises:
        VerificationError: when a reference or manifest is damaged, so that nobody knows what it leads to.
    """
    pauses = [0.5, 0.05]
    for turn in itertools.count():
        found, trouble, culprit = _follow(layout, refs, advance)
        if trouble is None:
            break
        if culprit is not None and not refs.stands(culprit) and turn < 50:
            continue  # it was deleted, and its content perhaps collected, while we followed it
        if not pauses:
            raise trouble
        time.sleep(pauses.pop())  # another collection may have set something aside for a moment
    _mark_referrers(layout, found)
    return found


def _follow(
    layout: Layout, refs: RefStore, advance: Callable[[int], None]
) -> tuple[Reach, VerificationError | None, Ref | None]:
    found = Reach()
    for kind in KINDS:
        for ref in refs.list(kind):
            reach(layout, ref.digest, found)
            advance(1)
            if found.damaged:
                digest, reason = list(found.damaged.items())[-1]
                error = VerificationError(
                    f"{ref.ref} cannot be followed beyond {digest}: {reason}",
                    hint=f"import or pull {ref.ref} again, or delete it; see: bentotool store verify",
                )
                return found, error, ref
        if refs.damaged:
            error = VerificationError(
                f"{refs.damaged[0]} is damaged, so what it names is not known",
                hint="set it aside with: bentotool store verify --repair",
            )
            return found, error, None
    return found, None, None


def _mark_referrers(layout: Layout, found: Reach) -> None:
    small = (digest for digest, size in stored_blobs(layout) if size <= MANIFEST_LIMIT and digest not in found.blobs)
    waiting = {digest: subject for digest in small if (subject := subject_of(layout, digest))}
    while fitting := [digest for digest, subject in waiting.items() if subject in found.manifests]:
        for digest in fitting:
            del waiting[digest]
            reach(layout, digest, found)
    # What a signature lists may not all be here; that is no reason to refuse a collection.
    found.damaged.clear()


def collect(
    layout: Layout,
    *,
    grace: float = 3600.0,
    dry_run: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
) -> Collected:
    """Remove what no name leads to and what is older than ``grace`` seconds.

    Args:
        advance: told of each name followed and of each blob set aside.

    Raises:
        VerificationError: when something is damaged, so that it is not known what to keep; nothing is removed then.
        BentotoolError: when the disk refuses.
    """
    refs = RefStore(layout)
    before = time.time() - grace
    if not dry_run:
        restore_set_aside(layout)
    kept = mark(layout, refs, advance)
    unnamed = [(digest, size) for digest, size in stored_blobs(layout) if digest not in kept.blobs]
    old = [(digest, size) for digest, size in unnamed if _is_old(layout, digest, before)]
    leftovers = [path for path in _unfinished(layout) if _older(path, before)]
    views = [
        path
        for kind in KINDS
        for path in _entries(layout.root / "views" / kind)
        if f"sha256:{path.name}" not in kept.manifests and _older(path, before)
    ]
    unfinished = sum(own_bytes(path) for path in leftovers)
    try:
        if not dry_run:
            old = _sweep(layout, refs, old, before, advance)
            for path in (*leftovers, *views):
                remove(path)
            _forget_gone(layout, before)
            forget_missing(layout, before)
    except OSError as error:
        raise storage_error(error, layout.root) from None
    return Collected(
        blobs=tuple(sorted(digest for digest, _ in old)),
        size=sum(size for _, size in old) + unfinished,
        leftovers=tuple(path.name for path in leftovers),
        views=tuple(f"sha256:{path.name}" for path in views),
        kept=sum(1 for digest in kept.blobs if layout.has(digest)),
        young=len(unnamed) - len(old),
    )


def _sweep(
    layout: Layout, refs: RefStore, old: Iterable[tuple[str, int]], before: float, advance: Callable[[int], None]
) -> list[tuple[str, int]]:
    aside: list[tuple[str, int, Path]] = []
    for digest, size in old:
        place = layout.temporary() / f"collected-{digest[7:]}-{secrets.token_hex(6)}"
        with contextlib.suppress(FileNotFoundError):
            os.replace(layout.blob_path(digest), place)
            if layout.last_used(digest, place) > before:
                _put_back(layout, digest, place)
            else:
                aside.append((digest, size, place))
        advance(1)
    gone = []
    try:
        named = mark(layout, refs).blobs if aside else {}
    except BaseException:
        for digest, _, place in aside:
            _put_back(layout, digest, place)
        raise
    for digest, size, place in aside:
        if digest in named:
            _put_back(layout, digest, place)
            continue
        remove(place)
        if not layout.has(digest):
            layout.forget_traces(digest)
        gone.append((digest, size))
    return gone


def _put_back(layout: Layout, digest: str, place: Path) -> None:
    """Undo; where the same content was written again meanwhile, that stays."""
    target = layout.blob_path(digest)
    with contextlib.suppress(FileNotFoundError):
        if os.path.lexists(target):
            remove(place)
        else:
            os.replace(place, target)


def restore_set_aside(layout: Layout, *, older_than: float = 600.0) -> None:
    """Put back what a killed collection had set aside; the next one decides anew.

    Args:
        older_than: seconds; what was set aside since then belongs to a collection that may be at work.
    """
    for path in _entries(layout.root / "tmp"):
        match = _ASIDE.fullmatch(path.name)
        with contextlib.suppress(FileNotFoundError):
            # A rename changes the time of status change; Windows has none, and there the time of creation is older.
            if match and time.time() - path.stat().st_ctime > older_than:
                _put_back(layout, f"sha256:{match[1]}", path)


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def _unfinished(layout: Layout) -> Iterator[Path]:
    """Files and folders under names that are only used until they are whole."""
    yield from _entries(layout.root / "tmp")
    kinds = [layout.root / "refs" / kind for kind in (*KINDS, *ROOMS)]
    names = [path for kind in kinds for path in _entries(kind)]
    for folder in (layout.root, layout.root / "refs", *kinds, layout.linked.folder, layout.root / "used", *names):
        for path in _entries(folder):
            if path.name.startswith(".") and path.suffix in (".tmp", ".draft"):
                yield path


def own_bytes(path: Path) -> int:
    """Bytes of the files in a file or folder that lie nowhere else: a view's draft shares its files with the blobs."""
    total, waiting = 0, [os.fspath(path)]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):  # it may be finished or removed while we look
            facts = os.lstat(current)
            if stat.S_ISDIR(facts.st_mode):
                waiting += [os.path.join(current, name) for name in os.listdir(current)]
            elif stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                total += facts.st_size
    return total


def _is_old(layout: Layout, digest: str, before: float) -> bool:
    try:
        return layout.last_used(digest) <= before
    except FileNotFoundError:
        return False


def _older(path: Path, before: float) -> bool:
    """Whether nothing in a file or folder of drafts was changed since; what is set aside is dealt with elsewhere."""
    if _ASIDE.fullmatch(path.name):
        return False
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_mtime <= before
    return False


def _forget_gone(layout: Layout, before: float) -> None:
    for folder in (layout.root / "used", layout.linked.folder):
        for path in _entries(folder):
            if _HEX.fullmatch(path.name) and not layout.has(f"sha256:{path.name}") and _older(path, before):
                path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder of ours, read-only or not."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
        return
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows does not remove what is read-only
        with contextlib.suppress(OSError):
            path.chmod(0o600)
            path.unlink(missing_ok=True)
