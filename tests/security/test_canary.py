"""Class 9: looking at a model, importing, checking, packing and building with it run nothing that it brings."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ONNX = ROOT / "templates" / "quickstart" / "iris.onnx"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """What is sprung appears beside it."""
    folder = tmp_path / "canary"
    folder.mkdir()
    yield folder / "canary"
    assert list(folder.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path, canary: Path, traps: ModuleType, require_package: Callable[[str], None]) -> Path:
    """A sound ONNX model among traps."""
    require_package("bentotool_onnx")
    target: Path = tmp_path / "traps"
    traps.make_traps(target, canary)
    shutil.copyfile(ONNX, target / "model.onnx")
    return target


def watch(tmp_path: Path, cwd: Path, commands: list[list[object]], planted: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What command lines did: their exit statuses, and what they need not do."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = {
        "lines": [[str(word) for word in command] for command in commands],
        "data": [str(cwd)],
        "planted": [str(path) for path in planted],
        "written": [str(tmp_path / name) for name in ("store", "other", "out", "scratch")],
    }
    (scratch / "job.json").write_text(json.dumps(job))
    program = Path(__file__).with_name("watched.py")
    command = [sys.executable, str(program), str(scratch / "job.json"), str(scratch / "report.json")]
    settings = {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **settings}, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "unexpected failure" not in done.stderr
    report: dict[str, Any] = json.loads((scratch / "report.json").read_text())
    return report


def quiet(tmp_path: Path, cwd: Path, commands: list[list[object]]) -> list[int]:
    """Exit statuses of command lines that did nothing they need not do."""
    report = watch(tmp_path, cwd, commands)
    assert list(dict.fromkeys(report["found"])) == []
    statuses: list[int] = report["statuses"]
    return statuses


def test_the_watch_sees_what_is_planted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "planted.py").write_text(
        "import pickle, pathlib, subprocess, sys\n"
        f"pathlib.Path({str(tmp_path / 'outside')!r}).write_text('x')\n"
        "subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "pickle.loads(pickle.dumps(pathlib.PurePosixPath('x')))\n"
    )
    found = " ".join(watch(tmp_path, data, [["--version"]], (data / "planted.py",))["found"])
    for event in ("exec", "compile", "open", "subprocess.Popen", "pickle.find_class"):
        assert f"{event} " in found, event


def test_a_model_among_traps(folder: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", ("--store", tmp_path / "other")
    out.mkdir()
    installed = importlib.util.find_spec("zstandard")
    compressed = [["model", "export", "m", out / "m.tar.zst", "--force"]] if installed else []
    commands: list[list[object]] = [
        ["model", "import", ".", "--name", "m", "--version", "1", "--framework", "onnx", "--replace", "--label", "a=b"],
        ["model", "list"],
        ["model", "list", "--json", "--filter", "label=a"],
        ["model", "show", "m"],
        ["model", "path", "m"],
        ["model", "tag", "m", "2"],
        ["model", "export", "m", out / "m.tar", "--force"],
        *compressed,
        ["model", "import-archive", out / "m.tar", *other],
        ["model", "show", "m", *other],
        ["store", "verify", *other],
        ["store", "verify"],
        ["store", "du"],
        ["store", "gc", "--grace", "0s"],
        ["list"],
        ["plugin", "list"],
        ["model", "delete", "m:2", "--yes"],
        ["store", "gc", "--grace", "0s"],
    ]
    statuses = dict(zip(map(str, commands), quiet(tmp_path, folder, commands), strict=True))
    assert {name: status for name, status in statuses.items() if status} == {}


def test_each_trap_as_a_model(folder: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    commands: list[list[object]] = [["model", "import", name, *trust] for name in names for trust in ([], ["--trust"])]
    commands += [["model", "import", ".", *trust] for trust in ([], ["--trust"])]
    commands += [["model", "list"], ["store", "verify"]]
    statuses = quiet(tmp_path, folder, commands)
    assert set(statuses) <= {0, 2, 6}
    assert statuses[-2:] == [0, 0]
    trusted = dict(zip(map(tuple, commands), statuses, strict=True))
    for name in names:
        if name.endswith((".pkl", ".joblib", ".pt", ".bin", ".cloudpickle")):
            assert trusted["model", "import", name] in (2, 6), name


@pytest.mark.parametrize("kind", ["auto_map", "nested", "remote", "attention"])
def test_a_config_that_asks_for_code_needs_trust(
    folder: Path, tmp_path: Path, traps: ModuleType, require_package: Callable[[str], None], kind: str
) -> None:
    require_package("bentotool_huggingface")
    (folder / "model.onnx").unlink()
    for path in folder.glob("*.p[kt]*"):
        path.unlink()
    for name in ("evil.bin", "evil.joblib", "evil.cloudpickle", "nested.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "config.json").write_text(json.dumps(traps.CONFIGS[kind]))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    statuses = quiet(tmp_path, folder, [["model", "import", "."], ["model", "import", ".", "--trust", "--name", "m"]])
    assert statuses == [6, 0]


def test_the_program_itself_imports_nothing_from_where_it_runs(folder: Path, canary: Path, store: Path) -> None:
    """As installed: no folder of traps is on its path, and neither PYTHONPATH nor the current folder leads there."""
    program = Path(sys.executable).with_name("bentotool.exe" if sys.platform == "win32" else "bentotool")
    assert program.exists()
    for words in (["model", "import", ".", "--framework", "onnx", "--name", "m"], ["model", "show", "m"], ["--help"]):
        done = subprocess.run(
            [str(program), *words], cwd=folder, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_bento_is_built_around_traps_and_springs_none(
    folder: Path, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Callable[[str], None]
) -> None:
    """The service is imported, in a process of its own; what lies in the model or beside the service is not."""
    require_package("litestar")
    from bentotool.build.configfile import load_config
    from bentotool.build.lock import inputs_digest
    from bentotool.build.requirements import gather

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    project = tmp_path / "project"
    shutil.copytree(folder, project / "data")
    (project / "service.py").write_text(
        "import bentotool\n\n\n@bentotool.service\nclass S:\n    m = bentotool.models.BentoModel('m:1')\n\n"
        "    @bentotool.api\n    def f(self, x: float) -> float:\n        return x\n"
    )
    shutil.copyfile(folder / "evil.pth", project / "evil.pth")
    shutil.copyfile(folder / "conftest.py", project / "conftest.py")
    shutil.copyfile(folder / "setup.py", project / "setup.py")
    inputs = inputs_digest(gather(load_config(project)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (project / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")

    def run(*words: object, cwd: Path = tmp_path) -> str:
        command = [sys.executable, "-m", "bentotool", *map(str, words)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=55, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("model", "import", folder, "--framework", "onnx", "--name", "m", "--version", "1")
    built = json.loads(run("build", project, "--json"))
    assert [model["name"] for model in built["models"]] == ["m"]
    for words in (("show", built["tag"]), ("path", built["tag"]), ("export", built["tag"], tmp_path / "b.tar")):
        run(*words)
    run("import", tmp_path / "b.tar", "--store", tmp_path / "other")
    run("store", "verify", "--store", tmp_path / "other")
