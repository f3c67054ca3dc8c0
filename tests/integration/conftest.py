"""Real registries, a faulty one, and stores with something to move."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {"team": "a"}, {})
FILES = {"w.bin": b"weights" * 50_000, "empty.bin": b"", "config.json": b"{}", "README.md": b"# hi", "sub/t.bin": b"t"}


@dataclass(frozen=True)
class RealRegistry:
    """A running docker-registry."""

    host: str
    username: str = ""
    password: str = ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(program: str, folder: Path, auth: str = "", http: str = "") -> Iterator[str]:
    port = _free_port()
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: '{(folder / 'data').as_posix()}'}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'{', ' if http else ''}{http}}}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((folder / "log").read_text()) from None
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def start_registry(require_tool: Callable[[str], str]) -> Callable[..., contextlib.AbstractContextManager[str]]:
    """``with start_registry(folder, http="tls: …") as host`` runs another docker-registry."""
    return lambda folder, **options: _running(require_tool("docker-registry"), folder, **options)


@pytest.fixture(scope="session")
def real_registry(
    require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealRegistry]:
    """docker-registry, open to all."""
    with _running(require_tool("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        yield RealRegistry(host)


@pytest.fixture(scope="session")
def password_file(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a docker-registry needs in its configuration to ask for the name ``ada`` and password ``s3cret:pass``."""
    file = tmp_path_factory.mktemp("passwords") / "htpasswd"
    command = [require_tool("htpasswd"), "-Bbn", "ada", "s3cret:pass"]
    file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return f"auth: {{htpasswd: {{realm: test, path: '{file.as_posix()}'}}}}\n"


@pytest.fixture(scope="session")
def locked_registry(
    require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, password_file: str
) -> Iterator[RealRegistry]:
    """docker-registry that asks for a user name and password."""
    with _running(require_tool("docker-registry"), tmp_path_factory.mktemp("locked"), password_file) as host:
        yield RealRegistry(host, "ada", "s3cret:pass")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``server``, ``client``, ``expired``, ``misnamed`` (.pem, .key), by the authority ``ca.pem``; ``other-ca.pem``."""
    import trustme

    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    past = datetime(2001, 1, 1, tzinfo=timezone.utc)
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("ada@example.com")),
        ("expired", authority.issue_cert("127.0.0.1", not_after=past)),
        ("misnamed", authority.issue_cert("other.example")),
    ):
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture
def make_model() -> Callable[..., StoredModel]:
    """``make_model(layout, "iris", files={...})`` puts a model into a store."""

    def make(
        layout: Layout, name: str = "iris", version: str = "1", files: dict[str, bytes] | None = None
    ) -> StoredModel:
        listing = [
            ModelFile(path, len(data), layout.put(data, "application/octet-stream").digest)
            for path, data in (files or FILES).items()
        ]
        return ModelStore(layout).add(name, version, listing, DETAILS)

    return make


@pytest.fixture
def make_bento() -> Callable[..., Ref]:
    """``make_bento(layout, models)`` puts a small Bento into a store."""

    def make(layout: Layout, models: list[StoredModel], name: str = "svc", version: str = "7") -> Ref:
        entries = [
            {"alias": m.tag, "name": m.name, "version": m.version, "digest": m.digest, "path": f"models/{m.name}"}
            for m in models
        ]
        config = canonical_json(
            {
                "schema": 1,
                "name": name,
                "version": version,
                "service": "service:S",
                "python": "3.12",
                "platform": "linux/amd64",
                "description": "",
                "labels": {},
                "models": entries,
            }
        )
        layers = (
            layout.put(b"code " * 5000, "application/vnd.bentotool.bento.code.v1.tar"),
            layout.put(b"lock", "application/vnd.bentotool.bento.lock.v1+txt"),
        )
        manifest = Manifest(
            layout.put(config, "application/vnd.bentotool.bento.config.v1+json"),
            layers,
            artifact_type="application/vnd.bentotool.bento.v1",
            annotations={"io.bentotool.name": name, "org.opencontainers.image.version": version},
        )
        data = manifest.to_bytes()
        stored = layout.put(data, MANIFEST)
        descriptor = Descriptor(MANIFEST, stored.digest, stored.size, artifact_type=manifest.artifact_type)
        size = stored.size + manifest.config.size + sum(layer.size for layer in layers)
        return RefStore(layout).set("bentos", name, version, descriptor, size=size)

    return make


@dataclass
class Reply:
    """What the faulty registry answers once.

    Args:
        body: sent after the headers.
        cut: close the connection after so many bytes of the body.
        length: Content-Length to state; the truth when None.
        stall: after the bytes, keep the connection open until this is set, half a minute at most.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None
    stall: threading.Event | None = None


@dataclass
class Seen:
    """A request as the faulty registry got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FaultyRegistry:
    """A registry that serves blobs and manifests from memory, and anything else that a test queues up.

    ``script[(method, path prefix)]`` is a list of replies given once each before the normal behaviour.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.script: dict[tuple[str, str], list[Reply]] = {}
        self.seen: list[Seen] = []
        self.lock = threading.Lock()

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_manifest(self, data: bytes, tag: str, media_type: str = MANIFEST) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.manifests[digest] = self.manifests[tag] = (media_type, data)
        return digest

    def requests(self, method: str, part: str = "") -> list[Seen]:
        return [each for each in self.seen if each.method == method and part in each.path]

    def answer(self, seen: Seen) -> Reply:
        with self.lock:
            self.seen.append(seen)
            for (method, prefix), replies in self.script.items():
                if method == seen.method and seen.path.startswith(prefix) and replies:
                    return replies.pop(0)
        return getattr(self, f"on_{seen.method.lower()}", lambda _: Reply(404))(seen)

    def on_get(self, seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply(200, b"{}")
        if match := re.search(r"/manifests/(.+)$", seen.path):
            media_type, data = self.manifests.get(match[1], ("", b""))
            return Reply(200, data, {"Content-Type": media_type}) if data else Reply(404)
        match = re.search(r"/blobs/(sha256:[0-9a-f]{64})$", seen.path)
        data = self.blobs.get(match[1], b"") if match else b""
        if not match or match[1] not in self.blobs:
            return Reply(404)
        if found := re.fullmatch(r"bytes=(\d+)-", seen.headers.get("range", "")):
            start = int(found[1])
            return Reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        return Reply(200, data)

    def on_head(self, seen: Seen) -> Reply:
        return Reply(self.on_get(seen).status)

    def on_post(self, seen: Seen) -> Reply:
        return Reply(202, b"", {"Location": "/upload/1?_state=a%2Bb"})

    def on_put(self, seen: Seen) -> Reply:
        if found := re.search(r"/manifests/(.+)$", seen.path):
            self.manifests[found[1]] = (seen.headers["content-type"], seen.body)
        elif found := re.search(r"digest=sha256%3A([0-9a-f]{64})", seen.path):
            self.blobs[f"sha256:{found[1]}"] = seen.body
        return Reply(201)


def _handler(registry: FaultyRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two packets, and the client delays its ACK by 40 ms

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = registry.answer(Seen(self.command, self.path, headers, body))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = len(reply.body) if reply.length is None else reply.length
            if reply.status != 204:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
            if reply.stall:
                self.wfile.flush()
                reply.stall.wait(30)
            if reply.cut is not None or length != len(reply.body):
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


@pytest.fixture
def make_faulty() -> Iterator[Callable[[], FaultyRegistry]]:
    """Starts faulty registries; each call another one."""
    servers: list[_Server] = []

    def make() -> FaultyRegistry:
        server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
        registry = FaultyRegistry(f"127.0.0.1:{server.server_address[1]}")
        server.RequestHandlerClass = _handler(registry)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return registry

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def faulty(make_faulty: Callable[[], FaultyRegistry]) -> FaultyRegistry:
    """One faulty registry."""
    return make_faulty()


@pytest.fixture
def reply() -> type[Reply]:
    """The class :class:`Reply`, for tests, which cannot import this file."""
    return Reply
