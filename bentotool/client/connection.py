"""What both clients share: settings, which calls may be repeated, what an answer means."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from bentotool.client.errors import CallError, call_error, retry_after
from bentotool.client.payload import Prepared
from bentotool.client.results import Folder, decode_value, takes_tensors
from bentotool.client.routes import Route, Routes
from bentotool.errors import MissingDependencyError, RemoteError, UsageError
from bentotool.sdk.calling import carried

if TYPE_CHECKING:
    import httpx

__all__ = ["Attempts", "Base", "Settings", "check", "load_httpx"]

FAILED = 400
_IDEMPOTENT = ("GET", "HEAD", "PUT", "DELETE")
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0
READY_POLL = 0.05
Verify = bool | str | Path | ssl.SSLContext


def load_httpx() -> Any:
    """The library that speaks HTTP.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingDependencyError("httpx", install="'bentotool[client]'", purpose="calling services") from error
    return httpx


@dataclass(frozen=True)
class Settings:
    """How a client calls.

    Attributes:
        timeout: seconds for one call; the service is told, and gives up then too.
        server_ready_timeout: seconds to wait for the service before the first call; None: `timeout`, 0: not at all.
        retries: how often a call is repeated where that is safe.
        idempotent: every API may be called twice without harm, so calls are repeated like reads are.
    """

    url: str
    token: str | None = None
    timeout: float = 30.0
    server_ready_timeout: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retries: int = 2
    idempotent: bool = False
    media_dir: Path | None = None
    verify: Verify = True
    cert: tuple[str, str] | None = None
    app: Any = None


def make_ssl(settings: Settings) -> ssl.SSLContext | bool:
    verify = settings.verify
    if isinstance(verify, (str, Path)):
        verify = ssl.create_default_context(cafile=str(verify))
    if settings.cert is None:
        return verify
    if isinstance(verify, bool):
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        verify = context
    verify.load_cert_chain(*settings.cert)
    return verify


def client_options(settings: Settings, httpx: Any, *, asynchronous: bool) -> dict[str, Any]:
    """Keyword arguments of ``httpx.Client`` or ``httpx.AsyncClient``.

    Raises:
        UsageError: the address is none, or a certificate cannot be read.
    """
    parts = urlsplit(settings.url)
    headers = {"user-agent": "bentotool", **{name.lower(): value for name, value in settings.headers.items()}}
    if settings.token:
        headers["authorization"] = f"Bearer {settings.token}"
    options: dict[str, Any] = {"headers": headers, "timeout": settings.timeout, "base_url": settings.url}
    if settings.app is not None:
        if not asynchronous:
            raise UsageError("app= needs a loop", hint="use AsyncHTTPClient")
        return {**options, "transport": httpx.ASGITransport(app=settings.app, raise_app_exceptions=False)}
    if parts.scheme in ("file", "unix"):  # BentoML's way of naming a Unix socket
        transport = httpx.AsyncHTTPTransport if asynchronous else httpx.HTTPTransport
        return {**options, "transport": transport(uds=unquote(parts.path)), "base_url": "http://localhost"}
    if parts.scheme == "tcp":
        options["base_url"] = f"http://{parts.netloc}"
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{settings.url!r} is not the address of a service", hint="as http://127.0.0.1:3000")
    try:
        return {**options, "verify": make_ssl(settings)}
    except OSError as error:
        raise UsageError(f"a certificate cannot be read: {error}") from error


class Attempts:
    """Decides whether a call is made again, and when.

    A connection that was refused has sent nothing, so any call is repeated. What was sent is repeated only where doing
    it twice is harmless: after a broken connection, and where the service says with ``Retry-After`` when to come back.

    Args:
        left: repetitions that are allowed.
        harmless: the call may be done twice, and its body can be sent again.
        deadline: when the call has to be done, by `time.monotonic`.
    """

    def __init__(self, left: int, *, harmless: bool, deadline: float) -> None:
        self._left, self._harmless, self._deadline = left, harmless, deadline
        self._wait = _FIRST_WAIT

    def after_error(self, error: Exception, httpx: Any) -> float | None:
        """Seconds until the next attempt; None: give up."""
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return self._next(None)
        broken = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
        return self._next(None) if self._harmless and isinstance(error, broken) else None

    def after_answer(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Seconds until the next attempt; None: this is the answer."""
        wait = retry_after(headers)
        return self._next(wait) if status in (429, 503) and wait is not None and self._harmless else None

    def _next(self, asked: float | None) -> float | None:
        if self._left <= 0:
            return None
        self._left -= 1
        wait = asked if asked is not None else self._wait * random.uniform(0.8, 1.2)  # noqa: S311 - spread, no secret
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        return wait if time.monotonic() + wait < self._deadline else None


def check(name: str, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    """Raises: CallError: the status says so."""
    if status < FAILED:
        return
    import msgspec

    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    raise call_error(name, status, body, headers)


class Base:
    """The part of a client that neither waits nor sends."""

    def __init__(
        self,
        url: str,
        *,
        media_type: str = "application/json",
        service: Any = None,
        server_ready_timeout: float | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        app: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: int = 2,
        idempotent: bool = False,
        media_dir: str | Path | None = None,
        verify: Verify = True,
        cert: tuple[str, str] | None = None,
    ) -> None:
        if media_type != "application/json":
            raise UsageError(f"media_type={media_type!r}: calls are made with JSON, forms and tensors, never pickles")
        if timeout <= 0:
            raise UsageError(f"timeout {timeout} is not a time above 0")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._settings = Settings(
            url=self.url,
            token=token,
            timeout=timeout,
            server_ready_timeout=server_ready_timeout,
            headers=dict(headers or {}),
            retries=retries,
            idempotent=idempotent,
            media_dir=Path(media_dir) if media_dir is not None else None,
            verify=verify,
            cert=cert,
            app=app,
        )
        self._httpx = load_httpx()
        self._folder = Folder(self._settings.media_dir)
        self._routes: Routes | None = None
        self._binary = True
        self._last_word = "no answer"  # of /readyz
        if service is not None:
            from bentotool.client.routes import read_routes

            self._routes = read_routes(service.schema(), self._is_taken)
        self._open()

    def _open(self) -> None:
        """Make what holds the connections. Raises: UsageError: the address is none."""
        raise NotImplementedError

    def _is_taken(self, name: str) -> bool:
        return hasattr(type(self), name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(self._routes.by_attribute if self._routes else ())})

    @property
    def _ready_timeout(self) -> float:
        found = self._settings.server_ready_timeout
        return self.timeout if found is None else found

    def _attempts(self, method: str, prepared: Prepared | None, harmless: bool) -> Attempts:
        return Attempts(
            self._settings.retries,
            harmless=(harmless or method in _IDEMPOTENT or self._settings.idempotent)
            and (prepared is None or prepared.repeatable),
            deadline=time.monotonic() + self.timeout,
        )

    def _accept(self, route: Route) -> dict[str, str]:
        """What to ask for: arrays in binary, where there may be some and they can be read here."""
        if not (self._binary and route.native and takes_tensors(route.output) and find_spec("numpy")):
            return {}
        return {"accept": "application/vnd.bentotool.tensors, */*;q=0.5"}

    def _refused_binary(self, error: CallError, prepared: Prepared) -> bool:
        """Whether a service refused a call because it does not read tensors; it is not sent any from now on."""
        if error.status == 415 and prepared.binary and self._binary:
            self._binary = False
            return True
        return False

    def _deadline(self) -> dict[str, str]:
        """How long the call may take; and, in a service, the id and the trace of the request that it is made for."""
        return {"x-request-timeout-ms": str(max(1, int(self.timeout * 1000))), **carried()}

    def _unreachable(self, error: Exception) -> RemoteError:
        if isinstance(error, self._httpx.TimeoutException):
            return RemoteError(f"{self.url} did not answer within {self.timeout:g} seconds", hint="give timeout=")
        return RemoteError(
            f"{self.url} does not answer: {error or type(error).__name__}", hint="is the service running?"
        )

    def _not_ready(self, seconds: float) -> RemoteError:
        from bentotool.client.errors import typed
        from bentotool.sdk.exceptions import ServiceUnavailable

        message = f"{self.url} is not ready after {seconds:g} seconds: {self._last_word}"
        return typed(ServiceUnavailable)(message, status=503)

    def _value(self, route: Route, response: httpx.Response) -> Any:
        return decode_value(route, response.content, response.headers, self._folder)
