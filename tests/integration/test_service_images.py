"""``@service(image=...)`` from the command line: what a build takes from it, and that the service still serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.wheel import make_wheel

SERVICE = """
import bentotool as bentoml
from bentotool.images import PythonImage

image = bentoml.images.Image(distro="debian").system_packages("git").run("echo 'a b' > /x")
image = image.requirements_file("needs.txt").run_script("scripts/warm.sh").build_include("scripts")
assert PythonImage is bentoml.images.Image

@bentoml.service(image=image)
class Hello:
    @bentoml.api
    def hello(self) -> str:
        return "hello"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def project(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, require_package: Callable[[str], None]
) -> Path:
    """A project and a wheelhouse with all that it needs, so that no index is asked."""
    require_package("litestar")
    from bentotool.build.requirements import LITESTAR_NEEDS, RUNTIME_REQUIREMENTS

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("BENTOTOOL_STORE", str(store))
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    (folder / "wheels").mkdir()
    lines = (*RUNTIME_REQUIREMENTS, *LITESTAR_NEEDS)
    names = {line.split(";")[0].split(">")[0].split("<")[0].strip() for line in lines}
    for name in (*sorted(names), "tiny", "tinydep"):
        file = name.replace("-", "_")
        version = "2.50" if name == "litestar" else "99.0"
        content = make_wheel(file, version, {f"{file}.py": b""}, ["tinydep"] if name == "tiny" else [])
        (folder / "wheels" / f"{file}-{version}-py3-none-any.whl").write_bytes(content)
    (folder / "service.py").write_text(SERVICE)
    (folder / "needs.txt").write_text("-r more.txt\n")
    (folder / "more.txt").write_text("tiny\n")
    (folder / "scripts" / "warm.sh").write_text("#!/bin/sh\n")
    (folder / "bentofile.yaml").write_text(
        "service: service:Hello\nexclude: [wheels/]\npython: {no_index: true, find_links: [wheels]}\n"
        "docker: {base_image: 'debian:12', system_packages: [curl], post_commands: [echo last]}\n"
    )
    return folder


def plan_of(folder: Path) -> dict[str, Any]:
    done = run(folder, "build", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_build_takes_all_of_the_image(project: Path) -> None:
    plan = plan_of(project)["plan"]
    assert plan["image"] == {
        "base_image": "debian:12",
        "distro": "debian",
        "steps": [{"system_packages": ["git"]}, {"run": "echo 'a b' > /x"}, {"system_packages": ["curl"]}],
        "post_steps": [{"script": "scripts/warm.sh"}, {"run": "echo last"}],
        "build_include": ["scripts"],
    }
    done = run(project, "build", "--json")
    assert done.returncode == 0, done.stderr
    assert "tinydep==99.0" in (project / "bento.lock").read_text()
    again = json.loads(run(project, "build", "--json").stdout)
    assert (again["digest"], again["cached"]["build"]) == (json.loads(done.stdout)["digest"], True)
    (project / "more.txt").write_text("tinydep\n")
    changed = json.loads(run(project, "build", "--json").stdout)
    assert (changed["cached"]["build"], changed["lock_reused"]) == (False, False)
    assert "tiny==" not in (project / "bento.lock").read_text()


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (('"scripts/warm.sh"', '"../warm.sh"'), 6, "not a plain path inside the project"),
        (('"scripts/warm.sh"', '"scripts/none.sh"'), 3, "scripts/none.sh"),
        (('"git"', '"git; rm -rf /"'), 2, "service → image → steps → 0 → system_packages → 0"),
        (("\"echo 'a b' > /x\"", '"a\\nb"'), 2, "control character"),
        (('distro="debian"', 'distro="debain"'), 2, "did you mean 'debian'?"),
        (('distro="debian"', "distro=3"), 1, "distro of an image takes text"),
        (("image=image", "image=3"), 2, "takes bentotool.images.Image"),
    ],
)
def test_what_is_wrong_is_one_line(project: Path, change: tuple[str, str], status: int, words: str) -> None:
    (project / "service.py").write_text(SERVICE.replace(*change))
    done = run(project, "build", "--dry-run")
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_is_left_out_is_named(project: Path) -> None:
    (project / ".bentoignore").write_text("scripts/\n")
    done = run(project, "build", "--dry-run")
    assert done.returncode == 2
    assert "'scripts/warm.sh' is not among the Bento's files" in done.stderr
