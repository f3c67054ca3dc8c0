"""How ``bentotool model serve`` starts and ends: signed models, its folder, and requests that are under way."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
LIMIT = 50.0
ROW = [[1.0, 2.0]]
MODULE = """
import pathlib, time

FOLDER = pathlib.Path(__file__).parent

class Slow:
    n_features_in_ = 2

    def predict(self, rows):
        while (FOLDER / "hold").exists():
            (FOLDER / "begun").touch()
            time.sleep(0.02)
        return [len(row) for row in rows]
"""


@pytest.fixture
def store(tmp_path: Path, require_package: Callable[[str], None]) -> Path:
    """A store with a pickled model that answers while there is no file ``hold`` beside its module."""
    for package in ("sklearn", "numpy", "bentotool_sklearn"):
        require_package(package)
    (tmp_path / "slowness.py").write_text(MODULE)
    made = "import pickle, slowness; pickle.dump(slowness.Slow(), open('slow.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", made], check=True, cwd=tmp_path, timeout=LIMIT)
    words = ("model", "import", "slow.pkl", "--name", "slow", "--version", "1", "--trust", "--framework", "sklearn")
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    return tmp_path / "store"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    values = {"BENTOTOOL_STORE": str(folder / "store"), "PYTHONPATH": str(folder), "TMPDIR": str(folder / "temporary")}
    (folder / "temporary").mkdir(exist_ok=True)
    return {**os.environ, **values, **variables}


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *words]
    values = environment(folder, **variables)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env=values, cwd=folder, check=False
    )  # fmt: skip


@contextmanager
def served(folder: Path, *options: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Where the model answers, and its server."""
    command = [
        sys.executable,
        "-m",
        "bentotool",
        "model",
        "serve",
        "slow",
        "--trust",
        "--port",
        "0",
        *options,
        "--json",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(folder, **variables)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=LIMIT)
            yield json.loads(line)["url"], process
        finally:
            process.kill()


def work_folders(folder: Path) -> list[Path]:
    return sorted((folder / "temporary").glob("bentotool-serving-*"))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_what_is_under_way_is_answered_when_it_is_told_to_end(tmp_path: Path, store: Path) -> None:
    with ThreadPoolExecutor(2) as pool, served(tmp_path) as (url, process):  # ends the server first
        asked = {"inputs": [{"name": "X", "datatype": "FP64", "shape": [1, 2], "data": ROW}]}
        ways = (("/predict", {"X": ROW}), ("/v2/models/slow/infer", asked))
        (tmp_path / "hold").touch()
        answers = [pool.submit(httpx.post, url + path, json=body, timeout=LIMIT) for path, body in ways]
        wait_for((tmp_path / "begun").exists)
        wait_for(lambda: in_flight(url) >= len(ways))
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(url))
        (tmp_path / "hold").unlink()
        own, theirs = (answer.result(LIMIT) for answer in answers)
        assert (own.status_code, own.json()) == (200, {"predict": [2]})
        assert (theirs.status_code, theirs.json()["outputs"][0]["data"]) == (200, [2])
        assert process.wait(LIMIT) == 0
    assert work_folders(tmp_path) == []


def in_flight(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=LIMIT).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if "request_in_progress{" in line and "/metrics" not in line)


def refuses(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=LIMIT).status_code == 503
    except httpx.HTTPError:
        return True


def test_a_folder_of_its_own_that_goes_with_it(tmp_path: Path, store: Path) -> None:
    planted = store / "cache" / "serving" / "numpy.py"  # where a folder of one name would have lain for all to fill
    planted.parent.mkdir(parents=True)
    planted.write_text("raise SystemExit('imported')")
    with served(tmp_path) as (url, process):
        (folder,) = work_folders(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [path.name for path in folder.iterdir()] == ["supervisor.lock"]
        assert httpx.post(f"{url}/predict", json={"X": ROW}, timeout=LIMIT).json() == {"predict": [2]}
        process.kill()
        process.wait(LIMIT)
        assert work_folders(tmp_path) == [folder], "nobody was left to remove it"
    planted.unlink()
    with served(tmp_path) as (_, process):
        assert folder not in work_folders(tmp_path), "the next server has"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
    assert work_folders(tmp_path) == []
    assert list(planted.parent.iterdir()) == []


def test_nothing_stays_where_it_does_not_start(tmp_path: Path, store: Path) -> None:
    refused = run(tmp_path, "model", "serve", "slow", "--trust", "--ssl-keyfile", "server.key", "--port", "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: TLS needs a certificate, and --ssl-keyfile ")
    assert run(tmp_path, "model", "serve", "slow", "--trust", "--port", "70000").returncode == 2
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_policy_asks_for_a_signature(tmp_path: Path, store: Path, require_package: Callable[[str], None]) -> None:
    require_package("cryptography")
    rule = {"repositories": ["slow"], "signers": [{"key": "release.pub"}]}
    (tmp_path / "policy.json").write_text(json.dumps({"enforce": True, "rules": [rule]}))
    policy = {"BENTOTOOL_POLICY": str(tmp_path / "policy.json"), "BENTOTOOL_KEY_PASSWORD": "s3cret"}
    assert run(tmp_path, "key", "new", "release.key", **policy).returncode == 0
    refused = run(tmp_path, "model", "serve", "slow", "--trust", "--port", "0", **policy)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "slow:1 is not signed" in refused.stderr
    signed = run(tmp_path, "sign", "slow", "--model", "--key", "release.key", **policy)
    assert signed.returncode == 0, signed.stderr
    with served(tmp_path, **policy) as (url, process):
        assert httpx.post(f"{url}/predict", json={"X": ROW}, timeout=LIMIT).json() == {"predict": [2]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
