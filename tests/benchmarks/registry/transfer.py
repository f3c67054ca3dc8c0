"""Push and pull of a model against a local docker-registry, beside ``cp`` of the same files.

    python tests/benchmarks/registry/transfer.py [--mib 512] [--files 4] [--jobs 4] [--work DIR]

Each transfer runs in a process of its own; memory is that process's peak. Needs the program docker-registry.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / (1 if sys.platform == "darwin" else 1024), 1),
        "moved": done.moved,
    }
    print(json.dumps(figures))


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A docker-registry on a free port."""
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


def child(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def copy_seconds(source: Path, target: Path) -> float:
    """``cp`` of all blobs, the better of two."""
    times = []
    for _ in range(2):
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["sync"], check=True)
        started = time.perf_counter()
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        times.append(time.perf_counter() - started)
    shutil.rmtree(target)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--once", nargs=3, metavar=("push|pull", "STORE", "REMOTE"))
    options = parser.parse_args()
    if options.once:
        what, store, remote = options.once
        transfer_once(what, Path(store), remote, options.jobs)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as name, registry(Path(name)) as host:
        root, jobs = Path(name), str(options.jobs)
        make_store(root / "a", options.mib, options.files)
        floor = copy_seconds(root / "a" / "blobs", root / "copy")
        print(f"cp          {floor:6.2f} s   {options.mib} MiB in {options.files} files, jobs {jobs}")
        runs = (
            ("push", "a", "bench/one:1"),
            ("push again", "a", "bench/one:1"),
            ("push, known", "a", "bench/two:1"),
            ("pull", "b", "bench/one:1"),
            ("pull again", "b", "bench/one:1"),
        )
        for label, store, remote in runs:
            what = label[:4]
            # What earlier steps wrote must not be written to disk at this one's cost.
            subprocess.run(["sync"], check=True)
            seen = child("--jobs", jobs, "--once", what, str(root / store), f"{host}/{remote}")
            ratio = seen["seconds"] / floor
            print(
                f"{label:11} {seen['seconds']:6.2f} s   {ratio:5.1f} x cp   cpu {seen['cpu']:5.2f} s   "
                f"peak {seen['peak_mb']:5.1f} MB   moved {seen['moved']:,} bytes"
            )


if __name__ == "__main__":
    main()
