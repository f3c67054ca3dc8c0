"""The target as a user meets it: from the command line, with records, history and the way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)
IMAGE = "reg.example/iris"
SERVICE = """
import bentotool

@bentotool.service
class Iris:
    @bentotool.api
    def hello(self, name: str) -> str:
        return name
"""


@pytest.fixture(scope="module", autouse=True)
def _children_take_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and programs started by it inherit that; a handler they do not."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one Bento, ``iris``."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "service.py").write_text(SERVICE)
    made = tmp_path_factory.mktemp("store")
    done = subprocess.run(
        [sys.executable, "-m", "bentotool", "build", str(folder)], env={**os.environ, "BENTOTOOL_STORE": str(made)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def cli(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimpleNamespace]]:
    """``bentotool`` in a process of its own; no record is left of it."""
    monkeypatch.setenv("BENTOTOOL_STORE", str(store))

    def run(*args: str, ok: bool | None = True) -> SimpleNamespace:
        done = subprocess.run(
            [sys.executable, "-m", "bentotool", *args], capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert ok is None or (done.returncode == 0) is ok, done.stderr
        return SimpleNamespace(out=done.stdout, err=done.stderr, status=done.returncode)

    yield run
    for path in (store / "deployments").rglob("*.json"):
        path.unlink()


def deployed(cluster: Any, name: str = "iris") -> str:
    """The image that stands in the Deployment."""
    item = cluster.store.get("apps/v1", "Deployment", name)
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"]) if item else ""


def test_from_the_first_deployment_to_its_end(cluster: Any, cli: Callable[..., SimpleNamespace]) -> None:
    done = json.loads(cli("--json", "deploy", "k8s", "iris", "--image", f"{IMAGE}:good").out)
    assert (done["status"], done["target"], done["revision"]) == ("ready", "k8s", 1)
    assert done["facts"]["context"] == "one"
    assert done["facts"]["namespace"] == "default"
    assert deployed(cluster) == f"{IMAGE}:good"

    shown = cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:better", "--diff").out
    assert shown.splitlines()[0] == "~ Deployment iris"
    assert f'image: "{IMAGE}:good" -> "{IMAGE}:better"' in shown
    assert deployed(cluster) == f"{IMAGE}:good"

    cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:better", "--env", "LEVEL=info")
    failed = cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:crash", ok=False)
    assert "ValueError: broken on purpose" in failed.err
    assert "runs as before" in failed.err
    assert failed.status == 5
    assert deployed(cluster) == f"{IMAGE}:better"

    cli("deployment", "rollback", "iris")
    assert deployed(cluster) == f"{IMAGE}:good"
    assert [line.split()[0] for line in cli("deployment", "history", "iris").out.splitlines()[1:]] == ["3", "2", "1"]
    assert json.loads(cli("--json", "deployment", "show", "iris").out)["status"] == "ready"
    assert cli("deployment", "logs", "iris").out.splitlines() == cluster.log
    assert "runs as it would be deployed" in cli("deployment", "diff", "iris").out
    cluster.by("kubectl", ("apps/v1", "Deployment"), "iris", replicas=3)
    assert "spec.replicas: 3 -> 1" in cli("deployment", "diff", "iris").out

    removed = cli("deployment", "delete", "iris", "--yes")
    assert "Deployment iris" in removed.err
    for kind in ("Deployment", "Service", "ServiceAccount", "NetworkPolicy", "ConfigMap", "Pod"):
        assert cluster.store.names(kind) == [], kind


def test_a_plan_needs_no_cluster(
    cluster: Any, cli: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good", "--dry-run")
    assert "kind: Deployment" in done.out
    assert "no cluster is known here" in done.err
    failed = cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good", ok=False)
    assert failed.err.startswith("error: no cluster is known here")
    assert cluster.seen == []


def test_what_another_store_deployed_is_found(
    cluster: Any, cli: Callable[..., SimpleNamespace], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good")
    (store / "deployments" / "iris" / "1.json").unlink()
    found = json.loads(cli("--json", "deployment", "list", "--target", "k8s").out)
    assert [(each["name"], each["status"]) for each in found] == [("iris", "ready")]
    cli("deployment", "delete", "iris", "--yes", "--target", "k8s")
    assert cluster.store.names("Deployment") == []


def test_a_deployment_is_not_left_behind_in_another_namespace(
    cluster: Any, cli: Callable[..., SimpleNamespace]
) -> None:
    cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good")
    failed = cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good", "--namespace", "ml", ok=False)
    assert "is deployed in namespace default of https://" in failed.err
    assert "--namespace default updates it there" in failed.err
    cli("deployment", "delete", "iris", "--yes")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
def test_ctrl_c_while_it_waits(cluster: Any, cli: Callable[..., SimpleNamespace]) -> None:
    cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:good")
    command = [sys.executable, "-m", "bentotool", "-v", "deploy", "k8s", "iris", "--image", f"{IMAGE}:forever"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while deployed(cluster) != f"{IMAGE}:forever" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.stderr is not None
    for line in process.stderr:  # it says how far it is as soon as it waits
        if line.startswith("iris: "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "serves meanwhile; the same command goes on" in err
    shown = json.loads(cli("--json", "deployment", "show", "iris").out)
    assert shown["revision"] == 1
    assert shown["status"] in ("starting", "unhealthy")
    cli("deploy", "k8s", "iris", "--image", f"{IMAGE}:better")
    assert json.loads(cli("--json", "deployment", "show", "iris").out)["status"] == "ready"
    cli("deployment", "delete", "iris", "--yes")
    assert cluster.store.names("Pod") == []
