"""moto's S3 behind a door that the tests watch, hold shut and slam."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import signal
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

OPEN, CUT, HOLD = "open", "cut", "hold"
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/s3/aws4_request"
_FOREIGN = ("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR_HOST", "NO_GCE_CHECK", "CLOUDSDK_")


def _absent(what: str, *, on_purpose: bool) -> None:
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
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own store and home, no credentials, and runs outside any Bento."""
    store = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("BENTOTOOL_STORE", str(store))
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in ("BENTOTOOL_BENTO", "BENTOTOOL_DISABLE_PLUGINS"):
            monkeypatch.delenv(name)
    # never ask the network what this machine is
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return store


@pytest.fixture(scope="session")
def _server(require_package: Callable[[str], None]) -> Iterator[Door]:
    require_package("moto")
    with opened() as door:
        yield door


@pytest.fixture
def door(_server: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A server for ``s3://`` with credentials for it in the environment."""
    _server.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", _server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-nobody")
    yield _server
    _server.reset()


_buckets = iter(range(1_000_000))


@pytest.fixture
def bucket(door: Door) -> str:
    """A bucket of the test's own."""
    name = f"models{next(_buckets)}"
    door.put(f"/{name}")
    return name


@pytest.fixture
def tls_door(door: Door, tmp_path: Path) -> Iterator[tuple[Door, Path]]:
    """The same server behind TLS, and the file of the authority that vouches for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    with opened(context) as behind:
        yield behind, tmp_path / "authority.pem"


def _certificate(folder: Path) -> Path:
    """Writes a key with its certificate, and the authority that signed that beside it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("authority", "127.0.0.1")]
    now = datetime.now(timezone.utc)
    made = []
    for key, name, authority in zip(keys, names, (True, False), strict=True):
        unsigned = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        made.append(unsigned.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "authority.pem").write_bytes(made[0])
    (folder / "server.pem").write_bytes(private + made[1])
    return folder / "server.pem"


@dataclass(frozen=True)
class Asked:
    """One request. ``length`` is that of the range asked for; 0 without one."""

    method: str
    path: str
    query: str
    range: str
    if_match: str
    authorization: str

    @property
    def length(self) -> int:
        first, _, last = self.range.removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1 if self.range else 0


@dataclass
class Door:
    """A WSGI middleware.

    Attributes:
        rule: decides on each request: OPEN, CUT (half of the body), HOLD (no answer until ``release``), or a status
            and an error code such as ``"403 AccessDenied"``. Called before the request is answered.
        deaf: the server does not know If-Match.
        public: unsigned requests are answered as signed ones.
    """

    app: Any
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    rule: Callable[[Asked], str] = lambda asked: OPEN
    deaf: bool = False
    public: bool = False
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gets(self) -> list[Asked]:
        """Requests for bytes of objects."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.range]

    def reset(self) -> None:
        self.release.set()
        self.release = threading.Event()
        self.asked, self.rule, self.deaf = [], lambda asked: OPEN, False
        self.public = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = Asked(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_RANGE", ""),
            environ.get("HTTP_IF_MATCH", ""),
            environ.get("HTTP_AUTHORIZATION", ""),
        )
        self.asked.append(asked)
        release, told = self.release, self.rule(asked)
        if told == HOLD:
            release.wait(60)
            raise ConnectionError
        if told not in (OPEN, CUT):
            code = told.partition(" ")[2] or "Error"
            start_response(told, [("Content-Type", "application/xml")])
            return [f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
        if self.public:
            environ["HTTP_AUTHORIZATION"] = _SIGNED
        if self.deaf:
            environ.pop("HTTP_IF_MATCH", None)
        answer = self.app(environ, start_response)
        return _half(answer) if told == CUT else answer

    def put(self, path: str, body: bytes = b"") -> None:
        """Make a bucket (``/name``) or an object, past all rules."""
        rule, self.rule = self.rule, lambda asked: OPEN
        try:
            self.send("PUT", path, body)
        finally:
            self.rule = rule

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, quote(path, safe="/.\\"), body, {"Authorization": _SIGNED})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
        finally:
            connection.close()


def _half(answer: Iterable[bytes]) -> Iterator[bytes]:
    body = b"".join(answer)
    yield body[: len(body) // 2]
    raise ConnectionError


@contextmanager
def opened(tls: ssl.SSLContext | None = None) -> Iterator[Door]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *arguments: object) -> None:
            pass

    door = Door(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Silent, ssl_context=tls)
    door.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield door
        if tls is None:  # what it has is in temporary files, which it would close at exit
            door.send("POST", "/moto-api/reset")
    finally:
        door.reset()
        server.shutdown()
        server.server_close()
        thread.join(10)
