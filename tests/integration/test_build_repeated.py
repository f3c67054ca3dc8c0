"""``bentotool build`` again and again, and several at once, as a CI machine does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
import bentotool

@bentotool.service
class Double:
    @bentotool.api
    def predict(self, x: float) -> float:
        return 2 * x
"""
HEAVY = ("yaml", "pathspec", "packaging", "tomllib", "bentotool.build.planning", "bentotool.build.lock")


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a lock, so that no index is asked."""
    from bentotool.build.configfile import load_config
    from bentotool.build.lock import inputs_digest
    from bentotool.build.requirements import gather

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    (folder / "bentofile.yaml").write_text("name: double\n")
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bentotool", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], status: int = 0) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return output if status == 0 else errors


def build(folder: Path, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(end(start(folder, "build", "--json", *arguments)))
    return document


def test_eight_builds_at_once(project: Path, store: Path) -> None:
    found = [json.loads(end(process)) for process in [start(project, "build", "--json") for _ in range(8)]]
    assert len({document["digest"] for document in found}) == 1
    (project / "service.py").write_text(SERVICE + "\n# edited\n")
    edited = [json.loads(end(process)) for process in [start(project, "build", "--json") for _ in range(8)]]
    assert len({document["digest"] for document in edited}) == 1
    assert edited[0]["digest"] != found[0]["digest"]
    assert len(json.loads(end(start(project, "list", "--json")))) == 2
    end(start(project, "store", "verify"))
    assert not [path for path in store.rglob("*.tmp") if path.is_file()]
    assert build(project)["cached"]["build"] is True


def test_a_build_with_nothing_changed_loads_nothing_of_a_build(project: Path) -> None:
    first = build(project)
    code = "import sys; from bentotool.__main__ import run\ntry: run()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "build", "--json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["digest"] == first["digest"]
    assert not set(HEAVY) & set(done.stderr.split())


def test_explain_says_what_changed_and_what_it_cost(project: Path) -> None:
    assert "no earlier build of this name is known" in end(start(project, "build", "--explain"))
    first = build(project)
    (project / "service.py").write_text(SERVICE.replace("2 * x", "3 * x"))
    (project / "words.txt").write_text("few")
    (project / "bentofile.yaml").write_text("name: double\nlabels:\n  team: a\n")
    words = end(start(project, "build", "--explain", "--dry-run"))
    assert f"since {first['tag']}" in words
    for line in (
        "files        changed  service.py",
        "files        added    words.txt",
        "config       added    labels.team",
    ):
        assert line in words
    assert "service.py changed" in words
    explained = build(project, "--explain")["explain"]
    assert {(c["input"], c["change"], c["name"]) for c in explained["changes"]} == {
        ("files", "changed", "bentofile.yaml"),
        ("files", "changed", "service.py"),
        ("files", "added", "words.txt"),
        ("config", "added", "labels.team"),
    }
    assert {step["step"]: step.get("cache") for step in explained["steps"]}["lock"] == "hit"
    assert build(project, "--explain")["explain"]["changes"] == []


def test_dry_run_prints_the_plan_and_writes_nothing(project: Path, store: Path) -> None:
    before = sorted(project.rglob("*"))
    plan = build(project, "--dry-run")["plan"]
    assert (plan["name"], [file["path"] for file in plan["files"]]) == ("double", ["bentofile.yaml", "service.py"])
    assert (sorted(project.rglob("*")), store.exists()) == (before, False)
    assert build(project)["version"] == plan["version"]


def test_check_is_a_command(project: Path) -> None:
    assert "built in two ways" in end(start(project, "build", "--check"))
    assert build(project, "--check")["equal"] is True
    (project / "service.py").write_text(
        SERVICE.replace("bentotool.service", "bentotool.service(labels={'f': __file__})")
    )
    words = end(start(project, "build", "--check"), 1)
    assert "labels.f differs" in words
    assert "Traceback" not in words


def test_no_cache_takes_nothing_from_before(project: Path) -> None:
    first = build(project)
    again = build(project, "--no-cache")
    assert (again["digest"], again["cached"]["build"], again["cached"]["service"]) == (first["digest"], False, False)
    assert build(project)["cached"]["build"] is True
