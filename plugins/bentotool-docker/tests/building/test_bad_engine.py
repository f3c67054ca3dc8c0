"""Engines that are full, or cannot run what is asked: one line, the next step, and nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="engines run here on Linux"), pytest.mark.timeout(300)]


@pytest.fixture
def full(require_tool: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Starts an engine of its own on a small disk in memory; gives its address."""
    require_tool("dockerd")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start an engine on a disk of its own")
    folder = Path(tempfile.mkdtemp(prefix="bentotool-engine-"))
    engines: list[subprocess.Popen[bytes]] = []

    def start(size: str) -> str:
        data = folder / "data"
        data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(data)], check=True, timeout=60)
        places = {"data-root": data, "exec-root": folder / "run", "pidfile": folder / "pid"}
        words = [word for name, place in places.items() for word in (f"--{name}", str(place))]
        address = f"unix://{folder}/socket"
        words += ["--host", address, "--bridge", "none", "--iptables=false", "--ip-forward=false"]
        with (folder / "log").open("wb") as log:
            # a network of its own: an engine without a bridge removes the one that it finds, which is another's
            command = ["unshare", "--net", "dockerd", *words]
            engines.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "--host", address, "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        return address

    yield start
    for engine in engines:
        engine.send_signal(signal.SIGTERM)
        engine.wait(60)
    subprocess.run(["umount", "--lazy", str(folder / "data")], check=False, timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def test_no_space_for_a_step(kit: Any, builds: Any, archive: str, full: Callable[[str], str]) -> None:
    config = {**kit.PLAIN, "docker": {"commands": ["head -c 3G /dev/zero > /large"]}}
    tag = builds.bento("large", config, {"service.py": kit.SIMPLE})
    done = builds.run("containerize", tag, "--base", archive, "--engine", "docker", "--offline", DOCKER_HOST=full("1g"))
    assert kit.error(done) == f"error: the image of {tag} cannot be made: no space left on the engine's disk"
    assert "docker builder prune" in done.stderr


def test_no_space_for_the_base(kit: Any, builds: Any, simple: str, archive: str, full: Callable[[str], str]) -> None:
    words = ("containerize", simple, "--builder", "buildkit", "--base", archive, "--engine", "docker")
    done = builds.run(*words, DOCKER_HOST=full("60m"))
    assert kit.error(done) == f"error: the image of {simple} cannot be made: no space left on the engine's disk"


def test_a_base_for_another_platform(kit: Any, builds: Any, simple: str, archive: str) -> None:
    words = ("containerize", simple, "--builder", "buildkit", "--platform", "linux/arm64")
    assert kit.error(builds.run(*words, "--base", archive)).endswith(" is for linux/amd64, not for linux/arm64")


def test_an_image_of_the_engine_for_another_platform(kit: Any, builds: Any, engine: Any, simple: str) -> None:
    name = "localhost:1/bentotool-test:1"
    engine.images.get(kit.BASE).tag(name)
    words = ("containerize", simple, "--builder", "buildkit", "--platform", "linux/arm64", "--base", name)
    try:
        for more in ((), ("--offline",)):
            said = kit.error(builds.run(*words, *more))
            assert said.endswith("; the engine's is for linux/amd64, not for linux/arm64")
    finally:
        engine.images.remove(name)


def test_a_platform_that_the_engine_cannot_run(kit: Any, builds: Any, engine: Any, simple: str) -> None:
    if Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip("needs an engine without an emulator")
    name = f"localhost/bentotool-test-foreign:{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix="bentotool-foreign-"))
    try:
        make = ["docker", "import", "--platform", "linux/arm64", "-", name]
        program = folder / "bin"
        (program / "bin").mkdir(parents=True)
        (program / "bin" / "sh").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(100))
        (program / "bin" / "sh").chmod(0o755)
        packed = subprocess.run(["tar", "-C", str(program), "-c", "."], capture_output=True, check=True).stdout
        subprocess.run(make, input=packed, check=True, capture_output=True, timeout=60)
        words = ("containerize", simple, "--builder", "buildkit", "--platform", "linux/arm64", "--base", name)
        said = kit.error(builds.run(*words))
    finally:
        shutil.rmtree(folder)
        engine.images.remove(name, force=True)
    assert said.startswith("error: the engine cannot run programs of linux/arm64")


def test_a_secret_variable_without_a_value(kit: Any, builds: Any) -> None:
    config = {**kit.PLAIN, "envs": [{"name": "A_TOKEN", "stage": "build"}], "docker": {"commands": ["true"]}}
    tag = builds.bento("tokenless", config, {"service.py": kit.SIMPLE})
    done = builds.run("containerize", tag, "--base", kit.BASE)
    assert "needs a variable A_TOKEN (envs, stage: build), which has no value" in kit.error(done)
    assert "A_TOKEN=... bentotool containerize" in done.stderr
