"""A build in a network whose one way out is a proxy that looks into TLS: its authority and password stay outside."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="engines run here on Linux"), pytest.mark.timeout(300)]

HOST = "packages.example"  # no name server has it
CANARY = "canary-of-the-proxy"
ASK = f"import urllib.request as u; print(u.urlopen('https://{HOST}/hello').read().decode())"


class Interceptor(socketserver.ThreadingTCPServer):
    """A proxy that ends TLS itself, with certificates of its own authority, and answers what it knows."""

    daemon_threads = True

    def __init__(self, address: str, authority: Any, known: dict[str, bytes]) -> None:
        super().__init__((address, 0), Connection)
        self.authority, self.known = authority, known
        self.asked: set[str] = set()


class Connection(socketserver.StreamRequestHandler):
    server: Interceptor
    rbufsize = 0

    def handle(self) -> None:
        words, headers = self.head(self.rfile)
        expected = "Basic " + base64.b64encode(f"ada:{CANARY}".encode()).decode()
        if words[:1] != ["CONNECT"] or headers.get("proxy-authorization") != expected:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host = words[1].rpartition(":")[0]
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.authority.issue_cert(host).configure_cert(context)
        with contextlib.suppress(OSError), context.wrap_socket(self.connection, server_side=True) as inner:
            stream = inner.makefile("rwb")
            while True:
                words, headers = self.head(stream)
                if not words:
                    return
                self.server.asked.add(host)
                known = self.server.known.get(words[1]) if host == HOST else None
                status, body = (404, b"") if known is None else (200, known)
                kind = "text/html" if words[1].endswith("/") else "application/octet-stream"
                stream.write(
                    f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                )
                stream.write(b"" if words[0] == "HEAD" else body)
                stream.flush()

    def head(self, stream: Any) -> tuple[list[str], dict[str, str]]:
        words = stream.readline().decode().split()
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return words, headers


@pytest.fixture
def proxy(gateway: str, require_package: Callable[[str], None]) -> Iterator[Interceptor]:
    require_package("trustme")
    import trustme

    server = Interceptor(gateway, trustme.CA(), {"/hello": b"hello from behind"})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("program", ["docker", "podman", "buildah"])
def test_nothing_of_it_stays(
    program: str,
    kit: Any,
    builds: Any,
    archive: str,
    storage: dict[str, str],
    proxy: Interceptor,
    index: str,
    require_tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    require_tool(program)
    python = {"version": "3.11", "packages": ["secretpkg"]}
    step = f'python3 -c "{ASK}" > /hello # {os.urandom(8).hex()}'  # never one that the engine knows already
    config = {**kit.PLAIN, "python": python, "docker": {"commands": [step]}}
    tag = builds.bento(f"proxied-{program}", config, {"service.py": kit.SIMPLE})
    proxy.known |= _index(builds.folder / f"proxied-{program}" / "bento.lock", index, tmp_path)
    bundle, output = tmp_path / "ca.pem", tmp_path / "image"
    proxy.authority.cert_pem.write_to_path(bundle)
    address = f"http://ada:{CANARY}@{proxy.server_address[0]}:{proxy.server_address[1]}"
    variables = {"https_proxy": address, "UV_DEFAULT_INDEX": f"https://{HOST}/simple", "UV_INDEX": "", **storage}
    words = ("containerize", tag, "--base", archive, "--engine", program, "--no-compress", "--output", f"oci:{output}")
    untrusted = kit.error(builds.run(*words, "--ca-bundle", str(_other(tmp_path)), **variables))
    assert "exit status" in untrusted
    builds.made(*words, "--ca-bundle", str(bundle), **variables)
    assert HOST in proxy.asked
    certificate = bundle.read_text().splitlines()[3].encode()
    held = {path: _content(path) for folder in (output, builds.store) for path in folder.rglob("*") if path.is_file()}
    secrets = (CANARY.encode(), base64.b64encode(f"ada:{CANARY}".encode()), certificate)
    for path, content in held.items():
        assert not [each for each in secrets if each in content], path
    assert any(b"hello from behind" in content for path, content in held.items() if output in path.parents)
    index = json.loads((output / "index.json").read_text())
    assert len(index["manifests"]) == 1


def _content(path: Path) -> bytes:
    """A file, and what is in it where it is compressed, as podman writes layers."""
    content = path.read_bytes()
    return content + gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _index(lock: Path, index: str, folder: Path) -> dict[str, bytes]:
    """The packages of a lock as the pages of an index."""
    wheels = folder / "wheels"
    words = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--extra-index-url", index]
    for each in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"):
        words += ["--platform", each]
    words += ["--trusted-host", str(urlsplit(index).hostname), "--dest", str(wheels), "--requirement", str(lock)]
    subprocess.run([sys.executable, "-m", "pip", "-q", "download", *words], check=True, timeout=300)
    found: dict[str, bytes] = {}
    for path in sorted(wheels.iterdir()):
        name, digest = path.name.split("-")[0].lower().replace("_", "-"), hashlib.sha256(path.read_bytes()).hexdigest()
        page = found.get(f"/simple/{name}/", b"")
        found[f"/simple/{name}/"] = page + f'<a href="/{path.name}#sha256={digest}">{path.name}</a>\n'.encode()
        found[f"/{path.name}"] = path.read_bytes()
    return found


def _other(folder: Path) -> Path:
    import trustme

    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    return folder / "other.pem"
