"""A service is imported without network, and what needs no network is not hindered by that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from socket import create_server

import pytest

from bentotool.build.probe import probe_service
from bentotool.errors import ServiceLoadError
from bentotool.runtime.isolation import NETWORK_ENV

Write = Callable[[dict[str, str]], Path]

SERVICE = """
import bentotool
{}
@bentotool.service(labels={{"x": str(x)}})
class Iris:
    @bentotool.api
    def predict(self, x: float) -> float:
        return x
"""
LOCAL = """
import asyncio, os, pathlib, socket, threading

async def talk():
    async def answer(reader, writer):
        writer.write(b"hi")
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    assert await reader.read() == b"hi"
    writer.close()
    server.close()

asyncio.run(talk())
left, right = socket.socketpair()
left.send(b"x")
thread = threading.Thread(target=left.close)
thread.start()
thread.join()
x = (right.recv(1), os.getuid() == {user}, os.getgid() == {group}, os.access(__file__, os.R_OK))
right.close()
"""


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def closed(tmp_path: Path) -> None:
    """Skips where the system lets no process leave its network."""
    code = "import sys; from bentotool.runtime.isolation import leave_network; sys.exit(not leave_network())"
    if subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode:
        pytest.skip("needs network namespaces")


@pytest.mark.usefixtures("closed")
def test_an_import_reaches_nobody(write: Write, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; x = socket.create_connection(('127.0.0.1', {port}), 5).fileno() > 0"
        folder = write({"service.py": SERVICE.format(code)})
        with pytest.raises(ServiceLoadError, match="refused"):
            probe_service(folder, "service:Iris", store=store)
        monkeypatch.setenv(NETWORK_ENV, "1")
        assert probe_service(folder, "service:Iris", store=store).labels == {"x": "True"}


@pytest.mark.usefixtures("closed")
def test_a_download_is_told_where_to_go(write: Write, store: Path) -> None:
    code = "import urllib.request; x = urllib.request.urlopen('http://models.invalid/weights', timeout=5)"
    with pytest.raises(ServiceLoadError) as caught:
        probe_service(write({"service.py": SERVICE.format(code)}), "service:Iris", store=store)
    assert NETWORK_ENV in str(caught.value.hint)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user numbers there")
def test_what_stays_on_this_machine_works(write: Write, store: Path) -> None:
    code = LOCAL.format(user=os.getuid(), group=os.getgid())
    probe = probe_service(write({"service.py": SERVICE.format(code)}), "service:Iris", store=store)
    assert probe.labels == {"x": str((b"x", True, True, True))}


def test_an_absent_library_may_be_absent_at_build_time(write: Write, store: Path) -> None:
    code = "with bentotool.importing():\n    import absent_module_of_no_one\nx = 1"
    assert probe_service(write({"service.py": SERVICE.format(code)}), "service:Iris", store=store).labels == {"x": "1"}


def test_the_account_of_an_import(write: Write, store: Path, tmp_path: Path) -> None:
    code = "import os, json.tool\nx = (os.environ.get('A'), os.environ['PATH'] and 1, open('data.txt').read())"
    code += "\nopen('/dev/null').close(); os.listdir('.')" if sys.platform != "win32" else ""
    folder, output = write({"service.py": SERVICE.format(code), "data.txt": "1"}), tmp_path / "out.json"
    command = [sys.executable, "-m", "bentotool.runtime.probe", "--app-dir", str(folder), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(output.read_text())["seen"]
    inside = {path for path in seen["opened"] if path.startswith(str(folder))}
    assert {"A", "PATH"} <= set(seen["variables"])
    assert "*" not in seen["variables"]
    assert inside >= {str(folder / "service.py"), str(folder / "data.txt")}
    assert not [path for path in seen["opened"] if path.startswith("/dev") or path.endswith("json/tool.py")]
    assert str(folder) in seen["listed"]
