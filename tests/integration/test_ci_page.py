"""``docs/ci.md``: its jobs are run as they stand there, against a registry that asks for a login."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bentotool.build.configfile import load_config
from bentotool.build.lock import inputs_digest
from bentotool.build.requirements import gather

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="jobs of the page are for a POSIX shell")

SERVICE = """
import bentotool

@bentotool.service
class Double:
    @bentotool.api
    def predict(self, x: float) -> float:
        return 2 * x
"""


@pytest.fixture(scope="module")
def page(pytestconfig: pytest.Config) -> str:
    return (pytestconfig.rootpath / "docs" / "ci.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, require_package: Callable[[str], None]) -> Path:
    """A project with a lock, so that no index is asked."""
    require_package("litestar")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    (folder / ".bentoignore").write_text(".ci/\n")
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    return folder


@pytest.fixture
def shell(
    project: Path, home: Path, tmp_path: Path, require_tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Runs lines as CI does: with bash, stopping at the first that fails; ``bentotool`` is the one under test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bentotool").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bentotool "$@"\n')
    (programs / "bentotool").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    bash = require_tool("bash")

    def run(script: str) -> str:
        command = [bash, "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        return done.stdout

    return run


def job(page: str, title: str) -> dict[str, Any]:
    section = page.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    found = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert found
    document: dict[str, Any] = yaml.safe_load(found[1])
    return document


def filled(text: str, values: dict[str, str]) -> str:
    """Text with the expressions that a job's runner fills in."""
    for expression, value in values.items():
        text = text.replace(expression, value)
    assert "${{" not in text
    return text


def steps(work: dict[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    for step in work["steps"]:
        if "run" in step and not step["run"].startswith("pip install"):
            yield step.get("env", {}), step["run"]


def test_the_github_job_pushes_and_tells_the_digest(
    page: str,
    shell: Callable[[str], str],
    locked_registry: Any,
    tmp_path: Path,
    require_tool: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_tool("jq")
    work = job(page, "GitHub Actions")["jobs"]["bento"]
    values = {
        "${{ github.repository }}": "team/double",
        "${{ github.sha }}": "4f2a",
        "${{ secrets.GITHUB_TOKEN }}": locked_registry.password,
        "ghcr.io": locked_registry.host,
    }
    for name, value in work["env"].items():
        monkeypatch.setenv(name, filled(value, values))
    monkeypatch.setenv("GITHUB_ACTOR", locked_registry.username)
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path))
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for environment, script in steps(work):
        for name, value in environment.items():
            monkeypatch.setenv(name, filled(value, values))
        shell(script)
    told = dict(line.split("=") for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines())
    built = json.loads((tmp_path / "bento.json").read_text())
    assert (told["tag"], told["digest"]) == (built["tag"], built["push"]["index"])
    assert f"`{told['tag']}`" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert work["outputs"]["digest"] == "${{ steps.build.outputs.digest }}"
    remote = f"{locked_registry.host}/team/double:4f2a"
    assert json.loads(shell(f"bentotool show {remote} --json"))["tag"]
    by_digest = f"{locked_registry.host}/team/double@{told['digest']}"
    pulled = json.loads(shell(f"bentotool pull {by_digest} --json --store {tmp_path}/other"))
    assert pulled["digest"] == built["digest"]
    shell(f"bentotool build --version main >&2; bentotool pull {remote} --as double")
    line = next(line for line in page.splitlines() if line.startswith("$ bentotool diff"))
    assert "hold the same" in shell(line[2:].replace("iris", "double"))


def test_the_gitlab_job_keeps_its_store_in_the_project(
    page: str, shell: Callable[[str], str], project: Path, locked_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = job(page, "GitLab CI")["bento"]
    values = {
        "CI_PROJECT_DIR": str(project),
        "CI_REGISTRY": locked_registry.host,
        "CI_REGISTRY_USER": locked_registry.username,
        "CI_REGISTRY_PASSWORD": locked_registry.password,
        "CI_REGISTRY_IMAGE": f"{locked_registry.host}/team/double",
        "CI_COMMIT_SHA": "77aa",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for name, value in work["variables"].items():
        monkeypatch.setenv(name, value.replace("$CI_PROJECT_DIR", str(project)))
    assert work["script"][0] == "pip install bentotool"
    digests = set()
    for _ in range(2):  # the second time with what the first one left
        shell("\n".join(work["script"][1:]))
        built = json.loads((project / ".ci" / "bento.json").read_text())
        digests.add(built["digest"])
        assert (project / ".ci" / "bento.env").read_text() == f"BENTO_DIGEST={built['push']['index']}\n"
    assert len(digests) == 1
    assert (project / ".ci" / "store" / "index.json").is_file()
    files = json.loads(shell("bentotool show double --json"))["files"]
    assert {file["path"] for file in files} == {".bentoignore", "service.py"}


def test_the_commands_without_a_registry(page: str, shell: Callable[[str], str], tmp_path: Path) -> None:
    section = page.split("## Anywhere else\n")[1]
    lines = [line[2:].replace("/tmp/iris", f"{tmp_path}/iris") for line in section.splitlines() if line[:2] == "$ "]
    assert len(lines) == 3
    archive = json.loads(shell(lines[0]))["archive"]
    assert archive["path"] == f"{tmp_path}/iris.tar"
    assert archive["archive_digest"] in shell(f"sha256sum {tmp_path}/iris.tar | sed 's/^/sha256:/'")
    for line in lines[1:]:
        shell(line)
