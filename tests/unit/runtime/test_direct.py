"""What may go the short way, and what has to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bentotool
from bentotool.runtime import direct
from bentotool.runtime.app import Application
from bentotool.runtime.direct import Exchange

HEADERS = {b"host": b"localhost:3000", b"content-type": b"application/json", b"content-length": b"9"}


class Common:
    @bentotool.api(batchable=True)
    def double(self, x: np.ndarray) -> np.ndarray:
        return x * 2

    @bentotool.api
    def single(self, x: int) -> int:
        return x


def asked(
    service: Any,
    *,
    path: str = "/double",
    method: str = "POST",
    headers: dict[bytes, bytes] | None = None,
    prepare: Callable[[Application], None] = lambda app: None,
) -> bool:
    """Whether a request would go the short way."""

    async def ask() -> bool:
        app = Application(service, loopback=True)
        prepare(app)
        await app.start()
        try:
            return app.direct({"path": path, "method": method}, HEADERS | (headers or {})) is not None
        finally:
            await app.stop()

    return asyncio.run(ask())


def test_a_small_json_body_does() -> None:
    assert asked(bentotool.service(Common))
    assert asked(bentotool.service(path_prefix="/v1")(Common), path="/v1/double")


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"application/json; charset=utf-8"},
        {b"content-type": b"application/vnd.bentotool.tensors"},
        {b"content-length": b"65537"},
        {b"content-encoding": b"gzip"},
        {b"expect": b"100-continue"},
        {b"accept": b"application/vnd.bentotool.tensors"},
        {b"host": b"attacker.example"},
    ],
)
def test_what_is_out_of_the_common_does_not(headers: dict[bytes, bytes]) -> None:
    assert not asked(bentotool.service(Common), headers=headers)


def test_nor_does_what_no_batch_answers() -> None:
    assert not asked(bentotool.service(Common), path="/single")
    assert not asked(bentotool.service(Common), path="/nowhere")
    assert not asked(bentotool.service(Common), method="GET")


@pytest.mark.parametrize(
    "options",
    [
        {"http": {"cors": {"enabled": True, "access_control_allow_origins": ["https://a.example"]}}},
        {"logging": {"access": {"enabled": True}}},
    ],
)
def test_nor_where_something_stands_before_the_routes(options: dict[str, Any]) -> None:
    assert not asked(bentotool.service(**options)(Common))


def test_nor_where_middleware_does() -> None:
    def wrapping(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return wrapped

    assert not asked(bentotool.service(Common), prepare=lambda app: app.use(wrapping, "wrapping"))


def test_nor_before_the_start_and_after_the_end() -> None:
    app = Application(bentotool.service(Common), loopback=True)
    assert app.direct({"path": "/double", "method": "POST"}, HEADERS) is None
    asyncio.run(_start_and_stop(app))
    assert app.direct({"path": "/double", "method": "POST"}, HEADERS) is None


async def _start_and_stop(app: Application) -> None:
    await app.start()
    await app.stop()


@pytest.mark.parametrize("fails", ["encode", "preset"])
def test_a_fault_of_ours_ends_the_connection_and_frees_what_it_held(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Nobody waits for an answer that cannot be given."""

    def fail(*_: Any) -> Any:
        raise AssertionError("a fault of ours")

    async def ask() -> tuple[int, int]:
        app, closed = Application(bentotool.service(Common), loopback=True), asyncio.Event()
        await app.start()
        way = app.direct({"path": "/double", "method": "POST"}, HEADERS)
        assert way is not None
        if fails == "encode":
            monkeypatch.setattr(direct, "failure", fail)
            body = b"{}"
        else:
            monkeypatch.setattr(way, "preset", fail)
            body = b'{"x": [[1.0]]}'
        cycle = SimpleNamespace(
            disconnected=False,
            body=body,
            flow=SimpleNamespace(write_paused=False),
            default_headers=[],
            transport=SimpleNamespace(close=closed.set, write=fail),
        )
        exchange = Exchange(way, cycle, HEADERS, asyncio.get_running_loop(), set(), fail)
        way.put(exchange)
        try:
            await asyncio.wait_for(closed.wait(), 20)
            return app.in_flight, way.endpoint._in_flight
        finally:
            await app.stop()

    assert asyncio.run(ask()) == (0, 0)
