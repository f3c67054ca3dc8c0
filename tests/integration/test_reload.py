"""``--reload``: files change, the socket stays."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import bentotool
from bentotool.client.serving import Server
from bentotool.runtime.watching import changes, is_watched

LIMIT = 30.0
SERVICE = """
import os, bentotool
from words import WORD

@bentotool.service
class Inner:
    @bentotool.api
    async def pid(self) -> int:
        return os.getpid()

@bentotool.service
class Demo:
    inner = bentotool.depends(Inner)

    @bentotool.api
    async def word(self) -> str:
        return WORD

    @bentotool.api
    async def pids(self) -> list[int]:
        return [os.getpid(), await self.inner.pid()]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    (folder / "words.py").write_text("WORD = 'first'")
    return folder


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    with bentotool.serve(project, options=["--reload"]) as running:
        yield running


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.02)
    pytest.fail(f"{what}: not within {LIMIT:g} s")


def word(client: httpx.Client) -> str:
    return client.post("/word", json={}).text


def test_a_change_is_served_and_no_request_is_lost(server: Server, project: Path) -> None:
    failures, stop = [], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/word", json={})
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                else:
                    if answer.status_code != 200:
                        failures.append(answer.text)
                time.sleep(0.005)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
            pids = client.post("/pids", json={}).json()
            assert pids[0] == pids[1]  # in development it is one process
            for text in ("second", "third"):
                (project / "words.py").write_text(f"WORD = '{text}'")
                until(lambda text=text: word(client) == text, text)  # type: ignore[misc]
            assert client.post("/pids", json={}).json() != pids
    finally:
        stop.set()
        asking.join(LIMIT)
    assert not failures
    assert server.log.count("reloaded") == 2


def test_a_mistake_leaves_the_last_version_serving(server: Server, project: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        (project / "words.py").write_text("WORD = ")
        until(lambda: "the change is not taken" in server.log, "the mistake is said")
        assert "words.py:1: syntax error" in server.log
        assert word(client) == "first"
        (project / "words.py").write_text("WORD = 'mended'")
        until(lambda: word(client) == "mended", "mended")


def test_other_files_do_not_matter(server: Server, project: Path) -> None:
    (project / "notes.txt").write_text("x")
    (project / "__pycache__").mkdir(exist_ok=True)
    (project / "__pycache__" / "x.py").write_text("x")
    (project / "words.py").write_text("WORD = 'last'")
    with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        until(lambda: word(client) == "last", "last")
    assert server.log.count("reloaded") == 1


def test_a_service_that_is_wrong_from_the_start_may_be_mended(project: Path) -> None:
    (project / "words.py").write_text("WORD = ")
    with contextlib.ExitStack() as stack:
        mending = threading.Timer(2.0, (project / "words.py").write_text, ["WORD = 'mended'"])
        stack.callback(mending.join)
        mending.start()
        server = stack.enter_context(bentotool.serve(project, options=["--reload"]))
        with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
            assert word(client) == "mended"


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("service.py", True),
        ("a/b/c.py", True),
        ("bentofile.yaml", True),
        ("pyproject.toml", True),
        ("data.json", False),
        ("a/.git/c.py", False),
        (".hidden.py", False),
        ("venv/lib/x.py", False),
        ("a/__pycache__/x.py", False),
    ],
)
def test_what_is_watched(path: str, watched: bool) -> None:
    folder = Path("/srv/project")
    assert is_watched(folder / path, folder) is watched


def test_changes_are_noticed(tmp_path: Path) -> None:
    stop, found = threading.Event(), threading.Semaphore(0)

    def watch() -> None:
        for _ in changes(tmp_path, stop):
            found.release()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        time.sleep(0.8)
        (tmp_path / "a.py").write_text("1")
        assert found.acquire(timeout=LIMIT)
        (tmp_path / "a.py").unlink()
        assert found.acquire(timeout=LIMIT)
    finally:
        stop.set()
        watching.join(LIMIT)
    assert not watching.is_alive()
