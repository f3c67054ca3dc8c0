"""Host names, pages of other sites, keys, TLS, certificates: a real server, and callers that should not be."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentotool.errors import BentotoolError
from bentotool.runtime.access import load_keys
from bentotool.sdk.transport_options import ApiKeys, read_api_keys

GOOD, OTHER = "correct-horse-battery", "a-second-key-of-another"
SERVICE = """
import bentotool

async def hello(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"mounted"})

class Inside:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope.get("query_string") == b"before":
            raise RuntimeError("secret")
        if scope.get("query_string") == b"after":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            raise RuntimeError("secret")
        await self.app(scope, receive, send)

@bentotool.asgi_app(hello, path="/mounted")
@bentotool.service(%s)
class Guarded:
    @bentotool.api
    def name(self, x: int = 0) -> str:
        return "guarded"

    @bentotool.api(method="GET")
    def look(self) -> int:
        return 1

    @bentotool.websocket
    async def talk(self, socket: bentotool.WebSocket):
        async for message in socket:
            await socket.send(message)

    @bentotool.task
    def later(self) -> None:
        pass

Guarded.add_asgi_middleware(Inside)
"""
CORS = (
    'http={"cors": {"enabled": True, "access_control_allow_origins": ["https://a.example"], '
    '"access_control_allow_credentials": True, "access_control_expose_headers": ["x-request-id"]}}'
)
ORIGIN = {"origin": "https://evil.example"}


def every_route(url: str, **options: Any) -> Iterator[tuple[str, str, httpx.Response]]:
    """Each route of the service, the server's own included, asked in each way."""
    options.setdefault("headers", {})
    routes = ["/", "/name", "/look", "/talk", "/later", "/later/submit", "/mounted/x", "/docs.json", "/schema.json"]
    routes += ["/assets/start.js", "/nothing", "/assets/../name", "/%2e%2e/"]
    with httpx.Client(verify=options.pop("verify", True)) as client:
        for route in routes:
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                yield method, route, client.request(method, url + route, **options)


@pytest.fixture(scope="module")
def plain(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("plain") / "project", SERVICE % "") as server:
        yield server


@pytest.fixture(scope="module")
def cors(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("cors") / "project", SERVICE % CORS) as server:
        yield server


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::2]"]
)
def test_a_page_does_not_reach_a_local_server_by_a_name_of_its_own(plain: Any, host: str) -> None:
    for method, route, answer in every_route(plain.url, headers={"host": host}):
        assert answer.status_code == 421, (method, route)
        assert answer.json()["error"]["code"] == "host_not_served"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for probe in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert httpx.get(plain.url + probe, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:3000"])
def test_names_of_this_machine(plain: Any, host: str) -> None:
    assert httpx.post(f"{plain.url}/name", json={}, headers={"host": host}).text == "guarded"


def test_a_server_for_all_answers_what_allowed_hosts_says(serving: Any, tmp_path: Path) -> None:
    with serving(
        tmp_path / "project", SERVICE % 'http={"allowed_hosts": ["a.example"]}', "--host", "0.0.0.0"
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert httpx.post(f"{url}/name", json={}, headers={"host": "a.example:80"}).text == "guarded"
        assert httpx.post(f"{url}/name", json={}).status_code == 421


def test_a_page_of_another_site_makes_no_call_unasked(plain: Any) -> None:
    """What a browser sends without asking first: no body, text, a form."""
    for content in ({}, {"content": b"{}", "headers": {"content-type": "text/plain"}}, {"data": {"x": "1"}}):
        headers = {**ORIGIN, **content.pop("headers", {})}
        for route in ("/name", "/later/submit"):
            answer = httpx.post(plain.url + route, headers=headers, **content)  # type: ignore[arg-type]
            assert answer.status_code in (403, 415), (route, content)
    assert httpx.post(f"{plain.url}/name", headers={"origin": plain.url}).text == "guarded", "its own page may"
    asked = httpx.options(f"{plain.url}/name", headers={**ORIGIN, "access-control-request-method": "POST"})
    assert "access-control-allow-origin" not in asked.headers


def test_cors_stands_outside_of_everything(cors: Any) -> None:
    headers = {"origin": "https://a.example"}
    wrong_host = {**headers, "host": "evil.example"}
    for answer, status in (
        (httpx.post(f"{cors.url}/name", json={}, headers=headers), 200),
        (httpx.post(f"{cors.url}/name", headers=headers), 200),
        (httpx.post(f"{cors.url}/name?before", json={}, headers=headers), 500),
        (httpx.post(f"{cors.url}/name", json={"x": "a"}, headers=headers), 400),
        (httpx.get(f"{cors.url}/nothing", headers=headers), 404),
        (httpx.get(f"{cors.url}/mounted/", headers=headers), 200),
        (httpx.post(f"{cors.url}/name", json={}, headers=wrong_host), 421),
    ):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "x-request-id"
        assert answer.headers["vary"] == "Origin"
    evil = httpx.post(f"{cors.url}/name", json={}, headers=ORIGIN)
    assert "access-control-allow-origin" not in evil.headers
    assert evil.headers["vary"] == "Origin"


def test_a_browser_asks_first(cors: Any) -> None:
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-a"}
    good = httpx.options(f"{cors.url}/name", headers={"origin": "https://a.example", **asking})
    assert good.status_code == 204
    assert good.headers["access-control-allow-headers"] == "content-type, x-a"
    assert "POST" in good.headers["access-control-allow-methods"]
    assert httpx.options(f"{cors.url}/name", headers={**ORIGIN, **asking}).status_code == 403


def test_a_middleware_that_fails_is_answered_at_once(plain: Any) -> None:
    before = httpx.post(f"{plain.url}/name?before", json={}, timeout=5)
    assert (before.status_code, before.json()["error"]["code"], "secret" in before.text) == (500, "internal", False)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # its caller sees that it is not whole
        httpx.post(f"{plain.url}/name?after", json={}, timeout=5)
    assert "RuntimeError: secret" in plain.log
    assert plain.log.count("Exception in ASGI application") == 1, "each failure is told once"


@pytest.fixture(scope="module")
def keyed(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("keyed") / "project"
    with serving(
        folder, SERVICE % 'http={"api_keys": {"env": "KEYS"}}', environment={"KEYS": f"{GOOD}, {OTHER}"}
    ) as it:
        yield it


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {GOOD}x"},
        {"authorization": f"Basic {GOOD}"},
        {"authorization": "Bearer"},
        {"authorization": GOOD},
        {"x-api-key": ""},
        {"x-api-key": GOOD.upper()},
        {"cookie": f"x-api-key={GOOD}"},
    ],
)
def test_no_route_is_open_without_a_key(keyed: Any, headers: dict[str, str]) -> None:
    for method, route, answer in every_route(keyed.url, headers=headers):
        assert answer.status_code == 401, (method, route)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "unauthorized"
    assert httpx.get(f"{keyed.url}/metrics", headers=headers).status_code == 401
    assert httpx.post(f"{keyed.url}/name?x-api-key={GOOD}", json={}, headers=headers).status_code == 401
    assert httpx.get(f"{keyed.url}/readyz", headers=headers).status_code == 200


def test_both_keys_and_both_headers(keyed: Any) -> None:
    for key in (GOOD, OTHER):
        for headers in ({"authorization": f"Bearer {key}"}, {"Authorization": f"bearer {key}"}, {"X-API-Key": key}):
            assert httpx.post(f"{keyed.url}/name", json={}, headers=headers).text == "guarded"
    assert GOOD not in keyed.log


def does_not_start(folder: Path, options: str, **environment: str) -> str:
    """The one error of a server that does not start with such options."""
    (folder / "service.py").write_text(SERVICE % options)
    command = [sys.executable, "-m", "bentotool.runtime", str(folder), "--port", "0"]
    values = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=values)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (1, 1), done.stderr
    return errors[0]


def test_a_server_without_keys_does_not_start_open(tmp_path: Path) -> None:
    assert "holds no key" in does_not_start(tmp_path, 'http={"api_keys": {"env": "KEYS"}}', KEYS=" ,")


@pytest.mark.parametrize(
    ("options", "keys", "words"),
    [
        ({"env": "KEYS"}, "", "holds no key"),
        ({"env": "KEYS"}, f"{GOOD},short", "can be guessed"),
        ({"file": "no-such-file"}, "", "cannot be read"),
        ({"env": "A", "file": "b"}, "", "one of env and file"),
        (["in-the-code-itself"], "", "keys do not stand in code"),
    ],
)
def test_keys_that_are_none(options: Any, keys: str, words: str) -> None:
    with pytest.raises(BentotoolError, match=words):
        load_keys(read_api_keys(options, "S") or ApiKeys(), {"KEYS": keys})


HOOK = """
import bentotool
from bentotool.exceptions import ServiceError

@bentotool.service
class Asking:
    async def __authenticate__(self, request):
        token = request.headers.get("authorization", "")
        if token == "broken":
            raise RuntimeError("secret")
        if token == "late":
            raise ServiceError("come back tomorrow", 403)
        request.state["user"] = token
        return token == "Bearer ada"

    @bentotool.api
    def who(self, ctx: bentotool.Context) -> str:
        return ctx.request.state["user"]

    @bentotool.websocket
    async def talk(self, socket: bentotool.WebSocket):
        await socket.receive()
"""


def test_the_services_own_question(serving: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "project", HOOK) as server:
        for token, status in (("", 401), ("Bearer eve", 401), ("broken", 500), ("late", 403), ("Bearer ada", 200)):
            answer = httpx.post(f"{server.url}/who", json={}, headers={"authorization": token} if token else {})
            assert (answer.status_code, "secret" in answer.text) == (status, False), answer.text
        assert answer.text == "Bearer ada"
        assert httpx.get(f"{server.url}/docs.json").status_code == 401


@pytest.fixture(scope="module")
def clients(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext]:
    """Callers with each kind of certificate; all of them trust the server's authority."""
    import trustme

    folder = tmp_path_factory.mktemp("callers")
    stranger = trustme.CA().issue_cert("eve@example.com")
    stranger.private_key_and_cert_chain_pem.write_to_path(folder / "stranger.pem")
    assert datetime.now(timezone.utc).year > 2001

    def context(certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=certificates / "ca.pem")
        if certificate is not None:
            made.load_cert_chain(certificate, key)
        return made

    pairs = {name: (certificates / f"{name}.pem", certificates / f"{name}.key") for name in ("client", "expired")}
    return {
        "none": context(), "stranger": context(folder / "stranger.pem"),
        **{name: context(*pair) for name, pair in pairs.items()},
    }  # fmt: skip


def test_tls(serving: Any, certificates: Path, clients: Any, tmp_path: Path) -> None:
    options = f'ssl={{"enabled": True, "certfile": {str(certificates / "server.pem")!r}, "keyfile": "WRONG"}}'
    files = {"BENTOTOOL_SSL_KEYFILE": str(certificates / "server.key")}  # the environment stands above the code
    with serving(tmp_path / "project", SERVICE % options, environment=files) as server:
        assert server.url.startswith("https://")
        assert httpx.post(f"{server.url}/name", json={}, verify=clients["none"]).text == "guarded"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(server.url, verify=ssl.create_default_context())
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http"))
        old = ssl.create_default_context(cafile=certificates / "ca.pem")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url, verify=old)
        assert httpx.get(f"{server.url}/readyz", verify=clients["none"]).status_code == 200, "it is still there"


def test_a_certificate_that_has_expired_is_refused_by_callers(
    serving: Any, certificates: Path, clients: Any, tmp_path: Path
) -> None:
    files = {f"BENTOTOOL_SSL_{kind}": str(certificates / f"expired.{end}") for kind, end in
             (("CERTFILE", "pem"), ("KEYFILE", "key"))}  # fmt: skip
    with serving(tmp_path / "project", SERVICE % "", environment=files) as server:
        with pytest.raises(httpx.ConnectError, match="expired"):
            httpx.get(server.url, verify=clients["none"])
        assert "expired" in server.log, "the one who runs the server is told"


def test_certificates_of_callers(serving: Any, certificates: Path, clients: Any, tmp_path: Path) -> None:
    names = {"CERTFILE": "server.pem", "KEYFILE": "server.key", "CA_CERTS": "ca.pem"}
    files = {f"BENTOTOOL_SSL_{key}": str(certificates / name) for key, name in names.items()}
    with serving(tmp_path / "project", SERVICE % "", environment=files) as server:
        assert httpx.post(f"{server.url}/name", json={}, verify=clients["client"]).text == "guarded"
        for who in ("none", "stranger", "expired"):
            with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
                httpx.get(f"{server.url}/readyz", verify=clients[who])
        assert httpx.post(f"{server.url}/name", json={}, verify=clients["client"]).text == "guarded"
