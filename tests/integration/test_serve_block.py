"""``bentotool.serve(...)``: a real server for the length of a block."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import httpx
import pytest

import bentotool
from bentotool.errors import ServiceLoadError, UsageError
from bentotool.runtime.meeting import Meeting

SERVICE = """
import os, bentotool

@bentotool.service
class Inner:
    @bentotool.api
    def pid(self) -> int:
        return os.getpid()

@bentotool.service
class Blocked:
    inner = bentotool.depends(Inner)

    @bentotool.api
    def word(self) -> str:
        return os.environ.get("WORD", "none")
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    """The name of a module that no other test has imported."""
    name = f"blocked_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE)
    return name


def test_a_folder(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").rename(tmp_path / "service.py")
    with bentotool.serve(tmp_path, environment={"WORD": "set"}) as server:
        assert server.running
        assert server.client().word() == "set"
        url = server.url
    assert not server.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_import_string(tmp_path: Path, module: str) -> None:
    with bentotool.serve(f"{module}:Inner", working_dir=tmp_path, workers=2) as server:
        assert server.client().pid() > 0


def test_a_service_of_a_module(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    service = importlib.import_module(module).Blocked
    try:
        with bentotool.serve(service) as server:

            async def ask() -> str:
                async with server.async_client() as client:
                    return str(await client.word())

            assert asyncio.run(ask()) == "none"
    finally:
        del sys.modules[module]


def test_what_keeps_it_from_starting_is_raised(tmp_path: Path, module: str) -> None:
    with pytest.raises(ServiceLoadError, match="has no 'Nothing'"):
        bentotool.serve(f"{module}:Nothing", working_dir=tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        bentotool.serve("no such thing", working_dir=tmp_path)


def test_a_service_that_no_module_has() -> None:
    @bentotool.service
    class Local:
        pass

    with pytest.raises(UsageError, match="no attribute of its module"):
        bentotool.serve(Local)


def test_a_block_that_raises_ends_the_server(tmp_path: Path, module: str) -> None:
    with pytest.raises(KeyError), bentotool.serve(f"{module}:Inner", working_dir=tmp_path) as server:
        raise KeyError("x")
    assert not server.running


@pytest.mark.parametrize("folder", ["x" * 100, "missing"])
def test_where_there_is_no_place_for_a_socket_calls_go_over_tcp(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / folder
    if folder != "missing":
        place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    meeting = Meeting()
    listener, address = meeting.place()
    with listener:
        assert address.startswith("tcp:127.0.0.1:")
    meeting.close()
    assert not place.exists() or not list(place.iterdir())
