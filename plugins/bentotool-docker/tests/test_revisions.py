"""What was deployed before on a real engine: back to it, compared with what runs, cleared away, broken off."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

QUICK = ("--drain", "1", "--grace", "5", "--port", "0")
LABEL = "io.bentotool.deployment"


@contextmanager
def edited(project: Any, text: str) -> Iterator[None]:
    service = project.folder / "service.py"
    before = service.read_text()
    service.write_text(f"{before}\n# {text}\n")
    try:
        yield
    finally:
        service.write_text(before)


def under_load(tools: SimpleNamespace, url: str, work: Callable[[], Any]) -> tuple[Any, Any]:
    """What a steady load met while something was done, and what that gave."""

    async def scenario() -> tuple[Any, Any]:
        load = tools.Load(url, rate=100.0, kept_idle=0.5)
        running = asyncio.create_task(load.run())
        try:
            outcome = await asyncio.to_thread(work)
        finally:
            load.stopping = True
            await running
        return load, outcome

    return asyncio.run(scenario())


def test_back_to_what_was_deployed_before(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    first = project.deploy(name, *QUICK, "--env", "VERSION=1", "--memory", "256m").document
    with edited(project, "rollback"):
        second = project.deploy(name, "--drain", "1", "--address", "127.0.0.1", "--port", "0", "--env", "VERSION=2")
    assert '"memory: not set, was 256m"' in second.err
    assert second.document["digest"] != first["digest"]
    load, back = under_load(tools, first["url"], lambda: project.run("--json", "deployment", "rollback", name))
    assert load.failed == []
    assert set(load.answers) == {"1", "2"}
    assert (back.document["digest"], back.document["url"]) == (first["digest"], first["url"])
    held = engine.containers.get(back.document["facts"]["container"])
    assert held.attrs["HostConfig"]["Memory"] == 256 << 20
    engine.images.remove(second.document["facts"]["image_id"], force=True)
    again = project.run("--json", "deployment", "rollback", name, "--base", f"oci-archive:{project.base}")
    assert again.status == 0, again.err  # its image is made again
    assert (again.document["digest"], again.document["facts"]["image_made"]) == (second.document["digest"], True)
    assert tools.call(first["url"], "version") == "2"
    history = project.run("--json", "deployment", "history", name).document
    assert [(each["revision"], each["reason"], each["env"]["VERSION"]) for each in history] == [
        (4, "rollback to 2", "2"), (3, "rollback to 1", "1"), (2, "", "2"), (1, "", "1"),
    ]  # fmt: skip


def test_where_what_runs_is_not_what_was_deployed(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    done = project.deploy(name, *QUICK, "--env", "VERSION=1", "--memory", "256m", "--cpu", "1").document
    same = project.run("deployment", "diff", name, "--exit-code")
    assert (same.status, same.out) == (0, f"{name} runs as it would be deployed\n")
    engine.containers.get(done["facts"]["container"]).update(mem_limit="200m", memswap_limit="512m")
    found = project.run("--json", "deployment", "diff", name, "--exit-code")
    assert found.status == 1
    assert [each["changes"] for each in found.document["resources"]] == [
        [{"path": "HostConfig.Memory", "now": 200 << 20, "then": 256 << 20}]
    ]
    found = project.deploy(name, *QUICK, "--env", "VERSION=2", "--memory", "256m", "--diff").document
    paths = {each["path"]: (each["now"], each["then"]) for each in found["resources"][0]["changes"] if each["then"]}
    assert paths == {"Env[]": (None, "VERSION=2"), "HostConfig.Memory": (200 << 20, 256 << 20)}
    assert len(project.run("--json", "deployment", "history", name).document) == 1
    planned = project.deploy(name, *QUICK, "--dry-run").document["resources"]
    assert [(each["kind"], each["action"]) for each in planned] == [
        ("container", "keep"), ("container", "replace"), ("container", "delete"),
    ]  # fmt: skip
    assert planned[1]["spec"]["HostConfig"]["RestartPolicy"] == {"Name": "always"}


def test_images_that_only_old_revisions_needed_go(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    images = []
    for number in range(5):
        with edited(project, f"image {number} of {name}"):
            done = project.deploy(name, "--drain", "0", "--port", "0").document
        assert done["facts"]["image_made"] is True
        images.append(done["facts"]["image_id"])
        if number == 0:
            engine.images.get(images[0]).tag("somebody-elses", name)

    def there() -> list[bool]:
        return [bool(engine.images.list(filters={"reference": each["tag"]})) for each in history]

    history = project.run("--json", "deployment", "history", name).document[::-1]
    try:
        # the first has another name, and its door; the second is three revisions old
        assert there() == [True, False, True, True, True]
        pruned = project.run("--json", "deployment", "prune", name, "--keep", "2", "--dry-run").document
        assert [each.split()[1] for each in pruned["removed"]] == [history[2]["tag"]]
        assert there() == [True, False, True, True, True]
        assert project.run("deployment", "prune", name, "--keep", "2").status == 0
        assert there() == [True, False, False, True, True]
        used = engine.containers.create(images[3])
        try:
            removed = project.run("--json", "deployment", "delete", name).document["removed"]
        finally:
            used.remove()
        assert [each.split()[1] for each in removed if each.startswith("image ")] == [history[4]["tag"]]
        assert there() == [True, False, False, True, False]
    finally:
        for each in (*images, f"somebody-elses:{name}"):
            if engine.images.list(filters={"reference": each}) or each in {i.id for i in engine.images.list()}:
                engine.images.remove(each, force=True)


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        ("BROKEN=1", (), "broken on purpose"),
        ("NEVER_READY=1", ("--timeout", "4"), "is not ready after 4 s"),
        ("NEEDS_SECRET=1", (), "/run/secrets/token"),
    ],
)
def test_a_version_that_does_not_work_gets_no_request(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, env: str, options: tuple[str, ...], said: str
) -> None:
    url = project.deploy(name, *QUICK, "--env", "VERSION=1").document["url"]
    load, failed = under_load(
        tools, url, lambda: project.deploy(name, *QUICK, "--env", "VERSION=2", "--env", env, *options, ok=False)
    )
    assert (load.failed, set(load.answers)) == ([], {"1"})
    *notes, last = failed.err.splitlines()
    error = json.loads(last)["error"]
    assert said in error["message"]
    assert "Traceback" not in error["message"]
    assert any(f"bentotool-{name}-2 | " in note for note in notes)  # its log, which goes with it
    assert project.run("--json", "deployment", "history", name).document[0]["env"] == {"VERSION": "1"}


def test_an_interrupt_at_any_moment_loses_no_request(
    project: Any, engine: Any, name: str, tools: SimpleNamespace
) -> None:
    """Also where both versions answer already: whichever stays is the one that is recorded."""
    url = project.deploy(name, *QUICK, "--env", "VERSION=0").document["url"]

    def interrupted() -> list[int]:
        statuses = []
        for number, moment in enumerate(("starts", "ends when its requests are done", "starts"), start=1):
            process = subprocess.Popen(
                project.command("deploy", "docker", ".", "--name", name, *QUICK, "--env", f"VERSION={number}"),
                cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stderr is not None
            assert any(moment in line for line in process.stderr), f"it did not say that it {moment}"
            if number == 3:  # about when it becomes ready
                tools.wait_for(lambda: tools.call(url, "version") == "3", "the third does not answer")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            assert "Traceback" not in said
            statuses.append(process.returncode)
        return statuses

    load, statuses = under_load(tools, url, interrupted)
    assert load.failed == []
    assert statuses == [130, 130, 130]
    shown = project.run("--json", "deployment", "show", name).document
    assert shown["env"]["VERSION"] in ("2", "3")  # the first was taken back, the second had been put in place
    project.deploy(name, *QUICK, "--env", "VERSION=4")
    assert tools.call(url, "version") == "4"
    assert len(tools.made(engine, name)) == 3


def test_a_deploy_that_is_killed_is_made_good_by_the_next(
    project: Any, engine: Any, name: str, tools: SimpleNamespace
) -> None:
    url = project.deploy(name, *QUICK, "--env", "VERSION=1").document["url"]
    process = subprocess.Popen(
        project.command("deploy", "docker", ".", "--name", name, *QUICK, "--env", "VERSION=2", "--env", "STARTS_IN=20"),
        cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert any("starts" in line for line in process.stderr), "it did not say that it starts"
    process.kill()
    process.communicate(timeout=60)
    assert tools.call(url, "version") == "1"
    shown = project.run("--json", "deployment", "show", name).document
    assert (shown["status"], shown["env"]) == ("ready", {"VERSION": "1"})
    assert "another" in shown["detail"] or "does not" in shown["detail"]
    project.deploy(name, *QUICK, "--env", "VERSION=3")
    assert tools.call(url, "version") == "3"
    assert len(tools.made(engine, name)) == 3
