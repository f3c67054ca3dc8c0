"""Many processes on one store, killed at random. Run by test_store_chaos.py, with a seed; prints what was done as JSON.

    python store_chaos.py FOLDER SEED PROCESSES KILLS SECONDS [--without GUARD]... [--until-damaged]

No process has working file locks: ``flock`` and its like are replaced by functions that do nothing. Each rename, link,
removal and change of a time may be held up, so that what must not happen in between gets its chance to.

``--without`` takes away, in the processes of this run only, one thing that keeps the store whole:

    renewal    a blob that is used again is not made young
    looking    whoever names an artifact does not look whether its content is there
    renaming   a blob is written under its final name
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci import archive, blobs, layout, refs, sink
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.unarchive import read_archive

GRACE_S = 3.0
"""Longer than a process may be held up between storing and naming, as the hour that is the default is."""
SOURCES = 200
NAMES = 25
BENTO_CONFIG = "application/vnd.bentotool.bento.config.v1+json"
DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})


def no_locks() -> None:
    """Locks that do nothing, as on some network file systems."""

    def nothing(*arguments: object, **options: object) -> None:
        return None

    for module, names in {"fcntl": ("flock", "lockf"), "msvcrt": ("locking",), "os": ("lockf",)}.items():
        with contextlib.suppress(ImportError):
            for name in names:
                if hasattr(__import__(module), name):
                    setattr(__import__(module), name, nothing)


def hold_up(rng: random.Random) -> None:
    """Let now and then some time pass before a change to the file system."""

    def slow(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if rng.random() < 0.15:
                time.sleep(rng.random() * 0.05)
            return real(*arguments, **options)

        return call

    for name in ("replace", "rename", "link", "unlink", "utime"):
        setattr(os, name, slow(getattr(os, name)))


def without_renewal() -> None:
    layout.Layout.renew = layout.Layout.has  # type: ignore[method-assign]
    os.utime = lambda *arguments, **options: None


def without_looking() -> None:
    """And grace is shorter than it may take to name something, as that is what looking is for."""
    global GRACE_S
    GRACE_S = 0.5

    def claim(self: refs.RefStore, ref: refs.Ref) -> list[str]:
        time.sleep(0.2)
        return []

    refs.RefStore._claim = claim  # type: ignore[method-assign]


def without_renaming() -> None:
    def publish(self: blobs.BlobWriter, target: Path) -> None:
        self._file.close()
        if not self._path.exists():
            raise BentotoolError("another process took over this transfer")
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        with self._path.open("rb") as source, target.open("wb", buffering=0) as final:
            while piece := source.read(4096):
                time.sleep(0.02)
                final.write(piece)

    blobs.BlobWriter._publish = publish  # type: ignore[method-assign]


WEIGHTS = {
    "add": 5,
    "tag": 2,
    "delete": 5,
    "collect": 4,
    "view": 1,
    "export": 1,
    "take_archive": 2,
    "bento": 1,
    "receive": 3,
    "check": 1,
}
GUARDS = {"renewal": without_renewal, "looking": without_looking, "renaming": without_renaming}


def add(store: ModelStore, name: str, sources: Path, numbers: list[int]) -> StoredModel:
    files = [SourceFile(sources / str(n), f"w{n}.bin") for n in numbers]
    taken = take_files(store.layout, name, files, lambda amount: None)
    return store.add(name, None, taken.files, DETAILS, layers=taken.layers)


class Actions:
    """What a process does, at random.

    Args:
        root: holds the store, the sources and the archives.
    """

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        self.store = ModelStore(Layout(root / "store"))

    def act(self) -> str:
        (action,) = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return getattr(self, action)(f"m{self.rng.randrange(NAMES)}") or action

    def add(self, name: str) -> None:
        add(self.store, name, self.root / "sources", self.rng.sample(range(SOURCES), 2))

    def tag(self, name: str) -> None:
        self.store.tag(name, f"t{self.rng.randrange(3)}", replace=True)

    def view(self, name: str) -> None:
        self.store.materialise(self.store.get(name))

    def delete(self, name: str) -> None:
        kind = self.rng.choice(["models", "models", "bentos"])
        for ref in self.store.refs.list(kind, name):  # all, so that content is often unnamed and comes back later
            self.store.refs.delete(kind, ref.name, ref.tag)

    def collect(self, name: str) -> None:
        collect(self.store.layout, grace=GRACE_S)

    def check(self, name: str) -> str:
        faults = verify_store(self.store.layout, repair=True).faults
        for fault in faults:
            print(fault, file=sys.stderr)
        return "fault" if faults else "check"

    def export(self, name: str) -> None:
        model = self.store.get(name)
        root = archive.archive_root(model.descriptor, "model", model.tag)
        archive.write_archive(self.store.layout, [root], self.root / "archives" / f"{name}.tar")

    def take_archive(self, name: str) -> None:
        """What a pull does, from a file: manifests and layers are received piece by piece, and named in the end."""
        roots = read_archive(self.store.layout, self.root / "archives" / f"{name}.tar")
        self.store.adopt(name, f"a{self.rng.randrange(3)}", roots[0].digest)

    def receive(self, name: str) -> None:
        """As from a registry: a layer in pieces, going on where somebody who was killed has stopped."""
        data = (self.root / "sources" / str(self.rng.randrange(SOURCES))).read_bytes()
        layer = Descriptor("application/octet-stream", sha256_bytes(data), len(data))
        with self.store.layout.layer_sink(layer) as target:
            at = target.resume()
            while at < len(data):
                target.write(data[at : at + 4096])
                at += 4096
                time.sleep(self.rng.random() * 0.02)
            target.commit()

    def bento(self, name: str) -> None:
        """A Bento keeps its models, whether or not they have a name of their own."""
        model = self.store.get(name)
        into = self.store.layout
        config = into.put(json.dumps({"models": [{"digest": model.digest}]}).encode(), BENTO_CONFIG)
        manifest = into.put(Manifest(config, (into.put(name.encode(), "text/plain"),)).to_bytes(), MANIFEST)
        self.store.refs.set("bentos", name, f"b{self.rng.randrange(3)}", manifest)


def work(root: Path, seed: int, done: int) -> None:
    rng = random.Random(seed)
    hold_up(rng)
    actions = Actions(root, rng)
    while True:
        time.sleep(rng.random() * 0.2)
        # To lose a race is an answer; to leave a broken store is not, and that is what is checked in the end.
        try:
            os.write(done, f"{actions.act()}\n".encode())
        except BentotoolError as error:
            os.write(done, f"{error.code}\n".encode())


def prepare(root: Path, rng: random.Random) -> None:
    """Sources, and one model that nobody deletes, whose content is old and partly used by others."""
    for name in ("sources", "archives"):
        (root / name).mkdir(parents=True)
    for number in range(SOURCES):
        (root / "sources" / str(number)).write_bytes(rng.randbytes(20_000 + number))
    store = ModelStore(Layout(root / "store"))
    add(store, "kept", root / "sources", [0, 1])
    for path in store.layout.blobs.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))


def damage(root: Path) -> list[str]:
    """What is wrong in a store at rest."""
    found = [f"{fault.kind} {fault.what}" for fault in verify_store(Layout(root / "store")).faults]
    quarantine = root / "store" / "quarantine"
    return found + [f"quarantined {path.name}" for path in quarantine.glob("*")]


class Crowd:
    """The processes. All are stopped at the end of the block."""

    def __init__(self, root: Path, rng: random.Random, size: int) -> None:
        self._root, self._rng, self._size = root, rng, size
        self._pids: list[int] = []
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self.died = 0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Crowd:
        while len(self._pids) < self._size:
            self._start()
        return self

    def __exit__(self, *reason: object) -> None:
        while self._pids:
            self._end(self._pids.pop())
        self._listen()

    def _start(self) -> None:
        seed = self._rng.randrange(1 << 30)
        pid = os.fork()
        if pid == 0:
            try:
                os.nice(5)  # the killer comes first
                work(self._root, seed, self._write)
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        self._pids.append(pid)

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.died += os.waitpid(pid, 0)[1] != signal.SIGKILL

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self._read, 1 << 16):
                self.counts.update(text.decode().split())

    def kill_one(self) -> None:
        self._end(self._pids.pop(self._rng.randrange(len(self._pids))))
        self._start()
        self._listen()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("kills", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--without", action="append", choices=sorted(GUARDS), default=[])
    parser.add_argument("--until-damaged", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    prepare(options.folder, rng)
    no_locks()
    sink._RESUMABLE = 1000  # the sources are small
    for guard in options.without:
        GUARDS[guard]()
    found: list[str] = []
    died, kills, counts = 0, 0, Counter[str]()
    rounds = 16 if options.until_damaged else 1
    for _ in range(rounds):
        with Crowd(options.folder, rng, options.processes) as crowd:
            start, each = time.monotonic(), options.seconds / options.kills
            for number in range(1, options.kills // rounds + 1):
                time.sleep(max(0.0, start + number * each - time.monotonic()))
                crowd.kill_one()
                kills += 1
        died, counts = died + crowd.died, counts + crowd.counts
        found = damage(options.folder)
        if found or counts["fault"]:
            break
    print(json.dumps({"died": died, "kills": kills, "counts": counts, "damage": found}))


if __name__ == "__main__":
    main()
