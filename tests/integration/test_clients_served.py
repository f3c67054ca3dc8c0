"""Both clients against a real server: tensors, files, streams, errors, tasks, websockets."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.client.http import AsyncHTTPClient, CallError, ResultStatus, SyncHTTPClient
from bentotool.client.serving import Server
from bentotool.errors import RemoteError, UsageError
from bentotool.exceptions import InvalidArgument, NotFound

httpx = pytest.importorskip("httpx")
TENSORS = "application/vnd.bentotool.tensors"
SERVICE = """
import datetime
import typing
from pathlib import Path

import numpy as np

import bentotool


@bentotool.service(path_prefix="/v1")
class Zoo:
    @bentotool.api
    def scale(self, x: np.ndarray, by: float = 2.0) -> np.ndarray:
        return x * x.dtype.type(by)

    @bentotool.api
    def plus_one(self, x: np.ndarray, /) -> np.ndarray:
        return x + 1

    @bentotool.api
    def nested(self, x: np.ndarray, name: str) -> dict[str, dict[str, list[np.ndarray]]]:
        return {"a": {name: [x, x + 1]}}

    @bentotool.api
    def optional(self, x: np.ndarray | None = None) -> np.ndarray | None:
        return x

    @bentotool.api
    def several(self, xs: list[np.ndarray]) -> list[np.ndarray]:
        return xs

    @bentotool.api
    def inside(self, what: dict[str, list[np.ndarray]]) -> np.ndarray:
        return next(iter(what.values()))[0][0]

    @bentotool.api
    def rows(self, x: list[list[float]]) -> list[float]:
        return [sum(row) for row in x]

    @bentotool.api
    def form(self, x: np.ndarray, file: Path) -> int:
        return int(x.sum()) + len(file.read_bytes())

    @bentotool.api
    def files(self, files: list[Path], tag: str = "-") -> dict[str, int]:
        return {f"{tag}{number}": file.stat().st_size for number, file in enumerate(files)}

    @bentotool.api
    def body(self, file: Path, /) -> int:
        return file.stat().st_size

    @bentotool.api
    def made(self, size: int, ctx: bentotool.Context) -> Path:
        file = ctx.temp_dir / "made.bin"
        file.write_bytes(b"x" * size)
        return file

    @bentotool.api
    def texts(self, n: int) -> typing.Iterator[str]:
        for number in range(n):
            yield f"line {number}" + chr(10) * number

    @bentotool.api
    def objects(self, n: int, fail_at: int = -1) -> typing.Iterator[dict[str, int]]:
        for number in range(n):
            if number == fail_at:
                raise bentotool.exceptions.NotFound("no more")
            yield {"n": number}

    @bentotool.api
    def pieces(self, n: int) -> typing.Iterator[bytes]:
        for number in range(n):
            yield bytes([number])

    @bentotool.api
    def vectors(self, x: np.ndarray) -> typing.Iterator[np.ndarray]:
        yield from x

    @bentotool.api
    def fails(self) -> None:
        raise bentotool.exceptions.InvalidArgument("no such thing")

    @bentotool.api(method="GET", route="/find/{word}")
    def find(self, word: str, limit: int = 3) -> list[str]:
        return [word] * limit

    @bentotool.api(route="/at/{at}/{number}")
    def dated(self, number: int, at: datetime.date, rows: list[int]) -> list[str]:
        return [str(number), str(at), str(len(rows))]

    @bentotool.api(method="GET", route="/below/{path:path}")
    def below(self, path: str, flag: bool = False) -> str:
        return f"{path} {flag}"

    @bentotool.api(method="PUT", route="/sent/{name}")
    def sent(self, file: Path, name: str) -> str:
        return f"{name} {file.stat().st_size}"

    @bentotool.task
    def double(self, x: np.ndarray) -> np.ndarray:
        return 2 * x

    @bentotool.task
    def reverse(self, file: Path, ctx: bentotool.Context) -> Path:
        made = ctx.temp_dir / "reversed.bin"
        made.write_bytes(file.read_bytes()[::-1])
        return made

    @bentotool.websocket
    async def echo(self, socket: bentotool.WebSocket, times: int = 1):
        async for message in socket:
            for _ in range(times):
                await socket.send(message)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, require_package: Callable[[str], None]) -> Iterator[Server]:
    for package in ("numpy", "websockets"):
        require_package(package)
    folder = tmp_path_factory.mktemp("clients")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    environment = {"BENTOTOOL_TASKS": str(folder / "tasks"), "BENTOTOOL_STORE": str(folder / "store")}
    with bentotool.serve(folder, environment=environment) as running:
        running.url += "/v1"
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[SyncHTTPClient]:
    with SyncHTTPClient(server.url) as client:
        yield client


class Wire:
    """What a client sent and got, by type."""

    def __init__(self, client: SyncHTTPClient) -> None:
        self.types: list[tuple[str | None, str | None]] = []
        client._client.event_hooks["response"].append(self._note)

    def _note(self, response: Any) -> None:
        self.types.append((response.request.headers.get("content-type"), response.headers.get("content-type")))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i4", "i8", "u1", "c8", ">f4"])
def test_arrays_travel_in_binary_and_keep_their_type(client: SyncHTTPClient, kind: str) -> None:
    import numpy as np

    client.find("warm", 1)
    wire = Wire(client)
    x = np.arange(6).reshape(2, 3).astype(kind)
    for array in (x, np.asfortranarray(x), x[::-1], x[:0]):
        got = client.scale(array, by=1)
        assert got.dtype == x.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, array)
    assert set(wire.types) == {(TENSORS, TENSORS)}


def test_arrays_are_put_where_they_belong(client: SyncHTTPClient) -> None:
    import numpy as np

    x = np.array([[1.0, np.nan], [np.inf, -0.0]], "f4")
    np.testing.assert_array_equal(client.plus_one(x), x + 1)
    for name in ("plain", "value", "a.b", "a[0]", ""):  # names that look like paths included
        found = client.nested(x=np.ones(2, "f4"), name=name)
        assert [list(array) for array in found["a"][name]] == [[1, 1], [2, 2]]
    assert client.optional() is None
    assert client.optional(x).dtype == np.float32
    np.testing.assert_array_equal(client.several([x, x[:1]])[1], x[:1])
    for name in ("b", "a.b"):
        np.testing.assert_array_equal(client.inside({name: [np.eye(2)]}), [1, 0])
    assert client.rows(np.ones((2, 3))) == [3.0, 3.0]  # the service wants lists, and gets them
    assert [list(row) for row in client.vectors(np.eye(2))] == [[1, 0], [0, 1]]
    assert client.form(x=np.ones(3), file=b"12") == 5  # a form cannot hold tensors, and need not
    with pytest.raises(InvalidArgument, match="array of numbers"):
        client.scale(np.array(["text"]))


def test_a_service_that_reads_no_tensors_gets_json(client: SyncHTTPClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    client.find("warm", 1)
    send, wire = client._client.send, []

    def older(request: Any, **options: Any) -> Any:
        wire.append(request.headers["content-type"])
        return httpx.Response(415, request=request) if wire[-1] == TENSORS else send(request, **options)

    monkeypatch.setattr(client._client, "send", older)
    for _ in range(2):
        np.testing.assert_array_equal(client.scale(np.ones(2)), [2.0, 2.0])
    assert wire == [TENSORS, "application/json", "application/json"]


def test_files(client: SyncHTTPClient, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"12345")
    with file.open("rb") as opened:
        got = client.files([file, b"123", ("b.bin", b"12"), opened, str(file)], tag="t")
    assert got == {"t0": 5, "t1": 3, "t2": 2, "t3": 5, "t4": 5}
    assert client.body(file) == 5
    made = client.made(70_000)
    assert (made.name, made.stat().st_size) == ("made.bin", 70_000)
    again = client.made(1)
    assert (again != made, again.stat().st_size) == (True, 1)
    with pytest.raises(UsageError, match="cannot be read"):
        client.body(tmp_path / "absent")
    client.close()
    assert not made.exists()


def test_streams_keep_their_borders_and_their_errors(client: SyncHTTPClient) -> None:
    assert list(client.texts(3)) == ["line 0", "line 1\n", "line 2\n\n"]
    assert b"".join(client.pieces(5)) == bytes(range(5))
    stream = client.objects(5, fail_at=2)
    assert [next(stream), next(stream)] == [{"n": 0}, {"n": 1}]
    with pytest.raises(NotFound, match="no more"):
        next(stream)
    endless = client.objects(10**9)
    next(endless)
    endless.close()  # and the service stops
    assert client.find("x", 1) == ["x"]


def test_errors_are_what_they_are_there(client: SyncHTTPClient) -> None:
    with pytest.raises(InvalidArgument, match="no such thing") as caught:
        client.fails()
    assert isinstance(caught.value, CallError)
    assert (caught.value.status, caught.value.remote_code) == (400, "invalid_input")
    for call, match in (
        (lambda: client.scale(), "needs x too"),
        (lambda: client.scale(1, 2, 3), "takes 2 arguments"),
        (lambda: client.scale(1, x=1), "twice"),
        (lambda: client.scale(x=1, z=1), "no argument 'z'"),
        (lambda: client.scale(x=object()), "cannot be sent"),
    ):
        with pytest.raises(UsageError, match=match):
            call()
    with pytest.raises(AttributeError, match="it has: "):
        client.nothing()


def test_paths_queries_and_help(client: SyncHTTPClient) -> None:
    assert client.find("ab", limit=2) == ["ab", "ab"]
    assert client.find(word="a b?c#%2F") == ["a b?c#%2F"] * 3
    assert client.dated(7, "2024-02-29", rows=[1]) == ["7", "2024-02-29", "1"]  # in the order of the function
    assert client.dated(rows=[], at=datetime.date(2024, 2, 29), number=1) == ["1", "2024-02-29", "0"]
    assert client.below("a/b c/d.txt", flag=True) == "a/b c/d.txt True"
    assert client.sent(b"12", name="n") == "n 2"
    with pytest.raises(UsageError, match="cannot stand in the path"):
        client.find("a/b")
    with pytest.raises(UsageError, match="needs word too"):
        client.find()
    assert str(client.dated.__signature__) == "(number: int, at: str, rows: list[int]) -> list[str]"
    assert str(client.rows.__signature__) == "(x: list[list[float]]) -> list[float]"
    assert {"find", "double", "scale"} <= set(dir(client))


def test_tasks(client: SyncHTTPClient, tmp_path: Path) -> None:
    import numpy as np

    task = client.double.submit(np.arange(3, dtype="f4"))
    result = task.result(timeout=30)
    assert (result.dtype, result.tolist()) == (np.float32, [0, 2, 4])
    assert task.get_status() is ResultStatus.COMPLETED
    assert task.retry().result(30).tolist() == [0, 2, 4]
    file = tmp_path / "f.bin"
    file.write_bytes(b"abc")
    assert client.submit("reverse", file).result(30).read_bytes() == b"cba"
    assert client.double.get(task.id).tolist() == [0, 2, 4]
    with pytest.raises(CallError, match="completed") as caught:
        task.cancel()
    assert caught.value.remote_code == "task_finished"
    with pytest.raises(NotFound):
        client.double.task("0" * 32).status()


def test_websockets(client: SyncHTTPClient) -> None:
    with client.websocket("/echo?times=2") as socket:
        socket.send("a")
        socket.send(b"\0")
        socket.send_json({"x": [1]})
        assert [socket.receive(10) for _ in range(4)] == ["a", "a", b"\0", b"\0"]
        assert [socket.receive_json(10), socket.receive_json(10)] == [{"x": [1]}, {"x": [1]}]
        with pytest.raises(RemoteError, match="nothing came"):
            socket.receive(timeout=0.05)
    with pytest.raises(RemoteError), client.websocket("/nowhere"):
        pass


def test_the_awaited_client_does_the_same(server: Server, tmp_path: Path) -> None:
    import numpy as np

    file = tmp_path / "a.txt"
    file.write_bytes(b"12345")

    async def main() -> None:
        async with AsyncHTTPClient(server.url) as client:
            x = np.arange(3, dtype="f4")
            assert (await client.scale(x)).dtype == np.float32
            assert await client.body(file) == 5
            assert (await client.made(3)).read_bytes() == b"xxx"
            assert [text async for text in client.texts(2)] == ["line 0", "line 1\n"]
            assert [list(row) async for row in client.vectors(np.eye(2))] == [[1, 0], [0, 1]]
            with pytest.raises(NotFound, match="no more"):
                [item async for item in client.objects(5, fail_at=2)]
            with pytest.raises(InvalidArgument, match="no such thing"):
                await client.fails()
            task = await client.double.submit(x)
            assert (await task.result(30)).tolist() == [0, 2, 4]
            assert await task.get_status() is ResultStatus.COMPLETED
            assert await asyncio.gather(*[client.find("x", limit=n) for n in range(3)]) == [[], ["x"], ["x", "x"]]
            async with client.websocket("/echo") as socket:
                await socket.send_json(1)
                assert await socket.receive_json() == 1

    asyncio.run(main())


def test_without_entering_it_the_awaited_client_looks_apis_up(server: Server) -> None:
    async def main() -> None:
        clients = [AsyncHTTPClient(server.url) for _ in range(3)]
        try:
            assert await clients[0].find("x", limit=1) == ["x"]
            task = await clients[1].double.submit([1])
            assert (await task.result(30)).tolist() == [2]
            assert [text async for text in clients[2].texts(1)] == ["line 0"]
        finally:
            for client in clients:
                await client.close()

    asyncio.run(main())
