"""Deployments that meet, and ones that are broken off while the engine is at it."""

from __future__ import annotations

import subprocess
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import ConflictError

pytestmark = pytest.mark.timeout(240)

IMAGE = "python:3.11-slim"
LABEL = "io.bentotool.deployment"


def body(name: str, role: str = "version", **labels: str) -> dict[str, Any]:
    return {"Image": IMAGE, "Cmd": ["true"], "Labels": {LABEL: name, f"{LABEL}.role": role, **labels}}


def test_two_first_deployments_at_once(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    """Nobody has anything to go back to: one of the two at least is there in the end."""
    quick = ("--drain", "0", "--grace", "5", "--port", "0", "--base", f"oci-archive:{project.base}")
    project.deploy(f"{name}-0", *quick)  # the image
    try:
        for attempt in range(3):
            both = [
                subprocess.Popen(
                    project.command("deploy", "docker", ".", "--name", name, *quick, "--env", f"VERSION={number}"),
                    cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                )
                for number in (1, 2)
            ]  # fmt: skip
            said = [each.communicate(timeout=120)[1] for each in both]
            assert 0 in [each.returncode for each in both], (attempt, said)
            assert all(each.returncode == 0 or "under way" in text for each, text in zip(both, said, strict=True)), said
            url = project.run("--json", "deployment", "show", name).document["url"]
            assert tools.call(url, "version") in ("1", "2")
            assert len(tools.made(engine, name)) == 3
            assert project.run("deployment", "delete", name).status == 0
    finally:
        project.run("deployment", "delete", f"{name}-0")


def test_an_interrupt_before_the_engine_has_answered(
    engine: Any, project: Any, name: str, tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool_docker.attempt import Attempt

    create, late = engine.api.create_container_from_config, []

    def interrupted(config: Any, name: str) -> Any:
        late.append(threading.Timer(0.5, create, (config, name)))
        late[0].start()
        raise KeyboardInterrupt

    attempt = Attempt(engine, name)
    monkeypatch.setattr(engine.api, "create_container_from_config", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt.create(f"bentotool-{name}-1", body(name))
    assert attempt.take_back("python3", 5)
    late[0].join()
    assert tools.made(engine, name) == set()


def test_what_others_made_stays(engine: Any, project: Any, name: str, tools: SimpleNamespace) -> None:
    from bentotool_docker.attempt import Attempt

    first, second = Attempt(engine, name), Attempt(engine, name)
    first.create(f"bentotool-{name}-1", body(name))
    door = first.create(f"bentotool-{name}-door-1", body(name, "door", **{f"{LABEL}.socket": "/run/bentotool/door-1"}))
    with pytest.raises(ConflictError, match=f"another deployment of {name} is under way"):
        second.create(f"bentotool-{name}-1", body(name))
    assert second.take_back("python3", 5)
    assert tools.made(engine, name) == {f"bentotool-{name}-1", door.name}
    lent = {**body(name), "Env": ["BENTOTOOL_DOOR=/run/bentotool/door-1"]}
    second.create(f"bentotool-{name}-2", lent)
    assert first.take_back("python3", 5)  # its door is the second's by now
    assert tools.made(engine, name) == {f"bentotool-{name}-2", door.name}
