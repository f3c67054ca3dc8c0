"""``bentotool serve`` as it is typed: what it prints, and how it stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import httpx
import pytest

LIMIT = 30.0
SERVICE = """
import os, bentotool

print("importing")

@bentotool.service(logging={"access": {"enabled": True}})
class Demo:
    @bentotool.api
    async def noop(self, x: int) -> int:
        print("serving", flush=True)
        return x

    @bentotool.api
    def die(self) -> None:
        os._exit(7)
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    return folder


@pytest.fixture
def start(project, tmp_path):
    processes = []

    def run(*options, target=None):
        command = [sys.executable, "-m", "bentotool", "serve", str(target or project), "--port", "0", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=LIMIT)


def stop(process):
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def test_json_keeps_standard_output_for_itself(start):
    process = start("--json")
    first = json.loads(process.stdout.readline())
    assert (first["event"], first["name"]) == ("serving", "Demo")
    assert httpx.post(f"{first['url']}/noop", json={"x": 3}).json() == 3
    status, out, err = stop(process)
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert {"importing", "serving"} <= set(lines)
    (access,) = (json.loads(line) for line in lines if line not in ("importing", "serving"))
    assert access["logger"] == "bentotool.access"


def test_json_of_a_dying_worker_is_json(start):
    process = start("--json")
    url = json.loads(process.stdout.readline())["url"]
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/die", json={})
    for line in process.stderr:
        if "restarting" in line:
            break
    assert json.loads(line)["level"] == "warning"
    assert "exit status 7" in json.loads(line)["message"]
    assert stop(process)[0] == 0


def test_quiet_says_nothing(project, tmp_path, start):
    (project / "service.py").write_text(SERVICE.replace('print("importing")', ""))
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "bentotool.runtime", str(project), "--port", "0", "--quiet"]
    process = subprocess.Popen(
        [*command, "--port-file", str(port_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + LIMIT
        while not (port_file.exists() and port_file.read_text()):
            assert time.monotonic() < end, process.poll()
            time.sleep(0.02)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        assert httpx.get(f"{url}/livez").status_code == 200
    finally:
        outcome = stop(process)
    assert outcome == (0, "", "")
    (project / "service.py").write_text("1 / 0\n")
    status, out, err = stop_when_failed(start("-q"))
    assert (status, out) == (1, "")
    assert "ZeroDivisionError" in err


def stop_when_failed(process):
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def test_the_delay_before_stopping_still_serves(project, start):
    (project / "service.py").write_text(SERVICE.replace('print("importing")', ""))
    process = start("--drain-delay", "1.5", "--grace", "5")
    url = process.stdout.readline().removeprefix("serving on ").strip()
    process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 1.4
    while httpx.get(f"{url}/readyz").status_code != 503:
        assert time.monotonic() < end
    assert httpx.post(f"{url}/noop", json={"x": 4}).json() == 4
    assert httpx.get(f"{url}/livez").status_code == 200
    process.communicate(timeout=LIMIT)
    assert process.returncode == 0


@pytest.mark.parametrize("option", ["--drain-delay", "--grace"])
def test_negative_seconds_are_wrong_usage(start, option):
    status, _, err = stop_when_failed(start(option, "-1"))
    assert status == 2
    assert option in err


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "SystemExit('why')"])
@pytest.mark.parametrize("where", ["{}", "{}init"])
def test_a_service_that_ends_its_process_is_one_line(start, project, kind, where):
    source = f"raise {kind}\n"
    if where.endswith("init"):
        source = SERVICE + f"\n    def __init__(self):\n        raise {kind}\n"
    (project / "service.py").write_text(source)
    status, _out, err = stop_when_failed(start())
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert len(errors) == 1
    assert kind.partition("(")[0] in errors[0]
    assert "service.py:" in errors[0]


def test_a_bentos_middleware_is_applied(start, tmp_path):
    home = tmp_path / "root" / "home" / "bento"
    (home / "app").mkdir(parents=True)
    code = "import bentotool\n@bentotool.service\nclass S:\n  @bentotool.api\n  def one(self) -> int:\n    return 1\n"
    (home / "app" / "main.py").write_text(code)
    layer = "def broken(app):\n  async def call(scope, receive, send):\n    raise ValueError('secret')\n  return call\n"
    (home / "app" / "layers.py").write_text(layer)
    document = {"format": 1, "name": "s", "version": "1", "service": "main:S", "middleware": ["layers:broken"]}
    (home / "bento.json").write_text(json.dumps(document))
    process = start(target=tmp_path / "root")
    url = process.stdout.readline().removeprefix("serving on ").strip()
    answer = httpx.post(f"{url}/one", json={}, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "ValueError: secret" in stop(process)[2]
    document["middleware"] = ["layers:absent"]
    (home / "bento.json").write_text(json.dumps(document))
    status, _, err = stop_when_failed(start(target=tmp_path / "root"))
    assert status == 1
    assert "error: middleware 'layers:absent'" in err


def test_a_service_that_is_refused_for_safety_says_so_in_its_status(start, project):
    service = SERVICE + (
        "    def __init__(self):\n        from bentotool.errors import UnsafeError\n"
        "        raise UnsafeError('the model is a pickle', hint='trust=True')\n"
    )
    (project / "service.py").write_text(service)
    process = start("--json")
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 6
    assert json.loads(errors.splitlines()[-1])["error"]["code"] == "unsafe"
