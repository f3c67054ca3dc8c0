"""`bentotool deploy cloudrun` as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(400)
IMAGE = "europe-west1-docker.pkg.dev/p/bentos/iris"
FULL = "projects/p/locations/europe-west1/services/iris"
Command = Callable[..., Any]


def test_a_dry_run_needs_nobody(stored: Path, command: Command, standin: Any) -> None:
    place = ("--project", "p", "--region", "europe-west1", "--image", f"{IMAGE}:1")
    done = command("deploy", "cloudrun", "iris:1", "--dry-run", *place, "--env", "LEVEL=info")
    assert done.status == 0, done.err
    plan = yaml.safe_load(done.out)
    assert plan["resources"][0]["name"] == FULL
    standin.check(plan["resources"][0]["spec"], "Service", "service")
    assert {"name": "LEVEL", "value": "info"} in plan["resources"][0]["spec"]["template"]["containers"][0]["env"]
    assert "there are no application-default credentials here" in done.err


def test_no_credentials(stored: Path, command: Command) -> None:
    place = ("--project", "p", "--region", "europe-west1", "--image", f"{IMAGE}:1")
    done = command("deploy", "cloudrun", "iris:1", *place)
    assert done.status == 5
    assert done.error == "error: there are no application-default credentials here"
    assert "gcloud auth application-default login" in done.err
    done = command("deploy", "cloudrun", "iris:1", "--region", "europe-west1", "--image", f"{IMAGE}:1")
    assert done.status == 2
    assert "no project is named" in done.error
    assert "Traceback" not in done.err


def test_a_registry_that_cloud_run_cannot_reach(cloud: Any, stored: Path, command: Command) -> None:
    done = command("deploy", "cloudrun", "iris:1", "--image", "ghcr.io/me/iris:1")
    assert done.status == 2
    assert "Cloud Run pulls from Artifact Registry and Docker Hub, and ghcr.io/me/iris is in neither" in done.error
    assert cloud.requests == []


def test_the_life_of_a_deployment(cloud: Any, stored: Path, command: Command) -> None:
    done = command("--json", "deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1", "--env", "LEVEL=info")
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert {key: document[key] for key in ("name", "target", "status", "url", "revision")} == {
        "name": "iris", "target": "cloudrun", "status": "ready", "url": "https://iris-123.run.app", "revision": 1,
    }  # fmt: skip
    progress = [json.loads(line)["progress"]["text"] for line in done.err.splitlines() if '"progress"' in line]
    assert any("Deploying Revision" in text for text in progress)

    done = command("deploy", "cloudrun", "iris:2", "--image", f"{IMAGE}:2", "--diff")
    assert f'template.containers[service].image: "{IMAGE}:1" -> "{IMAGE}:2"' in done.out
    done = command("deploy", "cloudrun", "iris:2", "--image", f"{IMAGE}:broken")
    assert done.status == 5
    assert "iris does not start: The user-provided container failed to start" in done.error
    assert "logs: https://console.cloud.google.com/" in done.err

    done = command("deploy", "cloudrun", "iris:2", "--image", f"{IMAGE}:2")
    assert done.out.splitlines() == ["Deployed iris to cloudrun: iris:2 is ready", "https://iris-123.run.app"]
    done = command("deployment", "rollback", "iris")
    assert done.status == 0, done.err
    newest = cloud.services[FULL]["template"]["containers"][0]
    assert newest["image"] == f"{IMAGE}:1"
    assert {"name": "LEVEL", "value": "info"} in newest["env"]

    listed = json.loads(command("--json", "deployment", "list").out)
    assert [(each["name"], each["status"], each["tag"]) for each in listed] == [("iris", "ready", "iris:1")]
    history = json.loads(command("--json", "deployment", "history", "iris").out)
    assert len(history if isinstance(history, list) else history["revisions"]) == 3
    cloud.say("iris", "iris-00004-abc", "served 1 request", "2026-01-01T00:00:01Z")
    assert command("deployment", "logs", "iris").out == "served 1 request\n"
    done = command("deployment", "delete", "iris", "--yes")
    assert done.status == 0, done.err
    assert cloud.services == {}
    assert json.loads(command("--json", "deployment", "list").out) == []


def test_what_was_deployed_elsewhere_is_looked_after(
    cloud: Any, stored: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--region", "europe-west1")
    monkeypatch.delenv("CLOUDSDK_RUN_REGION", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_REGION", raising=False)
    done = command("deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1", *place)
    assert done.status == 0, done.err
    for path in (stored / "deployments").rglob("*.json"):
        path.unlink()
    done = command("deployment", "list", "--target", "cloudrun")
    assert (done.status, "no region is named" in done.err) == (2, True)
    done = command("--json", "deployment", "list", "--target", "cloudrun", *place)
    assert [(each["name"], each["facts"]["region"]) for each in json.loads(done.out)] == [("iris", "europe-west1")]
    done = command("deployment", "delete", "iris", "--yes", "--target", "cloudrun", *place)
    assert done.status == 0, done.err
    assert cloud.services == {}


def _until(found: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="ctrl-C is sent to a child as POSIX does")
def test_ctrl_c_in_the_middle(cloud: Any, stored: Path, command: Command, start: Command) -> None:
    cloud.held.set()
    process = start("deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1")
    _until(lambda: any(method == "GET" and "operations" in path for method, path, _ in cloud.requests), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert cloud.services == {}
    assert json.loads(command("--json", "deployment", "list").out) == []

    cloud.held.clear()
    assert command("deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1").status == 0
    cloud.held.set()
    seen = len(cloud.requests)
    process = start("deploy", "cloudrun", "iris:2", "--image", f"{IMAGE}:2")
    _until(lambda: any(m == "GET" and "operations" in path for m, path, _ in cloud.requests[seen:]), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "iris serves as before: the new revision gets no requests" in said
    assert cloud.shares["iris"][-1] == {"iris-00001-abc": 100}
    listed = json.loads(command("--json", "deployment", "list").out)
    assert [each["tag"] for each in listed] == ["iris:1"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a kill that nothing can catch is POSIX's")
def test_a_first_deployment_that_is_killed_can_be_taken_away(
    cloud: Any, stored: Path, command: Command, start: Command
) -> None:
    cloud.held.set()
    process = start("deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1")
    _until(lambda: any(method == "GET" and "operations" in path for method, path, _ in cloud.requests), process)
    process.kill()
    process.communicate(timeout=180)
    assert FULL in cloud.services
    assert command("deployment", "delete", "iris", "--yes").status == 0
    assert cloud.services == {}


def test_two_deployments_at_once(cloud: Any, stored: Path, command: Command, start: Command) -> None:
    assert command("deploy", "cloudrun", "iris:1", "--image", f"{IMAGE}:1").status == 0
    together = threading.Barrier(2, timeout=180)
    for _ in range(2):  # both have looked at the service before one of them writes
        cloud.faults.append(("PATCH", "/services/iris", lambda cloud: together.wait()))
    processes = [start("deploy", "cloudrun", "iris:2", "--image", f"{IMAGE}:{number}") for number in "23"]
    said = [process.communicate(timeout=180)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1]
    won = next(number for number, process in zip("23", processes, strict=True) if process.returncode == 0)
    lost = next(text for text, process in zip(said, processes, strict=True) if process.returncode)
    assert "error: cannot deploy iris: another deployment of it is under way" in lost
    assert cloud.services[FULL]["template"]["containers"][0]["image"] == f"{IMAGE}:{won}"
    assert cloud.shares["iris"][-1] == {"iris-00002-abc": 100}
