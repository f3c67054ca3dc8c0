"""One instance: its services behind one port, the files that clients need, and what goes wrong with it on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sigstore_stand_in.authority import now, pem_of, spki
from sigstore_stand_in.fulcio import Fulcio, requested_key
from sigstore_stand_in.merkle import Log
from sigstore_stand_in.rekor import entry_v1, entry_v2
from sigstore_stand_in.roots import signing_config, trust_config, trusted_root
from sigstore_stand_in.timestamps import Timestamps
from sigstore_stand_in.tokens import Refused, Tokens

SERVICES = {"/api/v2/signingCert": "fulcio", "/api/v1/signingCert": "fulcio", "/api/v1/timestamp": "tsa"}
_LIMIT = 4 << 20


@dataclass(frozen=True)
class Trouble:
    """What a service does instead of its work.

    Args:
        status: answers with this.
        silent: does not answer, until the trouble is over.
        drip: seconds between two bytes of a header that does not end, until the trouble is over.
        early: is off by so much: its clock is behind. Negative: ahead.
    """

    status: int = 0
    silent: bool = False
    drip: float = 0
    early: timedelta = timedelta()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def _json(value: object, status: int = 200, *headers: tuple[str, str]) -> Answer:
    return Answer(status, json.dumps(value).encode(), headers=headers)


class StandIn:
    """Fulcio, a CT log, Rekor 1 and 2, a timestamp authority and an OIDC issuer on a free port of loopback.

    Args:
        folder: gets ``trusted_root.json``, ``signing_config.json`` and ``trust_config.json`` (with Rekor 1), the latter
            two also as ``…_v2.json`` (with Rekor 2), and in PEM what older clients are given one by one.

    Attributes:
        url: of all services.
        seen: method and path of each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []
        self.troubles: dict[str, Trouble] = {}
        self._over = threading.Event()
        self.fulcio, self.timestamps, self._tokens = Fulcio(), Timestamps(), Tokens()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"instance": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.rekor = Log("rekor.stand-in - 1")
        self.rekor2 = Log("127.0.0.1")  # clients compare the name with that in its address
        self._codes: dict[str, dict[str, str]] = {}
        self._write()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def token(self, who: str = "dev@example.com", *, issuer: str = "", seconds: float = 600, **claims: object) -> str:
        """An identity token.

        Args:
            who: mail address or URI.
            issuer: this instance where empty.
            seconds: for which it is valid; negative for one that no longer is.
            claims: more of them, such as those of a workflow; they may replace the others.
        """
        at = int(time.time())
        began = at - 5 if seconds > 0 else at - 700
        said: dict[str, Any] = {"iss": issuer or self.url, "aud": "sigstore", "sub": who, "iat": began, "nbf": began}
        if "@" in who and "://" not in who:
            said |= {"email": who, "email_verified": True}
        return self._tokens.mint({**said, "exp": int(at + seconds), **claims})

    @contextlib.contextmanager
    def trouble(self, service: str, **what: Any) -> Iterator[None]:
        """While it lasts, ``fulcio``, ``rekor``, ``rekor2``, ``tsa`` or ``oidc`` does what :class:`Trouble` says."""
        self._over.clear()
        self.troubles[service] = Trouble(**what)
        try:
            yield
        finally:
            del self.troubles[service]
            self._over.set()

    def file(self, name: str) -> Path:
        return self.folder / name

    def _write(self) -> None:
        ct_id = hashlib.sha256(spki(self.fulcio.ct_key.public_key())).digest()
        logs = ((self.rekor, self.url), (self.rekor2, f"{self.url}/r2"))
        root = trusted_root(self.url, self.fulcio, ct_id, logs, self.timestamps)
        self.folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, object] = {"trusted_root.json": root}
        for suffix, rekor, version in (("", self.url, 1), ("_v2", f"{self.url}/r2", 2)):
            signing = signing_config(self.url, rekor, version)
            files[f"signing_config{suffix}.json"] = signing
            files[f"trust_config{suffix}.json"] = trust_config(root, signing)
        for name, content in files.items():
            (self.folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        pem = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        (self.folder / "fulcio.pem").write_bytes(pem_of(*self.fulcio.authority.chain))
        (self.folder / "ctfe.pub").write_bytes(self.fulcio.ct_key.public_key().public_bytes(*pem))
        (self.folder / "rekor.pub").write_bytes(self.rekor.key.public_key().public_bytes(*pem))
        (self.folder / "tsa.pem").write_bytes(pem_of(self.timestamps.certificate, *self.timestamps.authority.chain))

    # --- what the services answer ------------------------------------------------------------------------------------

    def answer(self, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request."""
        if path in ("/api/v2/signingCert", "/api/v1/signingCert"):
            return self._certificate(path, headers, json.loads(body))
        if path == "/api/v1/log/entries":
            at = now() - self._early("rekor")
            name, entry = entry_v1(self.rekor, json.loads(body), int(at.timestamp()))
            # clients in Go take the name from these
            return _json(entry, 201, ("ETag", name), ("Location", f"{path}/{name}"))
        if path == "/api/v1/log/publicKey":
            return Answer(200, self.file("rekor.pub").read_bytes(), "application/x-pem-file")
        if path == "/r2/api/v2/log/entries":
            return _json(entry_v2(self.rekor2, json.loads(body)), 201)
        if path == "/api/v1/timestamp":
            reply = self.timestamps.reply(body, now() - self._early("tsa"))
            return Answer(201, reply, "application/timestamp-reply")
        return self._oidc(path, query, body)

    def _early(self, service: str) -> timedelta:
        return self.troubles.get(service, Trouble()).early

    def _certificate(self, path: str, headers: Mapping[str, str], body: dict[str, Any]) -> Answer:
        given = (body.get("credentials") or {}).get("oidcIdentityToken") or headers.get("Authorization", "")
        try:
            claims = self._tokens.claims(given.removeprefix("Bearer "))
        except Refused as error:
            return _json({"code": 16, "message": str(error)}, 401)
        chain = self.fulcio.chain(requested_key(body), claims, now() - self._early("fulcio"))
        if path == "/api/v1/signingCert":
            return Answer(201, b"".join(chain), "application/pem-certificate-chain")
        return _json({"signedCertificateEmbeddedSct": {"chain": {"certificates": [each.decode() for each in chain]}}})

    def _oidc(self, path: str, query: str, body: bytes) -> Answer:
        """An issuer whose user agrees at once."""
        asked = dict(urllib.parse.parse_qsl(query or body.decode("latin-1")))
        if path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return _json({"issuer": self.url, **{name: self.url + at for name, at in places.items()}})
        if path == "/auth":
            code = uuid.uuid4().hex
            self._codes[code] = asked
            to = f"{asked['redirect_uri']}?{urllib.parse.urlencode({'code': code, 'state': asked['state']})}"
            return Answer(302, b"", headers=(("Location", to),))
        if path == "/token" and asked.get("code") in self._codes:
            del self._codes[asked["code"]]
            return _json({"access_token": self.token("browser@example.com"), "token_type": "Bearer"})
        if path == "/actions/token":  # what a job of GitHub asks for its token
            where = "stand-in/fraud/.github/workflows/release.yml@refs/heads/main"
            claims = {"job_workflow_ref": where, "workflow_ref": where, "repository": "stand-in/fraud"}
            return _json({"value": self.token("repo:stand-in/fraud", ref="refs/heads/main", **claims)})
        return Answer(404, b"not here", "text/plain")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    instance: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _LIMIT))
        path, _, query = self.path.partition("?")
        self.instance.seen.append(f"{self.command} {path}")
        trouble = self.instance.troubles.get(_service(path), Trouble())
        if trouble.silent or trouble.drip:
            self._keep_waiting(trouble.drip)
            return
        if trouble.status:
            self._send(_json({"code": trouble.status, "message": "trouble on purpose"}, trouble.status))
            return
        try:
            self._send(self.instance.answer(path, query, dict(self.headers), body))
        except Exception as error:  # a client's mistake, told to it
            self._send(_json({"code": 3, "message": repr(error)}, 400))

    do_GET = do_POST  # noqa: N815 - the name that http.server calls

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def _keep_waiting(self, drip: float) -> None:
        self.close_connection = True
        over = self.instance._over
        with contextlib.suppress(OSError):
            if drip:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not over.wait(drip or 1):
                if drip:
                    self.wfile.write(b"a")

    def log_message(self, format: str, *args: object) -> None:
        pass


def _service(path: str) -> str:
    if path.startswith("/r2/"):
        return "rekor2"
    if path.startswith("/api/v1/log/"):
        return "rekor"
    return SERVICES.get(path, "oidc")
