"""Taking a model into the store, beside BentoML: seconds, what the disk grows by, and peak memory.

    python tests/benchmarks/store/beside_bentoml.py --bentoml PYTHON
        [--mib 1024] [--files 1 4] [--rounds 3] [--no-compressed] [--work DIR]

PYTHON is an interpreter that has BentoML 1.4. The same random bytes are

- imported here, as ``bentotool model import`` does once it has found out the format, which BentoML does not;
- copied by ``bentoml.models.create``, whose seconds end with ``sync``, as an import here ends with its bytes on disk;
- exported and imported by either: ``bentoml models import`` of a ``.bentomodel`` and of a plain ``.tar``, and
  ``bentotool model import-archive`` of what ``bentotool.models.export_model`` writes.

Each measurement is one process, from its start to its end. An export is measured once; BentoML's ``.bentomodel`` is
compressed by one thread, which takes half an hour for a GiB: leave it out, or measure it with fewer bytes.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from throughput import _import, disk

_PIECE = 1 << 20

_CREATE = """
import os, pathlib, shutil, sys, bentoml
with bentoml.models.create("bench") as model:
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        shutil.copy(path, model.path_of(path.name))
os.sync()
"""
_EXPORT = "import sys, bentoml; bentoml.models.export_model('bench:latest', sys.argv[1])"
_IMPORT = "import os, sys, bentoml; bentoml.models.import_model(sys.argv[1]); os.sync()"
_OUR_EXPORT = """
import sys
from pathlib import Path
from bentotool.oci.archive import archive_root, write_archive
from bentotool.models.store import ModelStore
from bentotool.oci.layout import Layout
store = ModelStore(Layout(Path(sys.argv[1])))
ref = store.refs.get("models", "bench")
write_archive(store.layout, [archive_root(ref.descriptor, "model", ref.ref)], Path(sys.argv[2]))
"""


def run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds and peak memory in MiB of one process."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{command[:3]} failed: {errors.read()[-2000:].decode(errors='replace')}")
    return {"s": round(time.perf_counter() - started, 2), "rss_mib": round(usage.ru_maxrss / 1024)}


def growing(folder: Path, command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """The same, and by how many MiB a folder grows on the disk."""
    before = disk(folder) if folder.exists() else 0
    done = run(command, environment)
    return {**done, "disk_mib": round((disk(folder) - before) / _PIECE, 1)}


def best(results: list[dict[str, float]]) -> dict[str, float]:
    """The best round, as whatever else uses the machine can only slow one down; and the most memory."""
    fastest = min(results, key=lambda result: result["s"])
    return {**fastest, "rss_mib": max(result["rss_mib"] for result in results)}


def compare(bentoml: str, work: Path, mib: int, files: int, rounds: int, compressed: bool) -> dict[str, object]:
    sources, home, store = work / "sources", work / "bentoml", work / "store"
    sources.mkdir()
    for number in range(files):
        with (sources / f"part-{number}.bin").open("wb") as file:
            for _ in range(mib // files):
                file.write(os.urandom(_PIECE))
    os.sync()
    theirs = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    ours = {**os.environ, "BENTOTOOL_STORE": str(store)}
    ours.pop("BENTOTOOL_BENTO", None)
    found: dict[str, list[dict[str, float]]] = {"bentotool_import": [], "bentoml_create": []}
    command = [sys.executable, __file__, "--step", str(sources), str(store)]
    for _ in range(rounds):
        for folder in (home, store):
            shutil.rmtree(folder, ignore_errors=True)
        found["bentotool_import"].append(growing(store, command, ours))
        found["bentoml_create"].append(growing(home, [bentoml, "-c", _CREATE, str(sources)], theirs))
    result: dict[str, object] = {name: best(results) for name, results in found.items()}
    result["bentotool_import_again"] = growing(store, command, ours)
    result["bentoml_create_again"] = growing(home, [bentoml, "-c", _CREATE, str(sources)], theirs)
    archive = work / "bench.oci.tar"
    result["bentotool_export"] = run([sys.executable, "-c", _OUR_EXPORT, str(store), str(archive)], ours)
    shutil.rmtree(store)
    take = [sys.executable, "-m", "bentotool", "model", "import-archive", str(archive)]
    result["bentotool_import_archive"] = growing(store, take, ours)
    for ending in ("bentomodel", "tar") if compressed else ("tar",):
        archive = work / f"bench.{ending}"
        if not (home / "models").exists():
            run([bentoml, "-c", _CREATE, str(sources)], theirs)
        result[f"bentoml_export_{ending}"] = run([bentoml, "-c", _EXPORT, str(archive)], theirs)
        shutil.rmtree(home)
        result[f"bentoml_import_{ending}"] = growing(home, [bentoml, "-c", _IMPORT, str(archive)], theirs)
        archive.unlink()
        shutil.rmtree(home)
    for folder in (sources, store):
        shutil.rmtree(folder)
    return {"mib": mib, "files": files, **result}


def version(bentoml: str) -> str:
    code = "from importlib.metadata import version; print(version('bentoml'))"
    return subprocess.run([bentoml, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bentoml", help="an interpreter that has BentoML")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compressed", action="store_true", help="leave out .bentomodel, which takes minutes")
    parser.add_argument("--work", type=Path, help="where the files lie; default: the temporary folder")
    parser.add_argument("--step", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _import(*options.step)
        return
    if not options.bentoml:
        parser.error("--bentoml PYTHON is needed")
    with tempfile.TemporaryDirectory(dir=options.work, prefix="beside-bentoml-") as work:
        cases = [
            compare(options.bentoml, Path(work), options.mib, files, options.rounds, not options.no_compressed)
            for files in options.files
        ]
    answer = {"bentoml": version(options.bentoml), "cpus": os.cpu_count(), "load": os.getloadavg(), "cases": cases}
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
