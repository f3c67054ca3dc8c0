"""The server as a user starts it: real processes, real sockets, real signals."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from bentotool.client.http import AsyncHTTPClient, CallError, SyncHTTPClient

LIMIT = 30.0
SERVICE = """
import asyncio, os, signal, sys, time
import bentotool

@bentotool.service
class Demo:
    @bentotool.api
    async def noop(self, x: list[float]) -> dict[str, float]:
        return {"y": x[0]}

    @bentotool.api(batchable=True)
    def double(self, rows: list[int]) -> list[int]:
        return [2 * row for row in rows]

    @bentotool.api
    def slow(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    calls = 0

    @bentotool.api
    def counted(self, seconds: float) -> int:
        Demo.inner.calls += 1
        time.sleep(seconds)
        return Demo.inner.calls

    @bentotool.api
    async def ticks(self, n: int):
        for number in range(n):
            yield {"i": number}
            await asyncio.sleep(0.05)

    @bentotool.api
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @bentotool.api
    def modules(self) -> list[str]:
        return sorted(name for name in sys.modules if "." not in name)
"""


class Server:
    def __init__(self, folder: Path, *options: str, start: bool = True) -> None:
        self.port_file = folder.parent / "port"
        command = [
            sys.executable,
            "-m",
            "bentotool.runtime",
            str(folder),
            "--port",
            "0",
            "--port-file",
            str(self.port_file),
        ]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if start:
            line = self.process.stdout.readline()
            found = re.fullmatch(r"serving on (http://\S+)\n", line)
            assert found, (line, self.process.stderr.read())
            self.url = found[1]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, err


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    return folder


@pytest.fixture
def serve(project):
    servers = []

    def start(*options, folder=project, **named):
        servers.append(Server(folder, *options, **named))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.terminate()
                server.process.wait(10)
            server.process.kill()
        for stream in (server.process.stdout, server.process.stderr):
            stream.close()


def wait_for(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def alive(pid):
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_serve_call_and_stop(serve):
    server = serve()
    assert server.port_file.read_text().strip() == server.url.rpartition(":")[2]
    with SyncHTTPClient(server.url) as client:
        assert client.is_ready()
        assert client.noop(x=[1.5, 2.0]) == {"y": 1.5}
        assert client.call("double", [1, 2]) == [2, 4]
        assert list(client.ticks(n=2)) == [{"i": 0}, {"i": 1}]
        with pytest.raises(CallError) as raised:
            client.noop(x="text")
        assert (raised.value.status, raised.value.remote_code) == (400, "invalid_input")
        with pytest.raises(AttributeError, match="it has|has no API"):
            client.nothing()
    assert server.stop() == (0, "")
    assert not server.port_file.exists()


async def async_calls(url):
    async with AsyncHTTPClient(url) as client:
        assert await client.is_ready()
        stream = await client.ticks(n=2)
        return await client.noop(x=[2]), [item async for item in stream]


def test_the_asynchronous_client(serve):
    import asyncio

    assert asyncio.run(async_calls(serve().url)) == ({"y": 2.0}, [{"i": 0}, {"i": 1}])


def test_only_the_runtime_is_imported(serve):
    url = serve().url
    httpx.post(f"{url}/double", json={"rows": [1]}).raise_for_status()
    loaded = set(httpx.post(f"{url}/modules", json={}).json())
    forbidden = {
        "typer",
        "rich_click",
        "pluggy",
        "oras",
        "sigstore",
        "tomlkit",
        "numpy",
        "pandas",
        "pydantic",
        "onnxruntime",
    }
    assert not loaded & forbidden


def test_work_of_clients_that_left_is_not_started(serve):
    url = serve().url
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(httpx.post, f"{url}/counted", json={"seconds": 1}, timeout=LIMIT)
        time.sleep(0.2)
        impatient = [pool.submit(httpx.post, f"{url}/counted", json={"seconds": 0}, timeout=0.2) for _ in range(5)]
        assert all(isinstance(call.exception(LIMIT), httpx.ReadTimeout) for call in impatient)
        assert first.result(LIMIT).json() == 1
    assert httpx.post(f"{url}/counted", json={"seconds": 0}, timeout=LIMIT).json() == 2
    assert re.search(r'endpoint="/counted",http_response_code="499",[^}]*} 5\.0', httpx.get(f"{url}/metrics").text)


def test_ctrl_c_gives_130(serve):
    assert serve().stop(signal.SIGINT)[0] == 130


def test_draining_finishes_what_is_in_flight(serve):
    server = serve("--drain-delay", "3")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(httpx.post, f"{server.url}/slow", json={"seconds": 1}, timeout=LIMIT)
        stream = pool.submit(httpx.post, f"{server.url}/ticks", json={"n": 20}, timeout=LIMIT)
        time.sleep(0.2)
        server.process.terminate()
        wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert httpx.post(f"{server.url}/noop", json={"x": [1]}).status_code == 200, "still accepted while draining"
        assert slow.result(LIMIT).status_code == 200
        assert stream.result(LIMIT).text.count("\n") == 20
    assert server.wait() == (0, "")


def test_a_dead_worker_is_replaced_and_its_count_is_kept(serve):
    server = serve()
    for _ in range(5):
        httpx.post(f"{server.url}/noop", json={"x": [1]}).raise_for_status()
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{server.url}/die", json={})

    def answers():
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"{server.url}/noop", json={"x": [1]}).status_code == 200

    wait_for(answers)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'bentotool_service_request_total{endpoint="/noop",http_response_code="200",[^}]*} 6\.0', metrics)
    assert re.search(r'bentotool_service_request_in_progress{endpoint="/die",[^}]*} 0\.0', metrics)
    status, log = server.stop()
    assert status == 0
    assert "SIGKILL" in log


def test_several_workers_share_the_port_and_the_metrics(serve):
    server = serve("--workers", "2")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(httpx.post, f"{server.url}/slow", json={"seconds": 0.1}) for _ in range(16)]
        pids = {call.result(LIMIT).json() for call in calls}
    assert len(pids) == 2
    text = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'request_total{endpoint="/slow",http_response_code="200",[^}]*} 16\.0', text)


def test_the_service_says_how_many_workers(serve, project):
    (project / "service.py").write_text(SERVICE.replace("@bentotool.service\n", "@bentotool.service(workers=2)\n"))
    server = serve()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(httpx.post, f"{server.url}/slow", json={"seconds": 0.1}) for _ in range(16)]
        assert len({call.result(LIMIT).json() for call in calls}) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_no_worker_outlives_its_supervisor(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = serve()
    assert list(tmp_path.glob("bentotool-metrics-*"))
    pid = httpx.post(f"{server.url}/slow", json={"seconds": 0}).json()
    server.process.kill()
    wait_for(lambda: not alive(pid))
    assert not list(tmp_path.glob("bentotool-metrics-*"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:\n", "service.py:1: syntax error"),
        ("x = 1\n1 / 0\n", "service.py:2: ZeroDivisionError: division by zero"),
        ("import no_such_package\n", "service.py:1: no module named 'no_such_package'"),
        ("x = 1\n", "declares no service"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        (SERVICE + "    def __init__(self):\n        raise OSError('no model')\n", "OSError: no model"),
        (SERVICE.replace("@bentotool.service", "@bentotool.service(trafic={})"), "unknown option 'trafic'"),
    ],
)
def test_a_service_that_does_not_load_is_one_line_and_no_loop(serve, project, source, message):
    (project / "service.py").write_text(source)
    server = serve(start=False)
    status, log = server.wait()
    assert status == 1
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not server.port_file.exists()


@pytest.mark.parametrize("source", [SERVICE, "import pdb\n" + SERVICE])
def test_a_file_that_hides_a_module_of_python_is_named(serve, project, source):
    (project / "service.py").write_text(source)
    (project / "cmd.py").write_text("x = 1\n")
    status, log = serve(start=False).wait()
    assert status == 1
    assert log.splitlines() == [
        "error: cmd.py hides Python's own module 'cmd': module 'cmd' has no attribute 'Cmd'",
        "hint: give cmd.py another name",
    ]


def test_a_missing_service_file(serve, project):
    (project / "service.py").unlink()
    status, log = serve(start=False).wait()
    assert status == 1
    assert "no module 'service'" in log


def test_a_port_in_use(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "bentotool.runtime", str(project), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: port {port} on 127.0.0.1 is in use",
        "hint: stop what uses it, or pass --port 0 for a free port",
    ]


def test_a_bento_on_disk(serve, tmp_path):
    home = tmp_path / "root" / "home" / "bento"
    (home / "app").mkdir(parents=True)
    code = "import os, bentotool\n@bentotool.service\nclass S:\n  @bentotool.api\n  def env(self) -> list[str]:\n"
    code += "    return [os.environ['GREETING'], os.environ['BENTOTOOL_BENTO'], os.getcwd()]\n"
    (home / "app" / "main.py").write_text(code)
    document = {
        "format": 1,
        "name": "s",
        "version": "1",
        "service": "main:S",
        "envs": [{"name": "GREETING", "value": "hi"}],
    }
    (home / "bento.json").write_text(json.dumps(document))
    url = serve(folder=tmp_path / "root").url
    answer = httpx.post(f"{url}/env", json={}).json()
    assert answer == ["hi", str(home / "bento.json"), str((home / "app").resolve())]


def test_a_service_that_imports_onnxruntime_itself_reports_to_nobody(serve, tmp_path, monkeypatch):
    code = "import os, bentotool\n@bentotool.service\nclass S:\n  @bentotool.api\n  def env(self) -> str:\n"
    (tmp_path / "service.py").write_text(code + "    return os.environ['ORT_DISABLE_TELEMETRY']\n")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert httpx.post(f"{serve(folder=tmp_path).url}/env", json={}).text == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")  # the user's own word
    assert httpx.post(f"{serve(folder=tmp_path).url}/env", json={}).text == "0"


def test_the_probe_describes_a_service(project, tmp_path):
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "bentotool.runtime.probe", "--app-dir", str(project), "--output", str(output)]
    subprocess.run(command, check=True, timeout=LIMIT)
    found = json.loads(output.read_text())
    assert (found["service"], found["name"], found["modules"]) == ("service:Demo", "demo", ["service.py"])
    assert found["schema"]["routes"][0]["name"] == "noop"
    (project / "service.py").write_text("def broken(:\n")
    assert subprocess.run(command, check=False, timeout=LIMIT).returncode == 1
    assert "service.py:1" in json.loads(output.read_text())["error"]["message"]
