"""Package indexes of the test's own, and packages that build without a network."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentotool.build.configfile import load_config
from bentotool.build.lock import Lock, make_lock
from bentotool.build.packing import Packer
from bentotool.build.requirements import Requirements, gather
from bentotool.build.wheel import make_wheel

BACKEND = '''
"""A build backend without dependencies: what it writes has the time of day and an order of its own."""
import os, random, time, zipfile
NAME, VERSION, NEEDS, TAG = {name!r}, {version!r}, {needs!r}, {tag!r}

def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = f"{{NAME}}-{{VERSION}}.dist-info/"
    meta = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n"
    meta += "".join(f"Requires-Dist: {{need}}\\n" for need in NEEDS)
    files = [(f"{{NAME}}.py", open(f"{{NAME}}.py").read()), (info + "METADATA", meta),
             (info + "WHEEL", f"Wheel-Version: 1.0\\nGenerator: test {{time.time_ns()}}\\nTag: {{TAG}}\\n"
              "Root-Is-Purelib: true\\n"), (info + "RECORD", "")]
    random.SystemRandom().shuffle(files)
    file = f"{{NAME}}-{{VERSION}}-{{TAG}}.whl"
    with zipfile.ZipFile(os.path.join(folder, file), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return file
'''


def package_files(
    name: str, version: str = "1.0", needs: tuple[str, ...] = (), *, tag: str = "py3-none-any", more: str = ""
) -> dict[str, str]:
    """The sources of a package with a backend of its own."""
    toml = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {json.dumps(list(needs))}\n'
    toml += f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n{more}'
    backend = BACKEND.format(name=name, version=version, needs=list(needs), tag=tag)
    return {"pyproject.toml": toml, "backend.py": backend, f"{name}.py": "VALUE = 1\n"}


class _Answers(http.server.BaseHTTPRequestHandler):
    server: PackageIndex

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        user = self.server.login
        if user and self.headers.get("Authorization") != "Basic " + base64.b64encode(user.encode()).decode():
            self._send(401, b"", "text/plain")
            return
        name = self.path.strip("/").split("/")[-1]
        if self.path.startswith("/simple/"):
            files = {file: data for file, data in self.server.files.items() if file.split("-")[0] == name}
            listed = [
                {
                    "filename": file,
                    "url": f"/files/{file}",
                    "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                    "upload-time": self.server.times.get(file, "2024-01-01T00:00:00Z"),
                }
                for file, data in files.items()
            ]
            body = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": listed}).encode()
            self._send(200 if files else 404, body, "application/vnd.pypi.simple.v1+json")
        else:
            body = self.server.files.get(name, b"")
            self._send(200 if body else 404, body, "application/octet-stream")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="packages"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *rest: object) -> None:
        pass


class PackageIndex(http.server.ThreadingHTTPServer):
    """A simple index (PEP 691) of tiny wheels that remembers what it was asked.

    Attributes:
        login: ``user:password`` that it asks for; "" for none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.times: dict[str, str] = {}
        self.asked: list[str] = []
        self.login = ""
        self.url = f"http://127.0.0.1:{self.server_port}/simple"

    def add(self, name: str, version: str = "1.0", needs: tuple[str, ...] = (), *, time: str = "") -> PackageIndex:
        file = f"{name}-{version}-py3-none-any.whl"
        self.files[file] = make_wheel(name, version, {f"{name}.py": version.encode()}, needs)
        if time:
            self.times[file] = time
        return self

    def add_source(self, name: str, version: str = "1.0") -> PackageIndex:
        """A release without a wheel, whose metadata needs no build."""
        top, buffer = f"{name}-{version}", io.BytesIO()
        meta = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n"
        toml = f'[project]\nname = "{name}"\nversion = "{version}"\n'
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for file, text in (("PKG-INFO", meta), ("pyproject.toml", toml)):
                entry = tarfile.TarInfo(f"{top}/{file}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.files[f"{top}.tar.gz"] = buffer.getvalue()
        return self

    def names(self) -> set[str]:
        """The packages it was asked for, in one way or another."""
        return {path.strip("/").split("/")[-1].split("-")[0] for path in self.asked}


@pytest.fixture(scope="module")
def new_index() -> Iterator[Callable[[], PackageIndex]]:
    made: list[PackageIndex] = []

    def make() -> PackageIndex:
        index = PackageIndex()
        threading.Thread(target=index.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        made.append(index)
        return index

    yield make
    for index in made:
        index.shutdown()
        index.server_close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv knows nothing beforehand, and nobody's index but the test's is asked."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gathered(write: Callable[..., Path]) -> Callable[..., Requirements]:
    """What a project of files requires."""

    def run(files: dict[str, str], **options: object) -> Requirements:
        shutil.rmtree(write({}), ignore_errors=True)
        folder = write({"service.py": "", **files})
        return gather(load_config(folder), options.pop("runtime", ()), (), **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def locked(write: Callable[..., Path], tmp_path: Path) -> Callable[..., Lock]:
    """The lock of a project of files for Python 3.12 on linux/amd64."""

    def run(files: dict[str, str], **options: object) -> Lock:
        shutil.rmtree(write({}), ignore_errors=True)
        folder = write({"service.py": "", **files})
        requirements = gather(load_config(folder), options.pop("runtime", ()), ())  # type: ignore[arg-type]
        packer = Packer(folder, tmp_path / "wheels")
        python = options.pop("python", "3.12")
        return make_lock(requirements, python, "linux/amd64", packer=packer, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def package() -> Callable[..., dict[str, str]]:
    """``package("libs/x", "x")``: the sources of a package below a folder."""

    def make(folder: str, *args: object, **options: object) -> dict[str, str]:
        return {f"{folder}/{name}": content for name, content in package_files(*args, **options).items()}  # type: ignore[arg-type]

    return make
