"""Our clients call a real BentoML server, and BentoML's client our tasks, streams and files. Needs BentoML 1.4."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.client.http import AsyncHTTPClient, CallError, ResultStatus, SyncHTTPClient
from bentotool.errors import UsageError
from bentotool.exceptions import InternalServerError, InvalidArgument, NotFound

pytestmark = pytest.mark.filterwarnings("default")  # what BentoML and its packages warn of
LIMIT = 60.0
SERVICE = """
import datetime
import enum
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import PACKAGE as bentoml
from pydantic import BaseModel


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: float
    y: float = 2.0


class Line(BaseModel):
    points: typing.List[Point]
    name: typing.Optional[str] = None


@bentoml.service(metrics={"enabled": False}, traffic={"timeout": 30})
class Zoo:
    @bentoml.api
    def add(self, a: int, b: int = 2) -> int:
        return a + b

    @bentoml.api
    def text(self, s: str) -> str:
        return s.upper()

    @bentoml.api
    def optional(self, s: typing.Optional[str] = None) -> typing.Optional[str]:
        return s

    @bentoml.api
    def raw(self, b: bytes) -> bytes:
        return b[::-1]

    @bentoml.api
    def root(self, rows: typing.List[int], /) -> typing.List[int]:
        return [2 * row for row in rows]

    @bentoml.api
    def root_text(self, s: str, /) -> str:
        return s + "!"

    @bentoml.api(input_spec=Point)
    def spec(self, **values: typing.Any) -> typing.Dict[str, float]:
        return {name: float(value) for name, value in values.items()}

    @bentoml.api
    def swap(self, p: Point) -> Point:
        return Point(x=p.y, y=p.x)

    @bentoml.api
    def line(self, line: Line, colour: Colour = Colour.RED) -> typing.Dict[str, typing.Any]:
        return {"n": len(line.points), "colour": colour.value}

    @bentoml.api
    def day(self, d: datetime.date) -> int:
        return d.day

    @bentoml.api
    def choice(self, x: typing.Union[int, str], y: typing.Literal["a", "b"] = "a") -> str:
        return f"{type(x).__name__} {y}"

    @bentoml.api
    def array(self, x: np.ndarray) -> np.ndarray:
        return x * 2

    @bentoml.api
    def frame(self, df: pd.DataFrame) -> pd.DataFrame:
        return df * 2

    @bentoml.api
    def image(self, i: PIL.Image.Image) -> PIL.Image.Image:
        return i.rotate(90, expand=True)

    @bentoml.api
    def file(self, f: Path) -> int:
        return len(f.read_bytes())

    @bentoml.api
    def files(self, fs: typing.List[Path], tag: str = "-") -> typing.List[int]:
        return [len(f.read_bytes()) for f in fs]

    @bentoml.api
    def made(self, n: int, ctx: bentoml.Context) -> Path:
        path = Path(ctx.temp_dir) / "out.txt"
        path.write_bytes(b"z" * n)
        return path

    @bentoml.api
    def root_file(self, f: Path, /) -> int:
        return len(f.read_bytes())

    @bentoml.api(batchable=True)
    def batch(self, x: np.ndarray) -> np.ndarray:
        return x + 1

    @bentoml.api
    async def stream(self, n: int) -> typing.AsyncGenerator[str, None]:
        for number in range(n):
            yield f"item {number} "

    @bentoml.api
    def threaded(self, n: int) -> typing.Generator[str, None, None]:
        for number in range(n):
            yield f"{number},"

    @bentoml.api
    def byte_stream(self, n: int) -> typing.Generator[bytes, None, None]:
        for number in range(n):
            yield bytes([number])

    @bentoml.api
    def fails(self, kind: str) -> str:
        if kind == "bad":
            raise bentoml.exceptions.InvalidArgument("bad thing")
        if kind == "absent":
            raise bentoml.exceptions.NotFound("none such")
        raise RuntimeError("secret")

    @bentoml.task
    def slow(self, seconds: float) -> typing.Dict[str, float]:
        time.sleep(seconds)
        return {"slept": seconds}

    @bentoml.task
    def bad(self) -> int:
        raise bentoml.exceptions.InvalidArgument("no")

    @bentoml.task
    def task_array(self, x: np.ndarray) -> np.ndarray:
        return x * 3

    @bentoml.task
    def task_size(self, f: Path) -> int:
        return len(f.read_bytes())

    @bentoml.task
    def task_file(self, f: Path, ctx: bentoml.Context) -> Path:
        path = Path(ctx.temp_dir) / "reversed.txt"
        path.write_bytes(f.read_bytes()[::-1])
        return path
"""


@pytest.fixture(autouse=True)
def _what_its_clients_leave_is_found_here() -> Iterator[None]:
    """BentoML's clients never remove their folders; what says so is not to fail another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def packages(require_package: Callable[[str], None]) -> None:
    for package in ("bentoml", "httpx", "pandas", "PIL", "numpy", "pydantic"):
        require_package(package)


@contextlib.contextmanager
def theirs(folder: Path) -> Iterator[str]:
    """A BentoML server, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "service:Zoo", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=os.name != "nt"
        )
    end = time.monotonic() + LIMIT
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                break
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "BentoML did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def address(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "service.py").write_text(SERVICE.replace("PACKAGE", "bentoml"))
    with theirs(folder) as url:
        yield url


@pytest.fixture(scope="module")
def ours(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "service.py").write_text(SERVICE.replace("PACKAGE", "bentotool"))
    environment = {"BENTOTOOL_TASKS": str(folder / "tasks"), "BENTOTOOL_STORE": str(folder / "store")}
    with bentotool.serve(folder, environment=environment) as server:
        yield server.url


def calls() -> list[tuple[str, tuple[Any, ...], dict[str, Any], Callable[[Any], bool]]]:
    """Name, arguments, and what the result has to be."""
    import numpy as np
    import pandas as pd
    import PIL.Image

    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    image = PIL.Image.open("i.png")
    return [
        ("add", (), {"a": 1, "b": 4}, lambda r: r == 5),
        ("add", (1,), {}, lambda r: r == 3),
        ("text", ("aé",), {}, lambda r: r == "AÉ"),
        ("optional", ("x",), {}, lambda r: r == "x"),
        ("optional", (), {}, lambda r: r is None),
        ("raw", (b"abc",), {}, lambda r: r in (b"cba", "cba")),
        ("root", ([1, 2],), {}, lambda r: r == [2, 4]),
        ("root_text", ("hey",), {}, lambda r: r == "hey!"),
        ("spec", (), {"x": 1}, lambda r: r == {"x": 1.0, "y": 2.0}),
        ("swap", (), {"p": {"x": 1}}, lambda r: r == {"x": 2.0, "y": 1.0}),
        ("line", (), {"line": {"points": [{"x": 1}]}}, lambda r: r == {"n": 1, "colour": "red"}),
        ("day", (), {"d": "2024-02-29"}, lambda r: r == 29),
        ("choice", (1,), {}, lambda r: r == "int a"),
        ("choice", ("1",), {"y": "b"}, lambda r: r == "str b"),
        ("array", (np.ones((2, 3)),), {}, lambda r: r.tolist() == [[2.0] * 3] * 2),
        ("array", ([[1, 2.5]],), {}, lambda r: r.tolist() == [[2, 5]]),
        ("frame", (), {"df": frame}, lambda r: r.equals(frame * 2)),
        ("image", (), {"i": image}, lambda r: r.size == (2, 4)),
        ("file", (), {"f": Path("f.txt")}, lambda r: r == 5),
        ("files", (), {"fs": [Path("f.txt"), Path("f.txt")], "tag": "x"}, lambda r: r == [5, 5]),
        ("made", (), {"n": 3}, lambda r: r.read_bytes() == b"zzz"),
        ("root_file", (Path("f.txt"),), {}, lambda r: r == 5),
        ("batch", (), {"x": np.ones((2, 2))}, lambda r: r.tolist() == [[2, 2], [2, 2]]),
        ("slow", (), {"seconds": 0.01}, lambda r: r == {"slept": 0.01}),
    ]


@pytest.fixture
def here(packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.txt").write_bytes(b"hello")
    import PIL.Image

    PIL.Image.new("RGB", (4, 2), "red").save(tmp_path / "i.png")
    return tmp_path


def test_our_client_calls_every_kind_of_api_of_bentoml(address: str, here: Path) -> None:
    with SyncHTTPClient(address) as client:
        for name, args, named, right in calls():
            found = getattr(client, name)(*args, **named)
            assert right(found), f"{name} gave {found!r}"
        assert "".join(client.stream(3)) == "item 0 item 1 item 2 "
        assert "".join(client.threaded(n=3)) == "0,1,2,"
        assert b"".join(client.byte_stream(3)) == b"\0\1\2"
        with pytest.raises(InvalidArgument, match="bad thing"):
            client.fails("bad")
        with pytest.raises(NotFound, match="none such"):
            client.fails("absent")
        with pytest.raises(InternalServerError) as caught:
            client.fails("x")
        assert "secret" not in str(caught.value)
        with pytest.raises(InvalidArgument, match="a: Input should be a valid integer"):
            client.add(a="x")
        with pytest.raises(UsageError, match="needs a"):
            client.add()
        assert client.is_ready()


def test_our_awaited_client_does_too(address: str, here: Path) -> None:
    async def main() -> None:
        async with AsyncHTTPClient(address) as client:
            for name, args, named, right in calls():
                found = await getattr(client, name)(*args, **named)
                assert right(found), f"{name} gave {found!r}"
            assert "".join([text async for text in client.stream(3)]) == "item 0 item 1 item 2 "
            with pytest.raises(InvalidArgument, match="bad thing"):
                await client.fails("bad")

    asyncio.run(main())


def test_our_client_runs_tasks_of_bentoml(address: str, here: Path) -> None:
    import numpy as np

    with SyncHTTPClient(address) as client:
        task = client.slow.submit(seconds=0.5)
        assert task.get_status() is ResultStatus.IN_PROGRESS
        with pytest.raises(CallError, match="not completed"):
            task.get()
        assert task.result(LIMIT) == {"slept": 0.5}
        assert task.get_status() is ResultStatus.COMPLETED
        assert task.retry().result(LIMIT) == {"slept": 0.5}
        assert client.task_array.submit(np.ones(2)).result(LIMIT).tolist() == [3, 3]
        # a task that gives a file never ends in BentoML, whoever submits it; one that takes a file does
        assert client.task_size.submit(f=here / "f.txt").result(LIMIT) == 5
        with pytest.raises(InvalidArgument, match="no"):
            client.bad.submit().result(LIMIT)
        with pytest.raises(CallError, match="cancellation is not supported"):  # by `bentoml serve`, so it says
            client.slow.submit(seconds=1).cancel()


def test_bentoml_calls_our_apis(ours: str, here: Path) -> None:
    import bentoml

    unable = {"optional", "raw"}  # its client cannot read its own server's answers, or send bytes, either
    with bentoml.SyncHTTPClient(ours) as client:
        for name, args, named, right in calls():
            if name not in unable:
                found = getattr(client, name)(*args, **named)
                assert right(found), f"{name} gave {found!r}"
        assert "".join(client.stream(3)) == "item 0 item 1 item 2 "
        assert "".join(client.threaded(n=3)) == "0,1,2,"
        assert b"".join(client.byte_stream(3)) == b"\0\1\2"
        with pytest.raises(bentoml.exceptions.InvalidArgument, match="bad thing"):
            client.fails("bad")
        with pytest.raises(bentoml.exceptions.NotFound, match="none such"):
            client.fails("absent")
        with pytest.raises(bentoml.exceptions.BentoMLException):
            client.fails("x")


def test_bentoml_runs_our_tasks(ours: str, here: Path) -> None:
    import bentoml
    import numpy as np

    async def until(task: Any, wanted: str) -> None:
        end = time.monotonic() + LIMIT
        while (await task.get_status()).value != wanted:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)

    async def main() -> None:
        # its blocking client cannot submit, neither here nor to BentoML: it lacks the attribute `_opened_files`
        async with bentoml.AsyncHTTPClient(ours) as client:
            task = await client.slow.submit(seconds=0.3)
            with pytest.raises(bentoml.exceptions.InvalidArgument, match="not completed"):
                await task.get()
            await until(task, "completed")
            assert await task.get() == {"slept": 0.3}
            again = await task.retry()
            await until(again, "completed")
            task = await client.task_array.submit(x=np.ones(2))
            await until(task, "completed")
            assert (await task.get()).tolist() == [3, 3]
            task = await client.task_file.submit(f=here / "f.txt")
            await until(task, "completed")
            assert (await task.get()).read_bytes() == b"olleh"
            task = await client.bad.submit()
            await until(task, "failed")
            with pytest.raises(bentoml.exceptions.InvalidArgument, match="no"):
                await task.get()
            holder, task = await client.slow.submit(seconds=1), await client.slow.submit(seconds=20)
            await task.cancel()
            await until(task, "canceled")
            await until(holder, "completed")

    asyncio.run(main())
