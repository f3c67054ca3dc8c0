"""A store after ``kill -9`` at each place where it could hit: whole, nothing lost, and the work can be done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("store_crashes.py")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("work", ["import", "tag", "delete", "gc", "repair", "view", "import-archive", "attach"])
def test_work_killed_before_each_change(tmp_path: Path, work: str) -> None:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(tmp_path), work]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["troubles"] == []
    assert report["places"] >= 4
