"""``bentotool build --push`` and ``--output``: one command from a project to a registry or a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.configfile import load_config
from bentotool.build.lock import inputs_digest
from bentotool.build.requirements import gather

SERVICE = """
import bentotool

@bentotool.service
class Double:
    @bentotool.api
    def predict(self, x: float) -> float:
        return 2 * x
"""


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a lock, so that no index is asked."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    return folder


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)


def test_one_document_holds_build_archive_and_push(project: Path, real_registry: Any, tmp_path: Path) -> None:
    remote, file = f"{real_registry.host}/team/double:7", tmp_path / "double.tar"
    done = run(project, "build", "--locked", "--json", "--push", remote, "--output", file)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["push"]["digest"] == document["digest"]
    assert document["push"]["remote"].startswith(remote)
    assert document["archive"]["archive_size"] == file.stat().st_size
    other = ("--store", tmp_path / "other", "--json")
    assert json.loads(run(project, "pull", remote, *other).stdout)["digest"] == document["digest"]
    third = ("--store", tmp_path / "third", "--json")
    assert json.loads(run(project, "import", file, *third).stdout)["digest"] == document["digest"]
    again = run(project, "build", "--push", remote)
    assert again.returncode == 0, again.stderr
    first, digest, pushed, *_ = again.stdout.splitlines()
    assert (first, digest) == (f"Built {document['tag']}", document["digest"])
    assert pushed.startswith(f"pushed {document['tag']} to {remote}")


def test_a_push_that_fails_is_no_success(project: Path, tmp_path: Path) -> None:
    words = ("build", "--locked", "--push", "127.0.0.1:9/double:1", "--output", tmp_path / "double.tar")
    done = run(project, *words, "--json")
    assert (done.returncode, done.stdout) == (5, "")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    built = json.loads(run(project, "list", "--json").stdout)[0]
    assert error["built"] == {key: built[key] for key in ("name", "version", "tag", "digest", "size")}
    assert (tmp_path / "double.tar").stat().st_size
    spoken = run(project, *words)
    assert (spoken.returncode, spoken.stdout.splitlines()[1]) == (5, built["digest"])
    assert "error: " in spoken.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--push", "not a reference"), 2, "not a reference"),
        (("--push", "127.0.0.1:9/double:1", "--dry-run"), 2, "--dry-run"),
        (("--output", "."), 2, "is no file"),
        (("--output", "-"), 2, "is no file"),
        (("--output", "none/double.tar"), 3, "does not exist"),
        (("--output", "double.tar", "--check"), 2, "--check"),
    ],
)
def test_what_cannot_be_sent_is_said_before_the_build(
    project: Path, store: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = run(project, "build", "--locked", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert not list(store.rglob("refs/bentos/*"))
