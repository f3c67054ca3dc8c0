"""Headers of answers."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BODILESS", "Pair", "merged", "replaced", "without_length"]

Pair = tuple[bytes, bytes]
BODILESS = (204, 304)
"""Statuses of answers that end with their headers: what follows would be taken for the next answer."""
_FIXED = frozenset((b"content-length", b"transfer-encoding"))
_REPEATED = b"set-cookie"


def merged(start: list[Pair], extra: Iterable[Pair]) -> list[Pair]:
    """The server's headers with the service's: the latter win, but for those that say where the body ends."""
    given = [(name, value) for name, value in extra if name not in _FIXED]
    return replaced(start, given) if given else start


def replaced(start: list[Pair], given: list[Pair]) -> list[Pair]:
    """All of the latter, and of the former what the latter do not name. Cookies stand beside one another."""
    names = {name for name, _ in given if name != _REPEATED}
    return [(name, value) for name, value in start if name not in names] + given


def without_length(headers: list[Pair]) -> list[Pair]:
    """The headers of an answer that has no body."""
    return [(name, value) for name, value in headers if name not in (b"content-length", b"content-type")]
