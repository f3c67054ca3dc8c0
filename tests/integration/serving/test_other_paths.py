"""Paths that a platform has names of its own for, on a real server: a health check and the one API that it calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentotool.errors import ServiceLoadError
from bentotool.runtime.otherpaths import read_paths

SERVICE = """
import bentotool
from collections.abc import Iterator

@bentotool.service(path_prefix="/v1")
class Front:
    ready = True

    def __is_ready__(self) -> bool:
        return type(self).ready

    @bentotool.api
    def double(self, number: int) -> dict[str, int]:
        return {"double": 2 * number}

    @bentotool.api
    def count(self, upto: int) -> Iterator[str]:
        yield from map(str, range(upto))

    @bentotool.api
    def retire(self) -> None:
        type(self).ready = False
"""
PATHS = "/ping=/readyz,/invocations=/double"


def test_a_platform_finds_its_own_paths(tmp_path: Path, serving: Any, wire: Any) -> None:
    with serving(tmp_path, SERVICE, environment={"BENTOTOOL_PATHS": PATHS}) as server, httpx.Client() as client:
        assert client.get(f"{server.url}/ping").status_code == 200
        answer = client.post(f"{server.url}/invocations", json={"number": 21})
        assert (answer.status_code, answer.json()) == (200, {"double": 42})
        assert answer.headers["content-type"] == "application/json"
        assert client.post(f"{server.url}/invocations", json={"number": "x"}).status_code == 400
        assert client.get(f"{server.url}/invocations").status_code == 405
        assert client.post(f"{server.url}/v1/double", json={"number": 1}).json() == {"double": 2}
        assert 'endpoint="/double"' in client.get(f"{server.url}/v1/metrics").text
        client.post(f"{server.url}/v1/retire")
        assert client.get(f"{server.url}/ping").status_code == 503


def test_a_stream_at_another_path(tmp_path: Path, serving: Any) -> None:
    paths = {"BENTOTOOL_PATHS": "/invocations=/count"}
    with serving(tmp_path, SERVICE, environment=paths) as server:
        answer = httpx.post(f"{server.url}/invocations", json={"upto": 3}, headers={"accept": "text/event-stream"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_a_path_that_nothing_answers_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    code = (
        "import os,sys; os.environ['BENTOTOOL_PATHS']='/invocations=/triple';"
        "from bentotool.runtime.__main__ import main; sys.exit(main([sys.argv[1], 'serve', '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "BENTOTOOL_PATHS: nothing answers /v1/triple" in done.stderr
    assert "/v1/double" in done.stderr


@pytest.mark.parametrize("text", ["ping=/readyz", "/ping", "/ping=readyz", "/a b=/c", "/a=/b,/a=/c", "/x=/y?z"])
def test_what_is_no_pair_of_paths(text: str) -> None:
    with pytest.raises(ServiceLoadError, match="BENTOTOOL_PATHS"):
        read_paths(text)


def test_pairs_of_paths() -> None:
    assert read_paths(" /ping=/readyz, /invocations=/a/b ,") == {"/ping": "/readyz", "/invocations": "/a/b"}
    assert read_paths("") == {}
