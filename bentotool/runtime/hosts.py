"""The Host check: a page in a browser must not reach a server on loopback through a name of its own (DNS rebinding)."""

from __future__ import annotations

from typing import Any

__all__ = ["HostCheck", "is_loopback"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_METRICS = "/metrics"
_MEMORY = 256


def is_loopback(address: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    return address in _LOOPBACK or address.startswith("127.")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


class HostCheck:
    """Decides by the Host header. Probes and metrics are exempt: Kubernetes asks by address.

    Args:
        allowed: names that are answered; ``*`` for all. Empty: the default.
        loopback: listening on loopback only, where the default is loopback names.
        probes: paths of the probes, without the service's prefix.
    """

    def __init__(self, allowed: tuple[str, ...], loopback: bool, probes: frozenset[str]) -> None:
        self._exempt = probes | {_METRICS}
        names = allowed or (_LOOPBACK if loopback else ())
        self.active = bool(names) and "*" not in names
        self._names = frozenset(name.lower() for name in names)
        self._known: dict[bytes, bool] = {}

    @staticmethod
    def of(scope: dict[str, Any]) -> str:
        return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")

    def allows(self, scope: dict[str, Any], prefix: str) -> bool:
        """Whether a request is answered."""
        found = [value for name, value in scope["headers"] if name == b"host"]
        if len(found) > 1:  # of which others may believe another one than we
            return False
        return self.knows(found[0] if found else b"") or scope["path"].removeprefix(prefix) in self._exempt

    def knows(self, raw: bytes) -> bool:
        """Whether requests with this header are answered, whatever they ask for."""
        known = self._known.get(raw)
        if known is None:
            known = _name(raw.decode("latin-1")) in self._names
            if len(self._known) < _MEMORY:
                self._known[raw] = known
        return known
