"""How clients reach services: TLS with certificates on both sides, tokens, Unix sockets, an application in process."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.client.http import AsyncHTTPClient, SyncHTTPClient
from bentotool.errors import AuthenticationError, RemoteError, UsageError
from bentotool.exceptions import ServiceUnavailable

pytest.importorskip("httpx")
SCHEMA = {
    "name": "Guarded",
    "routes": [
        {"name": "who", "route": "/who", "method": "GET", "input": {"type": "object"}, "output": {"type": "string"}}
    ],
}


class Guarded(BaseHTTPRequestHandler):
    """Answers who asks with the right token."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def address_string(self) -> str:
        return "somebody"

    def do_GET(self) -> None:
        right = self.headers.get("authorization") == "Bearer right" and self.headers.get("x-tenant") == "a"
        value = SCHEMA if self.path.endswith("/schema.json") else self.path
        content = json.dumps(
            value if right else {"error": {"code": "unauthenticated", "message": "who are you"}}
        ).encode()
        self.send_response(200 if right else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


OPTIONS: dict[str, Any] = {"token": "right", "headers": {"X-Tenant": "a"}, "server_ready_timeout": 0, "retries": 0}


@pytest.fixture
def running() -> Iterator[Callable[[Any], Any]]:
    servers: list[Any] = []

    def start(server: Any) -> Any:
        server.handle_error = lambda *_: None  # a caller without a certificate is one
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_tokens_and_prefixes(running: Callable[[Any], Any]) -> None:
    server = running(ThreadingHTTPServer(("127.0.0.1", 0), Guarded))
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with SyncHTTPClient(url, **OPTIONS) as client:
        assert client.who() == "/v1/who"
    with SyncHTTPClient(url, **{**OPTIONS, "token": "wrong"}) as client:
        with pytest.raises(AuthenticationError, match="who are you") as caught:
            client.who()
        assert "wrong" not in repr(client) + str(caught.value)


@pytest.fixture
def secured(
    running: Callable[[Any], Any], tmp_path: Path, require_package: Callable[[str], None]
) -> tuple[str, Path, Any]:
    """A server that asks callers for a certificate; its address, the authority's file, and a caller's certificate."""
    require_package("trustme")
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("caller@example.org")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running(server)
    return (
        f"https://127.0.0.1:{server.server_port}",
        tmp_path / "ca.pem",
        (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")),
    )


def test_certificates(secured: tuple[str, Path, Any], tmp_path: Path) -> None:
    url, authority, pair = secured
    with SyncHTTPClient(url, verify=authority, cert=pair, **OPTIONS) as client:
        assert client.who() == "/who"
    with SyncHTTPClient(url, verify=False, cert=pair, **OPTIONS) as client:
        assert client.who() == "/who"

    async def main() -> None:
        async with AsyncHTTPClient(url, verify=str(authority), cert=pair, **OPTIONS) as client:
            assert await client.who() == "/who"

    asyncio.run(main())
    for options in ({"cert": pair}, {"verify": authority}):
        with SyncHTTPClient(url, **options, **OPTIONS) as client, pytest.raises(RemoteError, match="does not answer"):
            client.who()
    with pytest.raises(UsageError, match="certificate cannot be read"):
        SyncHTTPClient(url, verify=tmp_path / "absent.pem")


@pytest.mark.skipif(sys.platform == "win32", reason="a Unix socket")
@pytest.mark.parametrize("scheme", ["file", "unix"])
def test_a_unix_socket(
    running: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    monkeypatch.chdir(tmp_path)  # such names are short
    running(Server("s.sock", Guarded))
    path = tmp_path / "s.sock"
    if len(str(path)) > 100:
        pytest.skip("the folder's name is too long for a Unix socket")
    with SyncHTTPClient(f"{scheme}://{path}", **OPTIONS) as client:
        assert client.who() == "/who"


@pytest.mark.parametrize("url", ["", "localhost:3000", "ftp://h/", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a service"):
        SyncHTTPClient(url)


def test_what_is_no_service_is_said(running: Callable[[Any], Any]) -> None:
    class Other(Guarded):
        def do_GET(self) -> None:
            content = b"<html>"
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = running(ThreadingHTTPServer(("127.0.0.1", 0), Other))
    client = SyncHTTPClient(f"http://127.0.0.1:{server.server_port}")
    with client, pytest.raises(RemoteError, match="schema.json is not one") as caught:
        client.anything()
    assert caught.value.hint == "is this the address of a service?"


@bentotool.service
class Here:
    @bentotool.api
    def add(self, a: int, b: int = 1) -> int:
        return a + b


def test_an_application_in_this_process() -> None:
    async def main() -> None:
        app = Here.to_asgi()
        await app.start()
        async with AsyncHTTPClient("http://localhost", app=app) as client:
            assert await client.add(1) == 2
            assert await client.add(a=1, b=4) == 5
        await app.stop()

    asyncio.run(main())
    with pytest.raises(UsageError, match="needs a loop"):
        SyncHTTPClient("http://localhost", app=Here.to_asgi())


def test_pickles_are_not_sent() -> None:
    with pytest.raises(UsageError, match="never pickles"):
        SyncHTTPClient("http://localhost", media_type="application/vnd.bentoml+pickle")
    with pytest.raises(UsageError, match="not a time above 0"):
        SyncHTTPClient("http://localhost", timeout=0)


def test_why_a_service_is_not_ready_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = SyncHTTPClient(f"http://127.0.0.1:{port}", server_ready_timeout=0.1)
    with client, pytest.raises(ServiceUnavailable, match=r"is not ready after 0\.1 seconds: .*refused"):
        client.anything()

    async def wait() -> None:
        async with AsyncHTTPClient(f"http://127.0.0.1:{port}", server_ready_timeout=0.1):
            pass

    with pytest.raises(ServiceUnavailable, match=r"is not ready after 0\.1 seconds: .*(refused|attempts failed)"):
        asyncio.run(wait())
