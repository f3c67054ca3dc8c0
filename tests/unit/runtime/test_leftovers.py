"""Folders of metric files that killed servers left behind."""

import os
import subprocess
import sys
import tempfile

import pytest

from bentotool.runtime.leftovers import make_metrics_folder, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
MAKE = """
import os, signal
from bentotool.runtime.leftovers import make_metrics_folder
folder = make_metrics_folder()
(folder.path / "counter_0.db").write_text("x")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_killed_servers_folder_is_swept_and_a_living_ones_is_kept(temporary):
    subprocess.run([sys.executable, "-c", MAKE], check=False, timeout=30)
    assert len(list(temporary.iterdir())) == 1
    living = make_metrics_folder()
    assert living.path.stat().st_mode & 0o077 == 0
    sweep()
    assert list(temporary.iterdir()) == [living.path]
    living.remove()
    assert not list(temporary.iterdir())


def test_links_and_what_others_made_are_left_alone(temporary, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "supervisor.lock").write_text("")
    (temporary / "bentotool-metrics-1-link").symlink_to(precious)
    through = temporary / "bentotool-metrics-2-through"
    through.mkdir()
    (through / "supervisor.lock").symlink_to(precious / "supervisor.lock")
    (temporary / "bentotool-metrics-3-new").mkdir()
    (temporary / "bentotool-metrics-mine").mkdir()
    (temporary / "bentotool-metrics-mine" / "supervisor.lock").write_text("")
    before = sorted(os.listdir(temporary))
    sweep()
    assert sorted(os.listdir(temporary)) == before
    assert (precious / "supervisor.lock").exists()
