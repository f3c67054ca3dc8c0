"""How a worker's process ended, in words."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Causes", "counters"]

_ROOT = Path("/sys/fs/cgroup")


def counters(groups: str, root: Path = _ROOT) -> list[Path]:
    """Where Linux counts how many processes it has ended because memory had run out, the likeliest first.

    For version 2 of control groups that is ``memory.events`` (https://docs.kernel.org/admin-guide/cgroup-v2.html), for
    version 1 ``memory.oom_control``. In a container the root that is seen is often the container's own group.

    Args:
        groups: what ``/proc/self/cgroup`` says, ``ID:CONTROLLERS:PATH`` in each line.
    """
    newer, older = [root / "memory.events"], [root / "memory" / "memory.oom_control"]
    for line in groups.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers and path.strip("/"):
            newer.insert(0, root / path.strip("/") / "memory.events")
        if "memory" in controllers.split(",") and path.strip("/"):
            older.insert(0, root / "memory" / path.strip("/") / "memory.oom_control")
    return newer + older


class Causes:
    """Remembers how many processes were ended for want of memory, so that one more is known by its cause."""

    def __init__(self) -> None:
        groups = ""
        with contextlib.suppress(OSError):
            groups = Path("/proc/self/cgroup").read_text(encoding="ascii", errors="replace")
        self._files = counters(groups)
        self._kills = _kills(self._files)

    def why(self, status: int) -> str:
        """How a process with this exit status ended."""
        if status >= 0:
            return f"exit status {status}"
        name = f"signal {-status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        before, self._kills = self._kills, _kills(self._files)
        short = name == "SIGKILL" and self._kills > before
        return f"killed by {name}{', since memory ran out' if short else ''}"


def _kills(files: Iterable[Path]) -> int:
    for path in files:
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
            if found:
                return int(found[1])
    return 0
