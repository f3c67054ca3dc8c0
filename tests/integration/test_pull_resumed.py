"""A pull that is killed or interrupted leaves what the same command goes on from, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore

SIZE = 12 << 20
FEW = 64 << 10  # bytes that may be on their way when a process dies


@pytest.fixture
def published(faulty: Any, tmp_path: Path, make_model: Callable[..., StoredModel]) -> StoredModel:
    """A model of one large file, as ``r:1`` of the registry."""
    source = Layout(tmp_path / "source")
    model = make_model(source, files={"big.bin": random.Random(3).randbytes(SIZE), "config.json": b"{}"})
    for part in (*model.manifest.layers, model.manifest.config):
        with source.open_layer(part) as stream:
            faulty.add_blob(stream.read())
    faulty.add_manifest(source.read(model.digest), "1")
    return model


def pull(faulty: Any, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bentotool", "--json", "--store", str(store), "pull", f"{faulty.host}/r:1"]
    environment = {**os.environ, "DOCKER_CONFIG": "/nowhere"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def received(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "tmp").glob("part-*")) if (store / "tmp").exists() else 0


@pytest.mark.parametrize("how", ["kill", "interrupt", "terminate"])
def test_a_stopped_pull_goes_on(faulty: Any, reply: Any, tmp_path: Path, published: StoredModel, how: str) -> None:
    if how != "kill" and sys.platform == "win32":
        pytest.skip("a process there has no signals of its own")
    store, half, stall = tmp_path / "store", 8 << 20, threading.Event()
    largest = max(published.manifest.layers, key=lambda layer: layer.size)
    path = f"/v2/r/blobs/{largest.digest}"
    faulty.script["GET", path] = [reply(200, faulty.blobs[largest.digest], cut=half, stall=stall)]
    first = pull(faulty, store)
    with first:
        deadline = time.monotonic() + 30
        while received(store) < half - FEW and time.monotonic() < deadline:
            time.sleep(0.02)
        there = received(store)
        assert there >= half - FEW
        first.send_signal(signal.SIGINT) if how == "interrupt" else getattr(first, how)()
        _, told = first.communicate(timeout=30)
    stall.set()
    assert first.returncode == {"interrupt": 130, "terminate": 143, "kill": -9}[how]
    if how == "terminate":
        assert json.loads(told.splitlines()[-1])["error"]["code"] == "terminated"
    assert RefStore(Layout(store)).list("models") == []
    second = pull(faulty, store)
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert json.loads(output)["digest"] == published.digest
    start = int(faulty.requests("GET", path)[-1].headers["range"].removeprefix("bytes=").rstrip("-"))
    assert start >= there
    assert list((store / "tmp").iterdir()) == []
    check = [sys.executable, "-m", "bentotool", "--store", str(store), "store", "verify"]
    subprocess.run(check, check=True, timeout=60, capture_output=True)


def test_two_pulls_of_one_model_do_not_disturb_each_other(faulty: Any, tmp_path: Path, published: StoredModel) -> None:
    store = tmp_path / "store"
    both = [pull(faulty, store) for _ in range(2)]
    for each in both:
        output, errors = each.communicate(timeout=60)
        assert each.returncode == 0, errors
        assert json.loads(output)["digest"] == published.digest
    assert list((store / "tmp").iterdir()) == []


_NO_LOCKS = """
import fcntl, sys
def flock(descriptor, operation):
    if {fails}:
        raise OSError(38, "Function not implemented")
fcntl.flock = flock
from bentotool.__main__ import run
sys.argv[0] = "bentotool"
run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="an open file there is lock enough")
@pytest.mark.parametrize("fails", [False, True])
def test_two_pulls_on_a_disk_without_locks(
    faulty: Any, reply: Any, tmp_path: Path, published: StoredModel, fails: bool
) -> None:
    """The second takes the part away from the first, which is in the middle of it; both end well."""
    store, half, stall = tmp_path / "store", 8 << 20, threading.Event()
    largest = max(published.manifest.layers, key=lambda layer: layer.size)
    path = f"/v2/r/blobs/{largest.digest}"
    faulty.script["GET", path] = [reply(200, faulty.blobs[largest.digest], cut=half, stall=stall)]
    words = ["--json", "--store", str(store), "pull", f"{faulty.host}/r:1"]
    both: list[subprocess.Popen[str]] = []
    for _ in range(2):
        command = [sys.executable, "-c", _NO_LOCKS.format(fails=fails), *words]
        environment = {**os.environ, "DOCKER_CONFIG": "/nowhere"}
        both.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        deadline = time.monotonic() + 30
        while len(faulty.requests("GET", path)) < len(both) and time.monotonic() < deadline:
            time.sleep(0.02)
        while len(both) == 1 and received(store) < half - FEW and time.monotonic() < deadline:
            time.sleep(0.02)
    both[1].wait(60)
    stall.set()
    for each in both:
        output, errors = each.communicate(timeout=60)
        assert each.returncode == 0, errors
        assert json.loads(output)["digest"] == published.digest
    assert list((store / "tmp").iterdir()) == []
