"""Connections on which no wait is without an end, and which lead nowhere but to the addresses that were judged.

A limit per read, which is all that the HTTP libraries have, never ends where a single byte comes just before each
limit: in the head of an answer, between the pieces of a chunked body, or in a body. Here every window of waiting must
bring a minimum of bytes, at the lowest level, so that the rule holds for all of these; and it holds for what is sent.

A host that a reply named is judged by its addresses (:mod:`bentotool.oci.origins`). Its owner may answer the next
look-up with others, so a connection looks the name up, judges what it finds and goes there and nowhere else; TLS and
the ``Host`` header keep the name.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import wait_for_read, wait_for_write
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from bentotool.oci.origins import Origin, check_reachable

if TYPE_CHECKING:
    _Base = HTTPConnection
else:
    _Base = object

__all__ = ["PacedAdapter", "Timeouts"]

_SENT_AT_ONCE = 256 << 10  # the system's limit on one send is a limit on all of it
_LOOK = 0.2  # seconds between two looks at whether everything is to end


@dataclass(frozen=True)
class Timeouts:
    """The limits on every wait.

    Attributes:
        connect: seconds for a connection, TLS included.
        read: seconds to wait, in all, for the head of an answer, and for each further ``minimum`` bytes of its body;
            and to wait until 256 KiB were taken of what is sent.
        minimum: bytes. What the program itself spends between two reads does not count.
    """

    connect: float = 10
    read: float = 120
    minimum: int = 64 << 10


def _wait(ready: Callable[..., bool], sock: Any, seconds: float, stop: threading.Event) -> float:
    """Wait for a socket.

    Returns:
        the seconds that are left.

    Raises:
        TimeoutError: when none are.
        ConnectionAbortedError: when ``stop`` is set.
    """
    until = time.monotonic() + seconds
    while not ready(sock, max(0.0, min(_LOOK, until - time.monotonic()))):
        if stop.is_set():
            raise ConnectionAbortedError("stopped")
        if time.monotonic() >= until:
            raise TimeoutError("too slow")
    return until - time.monotonic()


def _readable(sock: Any, seconds: float) -> bool:
    # What TLS has decrypted already, the system does not know of; of what a proxy's TLS holds, nobody tells.
    if not isinstance(sock, socket.socket) or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
        return True
    return wait_for_read(sock, seconds)


class _Watched(io.RawIOBase):
    """The receiving side of a socket, which gives up on a peer that trickles."""

    def __init__(self, raw: io.RawIOBase, sock: Any, limits: Timeouts, stop: threading.Event) -> None:
        self._raw = raw
        self._sock = sock
        self._limits = limits
        self._stop = stop
        self.renew()

    def renew(self) -> None:
        """Begin a new window."""
        self._left = self._limits.read
        self._got = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        if self._left <= 0:
            raise TimeoutError("too slow")
        self._left = _wait(_readable, self._sock, self._left, self._stop)
        self._sock.settimeout(max(self._left, 0.001))
        started = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._left -= time.monotonic() - started
        self._got += count or 0
        if self._got >= self._limits.minimum:
            self.renew()
        return count

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class _Answer(http.client.HTTPResponse):
    limits: ClassVar[Timeouts]
    stop: ClassVar[threading.Event]

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._watched = _Watched(self.fp.detach(), sock, self.limits, self.stop)
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        super().begin()
        self._watched.renew()


class _Paced(_Base):
    """Sends in small steps, each with the limit of a read; urllib3 gives all of a body the limit of a connect."""

    limits: ClassVar[Timeouts]
    stop: ClassVar[threading.Event]
    home: ClassVar[Origin]
    scheme: ClassVar[str]

    def _new_conn(self) -> socket.socket:
        host = self.host.strip("[]").lower()
        if self.proxy is not None or host == self.home.host:  # a proxy looks names up itself
            return super()._new_conn()
        addresses = check_reachable(self.home, Origin(self.scheme, host, self.port))
        failure: OSError = socket.gaierror(f"{host} is not a known name")
        for address in addresses:
            try:
                return create_connection(
                    (address, self.port),
                    self.timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"{host} did not answer in time") from failure
        raise NewConnectionError(self, f"{host} cannot be reached: {failure}") from failure

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self.limits.read)
        view = memoryview(data)
        try:
            for start in range(0, len(view), _SENT_AT_ONCE):
                _wait(wait_for_write, self.sock, self.limits.read, self.stop)
                super().send(view[start : start + _SENT_AT_ONCE])
        except (ConnectionResetError, ConnectionAbortedError) as error:
            # urllib3 takes this as a peer that answered before it had read all, and looks for that answer.
            raise BrokenPipeError(*error.args) from error


class _Secure(_Paced):
    """Trusts the system's authorities too: requests takes those of certifi alone, where no company's own one is."""

    ca_certs: str | None
    ssl_context: ssl.SSLContext | None

    def connect(self) -> None:
        if self.ssl_context is None and self.ca_certs == DEFAULT_CA_BUNDLE_PATH:
            # One for each connection: a certificate of the client, which not all may see, is kept in it.
            context = create_urllib3_context()
            context.load_default_certs()
            self.ssl_context = context
        super().connect()


class PacedAdapter(HTTPAdapter):
    """requests' adapter over such connections; those to a SOCKS proxy have urllib3's own limits.

    Args:
        limits: of all connections.
        home: the host that the user named, which is trusted; every other is judged as one that it named.
        stop: ends every wait within a moment when set.
        options: those of requests' own.
    """

    def __init__(self, limits: Timeouts, home: Origin, *, stop: threading.Event | None = None, **options: Any) -> None:
        shared = {"limits": limits, "stop": stop or threading.Event()}
        attributes = {**shared, "response_class": type("Answer", (_Answer,), shared), "home": home}
        self._pools = {
            "http": _pool(
                HTTPConnectionPool, type("Plain", (_Paced, HTTPConnection), {**attributes, "scheme": "http"})
            ),
            "https": _pool(
                HTTPSConnectionPool, type("Secure", (_Secure, HTTPSConnection), {**attributes, "scheme": "https"})
            ),
        }
        super().__init__(**options)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _pool(base: type[HTTPConnectionPool], connection: type) -> type[HTTPConnectionPool]:
    return type("Pool", (base,), {"ConnectionCls": connection})
