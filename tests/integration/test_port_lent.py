"""One port, several servers one after another: none of many requests is refused while they take turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bentotool.errors import ServiceLoadError
from bentotool.runtime import door

LIMIT = 30.0
SERVICE = """
import os, pathlib
import bentotool

@bentotool.service(workers={workers})
class Demo:
    def __is_ready__(self) -> bool:
        return not pathlib.Path(os.environ["NOT_READY"]).exists()

    @bentotool.api
    async def version(self) -> int:
        return {version}
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are lent over Unix sockets")


def wait_for(found: object, what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Keeper:
    """Keeps a port of this machine and lends it."""

    def __init__(self, path: Path, port: int = 0) -> None:
        self.path = path
        if not port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "bentotool.runtime.door", "--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen([*command, "--socket", str(path)], stderr=subprocess.PIPE, text=True)

    def stop(self) -> tuple[int, str]:
        self.process.terminate()
        _, said = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said


class Server:
    """A server with a port of its own that is lent another."""

    def __init__(self, folder: Path, version: int, lent_at: Path, *, workers: int = 1) -> None:
        project = folder / f"v{version}-{workers}"
        project.mkdir(exist_ok=True)
        (project / "service.py").write_text(SERVICE.format(version=version, workers=workers))
        self.port_file = project / "port"
        self.port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bentotool.runtime", str(project), "--port", "0", "--drain-delay", "1"]
        command += ["--port-file", str(self.port_file)]
        self.not_ready = project / "not-ready"
        env = {**os.environ, door.VARIABLE: str(lent_at), "NOT_READY": str(self.not_ready)}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)

    def ready(self) -> Server:
        wait_for(lambda: self.port_file.exists() or self.process.poll() is not None, "the server does not start")
        assert self.process.poll() is None, self.process.communicate()[1]
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()[0]

    def ended(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said


@pytest.fixture
def lent_at() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:  # the path of a Unix socket is short
        yield Path(folder) / "door"


@pytest.fixture
def keeper(lent_at: Path) -> Iterator[Keeper]:
    keeper = Keeper(lent_at)
    yield keeper
    if keeper.process.poll() is None:
        keeper.stop()


class Load:
    """Requests at a steady rate from clients that keep their connections, and from some that do not."""

    def __init__(self, url: str) -> None:
        self.url, self.answers, self.failed = f"{url}/version", list[int](), list[str]()
        self.stopping = False

    async def run(self) -> None:
        # not used again once idle for a while: one that is closed just when a request is sent loses it, as ever in HTTP
        limits = httpx.Limits(keepalive_expiry=0.3)
        async with httpx.AsyncClient(timeout=LIMIT, limits=limits) as client:
            await asyncio.gather(*(self._one(client, keeps=number % 2 == 0) for number in range(8)))

    async def _one(self, client: httpx.AsyncClient, *, keeps: bool) -> None:
        headers = {} if keeps else {"connection": "close"}
        while not self.stopping:
            try:
                answer = await client.post(self.url, json={}, headers=headers)
                answer.raise_for_status()
                self.answers.append(answer.json())
            except httpx.HTTPError as error:
                self.failed.append(repr(error))
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_servers_take_turns_without_a_lost_request(tmp_path: Path, keeper: Keeper, workers: int) -> None:
    async def scenario() -> Load:
        current = await asyncio.to_thread(Server(tmp_path, 1, keeper.path, workers=workers).ready)
        load = Load(keeper.url)
        running = asyncio.create_task(load.run())
        try:
            for version in (2, 3, 4):
                following = await asyncio.to_thread(Server(tmp_path, version, keeper.path, workers=workers).ready)
                status = await asyncio.to_thread(current.stop)
                current = following
                assert status == 0
        finally:
            load.stopping = True
            await running
            await asyncio.to_thread(current.stop)
        return load

    load = asyncio.run(scenario())
    assert not load.failed
    assert set(load.answers) == {1, 2, 3} | ({4} if 4 in load.answers else set())
    assert len(load.answers) > 100


def test_a_server_that_does_not_start_takes_no_request(tmp_path: Path, keeper: Keeper) -> None:
    standing = Server(tmp_path, 1, keeper.path).ready()
    broken = Server(tmp_path, 2, keeper.path)
    (tmp_path / "v2-1" / "service.py").write_text("raise ValueError('broken')")
    with httpx.Client(timeout=LIMIT) as client:
        while broken.process.poll() is None:
            assert client.post(f"{keeper.url}/version", json={}).json() == 1
    assert broken.ended()[0] == 1
    assert standing.stop() == 0


def test_a_server_takes_no_request_before_its_service_is_ready(tmp_path: Path, keeper: Keeper) -> None:
    standing = Server(tmp_path, 1, keeper.path).ready()
    following = Server(tmp_path, 2, keeper.path)
    following.not_ready.touch()
    following.ready()  # it is loaded, and answers on its own port
    with httpx.Client(timeout=LIMIT) as client:

        def asked() -> int:
            return int(client.post(f"{keeper.url}/version", json={}, headers={"connection": "close"}).json())

        assert [asked() for _ in range(50)] == [1] * 50
        following.not_ready.unlink()
        wait_for(lambda: asked() == 2, "it does not take part")
    assert standing.stop() == 0
    assert following.stop() == 0


def test_a_server_ends_when_the_keeper_goes_and_finds_the_next(tmp_path: Path, keeper: Keeper) -> None:
    server = Server(tmp_path, 1, keeper.path).ready()
    assert keeper.stop() == (0, "")
    status, said = server.ended()
    assert status == 1
    assert "whoever keeps the port has gone" in said
    again = Server(tmp_path, 1, keeper.path)  # before there is a keeper, as after a restart of the machine
    following = Keeper(keeper.path, keeper.port)
    try:
        again.ready()
        assert httpx.post(f"{keeper.url}/version", json={}, timeout=LIMIT).json() == 1
    finally:
        again.stop()
        following.stop()


def test_an_answer_of_a_server_that_drains_ends_its_connection(tmp_path: Path, keeper: Keeper) -> None:
    server = Server(tmp_path, 1, keeper.path).ready()
    with httpx.Client(timeout=LIMIT) as client:
        assert "connection" not in client.post(f"{keeper.url}/version", json={}).headers
        server.process.send_signal(signal.SIGTERM)
        seen = ""
        with contextlib.suppress(httpx.HTTPError):  # the second may be over
            while seen != "close":
                seen = client.post(f"{keeper.url}/version", json={}, headers={}).headers.get("connection", "")
    assert seen == "close"
    assert server.ended()[0] == 0


def test_no_keeper(lent_at: Path) -> None:
    with pytest.raises(ServiceLoadError, match="no such file"):
        door.take(str(lent_at), patience=0)


def test_a_keeper_says_in_a_line_why_it_cannot_keep(tmp_path: Path, keeper: Keeper, lent_at: Path) -> None:
    Server(tmp_path, 1, keeper.path).ready().stop()  # so it listens
    second = Keeper(lent_at.with_name("second"), keeper.port)
    _, said = second.process.communicate(timeout=LIMIT)
    assert (second.process.returncode, said.splitlines()[0]) == (1, f"error: port {keeper.port} on 127.0.0.1 is in use")
    third = Keeper(lent_at.parent / "no" / "folder")
    _, said = third.process.communicate(timeout=LIMIT)
    assert third.process.returncode == 1
    assert "no such file or directory" in said
