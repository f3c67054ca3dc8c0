"""Tasks in a real server: workers are killed, servers restarted, and every task ends once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bentotool
from bentotool.client.http import CallError, ResultStatus, Task
from bentotool.client.serving import Server
from bentotool.errors import RemoteError

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

@bentotool.service(workers=2, tasks={"lease": 1.5})
class Work:
    @bentotool.task(parallel=2)
    def work(self, number: int, seconds: float = 0.02) -> dict[str, int]:
        note(f"{number} {os.getpid()}")
        time.sleep(seconds)
        if number % 10 == 7:
            raise bentotool.exceptions.UnprocessableEntity(f"not {number}")
        return {"number": number}

    @bentotool.task(parallel=2)
    async def hold(self, number: int) -> int:
        note(f"hold {number}")
        while not os.path.exists(os.path.join(FOLDER, "go")):
            await asyncio.sleep(0.02)
        return number

    @bentotool.task
    def fatal(self) -> None:
        os.kill(os.getpid(), 9)

    @bentotool.api
    def pid(self) -> int:
        return os.getpid()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    return folder


@pytest.fixture
def start(project: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(**options: object) -> Server:
        environment = {"NOTES": str(tmp_path), "BENTOTOOL_TASKS": str(tmp_path / "tasks")}
        servers.append(bentotool.serve(project, environment=environment, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield begin
    for server in servers:
        server.stop(5)


def workers_of(server: Server) -> list[int]:
    assert server.process is not None
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True)
    return [int(word) for word in listing.stdout.split()]


def ends(tasks: list[Task]) -> list[tuple[ResultStatus, object]]:
    outcomes: list[tuple[ResultStatus, object]] = []
    deadline = time.monotonic() + LIMIT
    for task in tasks:
        while not (status := task.get_status()).ended:
            assert time.monotonic() < deadline, f"{task} has not ended"
            time.sleep(0.05)
        try:
            outcomes.append((status, task.get()))
        except CallError as error:
            outcomes.append((status, error.status))
    return outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="processes are found with ps")
def test_every_task_ends_once_although_workers_are_killed(
    start: Callable[..., Server], tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    require_tool("ps")
    server, chance = start(), random.Random(7)
    client = server.client(timeout=20, retries=8)
    tasks: list[Task] = []
    for number in range(120):
        while True:
            try:
                tasks.append(client.work.submit(number=number))
                break
            except RemoteError:  # the worker that had the connection was killed
                time.sleep(0.05)
        if number % 30 == 29 and (pids := workers_of(server)):
            os.kill(chance.choice(pids), signal.SIGKILL)
    outcomes = ends(tasks)
    for number, (status, result) in enumerate(outcomes):
        if number % 10 == 7:
            assert (status, result) == (ResultStatus.FAILED, 422)
        else:
            assert (status, result) == (ResultStatus.COMPLETED, {"number": number})
    runs = Counter(int(line.split()[0]) for line in (tmp_path / "notes").read_text().splitlines())
    assert set(runs) == set(range(120))  # at least once each
    assert ends(tasks) == outcomes  # and what was recorded stays


def test_a_server_that_is_stopped_leaves_its_tasks_to_the_next(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(grace=1.5)
    client = server.client()
    ids = [client.hold.submit(number=number).id for number in range(6)]
    wait_for(lambda: (tmp_path / "notes").exists() and len((tmp_path / "notes").read_text().splitlines()) == 4)
    assert server.stop() == 0
    server = start()
    (tmp_path / "go").touch()
    client = server.client()
    tasks = [client.hold.task(id_) for id_ in ids]
    assert ends(tasks) == [(ResultStatus.COMPLETED, number) for number in range(6)]
    assert all(task.status().attempt == 1 for task in tasks)  # what was given back does not count


def test_what_runs_is_given_the_grace(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(grace=20.0)
    task = server.client().hold.submit(number=5)
    wait_for(lambda: (tmp_path / "notes").exists())
    assert server.process is not None
    server.process.terminate()
    time.sleep(0.3)
    (tmp_path / "go").touch()
    assert server.process.wait(LIMIT) == 0
    again = start().client().hold.task(task.id)
    assert (again.get(), again.status().attempt) == (5, 1)
    assert (tmp_path / "notes").read_text() == "hold 5\n"


def test_a_task_that_kills_its_worker_is_given_up(start: Callable[..., Server]) -> None:
    server = start()
    client = server.client(retries=8)
    task = client.fatal.submit()
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            if task.get_status().ended:
                break
        except RemoteError:
            pass
        time.sleep(0.1)
    with pytest.raises(CallError, match="3 workers died") as caught:
        task.get()
    assert caught.value.remote_code == "task_lost"
    assert isinstance(client.pid(), int)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
