"""Large and hostile uploads to a real server: memory stays small, probes answer, nothing is left on disk."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

SERVICE = """
from pathlib import Path
import bentotool

@bentotool.service(http={"max_body_bytes": 400_000_000}, traffic={"timeout": 60})
class Files:
    @bentotool.api
    def size(self, f: Path) -> int:
        return f.stat().st_size
"""
MIB = 1024 * 1024
HEAD = b'Content-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'


@pytest.fixture(scope="module")
def server(serving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "tmp").mkdir()
    places = {name: str(folder / "tmp") for name in ("TMPDIR", "TEMP", "TMP")}
    with serving(folder / "service", SERVICE, environment=places) as server:
        yield server


def folders(server) -> list[str]:
    return [path.name for path in (server.folder.parent / "tmp").glob("bentotool-request-*")]


def head(length: int | None, boundary: str = "xyz") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    return f"POST /size HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{size}\r\nConnection: close\r\n\r\n".encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def sent(connection: socket.socket, pieces) -> None:
    """Send until the server has heard enough."""
    try:
        for piece in pieces:
            connection.sendall(piece)
    except OSError:  # it has closed, or this side has read its answer and closed
        return


def peaks(server) -> list[int]:
    """The most memory that each process of the server has had, in bytes (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if int(fields["PPid"]) == server.process.pid:
            found.append(int(fields["VmHWM"].split()[0]) * 1024)
    return found


def test_a_large_file_goes_to_disk_while_probes_answer(server, wire):
    before = max(peaks(server), default=0) if sys.platform == "linux" else 0
    size = 300 * MIB
    body_end = b"\r\n--xyz--\r\n"
    with server.raw(head(len(b"--xyz\r\n" + HEAD) + size + len(body_end)) + b"--xyz\r\n" + HEAD) as connection:
        for index in range(300):
            connection.sendall(b"\0" * MIB)
            if index % 100 == 50:
                with urllib.request.urlopen(f"{server.url}/readyz", timeout=30) as answer:
                    assert answer.status == 200
        connection.sendall(body_end)
        answer = wire.read_all(connection)
    assert answer.endswith(str(size).encode())
    if sys.platform == "linux":
        assert max(peaks(server)) - before < 60 * MIB
    wire.wait_for(lambda: not folders(server))


def test_an_upload_that_breaks_off_leaves_nothing(server, wire):
    connection = server.raw(head(50 * MIB) + b"--xyz\r\n" + HEAD)
    sent(connection, [b"\0" * MIB] * 5)
    wire.wait_for(lambda: folders(server))
    connection.close()
    wire.wait_for(lambda: not folders(server))


HOSTILE = {
    "a boundary of 60 kB": (head(100, "a" * 60_000), [b"--" + b"a" * 98]),
    "100 000 empty parts": (head(None), [b"--xyz\r\n" + HEAD + b"\r\n"] * 100_000),
    "a million line breaks": (head(None), [b"\r\n" * 100_000] * 10),
    "ten megabytes of dashes": (head(None), [b"--xyz\r\n" + HEAD, *[b"-" * MIB] * 10, b"\r\n--xyzzy"]),
    "a header without an end": (head(None), [b"--xyz\r\nX-Endless: ", *[b"a" * 65536] * 100]),
    "a form without an end": (head(None), [b"--xyz\r\n" + HEAD, b"abc"]),
}


def chunked(pieces):
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_are_refused_and_the_server_goes_on(server, wire, name):
    start, pieces = HOSTILE[name]
    connection = server.raw(start)
    whole = chunked(pieces) if b"chunked" in start else iter(pieces)
    sender = threading.Thread(target=sent, args=(connection, whole))
    sender.start()
    answer = wire.read_all(connection)
    sender.join(wire.limit)
    assert not sender.is_alive()
    if answer:  # a server that has said its word may close before all of it was sent
        assert status(answer) in (400, 413, 431), answer[:300]
        assert b'"error"' in answer or status(answer) in (400, 431)
    wire.wait_for(lambda: not folders(server))
    request = urllib.request.Request(
        f"{server.url}/size",
        data=json.dumps({"f": "data:,abc"}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as good:
        assert good.read() == b"3"


def test_a_file_in_pieces_of_one_byte(server, wire):
    with server.raw(head(None)) as connection:
        whole = b"--xyz\r\n" + HEAD + b"a" * 20_000 + b"\r\n--xyz--\r\n"
        connection.sendall(b"".join(chunked([bytes([byte]) for byte in whole])))
        assert wire.read_all(connection).endswith(b"20000")
