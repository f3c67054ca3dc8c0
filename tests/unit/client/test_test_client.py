"""`TestClient`: a service in this process, as its users test it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bentotool
from bentotool.errors import UsageError
from bentotool.testing import TestClient

events: list[str] = []


@bentotool.service
class Shop:
    def __init__(self) -> None:
        self.closed = threading.Event()

    @bentotool.on_startup
    def begin(self) -> None:
        events.append("startup")

    @bentotool.on_shutdown
    def end(self) -> None:
        events.append("shutdown")

    @bentotool.api
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @bentotool.api
    def sizes(self, files: list[Path], tag: str, numbers: list[int]) -> dict[str, list[int]]:
        return {tag: numbers, "sizes": [file.stat().st_size for file in files]}

    @bentotool.api
    def one(self, file: Path) -> str:
        return file.read_bytes().decode() + file.suffix

    @bentotool.api
    async def endless(self) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            self.closed.set()

    @bentotool.api
    def fails(self) -> None:
        raise RuntimeError("secret")

    @bentotool.api
    def slow(self) -> None:
        self.closed.wait(5)

    @bentotool.task
    def later(self, x: int) -> int:
        return 2 * x


def test_a_service_starts_and_ends_with_the_block() -> None:
    events.clear()
    with TestClient(Shop, headers={"x-a": "1"}) as client:
        assert events == ["startup"]
        answer = client.post("/add", json={"a": 1})
        assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, 2, "application/json")
        assert client.get("/readyz").status_code == 200
        assert isinstance(client.instance, Shop.inner)
        wrong = client.post("/add", json={"a": "x"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_input")
        failed = client.post("/fails")
        assert (failed.status_code, "secret" in failed.text) == (500, False)
        assert client.get("/add?a=1").status_code == 405
    assert events == ["startup", "shutdown"]
    with pytest.raises(UsageError, match="has not started"):
        client.get("/readyz")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"12345")
    with TestClient(Shop) as client:
        files = {"files": [tmp_path / "a.txt", ("b.bin", b"\0\r\n--x"), ("c", b"", "text/plain")]}
        answer = client.post("/sizes", json={"tag": "sum", "numbers": [1, 2]}, files=files)
        assert answer.json() == {"sum": [1, 2], "sizes": [5, 6, 0]}, answer.text
        assert client.post("/one", files={"file": ("a.txt", b"x")}).text == "x.txt"
        assert client.post("/one", files={"file": ('a"\r\nb', b"x")}).text[0] == "x"


def test_who_leaves_a_stream_ends_it() -> None:
    with TestClient(Shop) as client:
        with client.stream("POST", "/endless") as answer:
            assert next(answer.iter_bytes()) == b"1\n"
        assert client.instance.closed.wait(10)


def test_an_answer_that_does_not_come_is_an_error() -> None:
    with TestClient(Shop, timeout=0.1) as client:
        with pytest.raises(TimeoutError, match=r"within 0\.1 seconds"):
            client.post("/slow")
        client.instance.closed.set()
        client.timeout = 10.0


def test_tasks() -> None:
    with TestClient(Shop) as client:
        task = client.post("/later/submit", json={"x": 21}).json()["task_id"]
        end = time.monotonic() + 20
        while client.get("/later/status", params={"task_id": task}).json()["status"] != "completed":
            assert time.monotonic() < end
            time.sleep(0.01)
        assert client.get(f"/later/get?task_id={task}").json() == 42


def test_a_service_that_does_not_start_says_why() -> None:
    @bentotool.service
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no model")

    with pytest.raises(Exception, match="no model"), TestClient(Broken):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "test-client"]
