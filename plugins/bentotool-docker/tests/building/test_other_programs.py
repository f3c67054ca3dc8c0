"""podman and buildah make images, as they are installed here: what they make runs, and says why where it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="these build on Linux"), pytest.mark.timeout(300)]

SERVICE = """
import os, pathlib
import bentotool

with bentotool.importing():
    import secretpkg

@bentotool.service
class Probe:
    @bentotool.api
    def facts(self) -> dict[str, str]:
        found = {name: pathlib.Path(f"/{name}").read_text().strip() for name in ("said", "three", "after")}
        return {**found, "word": secretpkg.WORD, "token": os.environ.get("BUILD_TOKEN", "")}
"""
CONFIG: dict[str, Any] = {
    "service": "service:Probe",
    "python": {"version": "3.11", "packages": ["secretpkg"]},
    "envs": [{"name": "BUILD_TOKEN", "stage": "build"}, {"name": "MODE", "value": "one two"}],
    "docker": {
        "commands": ["echo '<<EOF' > /said"],
        "setup_script": "setup.sh",
        "post_commands": ["python -c 'import secretpkg; print(secretpkg.WORD)' > /after"],
    },
}
SCRIPT = '#!/bin/sh\nset -eu\necho "three $MODE ${#BUILD_TOKEN}" > /three\n'
TOKEN = "canary-of-the-step"


@pytest.fixture(scope="module", params=["podman", "buildah"])
def program(request: pytest.FixtureRequest, require_tool: Callable[[str], str]) -> str:
    require_tool(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def made(
    program: str, builds: Any, archive: str, storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], Path]:
    tag = builds.bento(f"by-{program}", CONFIG, {"service.py": SERVICE, "setup.sh": SCRIPT})
    output = tmp_path_factory.mktemp("out") / "image.tar"
    words = ("--base", archive, "--engine", program, "--output", str(output), "--no-compress")
    found = builds.made("containerize", tag, *words, **storage, BUILD_TOKEN=TOKEN)
    return tag, found["images"][0], output


def test_the_image_runs(kit: Any, engine: Any, made: Any, tools: Any) -> None:
    tag, _, output = made
    with output.open("rb") as file:
        engine.images.load(file)
    try:
        with kit.running(engine, tag, tools.wait_for, read_only=True) as (_, url):
            facts = tools.call(url, "facts")
    finally:
        engine.images.remove(tag, force=True)
    expected = {"said": "<<EOF", "three": f"three one two {len(TOKEN)}", "after": "found", "word": "found", "token": ""}
    assert facts == expected


def test_no_secret_is_in_it(kit: Any, builds: Any, made: Any) -> None:
    content = made[2].read_bytes()
    for each in (kit.CANARY, TOKEN):
        assert each.encode() not in content
    assert not [path for path in builds.store.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_again_from_its_cache_and_an_edit_of_code(
    program: str, builds: Any, archive: str, storage: dict[str, str], made: Any
) -> None:
    tag, first, _ = made
    edited = builds.bento(f"by-{program}", CONFIG, {"service.py": SERVICE + "\n# edited\n"})
    assert edited != tag
    words = ("--base", archive, "--engine", program, "--no-compress")
    again = builds.made("containerize", edited, *words, **storage, BUILD_TOKEN=TOKEN)["images"][0]
    new = [each for each in again["layers"] if each["digest"] not in {old["digest"] for old in first["layers"]}]
    assert [each["kind"] for each in new] == ["code"]


def test_a_step_that_fails(kit: Any, program: str, builds: Any, archive: str, storage: dict[str, str]) -> None:
    cases = [
        ({"setup_script": "setup.sh"}, "script setup.sh", "(exit status 3): first | no more wishes"),
        ({"commands": ['echo "it\'s gone" >&2; exit 4']}, "command ", "(exit status 4): it's gone"),
    ]
    files = {"service.py": kit.SIMPLE, "setup.sh": "#!/bin/sh\necho first\necho no more wishes >&2\nexit 3\n"}
    for docker, start, end in cases:
        tag = builds.bento("failing", {**kit.PLAIN, "docker": docker}, files)
        said = kit.error(builds.run("containerize", tag, "--base", archive, "--engine", program, **storage))
        assert said.startswith(f"error: {start}")
        assert said.endswith(end)


def test_a_base_without_that_python(kit: Any, program: str, builds: Any, archive: str, storage: dict[str, str]) -> None:
    config = {"service": "service:Simple", "python": {"version": "3.10"}, "docker": {"commands": ["true"]}}
    tag = builds.bento("older", config, {"service.py": kit.SIMPLE})
    said = kit.error(builds.run("containerize", tag, "--base", archive, "--engine", program, **storage))
    assert said.endswith("has no Python 3.10")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_interrupted_it_leaves_no_step_running(
    number: signal.Signals,
    name: str,
    kit: Any,
    builds: Any,
    archive: str,
    storage: dict[str, str],
    require_tool: Callable[[str], str],
) -> None:
    require_tool(name)
    length = f"7{os.getpid()}"  # seconds to sleep, to know the process by
    config = {**kit.PLAIN, "docker": {"commands": [f"echo begun; sleep {length}"]}}
    tag = builds.bento("slow", config, {"service.py": kit.SIMPLE})
    command = [sys.executable, "-m", "bentotool", "--store", str(builds.store), "containerize", tag]
    process = subprocess.Popen(
        [*command, "--base", archive, "--engine", name], env={**builds.environment, **storage},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: sleeping(length) or process.poll() is not None, "the step did not start")
        process.send_signal(number)
        _, said = process.communicate(timeout=kit.LIMIT)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert "Traceback" not in said
    wait_until(lambda: not sleeping(length), "the step still runs")


def sleeping(length: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", length.encode()]:
                return True
        except OSError:  # it ended
            continue
    return False


def wait_until(found: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
