"""What is refused at once, so that what was taken can be answered."""

from __future__ import annotations

from bentotool.sdk.exceptions import TooManyRequests

__all__ = ["Admission"]


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
