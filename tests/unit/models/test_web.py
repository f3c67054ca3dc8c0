"""Models from HTTPS addresses: bounded, checked, continued. The server is real and on this machine: plain HTTP."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import NotFoundError, RemoteError, UnsafeError, UsageError, VerificationError
from bentotool.models import web
from bentotool.models.sources import fetch
from bentotool.models.web import download, file_name, public_address
from bentotool.oci.layout import Layout
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.tls import Tls
from bentotool.plugins import load_plugins

CONTENT = bytes(range(256)) * 4000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Sends CONTENT; tests change how."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[dict[str, str]] = []
        self.break_at: list[int] = []
        self.status = 200
        self.ranges = True
        self.etag = '"one"'
        self.heeds_if_range = True
        self.content = CONTENT
        self.total = ""
        self.location = ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_port}/m/model.onnx"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = dict(request.headers)
        self.requests.append(headers)
        if self.location:
            request.send_response(302)
            request.send_header("Location", self.location)
            request.end_headers()
            return
        start = 0
        asked = headers.get("Range", "")
        content = self.content
        if asked and self.ranges and (not self.heeds_if_range or headers.get("If-Range") == self.etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if start else self.status)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{self.total or len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        end = self.break_at.pop(0) if self.break_at else len(content)
        request.wfile.write(content[start:end])
        request.close_connection = True


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join(5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "RetryPolicy", lambda: RetryPolicy(attempts=4, base=0.01))
    with _running(Server()) as server:
        yield server


Get = Callable[..., Path]


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Get:
    def run(url: str | None = None, *, max_bytes: int = 1 << 30, checksum: str | None = CHECKSUM) -> Path:
        target = tmp_path / "model.onnx"
        seen: list[int] = []
        download(url or server.url, target, max_bytes=max_bytes, checksum=checksum, advance=seen.append)
        assert sum(seen) == len(CONTENT)
        return target

    return run


def test_a_file_arrives_whole_and_alone(get: Get, tmp_path: Path) -> None:
    assert get().read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.onnx"]


def test_a_broken_connection_is_continued_by_range(server: Server, get: Get) -> None:
    server.break_at = [300_000, 700_000]
    assert get().read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=700000-"]


def test_a_later_command_continues_too(server: Server, get: Get) -> None:
    server.break_at = [100_000] * 4
    with pytest.raises(RemoteError):
        get()
    asked = len(server.requests)
    assert get().read_bytes() == CONTENT
    assert server.requests[asked]["Range"] == "bytes=100000-"


def test_changed_content_is_fetched_anew(server: Server, get: Get) -> None:
    server.break_at = [100_000] * 4
    with pytest.raises(RemoteError):
        get()
    server.etag = '"two"'
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"two"', 'W/"one"', ""])
def test_two_versions_are_never_mixed(server: Server, get: Get, etag: str) -> None:
    """A cache that answers ranges whatever If-Range says is told by the validator, or by the size."""
    server.content, server.break_at = b"old" * 100_000, [100_000] * 4
    with pytest.raises(RemoteError):
        get(checksum=None)
    asked = len(server.requests)
    server.content, server.etag, server.heeds_if_range = CONTENT, etag, False
    assert get().read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests[asked:]] == ["bytes=100000-", None]


def test_a_range_of_unknown_total_is_taken(server: Server, get: Get) -> None:
    server.break_at, server.total = [100_000], "*"
    assert get().read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_server_without_ranges_starts_over(server: Server, get: Get) -> None:
    server.ranges, server.break_at = False, [200_000]
    assert get().read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(get: Get, tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        get(checksum="sha256:" + "0" * 64)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_limits_and_refusals(server: Server, get: Get) -> None:
    with pytest.raises(UnsafeError, match="larger"):
        get(max_bytes=1000)
    server.status = 404
    with pytest.raises(NotFoundError):
        get()
    server.status = 403
    with pytest.raises(RemoteError, match="403"):
        get()
    server.status = 503
    with pytest.raises(RemoteError, match="503"):
        get()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "http://user:secret@127.0.0.1/x"])
def test_redirects_to_where_they_must_not_lead(server: Server, get: Get, location: str) -> None:
    server.location = location
    with pytest.raises(UnsafeError):
        get()


def test_an_endless_redirect_ends(server: Server, get: Get) -> None:
    server.location = server.url
    with pytest.raises(RemoteError, match="redirects"):
        get()


@pytest.mark.parametrize(
    "url", ["http://example.com/m.onnx", "https://user:pw@example.com/m.onnx", "http://10.0.0.1/m"]
)
def test_plain_http_and_credentials_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeError):
        download(url, tmp_path / "x", max_bytes=1, checksum=None, advance=lambda amount: None)


def test_netrc_is_not_read(server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "folder" / "netrc"
    netrc.parent.mkdir()
    netrc.write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    get()
    assert "Authorization" not in server.requests[0]


def test_certificates_are_judged_as_the_user_says(tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("me@example.com").private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    tried: list[int] = []

    def get(server: Server, tls: Tls | None) -> bytes:
        target = tmp_path / "m" / "model.onnx"
        target.parent.mkdir(exist_ok=True)
        download(server.url, target, max_bytes=1 << 30, checksum=CHECKSUM, advance=tried.append, tls=tls)
        return target.read_bytes()

    with _running(Server(context)) as server:
        for tls in (None, Tls()):
            with pytest.raises(RemoteError, match="no valid TLS certificate") as failure:
                get(server, tls)
            assert "--ca-file" in str(failure.value.hint)
        assert not tried
        assert get(server, Tls(ca_file=tmp_path / "ca.pem")) == CONTENT
        assert get(server, Tls(verify=False)) == CONTENT
        assert get(server, Tls(ca_file=tmp_path / "ca.pem", client_cert=tmp_path / "me.pem")) == CONTENT


def test_a_clients_certificate_is_shown_to_the_named_host_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    import trustme

    trustme.CA().issue_cert("me@example.com").private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    shown: list[object] = []
    send = requests.Session.get

    def get(session: requests.Session, url: str, **options: Any) -> requests.Response:
        shown.append(options["cert"])
        return send(session, url, **options)

    monkeypatch.setattr(requests.Session, "get", get)
    with _running(Server()) as other:
        server.location = other.url
        tls = Tls(client_cert=tmp_path / "me.pem")
        download(server.url, tmp_path / "m", max_bytes=1 << 30, checksum=CHECKSUM, advance=lambda _: None, tls=tls)
    assert shown == [str(tmp_path / "me.pem"), None]


def test_a_host_that_is_not_there_promises_nothing(server: Server, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/m.onnx"
        with pytest.raises(RemoteError, match="did not answer") as failure:
            download(url, tmp_path / "m", max_bytes=1, checksum=None, advance=lambda _: None)
    assert failure.value.hint == "check the address and the network"


def test_names() -> None:
    assert file_name("https://example.com/a/Model%20One.onnx?x=1#y") == "Model One.onnx"
    with pytest.raises(UsageError):
        file_name("https://example.com/")
    for bad in ("https://example.com/a/..", "https://example.com/a%2F..%2Fb", "https://example.com/a%00b"):
        with pytest.raises(UnsafeError):
            file_name(bad)


def test_an_address_is_recorded_without_secrets() -> None:
    told = public_address("https://me:pw@example.com:8443/a/m%20.onnx?sig=abc#part")
    assert told == "https://example.com:8443/a/m%20.onnx"


def test_the_source_is_recorded(server: Server, tmp_path: Path) -> None:
    class NoPlugins:
        def sources(self) -> dict[str, Any]:
            return {}

    plugins: Any = NoPlugins()
    with fetch(server.url + "?token=abc", Layout(tmp_path / "store"), plugins, checksum=CHECKSUM) as found:
        assert found.model.metadata == {"source": server.url}


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n <html lang=en>"])
def test_a_web_page_is_no_model(server: Server, tmp_path: Path, page: bytes) -> None:
    server.content = page
    layout = Layout(tmp_path / "store")
    with pytest.raises(UsageError, match="is a web page, not a model"), fetch(server.url, layout, load_plugins()):
        pass
    assert not list(layout.temporary().iterdir())
