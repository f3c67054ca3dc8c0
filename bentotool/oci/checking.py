"""Checking a store: every blob against its digest, every name against what it needs."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

from bentotool.errors import BentotoolError
from bentotool.oci.attached import forget_incomplete, reach_attached
from bentotool.oci.collect import KINDS, remove, restore_set_aside, stored_blobs, strange_blobs
from bentotool.oci.digest import hash_file
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.reach import Reach, reach
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.standing import layout_faults, listed_names, name_of_path, place_in_time
from bentotool.paths import make_folder

__all__ = ["Fault", "Report", "verify_store"]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: ``damaged`` (other bytes than its digest says), ``missing``, ``changed`` (a linked file was written to)
            ``reference`` (a name that cannot be read) or ``layout`` (``index.json`` or ``oci-layout``).
        what: the digest, or the path of the file.
        touches: ``models/name:version`` and ``bentos/name:version`` that need it.
        quarantined: where it was moved to, if it was.
        rebuilt: whether it was made again from what the store still knows.
    """

    kind: str
    what: str
    reason: str
    touches: tuple[str, ...] = ()
    quarantined: str | None = None
    rebuilt: bool = False


@dataclass(frozen=True)
class Report:
    """The outcome.

    Attributes:
        blobs: number of blobs read.
        size: their bytes.
        references: number of names followed.
    """

    blobs: int
    size: int
    references: int
    faults: tuple[Fault, ...] = field(default=())


def verify_store(
    layout: Layout,
    *,
    repair: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
    jobs: int | None = None,
    adopt: Callable[[str, str, str, str], object] | None = None,
) -> Report:
    """Read every blob, and follow every name.

    Args:
        repair: whether damaged blobs and references are moved to ``quarantine`` in the store, so that an import or pull
            brings them anew.
        advance: told the bytes of each piece read, never by two threads at once.
        adopt: names a manifest again: kind, name, version, digest. With it, ``repair`` makes a damaged reference anew
            where ``index.json`` still lists it.
        jobs: blobs read at once; by default as many as there are processors, up to eight.

    Raises:
        BentotoolError: when the disk refuses.
    """
    restore_set_aside(layout, older_than=0)
    refs = RefStore(layout)
    blobs = dict(stored_blobs(layout))
    damaged = _damaged(layout, blobs, advance, jobs or min(8, os.cpu_count() or 2))
    damaged |= dict.fromkeys(strange_blobs(layout), ("damaged", "is not a file"))
    reached, wrong, unreadable = _follow(layout, refs)
    faults = [Fault("reference", str(path), "cannot be read", _named(layout, path)) for path in unreadable]
    odd = layout_faults(layout, named=bool(reached))
    if odd:
        time.sleep(0.5)  # whoever gives the first name of a store writes the index a moment later
        odd = layout_faults(layout, named=bool(reached))
    faults += [Fault("layout", str(path), reason) for path, reason in odd.items()]
    faults += [Fault(kind, digest, reason, _touched(digest, reached)) for digest, (kind, reason) in damaged.items()]
    absent = {each for found in wrong for each in found.blobs if not layout.has(each)} - damaged.keys()
    faults += [Fault("missing", digest, "is not stored", _touched(digest, reached)) for digest in sorted(absent)]
    unclear = {digest: reason for found in wrong for digest, reason in found.damaged.items()}
    faults += [
        Fault("damaged", digest, reason, _touched(digest, reached))
        for digest, reason in sorted(unclear.items())
        if digest not in damaged and digest not in absent
    ]
    if repair:
        listed = listed_names(layout)
        faults = [_rebuild(layout, refs, fault, listed, adopt) for fault in _repair(layout, faults, reached)]
    return Report(len(blobs), sum(blobs.values()), len(reached), tuple(faults))


def _follow(layout: Layout, refs: RefStore) -> tuple[list[tuple[Ref, Reach]], list[Reach], list[Path]]:
    """What each name leads to, which of it is not whole, and the files of names that cannot be read.

    Only what stays wrong counts: a collection may have set something aside for a moment, or the name may be gone.
    """
    suspects: set[tuple[str, ...]] = set()
    reached: list[tuple[Ref, Reach]] = []
    for pause in (None, 0.05, 0.5):
        time.sleep(pause or 0)
        sound = {ref.digest: found for ref, found in reached if _is_whole(layout, found)}
        reached, unreadable = [], []
        for kind in KINDS:
            reached += [(ref, sound.get(ref.digest) or _reach_all(layout, ref.digest)) for ref in refs.list(kind)]
            unreadable += refs.damaged
        wrong = {_key(ref) for ref, found in reached if not _is_whole(layout, found) and refs.stands(ref)}
        suspects = wrong if pause is None else suspects & wrong
        if not suspects and not unreadable:
            break
    return reached, [found for ref, found in reached if _key(ref) in suspects], unreadable


def _reach_all(layout: Layout, digest: str) -> Reach:
    return reach_attached(layout, reach(layout, digest))


def _named(layout: Layout, path: Path) -> tuple[str, ...]:
    parts = name_of_path(layout, path)
    return ("{}/{}:{}".format(*parts),) if parts else ()


def _rebuild(
    layout: Layout,
    refs: RefStore,
    fault: Fault,
    listed: dict[str, str],
    adopt: Callable[[str, str, str, str], object] | None,
) -> Fault:
    """Write again what follows from the rest of the store; the damaged file is out of the way already."""
    if fault.kind == "layout":
        if os.path.lexists(fault.what) and not os.access(fault.what, os.R_OK):
            return fault  # another user's, see _set_aside
        layout.prepare()
        if Path(fault.what).name == "index.json":
            refs.write_index()
        return replace(fault, rebuilt=True)
    parts = name_of_path(layout, Path(fault.what)) if fault.kind == "reference" and fault.quarantined else None
    key = "{}/{}:{}".format(*parts) if parts else ""
    if not parts or not adopt or key not in listed:
        return fault
    kind, name, tag = parts
    created = place_in_time(refs, kind, key, listed)
    try:
        adopt(kind, name, tag, listed[key])
        ref = refs.get(kind, f"{name}:{tag}")
        if created:
            refs.set(kind, name, tag, ref.descriptor, size=ref.size, created=created)
    except BentotoolError as error:
        return replace(fault, reason=f"{fault.reason}, and {error.message}")
    return replace(fault, rebuilt=True)


def _key(ref: Ref) -> tuple[str, ...]:
    return ref.kind, ref.ref, ref.digest, ref.created


def _is_whole(layout: Layout, found: Reach) -> bool:
    return not found.damaged and all(layout.has(digest) for digest in found.blobs)


def _touched(digest: str, reached: list[tuple[Ref, Reach]]) -> tuple[str, ...]:
    return tuple(f"{ref.kind}/{ref.ref}" for ref, found in reached if digest in found.blobs)


def _damaged(
    layout: Layout, blobs: dict[str, int], advance: Callable[[int], None], jobs: int
) -> dict[str, tuple[str, str]]:
    stop, lock = Event(), Lock()
    failures: list[BaseException] = []

    def progress(count: int) -> None:
        if stop.is_set():
            raise CancelledError
        try:
            with lock:
                advance(count)
        except BaseException as error:  # the other threads need not wait until this one's failure is looked at
            failures.append(error)
            stop.set()
            raise

    def check(digest: str) -> tuple[str, str] | None:
        path = layout.blob_path(digest)
        try:
            layout.linked.check(digest, path)
        except BentotoolError as error:
            return "changed", error.message.removeprefix(f"blob {digest} ")
        try:
            actual, _ = hash_file(path, progress)
        except FileNotFoundError:
            return None  # collected meanwhile; if a name needs it, it is found missing
        except OSError as error:
            return "damaged", f"cannot be read: {error.strerror}"
        return None if actual == digest else ("damaged", f"its bytes have the digest {actual}")

    # The largest first, so that no thread is left alone with one at the end.
    ordered = sorted(blobs, key=lambda digest: -blobs[digest])
    with ThreadPoolExecutor(jobs, thread_name_prefix="verify") as pool:
        tasks = {digest: pool.submit(check, digest) for digest in ordered}
        try:
            return {digest: fault for digest, task in tasks.items() if (fault := task.result())}
        except BaseException as error:  # an interrupt does not wait for terabytes to be read
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, CancelledError) and failures:  # of a thread that was stopped by another's failure
                raise failures[0] from None
            raise


def _repair(layout: Layout, faults: list[Fault], reached: list[tuple[Ref, Reach]]) -> list[Fault]:
    folder = layout.root / "quarantine"
    bad = {fault.what for fault in faults if fault.kind in ("damaged", "changed")}
    try:
        done = [_set_aside(layout, fault, folder) for fault in faults]
        forget_incomplete(layout)
        # A view shares its files with the blobs, so it holds the same damage.
        for _, found in reached:
            if bad & found.blobs.keys():
                for kind in KINDS:
                    for digest in found.manifests:
                        remove(layout.root / "views" / kind / digest[7:])
    except OSError as error:
        raise storage_error(error, layout.root) from None
    return done


def _set_aside(layout: Layout, fault: Fault, folder: Path) -> Fault:
    own = fault.kind in ("reference", "layout")
    source = Path(fault.what) if own else layout.blob_path(fault.what)
    if fault.kind == "missing" or not os.path.lexists(source):
        return fault
    if own and source.exists() and not os.access(source, os.R_OK):
        return fault  # another user's, who may be able to read it
    if fault.kind == "damaged" and layout.verify_blob(fault.what):
        return fault  # what has the bytes that its digest says is no better after another import
    make_folder(folder)
    target = folder / f"{source.name}-{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        os.replace(source, target)
    if not own:
        layout.forget_traces(fault.what)
    return replace(fault, quarantined=str(target))
