"""What a service may do at each point of its life, and what it is told of its surroundings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.errors import ConfigError
from bentotool.testing import TestClient

SERVICE = """
import asyncio, json, os, pathlib, threading, time
import bentotool

FOLDER = pathlib.Path(__file__).parent

def note(word, name="said"):
    with (FOLDER / name).open("a") as file:
        file.write(word + "\\n")

@bentotool.service(traffic={"timeout": 5}, endpoints={"livez": "/alive", "readyz": "/v1/ready"}, workers=2)
class Living:
    def __init__(self):
        note("init")

    @bentotool.on_deployment
    @staticmethod
    async def deploy():
        note("deployment")

    @bentotool.on_startup
    async def begin(self):
        note("startup")

    @bentotool.on_warmup
    def first(self):
        assert bentotool.get_current_service() is self
        note("warmup")

    @bentotool.on_shutdown
    def end(self):
        note("shutdown")

    def __is_ready__(self):
        return not (FOLDER / "not-ready").exists()

    async def __is_alive__(self):
        if (FOLDER / "dead").exists():
            raise RuntimeError("secret")
        return True

    @bentotool.api
    def context(self, ctx: bentotool.Context) -> dict:
        folder = ctx.temp_dir
        (folder / "file").write_text("x")
        ctx.state["calls"] = ctx.state.get("calls", 0) + 1
        ctx.response.background.add_task(self.after, folder)
        ctx.response.headers["x-own"] = "1"
        server = bentotool.server_context
        return {
            "folder": str(folder), "mode": oct(folder.stat().st_mode & 0o777), "index": server.worker_index,
            "name": server.service_name, "routes": server.service_routes, "bento": server.bento_version,
            "self": bentotool.get_current_service() is self,
        }

    def after(self, folder):
        time.sleep(0.2)
        note("background:" + str((folder / "file").exists()))
        raise RuntimeError("logged, and nothing else")
"""


def test_a_life(serving: Any, wire: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", SERVICE) as server:
        begun = server.said("said")
        assert begun[0] == "deployment", "before any worker makes an instance"
        assert sorted(begun) == sorted(["deployment", *["init", "startup", "warmup"] * 2])
        asked = [httpx.post(f"{server.url}/context", json={}) for _ in range(4)]
        assert [answer.headers["x-own"] for answer in asked] == ["1"] * 4
        documents = [answer.json() for answer in asked]
        assert {document.pop("index") for document in documents} <= {1, 2}
        folders = {document.pop("folder") for document in documents}
        assert len(folders) == 4
        assert documents[0] == {
            "mode": "0o700", "name": "Living", "routes": ["/context"], "bento": "not available", "self": True
        }  # fmt: skip
        wire.wait_for(lambda: server.said("said").count("background:True") == 4)
        wire.wait_for(lambda: not any(Path(folder).exists() for folder in folders))
        assert "background task" in server.log

        for path in ("/readyz", "/v1/ready"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
        (server.folder / "not-ready").touch()
        for path in ("/readyz", "/v1/ready"):
            answer = httpx.get(f"{server.url}{path}")
            assert (answer.status_code, "not ready" in answer.json()["error"]["message"]) == (503, True)
        assert httpx.get(f"{server.url}/livez").status_code == 200
        (server.folder / "dead").touch()
        for path in ("/livez", "/alive", "/healthz"):
            answer = httpx.get(f"{server.url}{path}")
            assert (answer.status_code, "secret" in answer.text) == (503, False)
        assert server.stop() == 0
        assert server.said("said").count("shutdown") == 2


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("on_startup", "RuntimeError: no weights"),
        ("on_warmup", "RuntimeError: no weights"),
        ("on_deployment", "write @staticmethod above it"),
        ("on_deployment\n    @staticmethod", "RuntimeError: no weights"),
        ("on_deployment  # no static method", "RuntimeError: no weights"),
    ],
)
def test_a_hook_that_fails_is_one_line_and_no_loop(tmp_path: Path, hook: str, words: str) -> None:
    import subprocess
    import sys

    takes = "" if "static" in hook else "self"
    (tmp_path / "service.py").write_text(
        f"import bentotool\n@bentotool.service\nclass S:\n    @bentotool.{hook}\n    def go({takes}):\n"
        "        raise RuntimeError('no weights')\n"
    )
    command = [sys.executable, "-m", "bentotool.runtime", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert words in "\n".join(lines)
    assert sum(line.startswith("error: ") for line in lines) == 1


said: list[str] = []


@bentotool.service
class Part:
    @bentotool.on_deployment
    @classmethod
    def deploy(cls) -> None:
        said.append("part deployed")

    @bentotool.on_startup
    def begin(self) -> None:
        said.append("part began")

    @bentotool.on_warmup
    def warm(self) -> None:
        said.append("part warm")


@bentotool.service
class Whole:
    part = bentotool.depends(Part)

    @bentotool.on_startup
    async def begin(self) -> None:
        said.append("began")

    @staticmethod
    @bentotool.on_deployment
    def deploy() -> None:
        said.append("deployed")

    @bentotool.on_warmup
    async def warm(self) -> None:
        said.append("warm")

    @bentotool.on_shutdown
    async def end(self) -> None:
        said.append("ended")

    @bentotool.api
    def sync(self, x: int) -> int:
        return x + 1

    @bentotool.api
    async def awaited(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + 2

    @bentotool.api
    async def stream(self, n: int):  # type: ignore[no-untyped-def]
        for number in range(n):
            yield number


def test_the_order_of_hooks() -> None:
    said.clear()
    with TestClient(Whole):
        assert said == ["part deployed", "deployed", "part began", "began", "part warm", "warm"]
    assert said[6:] == ["ended"]


def test_in_process() -> None:
    local = Whole()
    assert local.sync(1) == 2
    assert local.to_sync.awaited(1) == 3
    assert local.to_sync.sync(1) == 2

    async def run() -> Any:
        found = await asyncio.gather(local.to_async.sync(1), local.to_async.awaited(1))
        return [*found, [item async for item in local.stream(2)], [item async for item in local.to_async.stream(2)]]

    assert asyncio.run(run()) == [2, 3, [0, 1], [0, 1]]
    assert bentotool.get_current_service() is None, "an instance of one's own is nobody's server"


def test_a_deployment_hook_needs_no_instance() -> None:
    @bentotool.service
    class Wrong:
        @bentotool.on_deployment
        def deploy(self) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Wrong\.deploy") as raised:
        Wrong.prepare()
    assert "@staticmethod" in json.dumps(raised.value.to_dict())

    prepared = []

    @bentotool.service
    class Plain:
        @bentotool.on_deployment
        def deploy() -> None:  # type: ignore[misc]  # as BentoML's documentation writes it
            prepared.append(1)

    Plain.prepare()
    assert prepared == [1]
