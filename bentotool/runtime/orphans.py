"""Processes that nobody waits for any more.

In a container the supervisor is process 1, to which the children of processes that have ended fall. What ends among
them stays in the table of processes until it is waited for; no ``tini`` is there to do it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection

__all__ = ["reap"]


def reap(own: Collection[int]) -> None:
    """Wait for what has ended, where this is process 1.

    Args:
        own: ids of the processes that somebody here waits for; what ended behind one of these comes after it.
    """
    if sys.platform == "win32" or os.getpid() != 1:
        return
    with contextlib.suppress(ChildProcessError):  # there are none
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in own:
            os.waitpid(found.si_pid, os.WNOHANG)
