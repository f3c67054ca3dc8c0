"""HTTP to one registry: time limits, retries, authentication, and what may cross to another host.

Every request of the registry client passes through :class:`Transport`; nothing else in this package opens a connection.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urldefrag, urljoin

import requests
import urllib3.exceptions

from bentotool.errors import AuthenticationError, BentotoolError, NotFoundError, RemoteError, UnsafeError
from bentotool.oci.auth import TOKEN_LIMIT, Authenticator, Scope
from bentotool.oci.connections import PacedAdapter, Timeouts
from bentotool.oci.failures import broken, tls_failure, unanswered
from bentotool.oci.origins import Origin, check_reachable, origin_of
from bentotool.oci.reference import hub_hint
from bentotool.oci.retry import RETRIED_STATUSES, RetryPolicy, TransientError, retry_after_seconds
from bentotool.oci.tls import Tls

__all__ = ["BodyFactory", "Timeouts", "Transport", "read_body"]

BodyFactory = Callable[[], Any]
"""Makes a fresh request body for every try: bytes, or an object with ``__len__``, ``__iter__`` and ``read``."""

_MAX_REDIRECTS = 5
_SERVER_ERROR = 500
_ERROR_LIMIT = 16 << 10
_READ = 1 << 20
_TRANSFER_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class _Authorization(requests.auth.AuthBase):
    """Sets the header itself. Given for every request, so that requests never adds credentials from ``.netrc``."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


class Transport:
    """Requests to one registry.

    Args:
        session: carries connections; its cookies must be off.
        registry: the name the user knows it by.
        home: where it is.
        authenticator: answers challenges of ``home`` alone. Set after construction: it needs :meth:`fetch_token`.
        tls: certificates; a client's own is shown to ``home`` alone.
    """

    authenticator: Authenticator

    def __init__(
        self,
        session: requests.Session,
        registry: str,
        home: Origin,
        *,
        tls: Tls | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        stop: threading.Event | None = None,
        connections: int = 8,
    ) -> None:
        self._session = session
        self._registry = registry
        self._home = home
        self._tls = tls or Tls()
        self.timeouts = timeouts or Timeouts()
        self.retry = retry or RetryPolicy()
        self.stop = stop or threading.Event()
        self._answered = False
        if not self._tls.verify:  # the user said so, and was told what it means
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        adapter = PacedAdapter(
            self.timeouts, home, stop=self.stop, pool_connections=4, pool_maxsize=connections, max_retries=0
        )
        session.mount("http://", adapter)
        session.mount("https://", adapter)

    def request(
        self,
        method: str,
        url: str,
        scope: Scope,
        *,
        headers: Mapping[str, str] | None = None,
        body: BodyFactory | None = None,
        accept: tuple[int, ...] = (200,),
        retry: bool = True,
    ) -> requests.Response:
        """Make a request and return its answer with the body unread; close it, or read it to its end.

        Args:
            accept: statuses handed to the caller; any other is an error.
            retry: False when the caller has a larger unit to try again, for which it needs :class:`TransientError`.

        Raises:
            NotFoundError, AuthenticationError, RemoteError, UnsafeError: by kind of failure.
            TransientError: only with ``retry=False``.
        """

        def attempt() -> requests.Response:
            response = self._follow(method, url, scope, dict(headers or {}), body)
            if response.status_code in accept:
                return response
            with response:
                raise self._failure(method, url, response)

        return self.retry.run(attempt, self.stop) if retry else attempt()

    def _follow(
        self, method: str, url: str, scope: Scope, headers: dict[str, str], body: BodyFactory | None
    ) -> requests.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._authenticated(method, url, scope, headers, body)
            location = response.headers.get("Location", "")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            if method not in ("GET", "HEAD") and response.status_code not in (307, 308):
                raise RemoteError(f"registry {self._registry} answered {method} with a redirect to another page")
            url = self.resolve(location, url)
        raise RemoteError(f"registry {self._registry} redirects in a circle")

    def resolve(self, location: str, base: str, *, elsewhere: bool = True) -> str:
        """The URL a reply named, judged by :mod:`bentotool.oci.origins`.

        Args:
            elsewhere: whether it may be of another host: content may lie there, what the registry itself knows may not.
        """
        try:
            url = urldefrag(urljoin(base, location)).url
        except ValueError:
            raise UnsafeError(f"the registry named an invalid address {location[:200]!r}") from None
        target = origin_of(url)
        if target != self._home:
            if not elsewhere:
                raise UnsafeError(f"registry {self._registry} sent us to {target}, another host, for its own list")
            check_reachable(self._home, target)
        return url

    def _authenticated(
        self, method: str, url: str, scope: Scope, headers: dict[str, str], body: BodyFactory | None
    ) -> requests.Response:
        if origin_of(url) != self._home:
            return self._send(method, url, headers, body, None)
        value = self.authenticator.value_for(scope)
        for _ in range(2):
            response = self._send(method, url, headers, body, value)
            if response.status_code != requests.codes.unauthorized:
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            value = self.authenticator.answer(challenge, scope, value)
        return self._send(method, url, headers, body, value)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: BodyFactory | None, authorization: str | None
    ) -> requests.Response:
        if self.stop.is_set():
            raise RemoteError("the transfer was stopped")
        target = origin_of(url)
        with self.failures("" if target == self._home else f"storage {target}"):
            response = self._session.request(
                method,
                url,
                data=body() if body else None,
                headers={"Accept-Encoding": "identity", "User-Agent": "bentotool", **headers},
                auth=_Authorization(authorization),
                timeout=(self.timeouts.connect, self.timeouts.read),
                allow_redirects=False,
                stream=True,
                verify=self._tls.verification,
                cert=self._tls.certificate if target == self._home else None,
            )
        self._answered = True
        return response

    @contextlib.contextmanager
    def failures(self, where: str = "") -> Iterator[None]:
        """Turn the errors of the HTTP libraries into ours; those that may pass become :class:`TransientError`.

        Args:
            where: what was asked, where that is not the registry itself.
        """
        try:
            yield
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.InvalidHeader):
            raise RemoteError(f"registry {self._registry} is not a valid address") from None
        except _TRANSFER_ERRORS as error:
            if self.stop.is_set():
                raise RemoteError("the transfer was stopped") from None
            if (failure := tls_failure(where or f"registry {self._registry}", error)) is not None:
                raise failure from None
            # A registry that never answered is a typing error or an outage: say so at once.
            if not self._answered:
                failure = unanswered(f"registry {self._registry}", error)
                failure.details["registry"] = self._registry
                failure.hint = hub_hint(self._registry, str(failure.hint))
                raise failure from None
            raise TransientError(self._broken(where, error)) from error

    def _broken(self, where: str, error: BaseException) -> RemoteError:
        if where:
            return unanswered(where, error)
        return broken(f"the transfer with registry {self._registry}", error, self.timeouts.read)

    def _failure(self, method: str, url: str, response: requests.Response) -> BaseException:
        status, body = response.status_code, _start_of(response)
        told = _told(body)
        error: BentotoolError
        if status == requests.codes.bad_request and self._speaks_tls(method, body):
            error = RemoteError(f"registry {self._registry} speaks TLS, and was asked without", hint="use --tls")
        elif status in (401, 403):
            hint = hub_hint(self._registry, f"bentotool login {self._registry}")
            error = AuthenticationError(f"registry {self._registry} refused access{told}", hint=hint)
        elif status == requests.codes.not_found:
            error = NotFoundError(f"registry {self._registry} does not have it{told}")
        elif status == requests.codes.request_entity_too_large:
            message = f"registry {self._registry} refuses content of this size{told}"
            error = RemoteError(message, hint="ask its operator for the limit")
        elif status == requests.codes.method_not_allowed and method in ("POST", "PUT", "PATCH"):
            message = f"registry {self._registry} takes no uploads: it allows no {method}{told}"
            error = RemoteError(
                message, hint="it may be read-only or a mirror: push to another one, or ask its operator"
            )
        else:
            faulty = "the registry has a fault, of which its log says more: try later, or tell its operator"
            error = RemoteError(
                f"registry {self._registry} answered {method} with status {status}{told}",
                hint=faulty if status >= _SERVER_ERROR else None,
            )
        error.details.update(registry=self._registry, status=status)
        # Two clients that put the same manifest at once can make docker-registry report a mismatch that is none.
        raced = status == requests.codes.bad_request and method == "PUT" and "/manifests/" in url
        if raced or status in RETRIED_STATUSES:
            return TransientError(error, retry_after_seconds(response.headers.get("Retry-After")))
        return error

    def _speaks_tls(self, method: str, body: bytes) -> bool:
        """Whether a registry that was asked without TLS said that it wants it; an answer to HEAD cannot say so."""
        if self._home.scheme != "http":
            return False
        if method == "HEAD":
            try:
                with self._send("GET", f"{self._home}/v2/", {}, None, None) as response:
                    body = _start_of(response) if response.status_code == requests.codes.bad_request else b""
            except (BentotoolError, TransientError):
                return False
        return b"HTTPS" in body

    def fetch_token(
        self, method: str, url: str, headers: Mapping[str, str], parameters: list[tuple[str, str]]
    ) -> bytes:
        """Ask a token service; see :data:`bentotool.oci.auth.TokenFetcher`."""
        target = origin_of(url)
        if target != self._home:
            check_reachable(self._home, target)

        def attempt() -> bytes:
            with self.failures(f"token service {target}"):
                response = self._session.request(
                    method,
                    url,
                    params=parameters if method == "GET" else None,
                    data=parameters if method == "POST" else None,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "bentotool"},
                    auth=_Authorization(headers.get("Authorization")),
                    timeout=(self.timeouts.connect, self.timeouts.read),
                    allow_redirects=False,
                    stream=True,
                    verify=self._tls.verification,
                    cert=self._tls.certificate if target == self._home else None,
                )
            with response:
                if response.status_code == requests.codes.ok:
                    return read_body(self, response, TOKEN_LIMIT, "the answer of the token service")
                raise self._token_failure(target, response)

        return self.retry.run(attempt, self.stop)

    def _token_failure(self, target: Origin, response: requests.Response) -> BaseException:
        status = response.status_code
        if status in RETRIED_STATUSES:
            error = RemoteError(f"token service {target} answered with status {status}")
            return TransientError(error, retry_after_seconds(response.headers.get("Retry-After")))
        hint = f"bentotool login {self._registry}"
        message = f"token service {target} refused the log-in to registry {self._registry} ({status})"
        return AuthenticationError(message, hint=hint)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it arrives, bounded in time but not in length.

        Raises:
            TransientError: when the connection breaks or trickles.
        """
        while True:
            if self.stop.is_set():
                raise RemoteError("the transfer was stopped")
            with self.failures():
                data = response.raw.read1(_READ, decode_content=False)
            if not data:
                return
            yield data


def read_body(transport: Transport, response: requests.Response, limit: int, what: str) -> bytes:
    """A small body, whole.

    Raises:
        UnsafeError: when it is longer than ``limit`` bytes.
        TransientError: when the connection breaks.
    """
    parts, size = [], 0
    for data in transport.chunks(response):
        parts.append(data)
        size += len(data)
        if size > limit:
            raise UnsafeError(f"{what} has more than the {limit} bytes allowed")
    return b"".join(parts)


def _start_of(response: requests.Response) -> bytes:
    try:
        # One read: an error text is not worth waiting for a second packet.
        return bytes(response.raw.read1(_ERROR_LIMIT, decode_content=False))
    except _TRANSFER_ERRORS:
        return b""


def _told(body: bytes) -> str:
    """What the registry says about a failure (distribution-spec, error codes), fit for one line of a terminal."""
    try:
        errors = json.loads(body)["errors"]
        text = str(errors[0].get("message") or errors[0].get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    text = "".join(character for character in text if character.isprintable())[:200]
    return f": {text}" if text else ""
