"""Services whose requests a program of their own answers."""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.client.serving import Server

LIMIT = 30.0
PROGRAM = Path(__file__).with_name("program.py")
SERVICE = """
import sys, bentotool

@bentotool.service(traffic={"timeout": 2, "max_concurrency": 4}, http={"max_body_bytes": 50_000_000})
class Llm:
    def __command__(self) -> list[str]:
        return [sys.executable, "program.py", "$BENTOTOOL_PROXY_PORT"]

    @bentotool.api
    def own(self, x: int) -> int:
        return x + 1

    @bentotool.websocket
    async def spoken(self, ws: bentotool.WebSocket) -> None:
        await ws.accept()
        await ws.send_text("our own " + await ws.receive_text())
        await ws.close()
"""


def project(folder: Path, text: str = SERVICE) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(PROGRAM, folder)
    (folder / "service.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with bentotool.serve(project(tmp_path_factory.mktemp("llm") / "project")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=LIMIT) as found:
        yield found


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if found := true():
                return found
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {LIMIT:g} s")


def ready(client: httpx.Client) -> bool:
    return client.get("/readyz").status_code == 200


def test_a_request_goes_through_as_it_is(client: httpx.Client) -> None:
    request = client.build_request(
        "PUT", "/a%20b/%2F?q=1%2F2&q=3", headers=[("x-a", "1"), ("x-a", "2")], content=b"body"
    )
    method, path, query, headers = ast.literal_eval(client.send(request).text)
    assert (method, path, query) == ("PUT", b"/a%20b/%2F", b"q=1%2F2&q=3")
    assert [value for name, value in headers if name == b"x-a"] == [b"1", b"2"]
    found = dict(headers)
    assert found[b"host"] == client.base_url.netloc
    assert (found[b"x-forwarded-for"], found[b"x-forwarded-proto"]) == (b"127.0.0.1", b"http")
    assert found[b"x-request-id"]


def test_its_own_paths_stay(client: httpx.Client) -> None:
    assert client.post("/own", json={"x": 1}).json() == 2
    assert "/own" in client.get("/docs.json").json()["paths"]
    assert client.get("/none").status_code == 404
    assert ast.literal_eval(client.get("/").text)[1] == b"/"


def test_compressed_answers_pass_byte_for_byte(client: httpx.Client) -> None:
    with client.stream("GET", "/gzip") as answer:
        raw = b"".join(answer.iter_raw())
    assert raw[:2] == b"\x1f\x8b"
    assert client.get("/gzip").text == "hello" * 1000
    assert client.get("/gzip").headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert len(client.get("/gzip").headers.get_list("date")) == 1
    head = client.head("/gzip")
    assert (head.content, int(head.headers["content-length"])) == (b"", len(raw))


def test_streams_pass_as_they_come(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as answer:
        came = [(piece, time.monotonic()) for piece in answer.iter_raw()]
    assert b"".join(piece for piece, _ in came) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert came[-1][1] - came[0][1] > 0.3  # not held until all is there


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_pass(client: httpx.Client, chunked: bool) -> None:
    body = os.urandom(1 << 20) * 20
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    answer = client.post("/sum", content=pieces if chunked else body)
    assert answer.text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_bodies_do_not(client: httpx.Client, chunked: bool) -> None:
    size = 50_000_001
    pieces = (bytes(min(1_000_000, size - start)) for start in range(0, size, 1_000_000))
    try:
        answer = client.post("/sum", content=pieces if chunked else bytes(size))
    except httpx.WriteError:
        return  # answered, and closed while we were sending
    assert answer.status_code == 413


def test_it_has_to_begin_in_time(client: httpx.Client) -> None:
    assert client.get("/slow?3").status_code == 504
    assert client.get("/slow?3", headers={"x-request-timeout-ms": "100"}).json()["error"]["code"] == "deadline_exceeded"


def test_limits_hold(client: httpx.Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: client.get("/slow?1").status_code, range(12)))
    assert found.count(200) == 4
    assert found.count(429) == 8


def test_who_leaves_is_told_to_the_program(server: Server, client: httpx.Client) -> None:
    with client.stream("GET", "/forever") as answer:
        next(answer.iter_raw())
    left = Path(server._cwd) / "left"
    until(left.exists, "the program was told")


def test_metrics(client: httpx.Client) -> None:
    client.get("/anything")
    text = client.get("/metrics").text
    assert 'endpoint="/{path}"' in text
    assert "anything" not in text
    assert "unmatched" not in text, "it is counted once"


def test_what_the_program_inherits(client: httpx.Client) -> None:
    found = ast.literal_eval(client.get("/environment").text)
    assert found["PORT"] == found["BENTOTOOL_PROXY_PORT"]
    assert "PROMETHEUS_MULTIPROC_DIR" not in found


def test_websockets(server: Server, require_package: Callable[[str], None]) -> None:
    require_package("websockets")
    import websockets

    async def speak() -> None:
        url = server.url.replace("http", "ws")
        async with websockets.connect(f"{url}/talk?x=1", subprotocols=["v2.talk"]) as line:  # type: ignore[list-item]
            assert line.subprotocol == "v2.talk"
            for message in ("hé", b"\0\1", "x" * 200_000):
                await line.send(message)
                assert await line.recv() == message
            await line.ping()
            await line.send("bye")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await line.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
        async with websockets.connect(f"{url}/spoken") as line:
            await line.send("words")
            assert await line.recv() == "our own words"
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(f"{url}/talk", origin="http://evil.example"):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 403

    asyncio.run(asyncio.wait_for(speak(), LIMIT))


def test_a_dead_program_is_started_again(server: Server, client: httpx.Client) -> None:
    before = client.get("/pid").text
    for _ in range(2):
        client.get("/die")
        until(lambda: ready(client), "ready again")
    assert client.get("/pid").text != before
    assert "the command of Llm ended (exit status 3)" in server.log
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # it is not taken for a whole one
        client.get("/half")
    until(lambda: ready(client), "ready again")


def test_drain(tmp_path: Path) -> None:
    with bentotool.serve(project(tmp_path / "p")) as server, httpx.Client(timeout=LIMIT) as client:
        pid = int(client.get(f"{server.url}/pid").text)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(client.get, f"{server.url}/slow?1")
            time.sleep(0.4)
            assert server.stop() == 0
            assert slow.result().text == "slow"
        assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_a_websocket_is_closed_when_the_server_stops(tmp_path: Path, require_package: Callable[[str], None]) -> None:
    require_package("websockets")
    import websockets

    async def speak(server: Server) -> int | None:
        async with websockets.connect(server.url.replace("http", "ws") + "/talk") as line:
            await line.send("a")
            await line.recv()
            stopping = asyncio.ensure_future(asyncio.to_thread(server.stop))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await line.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            return await stopping

    with bentotool.serve(project(tmp_path / "p")) as server:
        assert asyncio.run(asyncio.wait_for(speak(server), LIMIT)) == 0


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_no_program_outlives_its_server(tmp_path: Path, victim: str) -> None:
    with bentotool.serve(project(tmp_path / "p")) as server, httpx.Client(timeout=LIMIT) as client:
        pid = int(client.get(f"{server.url}/pid").text)
        assert server.process is not None
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if victim == "worker" and not children.exists():
            pytest.skip("needs /proc")
        killed = int(children.read_text().split()[0]) if victim == "worker" else server.process.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: not alive(pid), "the program has gone")
        if victim == "worker":
            until(lambda: client.get(f"{server.url}/readyz").status_code == 200, "ready again")
            assert int(client.get(f"{server.url}/pid").text) != pid


def test_readiness_is_the_programs(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        folder, environment = project(tmp_path / "p"), {"WARM_UP": "2"}
        starting = pool.submit(bentotool.serve, folder, port=port, environment=environment)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT) as client:
            until(lambda: client.get("/livez").status_code == 200, "alive")
            early = client.get("/readyz")
            assert early.status_code == 503
            assert client.get("/anything").status_code == 503
            until(lambda: ready(client), "ready")
        server = starting.result(LIMIT)
        assert server.stop() == 0


BROKEN = """
import sys, bentotool

@bentotool.service({options})
class Llm:
    def __command__(self):
        return {command}
"""


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ('["no-such-program-anywhere"]', "", "names no program: 'no-such-program-anywhere'"),
        ('[sys.executable, "-c", "import sys; sys.exit(9)"]', "", r"ended \(exit status 9\)"),
        ('"vllm serve"', "", "is no list of texts"),
        ("[]", "", "is no list of texts"),
        ('[sys.executable, "program.py", "1"]', 'http={"proxy_port": %d}', "is in use"),
    ],
)
def test_a_command_that_does_not_start(tmp_path: Path, command: str, options: str, message: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = BROKEN.format(command=command, options=options % taken.getsockname()[1] if options else "")
        with pytest.raises(bentotool.errors.ServiceLoadError, match=message):
            bentotool.serve(project(tmp_path / "p", text))


FRONT = """
import sys, urllib.request, bentotool

@bentotool.service(cmd=[sys.executable, "program.py", "$BENTOTOOL_PROXY_PORT"])
class Llm:
    pass

@bentotool.service
class Front:
    llm = bentotool.depends(Llm)

    @bentotool.api
    def ask(self) -> str:
        with urllib.request.urlopen(self.llm.client_url + "/pid", timeout=20) as answer:
            return answer.read().decode()
"""


@pytest.mark.parametrize("options", [[], ["--development"]])
def test_a_service_with_a_command_as_a_dependency(tmp_path: Path, options: list[str]) -> None:
    with bentotool.serve(project(tmp_path / "p", FRONT), options=options) as server:
        assert int(server.client().ask()) > 0
