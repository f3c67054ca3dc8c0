"""Push and pull of a model against a local docker-registry, beside ``cp``, ``oras`` and ``skopeo`` with the same files.

    python tests/benchmarks/registry/transfer.py [--mib 2048] [--files 8] [--jobs 4] [--rounds 2] [--work DIR]

Each transfer runs in a process of its own; processor time and memory are that process's. The better of some rounds
counts; a peak below that of this script shows as its own. Needs docker-registry; oras and skopeo run where they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_PIECE = 1 << 20


def make_store(root: Path, mib: int, files: int) -> None:
    """A store with one model of ``mib`` MiB of random bytes in ``files`` files."""
    from bentotool.models.manifest import ModelDetails, ModelFile
    from bentotool.models.store import ModelStore
    from bentotool.oci.layout import Layout

    layout = Layout(root)
    listing = []
    for number in range(files):
        with layout.writer() as writer:
            for _ in range(mib // files):
                writer.write(os.urandom(_PIECE))
            digest, size = writer.commit()
        listing.append(ModelFile(f"part-{number}.bin", size, digest))
    details = ModelDetails("bench", "raw", "data", "part-0.bin", {"inputs": [], "outputs": []}, (), {}, {})
    ModelStore(layout).add("bench", "1", listing, details)


def transfer_once(what: str, store: Path, remote: str, jobs: int) -> None:
    """One push or pull in this process; prints its figures as JSON."""
    from bentotool import transfer
    from bentotool.oci.layout import Layout
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.refs import RefStore
    from bentotool.oci.registry import Registry

    layout, target = Layout(store), RemoteReference.parse(remote)
    started = time.perf_counter()
    with Registry(target.registry, push=what == "push") as registry:
        if what == "push":
            done = transfer.push_model(layout, RefStore(layout).get("models", "bench"), target, registry, jobs=jobs)
        else:
            done = transfer.pull(layout, target, registry, jobs=jobs)
    print(json.dumps({"seconds": round(time.perf_counter() - started, 2), "moved": done.moved}))


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """An empty docker-registry on a free port: one that has the blobs already would be sent nothing."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{folder / 'data'}'}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))):
                break
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Figures:
    """What a program took: seconds of wall time and of processor time, MB of memory at its peak."""

    seconds: float
    cpu: float
    peak_mb: float
    moved: int | None = None


def run(command: list[str], folder: Path | None = None) -> Figures:
    """Run a program to its end."""
    subprocess.run(["sync"], check=True)  # what earlier steps wrote must not be written to disk at this one's cost
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output, errors = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} failed: {errors.decode()}")
    moved = json.loads(output)["moved"] if "--once" in command else None
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Figures(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale, moved)


class Bench:
    def __init__(self, root: Path, host: str, number: int, options: argparse.Namespace) -> None:
        self.root, self.host, self.round, self.options = root, host, number, options

    def ours(self, what: str, store: str, repository: str) -> Figures:
        remote = f"{self.host}/{repository}:1"
        jobs = str(self.options.jobs)
        return run([sys.executable, __file__, "--jobs", jobs, "--once", what, str(self.root / store), remote])

    def copy(self) -> Figures:
        target = self.root / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return run(["cp", "-r", "--reflink=never", str(self.root / "a" / "blobs"), str(target)])

    def oras(self, what: str) -> Figures:
        folder = self.root / "files" if what == "push" else self.root / f"oras-{self.round}"
        folder.mkdir(exist_ok=True)
        remote = f"{self.host}/bench/oras{self.round}:1"
        files = sorted(path.name for path in folder.iterdir())
        return run(["oras", what, "--plain-http", remote, *files], folder)

    def skopeo(self, what: str) -> Figures:
        local = f"oci:{self.root / 'whole'}:bench"
        if what == "pull":
            local = f"oci:{self.root / f'skopeo-{self.round}'}:bench"
        remote = f"docker://{self.host}/bench/skopeo{self.round}:1"
        ends = [local, remote] if what == "push" else [remote, local]
        return run(
            [
                "skopeo",
                "copy",
                "--quiet",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                *ends,
            ]
        )

    def steps(self) -> dict[str, Callable[[], Figures]]:
        number = self.round
        steps = {
            "cp": self.copy,
            "push": lambda: self.ours("push", "a", f"bench/one{number}"),
            "push again": lambda: self.ours("push", "a", f"bench/one{number}"),
            "push, known": lambda: self.ours("push", "a", f"bench/two{number}"),
            "pull": lambda: self.ours("pull", f"b{number}", f"bench/one{number}"),
            "pull again": lambda: self.ours("pull", f"b{number}", f"bench/one{number}"),
        }
        for name, made in (("oras", self.oras), ("skopeo", self.skopeo)):
            if shutil.which(name):
                steps[f"{name} push"] = partial(made, "push")
                steps[f"{name} pull"] = partial(made, "pull")
        return steps


def prepare(root: Path, mib: int, files: int) -> None:
    """The store, its files beside it for oras, and a whole layout of it for skopeo."""
    from bentotool.models.store import ModelStore
    from bentotool.oci.descriptor import MANIFEST, Descriptor, Index
    from bentotool.oci.layout import Layout

    make_store(root / "a", mib, files)
    store = ModelStore(Layout(root / "a"))
    model = store.get("bench")
    (root / "files").mkdir()
    for path in store.materialise(model).iterdir():
        os.link(path, root / "files" / path.name)
    whole = Layout(root / "whole")
    whole.prepare()
    for part in (*model.manifest.layers, model.manifest.config):
        with store.layout.open_layer(part) as stream, whole.blob_path(part.digest).open("wb") as target:
            shutil.copyfileobj(stream, target, _PIECE)
    whole.put(store.layout.read(model.digest), MANIFEST)
    name = {"org.opencontainers.image.ref.name": "bench"}
    index = Index((Descriptor(MANIFEST, model.digest, model.descriptor.size, name),))
    (whole.root / "index.json").write_bytes(index.to_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--once", nargs=3, metavar=("push|pull", "STORE", "REMOTE"))
    options = parser.parse_args()
    if options.once:
        what, store, remote = options.once
        transfer_once(what, Path(store), remote, options.jobs)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        prepare(Path(name), options.mib, options.files)
        found: dict[str, list[Figures]] = {}
        for number in range(options.rounds):
            with registry(Path(name)) as host:
                for label, step in Bench(Path(name), host, number, options).steps().items():
                    found.setdefault(label, []).append(step())
            for received in ("b", "oras-", "skopeo-"):
                shutil.rmtree(Path(name) / f"{received}{number}", ignore_errors=True)
        floor = min(each.seconds for each in found["cp"])
        print(f"{options.mib} MiB in {options.files} files, jobs {options.jobs}")
        for label, rounds in found.items():
            best = min(rounds, key=lambda each: each.seconds)
            moved = f"   moved {best.moved:,} bytes" if best.moved is not None else ""
            print(
                f"{label:12} {best.seconds:6.2f} s   {best.seconds / floor:5.1f} x cp   cpu {best.cpu:5.2f} s   "
                f"peak {best.peak_mb:5.1f} MB{moved}"
            )


if __name__ == "__main__":
    main()
