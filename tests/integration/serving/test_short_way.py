"""Small requests to a batchable API go a short way, others a long one: nobody can tell by the answers.

A body that comes whole with its head goes the short way; one that comes later goes the long one.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

SOURCE = """
import asyncio
import datetime
import time
import numpy as np
import bentotool
from bentotool.exceptions import ServiceError

class Weird(Exception):
    def __init__(self, retry_after):
        self.retry_after = retry_after

class Mute(BaseException):
    def __str__(self):
        raise SystemExit(1)

class Text:
    def __str__(self):
        raise Mute

class Unkept(ServiceError):
    def to_dict(self):
        raise Mute

class Other(ServiceError):
    http_status = "many"

ERRORS = {
    "soon": Weird("soon"),
    "nan": Weird(float("nan")),
    "inf": ServiceError("a", 503, retry_after=float("inf")),
    "timedelta": ServiceError("a", 503, retry_after=datetime.timedelta(seconds=1)),
    "before": ServiceError("a", 503, retry_after=-1),
    "surrogate": ServiceError("bad file \\udcff", 422),
    "details": ServiceError("a", 422, details={"b": Text(), "c": 1}),
    "kept": Unkept("a", 422),
    "status": Other("a"),
    "mute": Mute(),
}

@bentotool.service(metrics={"enabled": True}, traffic={"timeout": 20})
class Short:
    @bentotool.api(batchable=True, max_batch_size=8, max_latency_ms=20000)
    def double(self, x: np.ndarray) -> np.ndarray:
        if (x == 113).any():
            raise ValueError("unlucky")
        if (x == 114).any():
            raise bentotool.exceptions.InvalidArgument("114 is refused")
        return x * 2

    @bentotool.api(batchable=True, max_batch_size=1, max_latency_ms=20000)
    def slow(self, x: np.ndarray) -> np.ndarray:
        time.sleep(float(x[0, 0]))
        return x

    @bentotool.api(batchable=True, batch_dim=0)
    def words(self, x: list[str]) -> list[str]:
        return [word.upper() for word in x]

    @bentotool.api(batchable=True)
    def fill(self, x: list[int]) -> list[str]:
        return ["w" * size for size in x]

    def panic_at_five(self, x: list[int]) -> int:
        if x[0] == 5:
            class Panic(BaseException): ...
            raise Panic("as compiled libraries raise it")
        if x[0] == 6:
            raise SystemExit(6)
        return 1

    @bentotool.api(batchable=True, batch_units="panic_at_five")
    def counted(self, x: list[int]) -> list[int]:
        return x

    @bentotool.api(batchable=True, batch_key="panic_at_five")
    def grouped(self, x: list[int]) -> list[int]:
        return x

    @bentotool.api(batchable=True, max_latency_ms=20000)
    async def hazard(self, x: list[int]) -> list[int]:
        await asyncio.sleep(0.05)
        if 5 in x:
            ended = asyncio.get_running_loop().create_future()
            ended.cancel()
            await ended
        return x

    @bentotool.api(batchable=True, concurrency=1)
    def ails(self, x: list[str]) -> list[str]:
        raise ERRORS[x[0]]

    @bentotool.api(batchable=True)
    async def later(self, x: list[int]) -> list[int]:
        return [number + 1 for number in x]
"""


@pytest.fixture(scope="module")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("short"), SOURCE) as server:
        yield server


def head(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def answer(connection: socket.socket) -> tuple[bytes, dict[str, str], bytes]:
    """The next answer on a connection: its status line, headers and body."""
    file = connection.makefile("rb")
    status = file.readline().strip()
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    return status, headers, file.read(int(headers["content-length"]))


def asked(server: Any, path: str, body: bytes, *headers: str, whole: bool) -> tuple[bytes, dict[str, str], bytes]:
    with server.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = head(path, body, *headers)
        if whole:
            connection.sendall(first + body)
        else:
            connection.sendall(first)
            time.sleep(0.1)
            connection.sendall(body)
        return answer(connection)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/double", b'{"x": [[1.5, 2]]}', (), 200),
        ("/double", b'{"x": [[1], [2], [3], [4], [5], [6], [7], [8], [9], [10]]}', (), 200),
        ("/double", b'{"x": [[1.0, 2.0]]}', ("x-request-id: mine",), 200),
        ("/double", b'{"x": [[1.0]]}', ("connection: close",), 200),
        ("/double", b'{"x": [[1.0]]}', ("accept: application/vnd.bentotool.tensors",), 200),
        ("/double", b'{"x": [[1.0]]}', ("content-encoding: identity",), 200),
        ("/double", b'{"x": [[1.0]]}', ("content-encoding: gzip",), 415),
        ("/double", b'{"x": [[113.0]]}', (), 500),
        ("/double", b'{"x": [[114.0]]}', (), 400),
        ("/double", b'{"x": [[1.0], [1.0, 2.0]]}', (), 400),
        ("/double", b'{"x": "text"}', (), 400),
        ("/double", b'{"x": 3}', (), 400),
        ("/double", b'{"y": [[1.0]]}', (), 400),
        ("/double", b'{"x": [[1.0', (), 400),
        ("/double", b"\xff\xfe", (), 400),
        ("/double", b"", (), 400),
        ("/double", b'{"x": [[1.0]]}', ("x-request-timeout-ms: nonsense",), 400),
        ("/double", b'{"x": [[1.0]]}', ("x-request-timeout-ms: 5000",), 200),
        ("/words", b'["a", "b"]', (), 400),
        ("/words", b'{"x": ["a", "b"]}', (), 200),
        ("/words", b'{"x": [1]}', (), 400),
        ("/later", b'{"x": [1, 2]}', (), 200),
        ("/counted", b'{"x": [5]}', (), 500),
        ("/counted", b'{"x": [6]}', (), 500),
        ("/grouped", b'{"x": [5]}', (), 500),
        ("/grouped", b'{"x": [6]}', (), 500),
        ("/hazard", b'{"x": [5]}', (), 500),
    ],
)
def test_both_ways_give_the_same_answer(
    server: Any, path: str, body: bytes, headers: tuple[str, ...], status: int
) -> None:
    short, long = (_told(asked(server, path, body, *headers, whole=whole)) for whole in (True, False))
    assert short == long
    assert short[0].startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("name", "status", "part"),
    [
        ("soon", 500, b"internal"),
        ("nan", 500, b"internal"),
        ("inf", 503, b'"a"'),
        ("timedelta", 503, b'"a"'),
        ("before", 503, b'"a"'),
        ("surrogate", 422, "bad file \ufffd".encode()),
        ("details", 422, b'"b":"","c":1'),
        ("kept", 422, b'"a"'),
        ("status", 500, b'"a"'),
        ("mute", 500, b"internal"),
    ],
)
def test_whatever_an_error_is_there_is_an_answer(server: Any, wire: Any, name: str, status: int, part: bytes) -> None:
    """And nothing of it is left behind: the next request has its place."""
    body = b'{"x": ["%s"]}' % name.encode()
    before = _of_ails(server, status)
    short, long = (_told(asked(server, "/ails", body, whole=whole)) for whole in (True, False))
    assert short == long
    assert short[0].startswith(b"HTTP/1.1 %d " % status)
    assert part in short[2]
    assert "retry-after" not in short[1]
    wire.wait_for(lambda: _of_ails(server, status) == before + 2)


def _of_ails(server: Any, status: int) -> float:
    with server.raw(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") as connection:
        lines = connection.makefile("rb").read().decode().splitlines()
    own = [line for line in lines if "service_request_total{" in line and '"/ails"' in line and f'"{status}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in own)


def _told(found: tuple[bytes, dict[str, str], bytes]) -> tuple[bytes, dict[str, str], bytes]:
    """Without what differs from request to request."""
    status, headers, body = found
    headers.pop("date", None)
    if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", headers["x-request-id"]):
        headers["x-request-id"] = "made"
    return status, headers, body


@pytest.mark.parametrize("whole", [True, False])
def test_a_deadline_ends_the_wait(server: Any, whole: bool) -> None:
    found = asked(server, "/slow", b'{"x": [[0.6]]}', "x-request-timeout-ms: 300", whole=whole)
    assert found[0].startswith(b"HTTP/1.1 50")  # 504, or 503 where it is known how long a run takes
    assert asked(server, "/slow", b'{"x": [[0.0]]}', whole=whole)[0] == b"HTTP/1.1 200 OK"


def test_requests_in_one_piece_are_answered_in_order(server: Any) -> None:
    """Of which some are refused at once and some run, and the last ends the connection."""
    bodies = [b'{"x": [[%d.0]]}' % number if number % 3 else b'{"x": ' for number in range(40)]
    sent = b"".join(head("/double", body) + body for body in bodies)
    sent += head("/double", bodies[1], "connection: close") + bodies[1]
    with server.raw(sent) as connection:
        file = connection.makefile("rb").read()
    told = re.findall(rb"HTTP/1.1 (\d+) .*?\r\n\r\n(\[\[[\d.]+\]\]|\{.*?\}\})", file, re.DOTALL)
    expected = [(b"200", b"[[%d.0]]" % (2 * number)) if number % 3 else b"400" for number in range(40)]
    assert [found if found[0] == b"200" else found[0] for found in told] == [*expected, (b"200", b"[[2.0]]")]


def test_more_than_a_head_may_have_is_not_counted_together(server: Any) -> None:
    """So many whole requests in one piece are no head without end."""
    body = b'{"x": [1]}'
    one = head("/later", body) + body
    last = head("/later", body, "connection: close") + body
    with server.raw() as connection:
        sending = threading.Thread(target=connection.sendall, args=(one * 3000 + last,))
        sending.start()
        said = connection.makefile("rb").read()
        sending.join()
    assert said.count(b"HTTP/1.1 200 OK") == 3001


@pytest.mark.parametrize("path", ["/counted", "/grouped", "/hazard"])
def test_what_one_request_sets_off_is_felt_by_no_other(server: Any, path: str) -> None:
    """Those which came in the same turn of the loop, in one piece, and those which come later."""
    numbers = [1, 5, 2, 6, 3, 5, 4] * 3
    bodies = [b'{"x": [%d]}' % number for number in numbers]
    fatal = {5} if path == "/hazard" else {5, 6}
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(server.raw(b"".join(head(path, body) + body for body in bodies)))
        others = [stack.enter_context(server.raw(head(path, body) + body)) for body in bodies]
        told = [answer_exactly(connection) for connection in [one] * len(bodies) + others]
    for number, (status, _, said) in zip(numbers * 2, told, strict=True):
        if number in fatal:
            assert status == b"HTTP/1.1 500 Internal Server Error"
        else:
            assert (status, said) == (b"HTTP/1.1 200 OK", b"[%d]" % number)
    assert server.process.poll() is None
    assert asked(server, path, b'{"x": [7]}', whole=True)[2] == b"[7]"


@pytest.mark.parametrize("whole", [True, False])
def test_two_hosts_are_none(server: Any, whole: bool) -> None:
    found = asked(server, "/later", b'{"x": [1]}', "host: attacker.example", whole=whole)
    assert found[0].startswith(b"HTTP/1.1 421 ")


def test_a_connection_is_kept_and_used_again(server: Any) -> None:
    with server.raw() as connection:
        for number in range(20):
            body = b'{"x": [[%d.0]]}' % number
            connection.sendall(head("/double", body) + body)
            status, headers, said = answer(connection)
            assert (status, said) == (b"HTTP/1.1 200 OK", b"[[%d.0]]" % (2 * number))
            assert "connection" not in headers


def test_who_leaves_is_not_run(server: Any, wire: Any) -> None:
    """While one runs, others wait and leave."""
    body = b'{"x": [[0.5]]}'
    with server.raw(head("/slow", body) + body) as first:
        time.sleep(0.1)
        for _ in range(5):
            server.raw(head("/slow", body) + body).close()
        status, _, said = answer(first)
    assert (status, said) == (b"HTTP/1.1 200 OK", b"[[0.5]]")
    began = time.monotonic()
    assert asked(server, "/slow", b'{"x": [[0.0]]}', whole=True)[0] == b"HTTP/1.1 200 OK"
    assert time.monotonic() - began < 1.5, "those who left were run"
    wire.wait_for(lambda: _counted(server, "/slow", "499") >= 5)


def _counted(server: Any, route: str, status: str) -> float:
    with server.raw(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") as connection:
        text = connection.makefile("rb").read().decode()
    found = re.search(rf'_request_total{{endpoint="{route}",.*?http_response_code="{status}".*?}} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_every_answer_is_counted(server: Any) -> None:
    before = _counted(server, "/later", "200"), _counted(server, "/later", "400")
    for whole in (True, False):
        for _ in range(3):
            asked(server, "/later", b'{"x": [1]}', whole=whole)
            asked(server, "/later", b"[", whole=whole)
    assert (_counted(server, "/later", "200"), _counted(server, "/later", "400")) == (before[0] + 6, before[1] + 6)


def test_nothing_stays_in_progress(server: Any, wire: Any) -> None:
    asked(server, "/double", b'{"x": [[1.0]]}', whole=True)

    def busy() -> list[str]:
        with server.raw(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") as connection:
            text = connection.makefile("rb").read().decode()
        return [line for line in text.splitlines() if "_request_in_progress{" in line and not line.endswith(" 0.0")]

    wire.wait_for(lambda: not [line for line in busy() if "/metrics" not in line])


def test_the_log_names_the_request_that_failed(server: Any, wire: Any) -> None:
    asked(server, "/double", b'{"x": [[113.0]]}', "x-request-id: told-in-the-log", whole=True)
    line = wire.wait_for(lambda: next((line for line in server.log.splitlines() if "told-in-the-log" in line), None))
    assert "double failed" in line


def test_a_reader_that_does_not_read_is_waited_for(server: Any) -> None:
    """The answers do not fit into the buffers between us."""
    body = b'{"x": [200000]}'
    with server.raw() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for _ in range(100):
            connection.sendall(head("/fill", body) + body)
            time.sleep(0.01)  # each comes by itself, the one before being answered
        for _ in range(100):
            status, _, said = answer_exactly(connection)
            assert (status, said) == (b"HTTP/1.1 200 OK", b'["%s"]' % (b"w" * 200_000))


def answer_exactly(connection: socket.socket) -> tuple[bytes, dict[str, str], bytes]:
    """As `answer`, and no byte of the next one is taken from the connection."""
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += connection.recv(1)
    status, *lines = said.decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += connection.recv(int(headers["content-length"]) - len(body))
    return status.encode(), headers, body


def test_a_server_that_ends_answers_first(serving: Any, tmp_path: Any) -> None:
    body = b'{"x": [[0.7]]}'
    with serving(tmp_path / "ending", SOURCE) as server:
        connection = server.raw(head("/slow", body) + body)
        time.sleep(0.2)
        assert server.stop() == 0
        with connection:
            status, headers, said = answer(connection)
        assert (status, headers["connection"], said) == (b"HTTP/1.1 200 OK", "close", b"[[0.7]]")


@pytest.mark.parametrize("path", ["/later", "/fill", "/readyz"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_server_that_sends_its_callers_away_closes_their_connections(draining: Any, path: str) -> None:
    """It answers for a while yet, since whoever shares requests out may not know that it ends."""
    body = b'{"x": [1]}'
    server, connections = draining
    with connections.pop() as connection:
        connection.sendall(head(path, body) + body)
        _, headers, _ = answer(connection)
        assert headers["connection"] == "close"
        assert connection.recv(1) == b"", "it is closed at once, and not when the server ends"
    assert server.process.poll() is None


@pytest.fixture(scope="module")
def draining(serving: Any, wire: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that has been told to end, and connections to it that were used before."""
    body = b'{"x": [1]}'
    with serving(tmp_path_factory.mktemp("draining"), SOURCE, "--drain-delay", "600") as server:
        connections = [server.raw(head("/later", body) + body) for _ in range(3)]
        for connection in connections:
            assert "connection" not in answer(connection)[1]
        server.process.send_signal(signal.SIGTERM)

        def is_told() -> bool:
            with server.raw(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") as asked:
                return asked.makefile("rb").readline().startswith(b"HTTP/1.1 503")

        wire.wait_for(is_told)
        yield server, connections
        # the second signal does not wait, where it is no echo of the first one
        wire.wait_for(lambda: server.process.send_signal(signal.SIGTERM) or server.process.poll() is not None)
