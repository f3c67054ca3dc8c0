"""How a worker's process ended, in words."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

__all__ = ["FILES", "Causes"]

FILES = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
"""Where Linux counts, for this server's control group, how many processes it has ended because memory had run out; the
first for version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html), the second for version 1."""


class Causes:
    """Remembers how many processes were ended for want of memory, so that one more is known by its cause."""

    def __init__(self) -> None:
        self._kills = _kills()

    def why(self, status: int) -> str:
        """How a process with this exit status ended."""
        if status >= 0:
            return f"exit status {status}"
        name = f"signal {-status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        before, self._kills = self._kills, _kills()
        short = name == "SIGKILL" and self._kills > before
        return f"killed by {name}{', since memory ran out' if short else ''}"


def _kills() -> int:
    for path in FILES:
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
            if found:
                return int(found[1])
    return 0
