"""A Bento whose environment comes from its lock alone, from the real package index, served by the embedded runtime."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bentotool.build.api import BuildOptions, build_bento
from bentotool.build.bentos import BentoStore
from bentotool.build.media import WHEEL
from bentotool.errors import RemoteError
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the lock is for Linux"),
    pytest.mark.timeout(300),
]

SERVICE = """
import bentotool

@bentotool.service
class Double:
    @bentotool.api
    def predict(self, x: list[float]) -> list[float]:
        return [2 * value for value in x]
"""
UNWANTED = ("typer", "rich", "pluggy", "oras", "sigstore", "httpx", "pydantic", "polyfactory")


def uv(*arguments: str) -> None:
    import uv as package

    done = subprocess.run([package.find_uv_bin(), *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def ask(url: str, body: dict[str, object] | None = None) -> object:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        content = reply.read()
    return json.loads(content) if body is not None else content


@contextmanager
def running(command: list[str], url: str, environment: dict[str, str]) -> Iterator[None]:
    """The server, from its first answer on; ended whatever happens."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and server.poll() is None:
                with suppress(OSError):
                    ask(f"{url}/livez")
                    break
                time.sleep(0.05)
            else:
                server.kill()
                pytest.fail(f"the server did not start: {server.communicate()[0].decode()}")
            yield
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def test_an_environment_from_the_lock_serves_the_bento(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, absent: Callable[[str], None]
) -> None:
    if "UV_CACHE_DIR" not in os.environ:
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "service.py").write_text(SERVICE)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (project / "bentofile.yaml").write_text(f"service: service:Double\npython: {{version: '{python}'}}\n")
    layout = Layout(store)
    try:
        result = build_bento(project, layout=layout, plugins=load_plugins(), options=BuildOptions())
    except RemoteError as error:
        absent(f"a package index ({error.message[:80]})")
        return
    budget = 16 if python == "3.10" else 15  # exceptiongroup is part of Python from 3.11 on
    assert len(result.plan.lock.pins) <= budget, result.plan.lock.pins

    bento = BentoStore(layout).get(result.tag)
    root = BentoStore(layout).materialise(bento)
    environment = tmp_path / "env"
    wheel = tmp_path / f"bentotool_runtime-{result.plan.runtime_version}-py3-none-any.whl"
    wheel.write_bytes(layout.read(bento.layer(WHEEL).digest))
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    interpreter = str(environment / "bin" / "python")
    uv("pip", "sync", "--quiet", "--python", interpreter, "--require-hashes", str(project / "bento.lock"))
    size = sum(path.stat().st_size for path in environment.glob("lib/*/site-packages/**/*") if path.is_file())
    # uvloop's wheel for Python 3.13 is larger by itself; elsewhere the budget holds.
    limit = 30 << 20 if sys.version_info >= (3, 13) else 25 << 20
    assert size < limit, f"the runtime side takes {size} bytes"
    uv("pip", "install", "--quiet", "--python", interpreter, "--no-deps", "--no-index", str(wheel))

    code = f"import sys, bentotool.runtime.app; print(*[name for name in {UNWANTED!r} if name in sys.modules])"
    loaded = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded.stdout + loaded.stderr

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [interpreter, "-m", "bentotool.runtime", str(root / "home" / "bento"), "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BENTOTOOL"))}
    with running(command, url, clean):
        assert ask(f"{url}/predict", {"x": [1, 2.5]}) == [2, 5]


@pytest.fixture
def absent() -> Callable[[str], None]:
    def skip(what: str) -> None:
        if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1":
            pytest.fail(f"needs {what}, which is not here, and BENTOTOOL_TEST_REQUIRE_ALL=1", pytrace=False)
        pytest.skip(f"needs {what}")

    return skip
