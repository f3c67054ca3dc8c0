"""Signals at every point of a server's life, to it alone and to its whole group, as a terminal sends them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentotool.runtime.endings import held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
LIMIT = 40.0
SERVICE = """
import pathlib, time
import bentotool

FOLDER = pathlib.Path(__file__).parent

@bentotool.service(workers=2)
class Slow:
    @bentotool.api
    async def quick(self) -> int:
        return 1

    @bentotool.api
    def slow(self) -> int:
        (FOLDER / "begun").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.02)
        return 2
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server in a group of its own, which is gone when it has ended."""
    processes = []

    def run(*options: str, source: str = SERVICE, prelude: str = "") -> subprocess.Popen[str]:
        (tmp_path / "service.py").write_text(source)
        entry = f"{prelude}\nimport sys\nfrom bentotool.runtime.__main__ import main\nsys.exit(main())"
        command = [sys.executable, *(("-c", entry) if prelude else ("-m", "bentotool.runtime"))]
        process = subprocess.Popen(
            [*command, str(tmp_path), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT)


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = re.fullmatch(r"serving on (http://\S+)\n", process.stdout.readline())
    assert found, process.communicate(timeout=LIMIT)
    return found[1]


def group_is_gone(process: subprocess.Popen[str]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_cut_short_leaves_nothing(start: Start, number: int, moment: float) -> None:
    """Started as the command line starts it, which holds signals back until there is somebody to answer them."""
    with held():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            process = start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before | {signal.SIGINT, signal.SIGHUP})
    time.sleep(moment)  # whatever it is at by now
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=LIMIT)
    assert err == ""
    served = out.startswith("serving on")
    assert process.returncode == (0 if served and number == signal.SIGTERM else 128 + number)
    wait_for(lambda: group_is_gone(process))


LOADING = """
import pathlib, time
import bentotool
pathlib.Path(__file__).with_name("begun").touch()
time.sleep(600)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_while_it_loads(start: Start, tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    process = start(source=LOADING)
    wait_for((tmp_path / "begun").exists)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (128 + number, "", "")
    wait_for(lambda: group_is_gone(process))


def end_now(process: subprocess.Popen[str]) -> None:
    """Ask until it has gone: a second signal does not wait."""
    while process.poll() is None:
        process.terminate()
        time.sleep(0.2)


def test_a_whole_group_that_is_told_to_end_still_serves_for_the_delay(start: Start, tmp_path: Path) -> None:
    process = start("--drain-delay", "30")
    url = url_of(process)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, f"{url}/slow", json={}, timeout=LIMIT)
        wait_for((tmp_path / "begun").exists)
        os.killpg(process.pid, signal.SIGTERM)  # as a service manager does
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        for _ in range(8):  # both workers
            assert httpx.post(f"{url}/quick", json={}, timeout=LIMIT).json() == 1
        (tmp_path / "go").touch()
        assert slow.result(LIMIT).json() == 2
    end_now(process)
    assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 0
    wait_for(lambda: group_is_gone(process))


def test_one_request_to_end_that_comes_twice_is_one(start: Start, tmp_path: Path) -> None:
    process = start(prelude="import bentotool.runtime.supervisor as s; s._SAME_S = 1000")
    url = url_of(process)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, f"{url}/slow", json={}, timeout=LIMIT)
        wait_for((tmp_path / "begun").exists)
        for _ in range(3):  # `timeout` tells a process, and then its group
            process.terminate()
            time.sleep(0.05)
        (tmp_path / "go").touch()
        assert slow.result(LIMIT).json() == 2
    assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 0


def test_a_second_ctrl_c_does_not_wait(start: Start, tmp_path: Path) -> None:
    process = start("--grace", "600")
    url = url_of(process)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, f"{url}/slow", json={}, timeout=LIMIT)
        wait_for((tmp_path / "begun").exists)
        while process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        with pytest.raises(httpx.HTTPError):
            slow.result(LIMIT)
    assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 130


SLOWLY = """
import pathlib, sys, time
import bentotool.runtime.slots as slots
real, note = slots.spawn, pathlib.Path(sys.argv[1], "spawned")

def spawn(*given):
    with note.open("a") as file:
        file.write("x")
    {then}
    return real(*given)

slots.spawn = spawn
"""


def test_while_workers_are_started(start: Start, tmp_path: Path) -> None:
    note, wanted = tmp_path / "spawned", 60
    process = start("--workers", str(wanted), prelude=SLOWLY.format(then="time.sleep(0.5)"))
    wait_for(lambda: note.exists() and len(note.read_text()) > 3)
    process.terminate()
    assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 143
    assert len(note.read_text()) < wanted, "it did not go on until all were there"
    wait_for(lambda: group_is_gone(process))


def test_where_the_system_starts_no_more_processes(start: Start) -> None:
    process = start("--workers", "6", prelude=SLOWLY.format(then="assert_room(note)").replace("slots.spawn = spawn", """
def assert_room(note):
    if len(note.read_text()) > 3:
        raise BlockingIOError(11, "Resource temporarily unavailable")

slots.spawn = spawn"""))  # fmt: skip
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (1, "")
    line, hint = err.splitlines()
    assert line == "error: no process can be started for worker 3: resource temporarily unavailable"
    assert "--workers" in hint
    wait_for(lambda: group_is_gone(process))


def test_a_folder_of_its_own_goes_with_a_server_that_is_told_to_end_before_it_begins(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-m", "bentotool.runtime", str(folder), "--own-folder", "--port", "0"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.terminate()
    assert process.communicate(timeout=LIMIT)[1] == ""
    assert (process.returncode, folder.exists()) == (143, False)
