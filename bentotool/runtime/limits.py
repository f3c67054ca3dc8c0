"""What is refused at once, so that what was taken can be answered."""

from __future__ import annotations

import math

from bentotool.sdk.exceptions import ServiceUnavailable, TooManyRequests

__all__ = ["Admission", "BodyRoom", "share"]

_UNKNOWN = 1024 * 1024
"""Bytes that are counted for a body whose length the request does not say."""


def share(limit: int | None, workers: int) -> int | None:
    """What of a service's limit is one worker's."""
    return None if limit is None else math.ceil(limit / workers)


class BodyRoom:
    """How many bytes of request bodies may be held at a time, waiting or being worked on.

    Args:
        limit: bytes, of this worker.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, length: bytes | None) -> int:
        """Count a body before it is read; give what was counted.

        Args:
            length: as the request says it; None where it does not.

        Raises:
            ServiceUnavailable: there is no room for it now.
        """
        size = _UNKNOWN if length is None else int(length)
        if self.held and self.held + size > self.limit:  # one body alone always fits: its own limit holds
            raise ServiceUnavailable("the service is overloaded: too many bytes of requests wait", retry_after=1.0)
        self.held += size
        return size

    def give_back(self, size: int) -> None:
        self.held -= size


class Admission:
    """Refuses requests above a number in flight.

    Args:
        limit: of this worker; None for none.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

    def check(self, in_flight: int) -> None:
        """Raises: TooManyRequests."""
        if self.limit is not None and in_flight > self.limit:
            raise TooManyRequests("too many requests at the same time", retry_after=1.0)
