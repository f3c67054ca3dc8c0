"""Import and verify beside ``cp`` and raw sha256 of the same files; disk growth and memory; a list of many names.

    python tests/benchmarks/store/throughput.py [--mib 1024] [--files 4] [--sparse-gib 1 4] [--refs 10000] [--work DIR]

Each measurement runs in a process of its own, and each import ends with its bytes on the disk (fsync), so ``cp`` is
followed by ``sync``. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PIECE = 1 << 20


def _quiet(amount: int) -> None:
    """Nobody watches."""


def _import(sources: Path, store: Path) -> None:
    from bentotool.interfaces import SourceFile
    from bentotool.models.intake import take_files
    from bentotool.models.manifest import ModelDetails
    from bentotool.models.store import ModelStore
    from bentotool.oci.layout import Layout

    layout = Layout(store)
    taken = take_files(layout, "bench", [SourceFile(path, path.name) for path in sorted(sources.iterdir())], _quiet)
    details = ModelDetails("bench", "raw", "data", "part-0.bin", {"inputs": [], "outputs": []}, (), {}, {})
    ModelStore(layout).add("bench", "1", taken.files, details, layers=taken.layers)


def _verify(sources: Path, store: Path) -> None:
    from bentotool.oci.checking import verify_store
    from bentotool.oci.layout import Layout

    assert verify_store(Layout(store)).faults == ()


def _sha256(sources: Path, store: Path) -> None:
    from bentotool.oci.digest import hash_file

    for path in sources.iterdir():
        hash_file(path)


def _sha256_parallel(sources: Path, store: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from bentotool.oci.digest import hash_file

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(hash_file, sources.iterdir()))


def _copy(sources: Path, store: Path) -> None:
    subprocess.run(["cp", "-r", "--reflink=never", str(sources), str(store)], check=True)
    os.sync()


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "cp": _copy,
    "sha256": _sha256,
    "sha256_parallel": _sha256_parallel,
    "import": _import,
    "verify": _verify,
}


def measure(step: str, sources: Path, store: Path) -> dict[str, float]:
    """Run one step in a process of its own: seconds of the step, peak memory in MiB."""
    command = [sys.executable, __file__, "--step", step, str(sources), str(store)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout)


def run_step(step: str, sources: Path, store: Path) -> None:
    started = time.perf_counter()
    STEPS[step](sources, store)
    seconds = time.perf_counter() - started
    print(json.dumps({"s": seconds, "rss_mib": peak_kib() / 1024}))


def peak_kib() -> int:
    """Peak memory of this process alone; ``ru_maxrss`` counts what the parent had before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def disk(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def speed(work: Path, mib: int, files: int, rounds: int) -> dict[str, object]:
    sources = work / "sources"
    sources.mkdir()
    for number in range(files):
        with (sources / f"part-{number}.bin").open("wb") as file:
            for _ in range(mib // files):
                file.write(os.urandom(_PIECE))
    os.sync()
    seconds: dict[str, list[float]] = {step: [] for step in STEPS}
    memory: dict[str, float] = {}
    for number in range(rounds):
        for step in STEPS:
            store = work / f"{'copy' if step == 'cp' else 'store'}-{number}"
            done = measure(step, sources, store)
            seconds[step].append(done["s"])
            memory[step] = max(memory.get(step, 0), done["rss_mib"])
        growth = disk(work / f"store-{number}")
        for folder in (f"copy-{number}", f"store-{number}"):
            shutil.rmtree(work / folder)
        os.sync()
    shutil.rmtree(sources)
    # The best round: whatever else uses the machine can only slow one down.
    rate = {step: mib / 1024 / min(values) for step, values in seconds.items()}
    return {
        "mib": mib,
        "files": files,
        "gib_per_s": {step: round(value, 3) for step, value in rate.items()},
        "seconds": {step: [round(value, 2) for value in values] for step, values in seconds.items()},
        "import_of_cp": round(rate["import"] / rate["cp"], 2),
        "import_of_sha256": round(rate["import"] / rate["sha256"], 2),
        "verify_of_sha256_parallel": round(rate["verify"] / rate["sha256_parallel"], 2),
        "disk_growth_beyond_content_kib": round((growth - mib * _PIECE) / 1024),
        "rss_mib": {step: round(memory[step]) for step in ("import", "verify")},
    }


def sparse(work: Path, gib: int) -> dict[str, object]:
    sources, store = work / "sparse", work / "sparse-store"
    sources.mkdir()
    with (sources / "part-0.bin").open("wb") as file:
        file.truncate(gib << 30)
    done = measure("import", sources, store)
    grown = disk(store)
    checked = measure("verify", sources, store)
    for folder in (sources, store):
        shutil.rmtree(folder)
    return {
        "gib": gib,
        "import_s": round(done["s"], 2),
        "import_rss_mib": round(done["rss_mib"]),
        "verify_rss_mib": round(checked["rss_mib"]),
        "disk_growth_gib": round(grown / (1 << 30), 3),
    }


def references(work: Path, count: int) -> dict[str, object]:
    from bentotool.oci.layout import Layout
    from bentotool.oci.refs import RefStore

    layout = Layout(work / "many")
    refs = RefStore(layout)
    one = layout.put(b"{}", "application/json")
    for number in range(count - 1):
        path = layout.root / "refs" / "models" / f"model-{number % (count // 4)}" / f"v{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"descriptor": one.to_dict(), "created": f"2026-01-01T00:00:00.{number:06}+00:00", "size": 2}
        path.write_text(json.dumps(document))
    time.sleep(2.5)  # the cache trusts no file younger than that
    refs.set("models", "last", "v1", one)

    def timed(work: Callable[[], object], rounds: int = 5) -> float:
        taken = []
        for _ in range(rounds):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def command(store: Path) -> None:
        line = [sys.executable, "-m", "bentotool", "--store", str(store), "model", "list", "--json"]
        subprocess.run(line, capture_output=True, timeout=60, check=True)

    listed = [
        {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size,
         "created": ref.created, "framework": "", "safety": ""} for ref in refs.list("models")
    ]  # fmt: skip
    printing = timed(lambda: json.dumps(listed, indent=2))
    empty, full = timed(lambda: command(work / "none")), timed(lambda: command(layout.root))
    numbers = iter(range(1000))
    return {
        "refs": count,
        "list_s": round(timed(lambda: RefStore(layout).list("models")), 3),
        "set_s": round(timed(lambda: RefStore(layout).set("models", "other", f"v{next(numbers)}", one)), 3),
        "command_empty_s": round(empty, 3),
        "command_s": round(full, 3),
        "printing_s": round(printing, 3),
        "command_without_printing_of_empty": round((full - printing) / empty, 2),
    }


def main() -> None:
    if sys.argv[1:2] == ["--step"]:
        run_step(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sparse-gib", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--refs", type=int, default=10_000)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        report = {
            "cpus": os.cpu_count(),
            "speed": speed(work, options.mib, options.files, options.rounds) if options.mib else None,
            "sparse": [sparse(work, gib) for gib in options.sparse_gib],
            "references": references(work, options.refs) if options.refs else None,
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
