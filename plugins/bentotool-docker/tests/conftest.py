"""A real engine, a Bento with its image, and the command line as a user starts it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

BASE = os.environ.get("BENTOTOOL_TEST_BASE_IMAGE", "python:3.11-slim")
"""An image that the engine has, with Python 3.11; nothing is pulled."""
LIMIT = 60.0
LABEL = "io.bentotool.deployment"
SERVICE = """
import asyncio, os, pathlib, socket, time
from collections.abc import AsyncIterator
import bentotool

if os.environ.get("BROKEN"):
    raise ValueError("broken on purpose")

@bentotool.service
class Probe:
    def __init__(self):
        if os.environ.get("NEEDS_SECRET"):
            self.token = pathlib.Path("/run/secrets/token").read_text()

    @bentotool.on_startup
    def wait(self):
        time.sleep(float(os.environ.get("STARTS_IN", "0")))

    def __is_ready__(self) -> bool:
        return not os.environ.get("NEVER_READY")

    @bentotool.api
    async def version(self) -> str:
        return os.environ.get("VERSION", "")

    @bentotool.api
    async def slow(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return os.environ.get("VERSION", "")

    @bentotool.api
    async def count(self, pieces: int, every: float) -> AsyncIterator[str]:
        for _ in range(pieces):
            yield os.environ.get("VERSION", "") + chr(10)
            await asyncio.sleep(every)

    @bentotool.api
    def measure(self, text: str) -> str:
        return str(len(text))

    @bentotool.api
    def facts(self) -> dict[str, str]:
        status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
        written = {}
        for folder in ("/", "/home/bento/app", "/tmp", "/run/bentotool"):
            try:
                pathlib.Path(folder, "written").write_text("x")
                written[folder] = "yes"
            except OSError as error:
                written[folder] = str(error.errno)
        secret = pathlib.Path("/run/secrets/token")
        return {
            "uid": str(os.getuid()), "caps": status["CapEff"].strip(), "bound": status["NoNewPrivs"].strip(),
            "secret": secret.read_text() if secret.exists() else "", "host": socket.gethostname(),
            "environment": " ".join(sorted(os.environ)), **written,
        }

    @bentotool.api
    def say(self, text: str) -> None:
        print(text, flush=True)
"""


def _absent(what: str, *, on_purpose: bool = False) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session", autouse=True)
def _children_take_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and programs started by it inherit that; a handler they do not."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)  # pytest itself goes on as it was started
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def require_package() -> Callable[[str], None]:
    def require(name: str) -> None:
        if importlib.util.find_spec(name) is None:
            lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
            _absent(f"the package {name}", on_purpose=name in lacking)

    return require


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    def require(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT_TOOLS", "").split()
            _absent(f"the program {name}", on_purpose=name in lacking)
        return str(found)

    return require


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own store and home, and asks the engine of this machine."""
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path_factory.mktemp("store")))
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("DOCKER_CONFIG", "DOCKER_CONTEXT", "BENTOTOOL_BENTO", "BENTOTOOL_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def engine(require_package: Callable[[str], None], require_tool: Callable[[str], str]) -> Iterator[Any]:
    """A client of the engine of this machine."""
    require_package("docker")
    require_tool("docker")
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=int(LIMIT))
        client.ping()
    except docker.errors.DockerException:
        lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT_TOOLS", "").split()
        _absent("a Docker engine that answers", on_purpose="dockerd" in lacking)
    yield client
    client.close()


@dataclass
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The line that says what is wrong."""
        return next(line for line in self.err.splitlines() if line.startswith("error: "))


class Project:
    """A project, the store that its Bento and image are in, and the command line on both.

    Attributes:
        tag: of its Bento, whose image the engine has after the first deployment.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.base, self.store = folder, base, folder.parent / "store"
        folder.mkdir()
        (folder / "bentofile.yaml").write_text('service: "service:Probe"\npython:\n  version: "3.11"\n')
        (folder / "service.py").write_text(SERVICE)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bentotool", "--store", str(self.store), *words]

    def run(self, *words: str, env: dict[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env={**os.environ, **(env or {})}, capture_output=True, text=True,
            timeout=LIMIT * 3, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def deploy(self, name: str, *words: str, ok: bool = True) -> Outcome:
        base = [] if "--image" in words else ["--base", f"oci-archive:{self.base}"]
        done = self.run("--json", "deploy", "docker", ".", "--name", name, *base, *words)
        assert not ok or done.status == 0, done.err
        return done


@pytest.fixture(scope="session")
def project(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    import docker.errors

    folder = tmp_path_factory.mktemp("docker")
    base = folder / "base.tar"
    try:
        image = engine.images.get(BASE)
    except docker.errors.ImageNotFound:
        _absent(f"the image {BASE} on the engine")
    with base.open("wb") as file:
        for piece in image.save(named=True):
            file.write(piece)
    yield Project(folder / "project", base)
    for each in engine.images.list(filters={"label": "io.bentotool.service=service:Probe"}):
        with contextlib.suppress(docker.errors.APIError):  # another run uses it
            engine.images.remove(each.id)


_names = iter(range(1_000_000))


@pytest.fixture
def name(engine: Any) -> Iterator[str]:
    """The name of a deployment of the test's own; whatever is left of it goes after the test."""
    name = f"test-{os.getpid()}-{next(_names)}"
    yield name
    for container in engine.containers.list(all=True, filters={"label": f"{LABEL}={name}"}):
        with contextlib.suppress(Exception):
            container.remove(force=True, v=True)
    for volume in engine.volumes.list(filters={"label": f"{LABEL}={name}"}):
        with contextlib.suppress(Exception):
            volume.remove(force=True)


def made(engine: Any, name: str) -> set[str]:
    """Names of what the engine has of a deployment."""
    found = {each.name for each in engine.containers.list(all=True, filters={"label": f"{LABEL}={name}"})}
    return found | {each.name for each in engine.volumes.list(filters={"label": f"{LABEL}={name}"})}


def wait_for(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        with contextlib.suppress(OSError):
            if found():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def call(url: str, method: str, **values: object) -> Any:
    """One call; the answer."""
    request = urllib.request.Request(
        f"{url}/{method}", json.dumps(values).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        body, is_json = answer.read(), answer.headers.get_content_type() == "application/json"
    return json.loads(body) if is_json else body.decode()


class Load:
    """A steady rate of requests, half of them on connections that are kept, half on new ones.

    Args:
        rate: requests a second, sent whether or not earlier ones were answered.
        kept_idle: seconds after which an idle connection is not used again; below the time for which a server drains,
            as one that it closes just when a request is sent is lost to any client of HTTP.
    """

    def __init__(self, url: str, rate: float, kept_idle: float) -> None:
        self.url, self.rate, self.kept_idle = url, rate, kept_idle
        self.answers: list[str] = []
        self.failed: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=self.kept_idle)
        async with httpx.AsyncClient(timeout=LIMIT, limits=limits) as client:
            number, sent = 0, []
            loop = asyncio.get_running_loop()
            start = loop.time()
            while not self.stopping:
                sent.append(asyncio.create_task(self._one(client, keeps=number % 2 == 0)))
                number += 1
                await asyncio.sleep(max(0.0, start + number / self.rate - loop.time()))
            await asyncio.gather(*sent)

    async def _one(self, client: httpx.AsyncClient, *, keeps: bool) -> None:
        headers = {} if keeps else {"connection": "close"}
        try:
            answer = await client.post(f"{self.url}/version", json={}, headers=headers)
            answer.raise_for_status()
            self.answers.append(answer.text.strip('"'))
        except httpx.HTTPError as error:
            self.failed.append(repr(error))


@pytest.fixture
def tools() -> SimpleNamespace:
    """What tests use beside fixtures: a test module cannot import from here."""
    return SimpleNamespace(call=call, Load=Load, made=made, wait_for=wait_for)
