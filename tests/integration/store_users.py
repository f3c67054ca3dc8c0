"""One user's work on a store. Run as root by test_store_sharing.py; becomes another user before it touches the store.

    python store_users.py UID GROUP UMASK STORE ACTION...

Every action is done once as root on a store of its own first, so that nothing has to be imported as another user, who
may not be allowed to read this Python. Prints what the store lists in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.archive import archive_root, write_archive
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout
from bentotool.oci.unarchive import read_archive
from bentotool.oci.usage import measure

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})


def add(store: ModelStore, scratch: Path, name: str) -> None:
    files = []
    for part in ("same", name):  # one file that every model has, and one of its own
        (scratch / part).write_bytes(part.encode() * 1000)
        files.append(SourceFile(scratch / part, part))
    taken = take_files(store.layout, name, files, lambda amount: None)
    store.add(name, "1", taken.files, DETAILS, layers=taken.layers)


def look(folder: Path) -> None:
    for path in folder.iterdir():
        path.read_bytes()


def spoil(folder: Path) -> None:
    """By accident: what is read-only refuses."""
    for path in (folder / "new", folder / "same"):
        with contextlib.suppress(PermissionError):
            path.write_bytes(b"spoiled")
            raise AssertionError(f"{path} was written")
    for path in folder.iterdir():
        with contextlib.suppress(PermissionError):
            path.unlink()
            raise AssertionError(f"{path} was removed")


def delete(store: ModelStore, name: str) -> None:
    for ref in store.list(name):
        store.refs.delete("models", ref.name, ref.tag)


def act(store: ModelStore, scratch: Path, action: str) -> None:
    verb, _, name = action.partition("=")
    if verb == "add":
        add(store, scratch, name)
    elif verb == "tag":
        store.tag(name, "again", replace=True)
    elif verb in ("view", "spoil"):
        (look if verb == "view" else spoil)(store.materialise(store.get(name)))
    elif verb == "delete":
        delete(store, name)
    elif verb == "collect":
        collect(store.layout, grace=0)
    elif verb == "verify":
        assert verify_store(store.layout, repair=True).faults == ()
    elif verb == "pull":  # from a file, which is written first
        model = store.get(name)
        write_archive(store.layout, [archive_root(model.descriptor, "model", model.tag)], scratch / "m.tar")
        (root,) = read_archive(store.layout, scratch / "m.tar")
        store.adopt(name, "pulled", root.digest)
    else:
        raise SystemExit(f"unknown action {action}")


def main(uid: int, group: int, umask: int, root: Path, actions: list[str]) -> None:
    rehearsal = ModelStore(Layout(Path(tempfile.mkdtemp()) / "store"))
    add(rehearsal, Path(tempfile.mkdtemp()), "m")
    for action in ("tag=m", "view=m", "pull=m", "collect", "verify"):
        act(rehearsal, Path(tempfile.mkdtemp()), action)
    measure(rehearsal.layout)
    os.setgroups([group])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.umask(umask)
    scratch = Path(tempfile.mkdtemp())
    store = ModelStore(Layout(root))
    for action in actions:
        act(store, scratch, action)
    print(json.dumps({"refs": sorted(ref.ref for ref in store.list()), "damaged": len(store.refs.damaged)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 8), Path(sys.argv[4]), sys.argv[5:])
