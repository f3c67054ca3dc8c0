"""A registry in memory whose faults are switched on one by one. Standard library only; loaded by conftest.py.

It keeps blobs, manifests and upload sessions as the distribution specification says. What goes wrong is either a
property of the whole registry (``rotate``, ``keeps_partial``, ``ranges``, ``lifetime`` …), a :class:`Fault` put into
``faults``, which changes some requests and then is over, or a :class:`Reply` put into ``script``, given once in place
of the normal behaviour. ``received`` and ``served`` count the bytes of content that went each way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_READ = 64 << 10


@dataclass
class Reply:
    """An answer.

    Args:
        body: sent after the headers.
        cut: close the connection after so many bytes of the body.
        reset: close it so that what is under way is lost.
        length: Content-Length to state; the truth when None.
        stall: after the bytes, keep the connection open until this is set, half a minute at most.
        drip: seconds between two bytes of the body.
        drip_head: seconds between two bytes of a header that does not end.
        chunked: send the body in chunks, of no stated length; -1 to drip the size of the first chunk for ever.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    length: int | None = None
    stall: threading.Event | None = None
    drip: float | None = None
    drip_head: float | None = None
    chunked: int = 0


@dataclass
class Fault:
    """What goes wrong with some requests.

    Args:
        method, part: of the requests it befalls; ``part`` is looked for in the path.
        times: how many.
        skip: how many before them go well.
        change: makes their answer of the normal one.
        instead: the answer in place of the normal behaviour.
        take: read no more than so many bytes of their body, then hang up; or answer at once where ``instead`` is given.
        hold: before that, read nothing for so many seconds.
        pause_at: stop reading at so many bytes, and say so with ``paused``, until ``go`` is set; half a minute at most.
    """

    method: str
    part: str = "/"
    times: int = 1
    skip: int = 0
    change: Callable[[Reply], Reply] | None = None
    instead: Reply | None = None
    take: int | None = None
    hold: float = 0
    pause_at: int | None = None
    paused: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def befalls(self, method: str, path: str) -> bool:
        if method != self.method or self.part not in path or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Seen:
    """A request as the registry got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upload:
    data: bytearray = field(default_factory=bytearray)
    turn: int = 0
    pieces: list[int] = field(default_factory=list)


class FaultyRegistry:
    """The registry's state and its switches.

    Attributes:
        rotate: every answer of an upload gives another ``_state``, and only the last one is taken.
        strict: as docker-registry 2.8: an upload whose size is not what its ``_state`` says is dropped.
        keeps_partial: the bytes of a broken PATCH count.
        ranges: how a Range is answered: "yes", "ignored" or "refused".
        etags: another ETag for every answer.
        minimum: OCI-Chunk-Min-Length; a smaller piece that was not the last is refused.
        largest: bytes of the largest request body; 413 above.
        absolute: Locations name the host.
        page: tags in one answer.
        lists_referrers: has the referrers API.
        lifetime: seconds a token lives; None asks for none.
    """

    def __init__(self, host: str, scheme: str = "http") -> None:
        self.host = host
        self.url = f"{scheme}://{host}"
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, Upload] = {}
        self.script: dict[tuple[str, str], list[Reply]] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.begun = self.received = 0
        self.served = 0
        self.rotate = self.strict = self.etags = self.absolute = self.lists_referrers = False
        self.keeps_partial = True
        self.ranges = "yes"
        self.minimum = 0
        self.page = 1000
        self.largest: int | None = None
        self.lifetime: float | None = None
        self.tokens: dict[str, tuple[float, str]] = {}
        self.lock = threading.RLock()
        self.closing = threading.Event()

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

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            return next((fault for fault in self.faults if fault.befalls(method, path)), None)

    def answer(self, seen: Seen, fault: Fault | None) -> Reply:
        with self.lock:
            self.seen.append(seen)
            for (method, prefix), replies in self.script.items():
                if method == seen.method and seen.path.startswith(prefix) and replies:
                    return replies.pop(0)
            if fault and fault.instead:
                return fault.instead
            refusal = self._refusal(seen)
            reply = refusal or getattr(self, f"on_{seen.method.lower()}", lambda _: Reply(404))(seen)
            return fault.change(reply) if fault and fault.change else reply

    def _refusal(self, seen: Seen) -> Reply | None:
        if self.largest is not None and len(seen.body) > self.largest:
            return Reply(413, b"<html>413 Request Entity Too Large</html>")
        if self.lifetime is None or seen.path.startswith("/token"):
            return None
        _, _, token = seen.headers.get("authorization", "").partition(" ")
        expires, _ = self.tokens.get(token, (0.0, ""))
        if expires > time.monotonic():
            return None
        return Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{self.url}/token",service="s"'})

    def on_get(self, seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply(200, b"{}")
        if seen.path.startswith("/token"):
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = (time.monotonic() + (self.lifetime or 60), seen.path)
            return Reply(200, json.dumps({"token": token, "expires_in": self.lifetime or 60}).encode())
        if seen.path.startswith("/upload"):
            upload, refusal = self._upload(seen)
            return self._standing(seen, upload, 204) if upload else refusal
        if match := re.search(r"/referrers/(sha256:[0-9a-f]{64})", seen.path):
            return self._referrers(match[1]) if self.lists_referrers else Reply(404)
        if "/tags/list" in seen.path:
            return self._tags(seen.path)
        if match := re.search(r"/manifests/(.+)$", seen.path):
            media_type, data = self.manifests.get(match[1], ("", b""))
            return Reply(200, data, {"Content-Type": media_type}) if data else Reply(404)
        match = re.search(r"/blobs/(sha256:[0-9a-f]{64})(?:\?|$)", seen.path)
        if not match or match[1] not in self.blobs:
            return Reply(404)
        return self._blob(self.blobs[match[1]], seen.headers.get("range", ""))

    def _tags(self, path: str) -> Reply:
        tags = sorted(name for name in self.manifests if ":" not in name)
        path, _, last = path.partition("?last=")
        tags = [tag for tag in tags if tag > last]
        shown = tags[: self.page]
        link = f"{self.url if self.absolute else ''}{path}?last={shown[-1]}" if len(shown) < len(tags) else ""
        body = json.dumps({"name": "r", "tags": shown}).encode()
        return Reply(200, body, {"Link": f'<{link}>; rel="next"'} if link else {})

    def _referrers(self, subject: str) -> Reply:
        listed = []
        for digest, (media_type, data) in self.manifests.items():
            manifest = json.loads(data)
            if digest.startswith("sha256:") and (manifest.get("subject") or {}).get("digest") == subject:
                kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
                notes = manifest.get("annotations") or {}
                entry = {"mediaType": media_type, "digest": digest, "size": len(data), "artifactType": kind}
                listed.append({**entry, "annotations": notes})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return Reply(200, json.dumps(index).encode(), {"Content-Type": INDEX})

    def _blob(self, data: bytes, wanted: str) -> Reply:
        headers = {"ETag": f'"{len(self.seen)}"'} if self.etags else {"ETag": '"fixed"'}
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        if not found or self.ranges == "ignored":
            return Reply(200, data, headers)
        if self.ranges == "refused":
            return Reply(416, b"", headers)
        start = int(found[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Reply(206, data[start:], headers)

    def on_head(self, seen: Seen) -> Reply:
        return Reply(self.on_get(seen).status)

    def on_post(self, seen: Seen) -> Reply:
        if seen.path.startswith("/token"):
            return self.on_get(seen)
        self.begun += 1
        name = str(self.begun)
        self.uploads[name] = Upload()
        headers = {"OCI-Chunk-Min-Length": str(self.minimum)} if self.minimum else {}
        return Reply(202, b"", {"Location": self._location(name, self.uploads[name]), **headers})

    def _location(self, name: str, upload: Upload) -> str:
        return f"{self.url if self.absolute else ''}/upload/{name}?_state={self._state(upload)}"

    def _state(self, upload: Upload) -> str:
        return str(len(upload.data)) if self.strict else str(upload.turn) if self.rotate else "a%2Bb"

    def _upload(self, seen: Seen) -> tuple[Upload | None, Reply]:
        match = re.match(r"/upload/(\w+)\?_state=([\w%]+)", seen.path)
        upload = self.uploads.get(match[1]) if match else None
        if not match or upload is None:
            return None, Reply(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        if (self.rotate or self.strict) and match[2] != self._state(upload):
            self.uploads[match[1]] = Upload(turn=-1)
            return None, Reply(404, b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}')
        return upload, Reply()

    def _standing(self, seen: Seen, upload: Upload, status: int) -> Reply:
        name = re.findall(r"/upload/(\w+)", seen.path)[0]
        if seen.method == "PATCH":
            upload.turn += 1
        headers = {"Location": self._location(name, upload), "Range": f"0-{max(0, len(upload.data) - 1)}"}
        return Reply(status, b"", headers)

    def on_patch(self, seen: Seen) -> Reply:
        upload, refusal = self._upload(seen)
        if upload is None:
            return refusal
        start, end = map(int, seen.headers["content-range"].split("-"))
        if start != len(upload.data):
            return Reply(416, b"", {"Range": f"0-{max(0, len(upload.data) - 1)}"})
        if end - start + 1 != len(seen.body) or any(piece < self.minimum for piece in upload.pieces):
            return Reply(400, b'{"errors":[{"code":"SIZE_INVALID"}]}')
        upload.data += seen.body
        upload.pieces.append(len(seen.body))
        return self._standing(seen, upload, 202)

    def on_put(self, seen: Seen) -> Reply:
        if found := re.search(r"/manifests/(.+)$", seen.path):
            self.add_manifest(seen.body, found[1], seen.headers["content-type"])
            subject = (json.loads(seen.body).get("subject") or {}).get("digest")
            return Reply(201, headers={"OCI-Subject": subject} if subject and self.lists_referrers else {})
        found = re.search(r"digest=sha256%3A([0-9a-f]{64})", seen.path)
        if not found:
            return Reply(400)
        data = seen.body
        if seen.path.startswith("/upload/"):
            upload, refusal = self._upload(seen)
            if upload is None:
                return refusal
            data = bytes(upload.data) + data
        if hashlib.sha256(data).hexdigest() != found[1]:
            return Reply(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest did not match"}]}')
        self.blobs[f"sha256:{found[1]}"] = data
        self.uploads.pop(re.findall(r"/upload/?(\w*)", seen.path)[0], None)
        return Reply(201)

    def broken(self, seen: Seen) -> None:
        """A request whose body did not come whole."""
        with self.lock:
            self.seen.append(seen)
            upload, _ = self._upload(seen) if seen.method == "PATCH" else (None, Reply())
            if upload and self.keeps_partial and int(seen.headers["content-range"].split("-")[0]) == len(upload.data):
                upload.data += seen.body


class _Handler(BaseHTTPRequestHandler):
    registry: FaultyRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets, and the client delays its ACK by 40 ms

    def _serve(self) -> None:
        registry = self.registry
        fault = registry.fault_for(self.command, self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        if fault and fault.hold:
            registry.closing.wait(fault.hold)
        take = length if fault is None or fault.take is None else min(fault.take, length)
        body = b""
        if fault and fault.pause_at is not None:
            body = self._read(fault.pause_at)
            fault.paused.set()
            fault.go.wait(30)
        body += self._read(take - len(body))
        seen = Seen(self.command, self.path, headers, body)
        if len(body) < length and not (fault and fault.instead):
            registry.broken(seen)
            self._hang_up()
            return
        self._send(registry.answer(seen, fault))
        if len(body) < length:
            self._linger()

    def _read(self, count: int) -> bytes:
        body = bytearray()
        with contextlib.suppress(OSError):
            while len(body) < count and (piece := self.rfile.read1(min(_READ, count - len(body)))):
                body += piece
        if self.command in ("PUT", "PATCH") and "/manifests/" not in self.path:
            with self.registry.lock:
                self.registry.received += len(body)
        return bytes(body)

    def _send(self, reply: Reply) -> None:
        if reply.drip_head is not None:
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000, reply.drip_head)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply)
        if reply.stall:
            self.wfile.flush()
            reply.stall.wait(30)
        if reply.cut is not None or (length != len(reply.body) and self.command != "HEAD"):
            self._hang_up(reset=reply.reset)

    def _send_body(self, reply: Reply) -> None:
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        if "/blobs/" in self.path:
            with self.registry.lock:
                self.registry.served += len(body)
        if reply.chunked < 0:
            self._drip(b"0" * 10_000, reply.drip or 0.01)
        elif reply.chunked:
            for start in range(0, len(body), reply.chunked):
                piece = body[start : start + reply.chunked]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif reply.drip is not None:
            self._drip(body, reply.drip)
        else:
            self.wfile.write(body)

    def _drip(self, data: bytes, pause: float) -> None:
        for number in range(len(data)):
            self.wfile.write(data[number : number + 1])
            if self.registry.closing.wait(pause):
                break
        self.close_connection = True

    def _linger(self) -> None:
        """Read on for a moment, as servers do that answer early, so that the answer is not lost."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.2)
            while self.connection.recv(_READ):
                pass
        self.close_connection = True

    def _hang_up(self, *, reset: bool = False) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


def start(tls: ssl.SSLContext | None = None) -> tuple[FaultyRegistry, Callable[[], None]]:
    """A registry on a free port of the loopback address, and what ends it."""
    server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry = FaultyRegistry(f"127.0.0.1:{server.server_address[1]}", "https" if tls else "http")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"registry": registry})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def end() -> None:
        registry.closing.set()
        server.shutdown()
        server.server_close()

    return registry, end
