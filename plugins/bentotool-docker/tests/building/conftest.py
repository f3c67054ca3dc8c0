"""Projects that are built into images, with an engine of this machine, a package index and the command line."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BASE = os.environ.get("BENTOTOOL_TEST_BASE_IMAGE", "python:3.11-slim")
HOME = Path.home()
LIMIT = 300.0
CANARY = "canary-of-the-index"
SIMPLE = """
import bentotool

@bentotool.service
class Simple:
    @bentotool.api
    def hi(self) -> str:
        return 'hi'
"""
PLAIN = {"service": "service:Simple", "python": {"version": "3.11"}}


def wheel() -> bytes:
    files = {
        "secretpkg.py": b"WORD = 'found'\n",
        "secretpkg-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: secretpkg\nVersion: 1.0\n",
        "secretpkg-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    files["secretpkg-1.0.dist-info/RECORD"] = ("".join(rows) + "secretpkg-1.0.dist-info/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # always of one date: a lock has the hash
    return buffer.getvalue()


@pytest.fixture(scope="session")
def gateway(engine: Any) -> str:
    """The address of this machine that containers reach."""
    return str(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])


def pages() -> dict[str, bytes]:
    """What an index has: path → content."""
    content = wheel()
    page = f'<a href="/secretpkg-1.0-py3-none-any.whl#sha256={hashlib.sha256(content).hexdigest()}">secretpkg-1.0</a>'
    return {"/simple/secretpkg/": page.encode(), "/secretpkg-1.0-py3-none-any.whl": content}


@pytest.fixture(scope="module")
def index(gateway: str) -> Iterator[str]:
    """A package index that asks for a password, at an address that containers reach."""
    known = pages()
    expected = "Basic " + base64.b64encode(f"ada:{CANARY}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("authorization") == expected
            body = known.get(self.path, b"") if allowed else b""
            self.send_response(401 if not allowed else 200 if body else 404)
            if not allowed:
                self.send_header("www-authenticate", "Basic")
            self.send_header("content-type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # http.server looks for this name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((gateway, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://ada:{CANARY}@{gateway}:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


class Builds:
    """Projects in one store, and the command line on them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.store, self.environment = folder, folder / "store", environment

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bentotool", "--store", str(self.store), *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def made(self, *words: str, **environment: str) -> dict[str, Any]:
        done = self.run("--json", *words, **environment)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def bento(self, name: str, config: dict[str, Any], files: dict[str, str]) -> str:
        project = self.folder / name
        project.mkdir(exist_ok=True)
        (project / "bentofile.yaml").write_text(json.dumps({**config, "name": name}))
        for path, text in files.items():
            (project / path).write_text(text)
            (project / path).chmod(0o755)
        return str(self.made("build", str(project))["tag"])

    def containerize(self, tag: str, *words: str) -> dict[str, Any]:
        return self.made("containerize", tag, "--base", BASE, *words)["images"][0]

    def config(self, image: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(json.loads(self.blob(image["digest"]))["config"]["digest"]))
        return found

    def blob(self, digest: str) -> bytes:
        return (self.store / "blobs" / "sha256" / digest[7:]).read_bytes()


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says what is wrong."""
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.fixture(scope="module")
def builds(engine: Any, index: str, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    import docker.errors

    try:
        engine.images.get(BASE)
    except docker.errors.ImageNotFound:
        pytest.fail(f"needs the image {BASE} on the engine", pytrace=False)
    folder = tmp_path_factory.mktemp("builds")
    settings = folder / "docker"
    (settings / "cli-plugins").mkdir(parents=True)
    own = HOME / ".docker" / "cli-plugins" / "docker-buildx"
    if own.exists():
        (settings / "cli-plugins" / "docker-buildx").symlink_to(own.resolve())
    (folder / "home").mkdir()
    environment = {**os.environ, "HOME": str(folder / "home"), "DOCKER_CONFIG": str(settings), "UV_INDEX": index}
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or HOME / ".cache") / "uv")
    return Builds(folder, {**environment, "UV_CACHE_DIR": str(cache)})


@pytest.fixture(scope="module")
def simple(builds: Builds) -> str:
    """The tag of a Bento that asks for nothing."""
    return builds.bento("simple", PLAIN, {"service.py": SIMPLE})


@pytest.fixture(scope="module")
def archive(engine: Any, builds: Builds) -> str:
    """The base image as a file."""
    target = builds.folder / "base.tar"
    with target.open("wb") as file:
        for piece in engine.images.get(BASE).save(named=True):
            file.write(piece)
    return f"oci-archive:{target}"


@pytest.fixture(scope="session")
def storage() -> Iterator[dict[str, str]]:
    """Images of podman and buildah in a folder of their own; steps in a chroot, for machines that allow no more."""
    folder = Path(tempfile.mkdtemp(prefix="bentotool-containers-"))  # not pytest's, which would look into mounts later
    settings = folder / "storage.conf"
    settings.write_text(
        "[storage]\n"
        f'driver = "{os.environ.get("STORAGE_DRIVER", "overlay")}"\n'
        f'graphroot = "{folder / "graph"}"\nrunroot = "{folder / "run"}"\n'
    )
    yield {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot"}
    for place in [*(folder / "graph" / "overlay").glob("*/merged"), folder / "graph" / "overlay"]:
        if place.is_mount():
            subprocess.run(["umount", str(place)], check=False, timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(engine: Any, tag: str, wait_for: Callable[..., None], **options: Any) -> Iterator[tuple[Any, str]]:
    container = engine.containers.run(
        tag, detach=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], ports={"3000/tcp": ("127.0.0.1", None)},
        **options,
    )  # fmt: skip
    try:
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["3000/tcp"][0]["HostPort"]
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
                return bool(answer.status == 200)

        wait_for(ready, "the service is not ready")
        yield container, url
    finally:
        container.remove(force=True, v=True)


def names_and_bytes(engine: Any, tag: str) -> tuple[set[str], bytes]:
    """All paths of an image's layers, and all its bytes."""
    data = b"".join(engine.images.get(tag).save())
    names: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for part in json.loads(archive.extractfile("manifest.json").read())[0]["Layers"]:  # type: ignore[union-attr]
            content = archive.extractfile(part).read()  # type: ignore[union-attr]
            data += content
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                names |= {member.name for member in layer if not member.isdir()}
    return names, data


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """What tests use beside fixtures: a test module cannot import from here."""
    return SimpleNamespace(
        BASE=BASE, CANARY=CANARY, LIMIT=LIMIT, PLAIN=PLAIN, SIMPLE=SIMPLE, error=error, names_and_bytes=names_and_bytes,
        pages=pages, running=running,
    )  # fmt: skip
