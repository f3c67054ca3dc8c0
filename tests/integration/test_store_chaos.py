"""Fifty processes import, tag, delete, view and collect at once and are killed at random; the store stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bentotool.models.store import ModelStore
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout

PROGRAM = Path(__file__).with_name("store_chaos.py")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_fifty_processes_and_sixty_kills_leave_the_store_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(tmp_path), "20240", "50", "60", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    counts = json.loads(done.stdout)
    assert counts["died"] == 0, "a process ended by itself: " + done.stderr[-2000:]
    assert counts["actions"] > 50
    layout = Layout(tmp_path / "store")
    report = verify_store(layout)
    assert report.faults == ()
    store = ModelStore(layout)
    refs = store.list()
    assert store.refs.damaged == []
    for ref in refs:
        store.verify(store.get(ref.ref))
    collect(layout, grace=0)
    assert verify_store(layout).faults == ()
    assert not list(layout.temporary().iterdir())
    assert {ref.ref for ref in store.list()} == {ref.ref for ref in refs}
    for ref in refs:
        store.refs.delete("models", ref.name, ref.tag)
    collect(layout, grace=0)
    assert not list(layout.blobs.iterdir())
    assert not [path for folder in (layout.root / "views").glob("*") for path in folder.iterdir()]
