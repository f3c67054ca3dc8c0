"""Keeping what long work has finished from being collected as garbage before it gets its name."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout

__all__ = ["Renewal"]


class Renewal:
    """Renews the blobs of one import or pull from time to time. Safe to use from several threads.

    Args:
        every: seconds between two renewals; far less than the grace period of a collection, which is an hour.
    """

    def __init__(self, layout: Layout, every: float = 600.0) -> None:
        self._layout = layout
        self._every = every
        self._finished: list[str] = []
        self._next = time.monotonic() + every
        self._lock = threading.Lock()

    def finished(self, digest: str) -> None:
        """Note a blob that is in the layout and has no name yet."""
        with self._lock:
            self._finished.append(digest)

    def tick(self) -> None:
        """Renew what is finished, when it is time to; called whenever the work moves on."""
        if time.monotonic() < self._next:
            return
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self._every
            digests = tuple(self._finished)
        for digest in digests:
            self._layout.renew(digest)
