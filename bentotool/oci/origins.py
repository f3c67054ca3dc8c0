"""Which hosts a registry's reply may send us to, and what we carry there.

The registry the user named is trusted, private network or not. Hosts that its replies name (``Location``, redirects,
the token ``realm``) are judged: no credentials for them, no step from HTTPS down to HTTP, no user data in the URL, and
no address inside the machine or its networks when the registry itself is on the public network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bentotool.errors import UnsafeError
from bentotool.oci.reference import DOCKER_HUB

__all__ = ["Origin", "check_reachable", "home_of", "is_internal", "origin_of"]

_HUB_HOST = "registry-1.docker.io"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# The standard library's own notion of "private" differs between Python releases, hence a list of our own.
_INTERNAL_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_INTERNAL_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("::/127", "fc00::/7", "fe80::/10", "fec0::/10", "2001::/32", "64:ff9b:1::/48", "ff00::/8")
)
# Where clouds tell a machine its credentials: an address of this one link, of no use to anybody as a redirect.
_METADATA_4 = (ipaddress.IPv4Network("169.254.0.0/16"),)
_METADATA_6 = (ipaddress.IPv6Network("fe80::/10"), ipaddress.IPv6Network("fd00:ec2::254/128"))
# Prefixes that carry an IPv4 address: (network, how far the address stands from the right, in bits).
_EMBEDDED_4 = tuple(
    (ipaddress.IPv6Network(text), shift)
    for text, shift in (("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
)


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: credentials given to one origin are never sent to another."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def origin_of(url: str) -> Origin:
    """The origin of a URL that a reply named.

    Raises:
        UnsafeError: for schemes other than HTTP and HTTPS, user data in the URL, or a malformed host or port.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnsafeError(f"the registry named an invalid address {url[:200]!r}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnsafeError(f"the registry named {url[:200]!r}, which is not an HTTP address")
    if parts.username is not None or parts.password is not None or "\\" in parts.netloc:
        raise UnsafeError("the registry named an address with a user name in it")
    return Origin(parts.scheme, parts.hostname.lower(), port or (443 if parts.scheme == "https" else 80))


def is_internal(address: str) -> bool:
    """Whether an IP address is this machine's or a local network's, IPv4 inside IPv6 included."""
    return _lies_in(address, _INTERNAL_4, _INTERNAL_6)


def _is_metadata(address: str) -> bool:
    return _lies_in(address, _METADATA_4, _METADATA_6)


def _lies_in(
    address: str, networks_4: Iterable[ipaddress.IPv4Network], networks_6: Iterable[ipaddress.IPv6Network]
) -> bool:
    parsed: _Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return any(parsed in network for network in networks_4)
    if any(parsed in network for network in networks_6):
        return True
    for network, shift in _EMBEDDED_4:
        if parsed in network:
            embedded = ipaddress.IPv4Address((int(parsed) >> shift) & 0xFFFFFFFF)
            return any(embedded in inner for inner in networks_4)
    return False


def check_reachable(home: Origin, target: Origin) -> tuple[str, ...]:
    """Judge an origin that a reply of ``home`` named.

    Returns:
        the addresses that were judged. Another look-up may give others, so these are the ones to connect to. None for a
        host that needs no judgement, and where the name is not known here.

    Raises:
        UnsafeError: when it is reached without TLS although ``home`` is not, when it is an internal address although
            ``home`` is a public one, or when it is another host's link-local or metadata address, whatever ``home`` is.
    """
    if home.scheme == "https" and target.scheme != "https":
        raise UnsafeError(f"{home.host} sent us to {target}, which is not encrypted")
    if target.host == home.host:
        return ()
    addresses = _resolve(target)
    if any(map(_is_metadata, addresses)):
        raise UnsafeError(f"{home.host} sent us to {target}, a link-local address")
    if any(map(is_internal, addresses)) and not any(map(is_internal, _resolve(home))):
        raise UnsafeError(f"{home.host} sent us to {target}, an internal address")
    return tuple(addresses)


def _resolve(origin: Origin) -> list[str]:
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except OSError:
        return []  # behind a proxy names may not resolve here; without one the connection itself fails
    return [str(entry[4][0]) for entry in found]


def home_of(registry: str, scheme: str) -> Origin:
    """Where a registry is that the user names ``host[:port]``; Docker Hub goes by two names."""
    parts = urlsplit(f"//{_HUB_HOST if registry == DOCKER_HUB else registry}")
    try:
        port = parts.port
    except ValueError:
        port = None
    return Origin(scheme, (parts.hostname or registry).lower(), port or (443 if scheme == "https" else 80))
