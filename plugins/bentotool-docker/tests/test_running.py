"""Deployments on a real engine: started, updated under load, broken, killed, deleted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

QUICK = ("--drain", "1", "--grace", "5", "--port", "0")
LABEL = "io.bentotool.deployment"


def test_from_a_folder_to_an_endpoint_and_away(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    done = project.deploy(name, *QUICK, "--env", "VERSION=1", "--memory", "256m", "--cpu", "0.5").document
    other = engine.containers.create(done["facts"]["image_name"], labels={"mine": "yes"})
    try:
        assert (done["name"], done["target"], done["status"]) == (name, "docker", "ready")
        assert tools.call(done["url"], "version") == "1"
        facts = tools.call(done["url"], "facts")
        assert facts["uid"] == "65532"
        assert (int(facts["caps"], 16), facts["bound"]) == (0, "1")
        assert {key: facts[key] for key in ("/", "/home/bento/app", "/tmp", "/run/bentotool")} == {
            "/": "30", "/home/bento/app": "30", "/tmp": "yes", "/run/bentotool": "30",
        }  # fmt: skip
        held = engine.containers.get(f"bentotool-{name}-{done['facts']['container'].rpartition('-')[2]}")
        host = held.attrs["HostConfig"]
        assert (host["Memory"], host["NanoCpus"]) == (256 << 20, 500_000_000)
        assert host["RestartPolicy"]["Name"] == "always"
        listed = project.run("--json", "deployment", "list").document
        assert [(each["name"], each["status"], each["url"]) for each in listed if each["name"] == name] == [
            (name, "ready", done["url"])
        ]
        deleted = project.run("--json", "deployment", "delete", name)
        assert len(deleted.document["removed"]) == 3  # not the image: the other container uses it
        assert tools.made(engine, name) == set()
        other.reload()
        assert project.run("--json", "deployment", "show", name).status == 3
    finally:
        other.remove(force=True)


def test_updates_under_load_refuse_no_request(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    drains = ("--drain", "2", "--grace", "5", "--port", "0")
    url = project.deploy(name, *drains, "--env", "VERSION=0").document["url"]

    async def scenario() -> tuple[Any, list[str]]:
        load = tools.Load(url, rate=200.0, kept_idle=1.0)
        running = asyncio.create_task(load.run())
        long = []
        try:
            for version in range(1, 6):
                # answered by the version that took it, although the next one comes in between
                long.append(asyncio.create_task(asyncio.to_thread(tools.call, url, "slow", seconds=2.5)))
                await asyncio.to_thread(project.deploy, name, *drains, "--env", f"VERSION={version}")
        finally:
            load.stopping = True
            await running
        return load, [await each for each in long]

    load, long = asyncio.run(scenario())
    assert load.failed == []
    assert len(load.answers) > 2000
    assert set(load.answers) == {str(version) for version in range(6)}
    assert long == [str(version) for version in range(5)]
    assert len(tools.made(engine, name)) == 3
    shown = project.run("--json", "deployment", "show", name).document
    assert [each["revision"] for each in shown["history"]] == [6, 5, 4, 3, 2, 1]
    assert shown["env"] == {"VERSION": "5"}


def test_another_port_and_code_with_requests_on_the_old_one(
    project: Any, engine: Any, name: str, tools: SimpleNamespace
) -> None:
    before = project.deploy(name, *QUICK, "--env", "VERSION=a").document
    service = project.folder / "service.py"
    text = service.read_text()
    try:
        service.write_text(text + "\n# edited\n")
        after = project.deploy(
            name, "--drain", "1", "--address", "0.0.0.0", "--port", "0", "--env", "VERSION=b"
        ).document
    finally:
        service.write_text(text)
    assert after["digest"] != before["digest"]
    assert after["url"] != before["url"]
    assert tools.call(after["url"], "version") == "b"
    with pytest.raises(OSError, match="refused"):
        tools.call(before["url"], "version")
    assert len(tools.made(engine, name)) == 3


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        ("BROKEN=1", (), "broken on purpose"),
        ("NEVER_READY=1", ("--timeout", "2"), "is not ready after 2 s"),
    ],
)
def test_a_version_that_does_not_work_leaves_the_old_one(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, env: str, options: tuple[str, ...], said: str
) -> None:
    url = project.deploy(name, *QUICK, "--env", "VERSION=1").document["url"]
    standing = tools.made(engine, name)
    failed = project.deploy(name, *QUICK, "--env", env, *options, ok=False)
    assert failed.status == 1
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (error["code"], said in error["message"]) == ("unhealthy", True), error
    assert tools.made(engine, name) == standing
    assert tools.call(url, "version") == "1"
    assert project.run("--json", "deployment", "show", name).document["revision"] == 1


def test_a_first_version_that_does_not_start_leaves_nothing(
    project: Any, engine: Any, name: str, tools: SimpleNamespace
) -> None:
    failed = project.run("deploy", "docker", ".", "--name", name, "--base", f"oci-archive:{project.base}", *QUICK,
                         "--env", "BROKEN=1")  # fmt: skip
    assert failed.status == 1
    assert "broken on purpose" in failed.error
    assert "hint: nothing is left of it" in failed.err
    assert "Traceback" not in failed.err
    assert tools.made(engine, name) == set()


def test_a_port_that_is_taken(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    url = project.deploy(name, *QUICK).document["url"]
    port = url.rpartition(":")[2]
    failed = project.deploy(f"{name}-b", "--port", port, ok=False)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (error["code"], error["message"]) == ("conflict", f"port 127.0.0.1:{port} is in use")
    assert tools.made(engine, f"{name}-b") == set()
    assert tools.call(url, "version") == ""


def test_an_interrupt_leaves_the_old_version(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    url = project.deploy(name, *QUICK, "--env", "VERSION=1").document["url"]
    standing = tools.made(engine, name)
    process = subprocess.Popen(
        project.command("deploy", "docker", ".", "--name", name, *QUICK, "--env", "STARTS_IN=50"),
        cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    tools.wait_for(lambda: len(tools.made(engine, name)) > len(standing), "no new version is started")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted: {name} goes on as it was" in said
    assert "Traceback" not in said
    assert tools.made(engine, name) == standing
    assert tools.call(url, "version") == "1"


def test_two_at_once(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    project.deploy(name, *QUICK, "--env", "VERSION=0")
    both = [
        subprocess.Popen(
            project.command("deploy", "docker", ".", "--name", name, *QUICK, "--env", f"VERSION={number}"),
            cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in (1, 2)
    ]  # fmt: skip
    said = [each.communicate(timeout=120)[1] for each in both]
    assert 0 in [each.returncode for each in both], said
    assert all(each.returncode == 0 or "under way" in text for each, text in zip(both, said, strict=True)), said
    url = project.run("--json", "deployment", "show", name).document["url"]
    tools.wait_for(lambda: tools.call(url, "version") in ("1", "2"), "nobody answers")


def test_without_waiting(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    done = project.deploy(name, *QUICK, "--no-wait", "--env", "STARTS_IN=1").document
    assert done["status"] == "starting"
    tools.wait_for(lambda: tools.call(done["url"], "version") == "", "it does not start")
    failed = project.deploy(name, *QUICK, "--no-wait", ok=False)
    assert failed.status == 2
    assert "leave --no-wait out" in failed.err


def test_secrets_are_files_and_nowhere_else(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cr3t-of-the-test")
    secret.chmod(0o644)
    done = project.deploy(name, *QUICK, "--secret", f"token={secret}")
    facts = tools.call(done.document["url"], "facts")
    assert facts["secret"] == "s3cr3t-of-the-test"
    container = engine.containers.get(done.document["facts"]["container"])
    assert "s3cr3t-of-the-test" not in json.dumps(container.attrs)
    assert "s3cr3t-of-the-test" not in done.out + done.err
    assert "s3cr3t-of-the-test" not in (project.store / "deployments" / name / "1.json").read_text()
    mounts = {each["Destination"]: each["RW"] for each in container.attrs["Mounts"]}
    assert mounts["/run/secrets/token"] is False
    assert mounts["/run/bentotool"] is False


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_secret_that_the_process_may_not_read_is_refused_before_anything_is_made(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("x")
    secret.chmod(0o600)
    failed = project.deploy(name, *QUICK, "--secret", f"token={secret}", ok=False)
    assert failed.status == 2
    assert "may not read" in failed.err
    assert tools.made(engine, name) == set()
    secret.chmod(0o640)  # its group is what the process is given
    done = project.deploy(name, *QUICK, "--secret", f"token={secret}").document
    assert tools.call(done["url"], "facts")["secret"] == "x"


def test_logs(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    url = project.deploy(name, *QUICK).document["url"]
    for text in ("one", "two", "three"):
        tools.call(url, "say", text=text)
    tools.wait_for(lambda: "three" in project.run("deployment", "logs", name).out, "the line does not come")
    assert project.run("deployment", "logs", name, "--tail", "2").out.split() == ["two", "three"]
    process = subprocess.Popen(
        project.command("deployment", "logs", name, "-f", "--tail", "1"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "three\n"
        tools.call(url, "say", text="four")
        assert process.stdout.readline() == "four\n"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_killed_containers_come_back(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root, to kill processes of containers")
    done = project.deploy(name, *QUICK, "--env", "VERSION=1").document
    version = done["facts"]["container"]
    door = next(each for each in tools.made(engine, name) if "-door-" in each)
    for victims in ([version], [door], [door, version]):
        for victim in victims:
            container = engine.containers.get(victim)
            before = container.attrs["State"]["StartedAt"]
            os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)

            def again(container: Any = container, before: str = before) -> bool:
                container.reload()
                return container.status == "running" and container.attrs["State"]["StartedAt"] != before

            tools.wait_for(again, f"{victim} is not started again")

        def answers() -> bool:
            url = project.run("--json", "deployment", "show", name).document["url"]
            return bool(url == done["url"]) and tools.call(url, "version") == "1"

        tools.wait_for(answers, f"no answer at the same port after {victims} were killed")


def test_stopped_and_deployed_again(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    project.deploy(name, *QUICK, "--env", "VERSION=1")
    for each in engine.containers.list(filters={"label": f"{LABEL}={name}"}):
        each.stop(timeout=10)
    assert project.run("--json", "deployment", "show", name).document["status"] == "stopped"
    again = project.deploy(name, *QUICK, "--env", "VERSION=2").document
    assert tools.call(again["url"], "version") == "2"
    assert len(tools.made(engine, name)) == 3


def test_a_lost_store_still_finds_and_deletes_by_label(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, tmp_path: Path
) -> None:
    project.deploy(name, *QUICK)
    elsewhere = ["--store", str(tmp_path / "empty")]
    found = project.run(*elsewhere, "--json", "deployment", "list", "--target", "docker").document
    assert name in [each["name"] for each in found]
    assert project.run(*elsewhere, "deployment", "delete", name, "--target", "docker").status == 0
    assert tools.made(engine, name) == set()
    assert project.run("--json", "deployment", "show", name).document["status"] == "missing"
    assert project.run("deployment", "delete", name).status == 0


def test_time_is_bounded_when_the_old_version_hangs(
    project: Any, engine: Any, name: str, tools: SimpleNamespace
) -> None:
    url = project.deploy(name, "--drain", "0", "--grace", "1", "--port", "0", "--env", "VERSION=1").document["url"]
    hanging = subprocess.Popen(
        [
            "curl",
            "-s",
            "-o",
            os.devnull,
            "-H",
            "content-type: application/json",
            "-d",
            '{"seconds": 600}',
            f"{url}/slow",
        ]
    )
    time.sleep(0.5)
    try:
        project.deploy(name, "--drain", "0", "--grace", "1", "--port", "0", "--env", "VERSION=2")
        assert tools.call(url, "version") == "2"
    finally:
        hanging.kill()
        hanging.wait()
