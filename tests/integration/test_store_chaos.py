"""Fifty processes work on one store at once, without locks, and are killed at random; the store stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bentotool.models.store import ModelStore
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout

PROGRAM = Path(__file__).with_name("store_chaos.py")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL"),
    pytest.mark.timeout(150),
]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(folder), "20240", "50", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    report["errors"] = done.stderr[-2000:]
    return report


def test_fifty_processes_and_two_hundred_kills_leave_the_store_whole(tmp_path: Path) -> None:
    report = run(tmp_path, "200", "16")
    assert report["died"] == 0, "a process ended by itself: " + report["errors"]
    assert report["damage"] == []
    assert "fault" not in report["counts"], "a check beside other work saw what is not so"
    assert report["kills"] == 200
    # Of each kind much is done; the rarer ones only lack on a machine that is very busy.
    assert report["counts"].keys() >= {"add", "tag", "delete", "collect", "receive"}
    layout = Layout(tmp_path / "store")
    store = ModelStore(layout)
    refs = store.list()
    assert store.refs.damaged == []
    for ref in refs:
        store.verify(store.get(ref.ref))
    assert "kept" in {ref.name for ref in refs}
    collect(layout, grace=0)
    assert verify_store(layout).faults == ()
    assert not list(layout.temporary().iterdir())
    assert {ref.ref for ref in store.list()} == {ref.ref for ref in refs}
    for kind in ("models", "bentos"):
        for ref in store.refs.list(kind):
            store.refs.delete(kind, ref.name, ref.tag)
    collect(layout, grace=0)
    assert not list(layout.blobs.iterdir())
    assert not [path for folder in (layout.root / "views").glob("*") for path in folder.iterdir()]


@pytest.mark.parametrize("guards", [("renewal", "looking"), ("renaming",)])
def test_it_notices_when_what_keeps_the_store_whole_is_taken_away(tmp_path: Path, guards: tuple[str, ...]) -> None:
    """Two things keep content from being collected while it is named, renewal and looking; either alone is enough."""
    report = run(tmp_path, "320", "40", "--until-damaged", *(word for each in guards for word in ("--without", each)))
    assert report["damage"] != [] or report["counts"].get("fault") or report["died"], report["errors"]
