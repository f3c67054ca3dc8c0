"""A worker that still loads its service when its supervisor dies: nobody else would ever end it.

A worker that serves hears it over its line, and drains.
"""

from __future__ import annotations

import os
import threading

__all__ = ["end_with_parent"]

_LOOK_S = 0.5
_STATUS = 1


def end_with_parent() -> threading.Event:
    """From now on, end this process soon after its parent has ended, until what is returned is set.

    Windows does not tell of parents: there nothing happens.
    """
    parent, hears = os.getppid(), threading.Event()

    def look() -> None:
        while not hears.wait(_LOOK_S):
            if os.getppid() != parent:
                os._exit(_STATUS)

    threading.Thread(target=look, name="parent", daemon=True).start()
    return hears
