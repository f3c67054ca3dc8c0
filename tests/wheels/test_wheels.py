"""Every distribution as a wheel, installed in a clean environment, used from outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(folder for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").is_file())


def _run(command: list[str], **settings: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, **settings)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Installed(NamedTuple):
    """A clean environment with every wheel."""

    wheels: list[Path]
    scripts: Path
    folder: Path

    def bentotool(self, *arguments: str) -> Any:
        variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        variables["BENTOTOOL_STORE"] = str(self.folder / "store")
        program = str(self.scripts / "bentotool")
        return json.loads(_run([program, "--json", *arguments], cwd=self.folder, env=variables))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    target = tmp_path_factory.mktemp("wheels")
    sources = [str(ROOT), *map(str, PLUGINS)]
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), *sources])
    return sorted(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    _run([str(scripts / "python"), "-m", "pip", "install", "--quiet", *map(str, wheels)], cwd=folder)
    return Installed(wheels, scripts, folder)


def _core(wheels: list[Path]) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(path for path in wheels if path.name.startswith("bentotool-")))


def test_there_is_a_wheel_for_core_and_each_plugin(wheels: list[Path]) -> None:
    names = {path.name.split("-")[0] for path in wheels}
    assert names == {"bentotool", *(folder.name.replace("-", "_") for folder in PLUGINS)}


def test_core_carries_its_templates_and_nothing_of_the_checkout(wheels: list[Path]) -> None:
    with _core(wheels) as archive:
        names = set(archive.namelist())
    shipped = {path.relative_to(ROOT / "templates").as_posix() for path in _tracked(ROOT / "templates")}
    assert {f"bentotool/_templates/{name}" for name in shipped} <= names
    assert "bentotool/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"bentotool"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def _tracked(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_core_declares_no_plugin(wheels: list[Path]) -> None:
    with _core(wheels) as archive:
        entries = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "[bentotool]" not in archive.read(entries).decode()


def test_every_plugin_is_found_by_its_entry_point(installed: Installed) -> None:
    listed = installed.bentotool("plugin", "list")
    entries = listed if isinstance(listed, list) else listed["plugins"]
    assert {entry["name"] for entry in entries} == {folder.name.removeprefix("bentotool-") for folder in _hooked()}
    assert {entry["state"] for entry in entries} <= {"ok", "loaded", "active"}


def _hooked() -> list[Path]:
    """The plugins of the tool; a task store is one of the runtime, and has an entry point there."""
    return [
        folder for folder in PLUGINS if "[project.entry-points.bentotool]" in (folder / "pyproject.toml").read_text()
    ]


def test_templates_reach_the_user(installed: Installed) -> None:
    assert "quickstart" in {entry["name"] for entry in installed.bentotool("init", "--list")}
    made = installed.bentotool("init", "project")
    assert (installed.folder / "project" / "iris.onnx").is_file()
    assert "service.py" in made["files"]


def test_the_first_command_of_the_readme(installed: Installed) -> None:
    document = installed.bentotool("quickstart")
    assert document["response"] == [0, 2]
    assert document["bento"]["digest"].startswith("sha256:")
