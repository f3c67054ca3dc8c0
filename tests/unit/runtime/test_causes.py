"""How a worker's process ended, in words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bentotool.runtime import causes
from bentotool.runtime.causes import Causes, counters

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("0::/system.slice/shop.service\n", "system.slice/shop.service/memory.events"),
        ("0::/\n", "memory.events"),
        ("5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n", "memory.events memory/a/b/memory.oom_control"),
        ("4:memory:/\n", "memory.events memory/memory.oom_control"),
        ("", "memory.events memory/memory.oom_control"),
        ("nonsense\n:\n\n", "memory.events memory/memory.oom_control"),
    ],
)
def test_where_the_kernel_counts(groups: str, expected: str) -> None:
    found = [path.relative_to(ROOT).as_posix() for path in counters(groups)]
    wanted = expected.split()
    assert [path for path in found if path in wanted] == wanted
    assert found[0] == wanted[0]


def test_one_more_kill_is_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "memory.events"
    monkeypatch.setattr(causes, "counters", lambda _groups: [tmp_path / "absent", count])
    count.write_text("oom 3\noom_kill 3\n")
    found = Causes()
    assert found.why(-signal.SIGTERM) == "killed by SIGTERM"
    assert found.why(-9) == "killed by SIGKILL"
    count.write_text("oom 4\noom_kill 4\n")
    assert found.why(-9) == "killed by SIGKILL, since memory ran out"
    assert found.why(-9) == "killed by SIGKILL"
    assert found.why(7) == "exit status 7"
    assert found.why(-250) == "killed by signal 250"
