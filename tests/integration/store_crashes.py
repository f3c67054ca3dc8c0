"""A piece of work on a store, killed before each of its changes to the file system in turn. See test_store_crashes.py.

    python store_crashes.py FOLDER WORK

Prints how many places there were and what was wrong afterwards, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.archive import archive_root, write_archive
from bentotool.oci.attached import Attachment, attach, referrers
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout
from bentotool.oci.unarchive import read_archive

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
CHANGES = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "utime", "chmod", "fsync", "open", "ftruncate")
MODELS = {"one": ("same", "a"), "two": ("same", "b"), "three": ("c",)}


def add(store: ModelStore, root: Path, name: str) -> None:
    files = [SourceFile(root / "sources" / part, part) for part in MODELS[name]]
    taken = take_files(store.layout, name, files, lambda amount: None)
    store.add(name, "1", taken.files, DETAILS, layers=taken.layers)


def sign(store: ModelStore, name: str) -> None:
    attach(store.layout, store.get(name).digest, "test/note", [Attachment(f"signed {name}".encode(), "test/note")])


def template(root: Path) -> None:
    (root / "sources").mkdir()
    for part in {part for parts in MODELS.values() for part in parts}:
        (root / "sources" / part).write_bytes(part.encode() * 5000)
    store = ModelStore(Layout(root / "template"))
    for name in ("one", "two"):
        add(store, root, name)
    sign(store, "two")
    store.materialise(store.get("two"))
    model = store.get("one")
    write_archive(store.layout, [archive_root(model.descriptor, "model", model.tag)], root / "one.tar")
    add(store, root, "three")  # garbage, with a view and a signature
    sign(store, "three")
    store.materialise(store.get("three"))
    store.refs.delete("models", "three", "1")


def damage(store: ModelStore, root: Path) -> None:
    """What repair then finds: a blob that only ``one`` has, and a name."""
    (blob,) = (file for file in store.get("one").files if file.path == "a")
    path = store.layout.blob_path(blob.sha256)
    path.chmod(0o644)
    path.write_bytes(b"damage")
    (store.layout.root / "refs" / "models" / "odd").mkdir()
    (store.layout.root / "refs" / "models" / "odd" / "1.json").write_text("{")


def take_archive(store: ModelStore, root: Path) -> None:
    (top,) = read_archive(store.layout, root / "one.tar")
    store.adopt("pulled", "1", top.digest)


WORK: dict[str, Callable[[ModelStore, Path], object]] = {
    "import": lambda store, root: add(store, root, "three"),
    "tag": lambda store, root: store.tag("one", "again"),
    "delete": lambda store, root: store.refs.delete("models", "one", "1"),
    "gc": lambda store, root: collect(store.layout, grace=0),
    "repair": lambda store, root: verify_store(store.layout, repair=True),
    "view": lambda store, root: store.materialise(store.get("one")),
    "import-archive": take_archive,
    "attach": lambda store, root: sign(store, "one"),
}
AFTER = {  # names that may be there or not when the work was killed
    "import": {"three:1"}, "tag": {"one:again"}, "delete": {"one:1"}, "import-archive": {"pulled:1"},
}  # fmt: skip


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed before its change of that number; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*arguments, **options)

            return call

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), f"the work failed before change {number}"
    return status != 0


def wrong(name: str, store: ModelStore) -> list[str]:
    """What is not as it was before the work, or would be after it."""
    found = [str(fault) for fault in verify_store(store.layout).faults if name != "repair"]
    refs, open_ = {ref.ref for ref in store.list()}, AFTER.get(name, set())
    if refs - open_ != {"one:1", "two:1"} - open_:
        found.append(f"names are {sorted(refs)}")
    for ref in refs - ({"one:1"} if name == "repair" else set()):
        store.verify(store.get(ref))
    if len(referrers(store.layout, store.get("two").digest)) != 1:
        found.append("two has lost its signature")
    return found


def main(root: Path, name: str) -> None:
    time.sleep = lambda seconds: None  # nobody else works here, so there is nobody to wait for
    template(root)
    number, troubles = 0, list[str]()
    while True:
        folder = root / f"store-{number}"
        shutil.copytree(root / "template", folder)
        store = ModelStore(Layout(folder))
        if name == "repair":
            damage(store, root)
        killed = killed_at(number, lambda store=store: WORK[name](store, root))  # type: ignore[misc]
        troubles += [f"killed before change {number}: {trouble}" for trouble in wrong(name, store)]
        if killed and name != "delete":
            WORK[name](store, root)
        if name == "repair":
            aside = {path.name.rpartition("-")[0][:8] for path in (folder / "quarantine").iterdir()}
            if len(aside) != 2:
                troubles.append(f"killed before change {number}: {sorted(aside)} is what was set aside")
        else:
            collect(store.layout, grace=0)
            left = [path.name for path in store.layout.temporary().iterdir()]
            troubles += [f"killed before change {number}: {each} is left" for each in left]
            troubles += [f"then, killed before change {number}: {trouble}" for trouble in wrong(name, store)]
        shutil.rmtree(folder)
        if not killed:
            break
        number += 1
    print(json.dumps({"places": number, "troubles": troubles}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
