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
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

from bentotool.oci.origins import Origin, check_reachable

if TYPE_CHECKING:
    _Base = HTTPConnection
else:
    _Base = object

__all__ = ["PacedAdapter", "Timeouts"]

_SENT_AT_ONCE = 256 << 10  # the system's limit on one send is a limit on all of it


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


class _Watched(io.RawIOBase):
    """The receiving side of a socket, which gives up on a peer that trickles."""

    def __init__(self, raw: io.RawIOBase, sock: Any, limits: Timeouts) -> None:
        self._raw = raw
        self._sock = sock
        self._limits = limits
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
        self._sock.settimeout(self._left)
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

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._watched = _Watched(self.fp.detach(), sock, self.limits)
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        super().begin()
        self._watched.renew()


class _Paced(_Base):
    """Sends in small steps, each with the limit of a read; urllib3 gives all of a body the limit of a connect."""

    limits: ClassVar[Timeouts]
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
                super().send(view[start : start + _SENT_AT_ONCE])
        except (ConnectionResetError, ConnectionAbortedError) as error:
            # urllib3 takes this as a peer that answered before it had read all, and looks for that answer.
            raise BrokenPipeError(*error.args) from error


class PacedAdapter(HTTPAdapter):
    """requests' adapter over such connections; those to a SOCKS proxy have urllib3's own limits.

    Args:
        limits: of all connections.
        home: the host that the user named, which is trusted; every other is judged as one that it named.
        options: those of requests' own.
    """

    def __init__(self, limits: Timeouts, home: Origin, **options: Any) -> None:
        answer = type("Answer", (_Answer,), {"limits": limits})
        attributes = {"limits": limits, "response_class": answer, "home": home}
        self._pools = {
            "http": _pool(
                HTTPConnectionPool, type("Plain", (_Paced, HTTPConnection), {**attributes, "scheme": "http"})
            ),
            "https": _pool(
                HTTPSConnectionPool, type("Secure", (_Paced, HTTPSConnection), {**attributes, "scheme": "https"})
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
