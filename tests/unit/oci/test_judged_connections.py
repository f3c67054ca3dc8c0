"""A host that a reply named is connected to at the address that was judged, however its name is answered next."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import RemoteError, UnsafeError
from bentotool.models import web
from bentotool.models.web import download
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.tls import Tls


class Names:
    """A resolver that its owner can change between two look-ups; other names are answered by the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.connected: list[str] = []
        system, connect = socket.getaddrinfo, socket.socket.connect

        def resolve(host: str, port: int, *rest: Any, **options: Any) -> Any:
            if host not in self.answers:
                return system(host, port, *rest, **options)
            answers = self.answers[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            if not found:
                raise socket.gaierror("unknown")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        def noted(sock: socket.socket, address: Any) -> None:
            self.connected.append(str(address[0]))
            connect(sock, address)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(socket.socket, "connect", noted)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(web, "RetryPolicy", lambda: RetryPolicy(attempts=1, base=0.01))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return Names(monkeypatch)


@contextmanager
def serving(location: str = "", tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """A server that redirects, or sends a file; its port, and the hosts it was asked for."""
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(302 if location else 200)
            self.send_header("Location", location) if location else None
            self.send_header("Content-Length", "0" if location else "5")
            self.end_headers()
            self.wfile.write(b"" if location else b"bytes")

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port, hosts
        finally:
            server.shutdown()
            thread.join(5)


def fetched(url: str, folder: Path, tls: Tls | None = None) -> bytes:
    target = folder / "m"
    download(url, target, max_bytes=1 << 20, checksum=None, advance=lambda amount: None, tls=tls)
    return target.read_bytes()


@pytest.mark.parametrize("first", [["198.51.100.7"], []])
def test_the_second_answer_is_judged_too(names: Names, tmp_path: Path, first: list[str]) -> None:
    names.answers["rebind.example"] = [first, ["169.254.169.254"]]
    with serving("http://rebind.example/m") as (port, _), pytest.raises(UnsafeError, match="link-local"):
        fetched(f"http://127.0.0.1:{port}/m", tmp_path)
    assert set(names.connected) == {"127.0.0.1"}


def test_a_third_answer_is_never_asked_for(names: Names, tmp_path: Path) -> None:
    with serving() as (there, hosts), serving(f"http://rebind.example:{there}/m") as (port, _):
        names.answers["rebind.example"] = [["127.0.0.1"], ["127.0.0.1"], ["169.254.169.254"]]
        assert fetched(f"http://127.0.0.1:{port}/m", tmp_path) == b"bytes"
        assert hosts == [f"rebind.example:{there}"]
    assert set(names.connected) == {"127.0.0.1"}


def test_a_name_that_stays_unknown_is_not_connected_to(names: Names, tmp_path: Path) -> None:
    names.answers["rebind.example"] = [[], [], ["169.254.169.254"]]
    with serving("http://rebind.example/m") as (port, _), pytest.raises(RemoteError):
        fetched(f"http://127.0.0.1:{port}/m", tmp_path)
    assert set(names.connected) == {"127.0.0.1"}


def test_one_dead_address_of_several_does_no_harm(names: Names, tmp_path: Path) -> None:
    with serving() as (there, _), serving(f"http://many.example:{there}/m") as (port, _):
        names.answers["many.example"] = [["127.0.0.2", "127.0.0.1"]]
        assert fetched(f"http://127.0.0.1:{port}/m", tmp_path) == b"bytes"


def test_tls_is_for_the_name(names: Names, tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusting = Tls(ca_file=tmp_path / "ca.pem")
    for certified, good in (("models.example", True), ("127.0.0.1", False)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified).configure_cert(context)
        names.answers["models.example"] = [["127.0.0.1"]]
        with serving(tls=context) as (there, _), serving(f"https://models.example:{there}/m") as (port, _):
            if good:
                assert fetched(f"http://127.0.0.1:{port}/m", tmp_path, trusting) == b"bytes"
            else:
                with pytest.raises(RemoteError, match=r"models\.example"):
                    fetched(f"http://127.0.0.1:{port}/m", tmp_path, trusting)
