"""Tasks in real servers while disks fill, servers die beside one another, and code cannot be stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bentotool
from bentotool.client.http import CallError, ResultStatus, SyncHTTPClient
from bentotool.client.serving import Server
from bentotool.exceptions import ServiceUnavailable

pytest.importorskip("httpx")
LIMIT = 50.0
SERVICE = """
import asyncio, os, time
import bentotool

FOLDER = os.environ["NOTES"]

def note(text):
    descriptor = os.open(os.path.join(FOLDER, "notes"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (text + chr(10)).encode())
    os.close(descriptor)

@bentotool.service(tasks={"lease": 1.5})
class Work:
    @bentotool.task
    def stubborn(self, seconds: float = 0.0) -> str:
        note(f"stubborn {seconds}")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not os.path.exists(os.path.join(FOLDER, "go")):
            time.sleep(0.02)
        return "done"

    @bentotool.task(parallel=2)
    async def hold(self, size: int = 0) -> str:
        note("hold")
        while not os.path.exists(os.path.join(FOLDER, "go")):
            await asyncio.sleep(0.02)
        return "x" * size

    @bentotool.task(parallel=4)
    def who(self, seconds: float = 0.1) -> int:
        time.sleep(seconds)
        return os.getppid()

    @bentotool.api
    def ping(self) -> str:
        return "pong"
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    servers: list[Server] = []

    def begin(tasks: Path | None = None, **options: object) -> Server:
        environment = {"NOTES": str(tmp_path), "BENTOTOOL_TASKS": str(tasks or tmp_path / "tasks")}
        servers.append(bentotool.serve(folder, environment=environment, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield begin
    (tmp_path / "go").touch()
    for server in servers:
        server.stop(10)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def notes(tmp_path: Path) -> list[str]:
    return (tmp_path / "notes").read_text().splitlines() if (tmp_path / "notes").exists() else []


@pytest.mark.skipif(sys.platform == "win32", reason="a group of processes is killed")
def test_two_servers_share_a_queue_and_one_of_them_dies(
    start: Callable[..., Server], require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    require_tool("ps")
    first, second = start(), start()
    assert first.process is not None
    one, other = first.client(), second.client()
    tasks = [one.who.submit() for _ in range(30)] + [other.who.submit() for _ in range(30)]
    ran_by = {other.who.task(task.id).result(LIMIT) for task in tasks}  # each server knows the tasks of both
    assert len(ran_by) == 2
    held = [one.hold.submit() for _ in range(2)]
    wait_for(lambda: notes(tmp_path).count("hold") == 2)
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first.process.pid)], capture_output=True, text=True)
    for pid in [first.process.pid, *map(int, listing.stdout.split())]:  # the supervisor first, so it restarts nobody
        os.kill(pid, signal.SIGKILL)
    later = [other.who.submit(seconds=0) for _ in range(5)]
    (tmp_path / "go").touch()
    for task in held:
        assert other.hold.task(task.id).result(LIMIT) == ""
    assert {task.result(LIMIT) for task in later} <= ran_by


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux and root, to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def submit_many(client: SyncHTTPClient) -> None:
    for number in range(3000):  # pages that the database has already may take some
        client.who.submit(seconds=number)


def test_a_full_disk_refuses_tasks_and_loses_none(
    start: Callable[..., Server], small_disk: Path, tmp_path: Path
) -> None:
    server = start(small_disk / "tasks")
    client = server.client(retries=0)
    before = client.stubborn.submit()
    assert before.result(LIMIT) == "done"
    held = client.hold.submit(size=3_000_000)
    wait_for(lambda: notes(tmp_path).count("hold") == 1)
    fill(small_disk / "filler")
    with pytest.raises(ServiceUnavailable, match="queue of the tasks") as caught:
        submit_many(client)
    assert isinstance(caught.value, CallError)
    assert (caught.value.status, caught.value.retry_after) == (503, 5.0)
    assert client.ping() == "pong"
    assert before.get_status() is ResultStatus.COMPLETED  # what is there can be read
    (tmp_path / "go").touch()
    time.sleep(0.5)
    assert held.get_status() is ResultStatus.IN_PROGRESS  # it has ended, and its result is waiting for room
    (small_disk / "filler").unlink()
    assert len(held.result(LIMIT)) == 3_000_000
    assert held.status().attempt == 1
    assert isinstance(client.who.submit(seconds=0).result(LIMIT), int)


def test_code_that_cannot_be_stopped(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(grace=3.0)
    client = server.client()
    first, second = client.stubborn.submit(seconds=45), client.stubborn.submit(seconds=0)
    wait_for(lambda: len(notes(tmp_path)) == 1)
    first.cancel()  # said at once, and for good
    assert first.get_status() is ResultStatus.CANCELED
    with pytest.raises(CallError, match="cancelled"):
        first.get()
    time.sleep(0.6)
    assert second.get_status() is ResultStatus.PENDING  # its thread goes on, and keeps the one place
    third = client.stubborn.submit(seconds=45)
    (tmp_path / "go").touch()
    assert second.result(LIMIT) == "done"
    assert third.result(LIMIT) == "done"
    assert first.get_status() is ResultStatus.CANCELED  # what it gave in the end is dropped
    assert notes(tmp_path) == ["stubborn 45.0", "stubborn 0.0", "stubborn 45.0"]


def test_a_server_ends_although_code_cannot_be_stopped(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(grace=2.0)
    client = server.client()
    task = client.stubborn.submit(seconds=45)
    wait_for(lambda: len(notes(tmp_path)) == 1)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 20
    (tmp_path / "go").touch()
    again = start().client().stubborn.task(task.id)
    assert again.result(LIMIT) == "done"
    assert notes(tmp_path) == ["stubborn 45.0"] * 2
