"""``bentotool build`` beside ``bentoml build``: seconds and processor seconds: cold, warm, unchanged, edited.

    python tests/benchmarks/build/beside_bentoml.py [--bentoml PYTHON] [--files 20000] [--gib 2] [--rounds 3]
        [--work DIR] [--only quickstart|small|large]

PYTHON is an interpreter that has BentoML 1.4. Three projects: that of ``bentotool init`` (ours alone: it has a model),
a service of three files, and the same service among FILES files of GIB GiB, nine tenths of them small. Each with a lock
of one package and what it needs.

- ``cold``: no lock and an empty store; the package cache of uv is as it was.
- ``warm``: a lock, and an empty store.
- ``no-op``: built before, nothing changed.
- ``edit``: built before, one line of ``service.py`` changed.
- ``help``: the program's ``--help``, for what starting it costs.

Each measurement is one process from start to end, the rounds of both programs in turn; the least of the rounds counts.
Between the rounds is a pause, after which the files' times are old enough to be trusted. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTLE_S = 2.5
SERVICE = """
import {tool}

@{tool}.service
class Double:
    @{tool}.api
    def predict(self, x: float) -> float:
        return 2 * x
"""
CONFIG = "service: 'service:Double'\nname: double\npython:\n  packages: [msgspec]\n"


def run(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds, and processor seconds with those of all children, of one process."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            errors.seek(0)
            raise SystemExit(f"{command}: {errors.read().decode(errors='replace')[-2000:]}")
    return {"s": time.perf_counter() - started, "cpu_s": usage.ru_utime + usage.ru_stime}


def least(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(min(item[key] for item in found), 3) for key in found[0]}


class Tool:
    """One of the two programs, with a store of its own."""

    def __init__(self, name: str, python: str, work: Path) -> None:
        self.name, self.store = name, work / f"{name}-store"
        self.command = [python, "-m", name]
        place = {"bentotool": "BENTOTOOL_STORE", "bentoml": "BENTOML_HOME"}[name]
        self.environment = {**os.environ, place: str(self.store), "BENTOML_DO_NOT_TRACK": "True"}

    def build(self, folder: Path) -> dict[str, float]:
        return run([*self.command, "build"], folder, self.environment)

    def empty(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    def measure(self, folder: Path, rounds: int, prepare: object = None) -> dict[str, dict[str, float]]:
        found: dict[str, list[dict[str, float]]] = {}

        def note(what: str, value: dict[str, float]) -> None:
            found.setdefault(what, []).append(value)

        for number in range(rounds):
            self.empty()
            if callable(prepare):
                prepare()
            (folder / "bento.lock").unlink(missing_ok=True)
            note("help", run([*self.command, "--help"], folder, self.environment))
            note("cold", self.build(folder))
            self.empty()
            if callable(prepare):
                prepare()
            time.sleep(SETTLE_S)
            note("warm", self.build(folder))
            time.sleep(SETTLE_S)
            self.build(folder)
            note("no-op", self.build(folder))
            service = folder / "service.py"
            service.write_text(service.read_text() + f"\n# edit {self.name} {number}\n")
            note("edit", self.build(folder))
        return {what: least(values) for what, values in found.items()}


def small(folder: Path, tool: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "service.py").write_text(SERVICE.format(tool=tool))
    (folder / "bentofile.yaml").write_text(CONFIG)
    (folder / "README.md").write_text("A service.\n")
    return folder


def large(folder: Path, tool: str, files: int, size: int) -> Path:
    """Small files of 2 KiB, and a tenth of larger ones that make up the size."""
    small(folder, tool)
    chance, few = random.Random(1), max(files // 10, 1)
    piece = (size - (files - few) * 2048) // few
    for number in range(files):
        place = folder / f"data{number % 200:03}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.bin").write_bytes(chance.randbytes(2048 if number >= few else piece))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bentoml", metavar="PYTHON")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", choices=["quickstart", "small", "large"])
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="build-bench-", dir=options.work))
    tools = [Tool("bentotool", sys.executable, work)]
    tools += [Tool("bentoml", options.bentoml, work)] if options.bentoml else []
    report: dict[str, object] = {}
    try:
        if options.only in (None, "quickstart"):
            ours, folder = tools[0], work / "quickstart"
            run([*ours.command, "init", str(folder)], work, ours.environment)

            def model() -> None:
                run([*ours.command, "model", "import", "iris.onnx", "--name", "iris"], folder, ours.environment)

            report["quickstart"] = {"bentotool": ours.measure(folder, options.rounds, model)}
        for kind in ("small", "large"):
            if options.only in (None, kind):
                report[kind] = {}
                for tool in tools:
                    folder = work / f"{kind}-{tool.name}"
                    if kind == "small":
                        small(folder, tool.name)
                    else:
                        large(folder, tool.name, options.files, int(options.gib * (1 << 30)))
                    report[kind][tool.name] = tool.measure(folder, options.rounds)  # type: ignore[index]
                    tool.empty()
                    shutil.rmtree(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
