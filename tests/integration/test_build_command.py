"""``bentotool build`` as a person runs it: output, exit status, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a lock, so that no index is asked."""
    from bentotool.build.configfile import load_config
    from bentotool.build.lock import inputs_digest
    from bentotool.build.requirements import gather

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", "build", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_build_prints_tag_and_digest(project: Path) -> None:
    done = run(project)
    assert done.returncode == 0, done.stderr
    tag, digest = done.stdout.splitlines()
    assert tag.startswith("Built double:")
    assert digest.startswith("sha256:")
    document = json.loads(run(project, "--json", "--locked").stdout)
    assert (document["digest"], f"Built {document['tag']}", document["lock_reused"]) == (digest, tag, True)
    assert {"name", "version", "tag", "digest", "size"} <= set(document)
    plan = json.loads(run(project, "--dry-run", "--json").stdout)["plan"]
    assert [file["path"] for file in plan["files"]] == ["service.py"]


@pytest.mark.parametrize(
    ("files", "arguments", "status", "words"),
    [
        ({"service.py": None}, (), 3, "no service.py"),
        ({"service.py": "x = "}, (), 1, "service.py:1"),
        ({"service.py": "raise ValueError('no weights')"}, (), 1, "no weights"),
        ({"bentofile.yaml": "service: absent:Svc"}, (), 3, "absent"),
        ({"bentofile.yaml": "servce: service:Double"}, (), 2, "did you mean 'service'"),
        ({"bentofile.yaml": "models: [absent]"}, (), 3, "model import FILE --name absent"),
        ({"bento.lock": None}, ("--locked",), 2, "--locked"),
        ({"bento.lock": "not a lock"}, (), 4, "bento.lock"),
        ({}, ("--label", "x"), 2, "KEY=VALUE"),
        ({}, ("--platform", "win/x"), 2, "linux/amd64"),
        ({}, ("--version", "../x"), 2, "--version"),
        ({"bentofile.yaml": "include: ['../*']"}, (), 6, "outside the project"),
    ],
)
def test_what_is_wrong_is_one_line(
    project: Path, store: Path, files: dict[str, str | None], arguments: tuple[str, ...], status: int, words: str
) -> None:
    for name, content in files.items():
        if content is None:
            (project / name).unlink()
        else:
            (project / name).write_text(content)
    done = run(project, *arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not list(store.rglob("refs/bentos/*"))


def ended(process: int) -> bool:
    """Whether a process is gone, given a moment for whoever inherited it to notice."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(project: Path, store: Path, tmp_path: Path, number: int, status: int) -> None:
    started = tmp_path / "started"
    (project / "service.py").write_text(
        f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    command = [sys.executable, "-m", "bentotool", "build"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as build:
        end = time.monotonic() + 30
        while not (started.exists() and started.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        build.send_signal(number)
        output, errors = build.communicate(timeout=30)
    assert (build.returncode, output) == (status, "")
    assert "Traceback" not in errors
    assert ended(int(started.read_text()))
    assert sorted(path.name for path in project.iterdir()) == ["bento.lock", "service.py"]
    assert not store.exists() or not [path for path in store.rglob("*") if path.is_file()]
