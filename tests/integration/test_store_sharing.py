"""A store that two users of one group share, and one that nobody else may look into."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.oci.layout import Layout

PROGRAM = Path(__file__).with_name("store_users.py")
ADA, BEN, EVE, GROUP = 54_001, 54_002, 54_003, 54_100
As = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions there are not modes")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, which a test's own is not."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users")
    folder = Path(tempfile.mkdtemp(prefix="sharing-"))
    folder.chmod(0o755)
    (folder / "scratch").mkdir()
    (folder / "scratch").chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def work(place: Path) -> As:
    """``work(ADA, 0o022, "add=m")`` does something as a user of the group; ``group=0`` leaves the group out."""

    def run(uid: int, umask: int, *actions: str, group: int = GROUP, fails: bool = False) -> Any:
        words = [str(uid), str(group), f"{umask:o}", str(place / "store"), *actions]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(PROGRAM), *words],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "TMPDIR": str(place / "scratch")},
        )
        assert (done.returncode != 0) == fails, done.stderr[-2000:]
        return done.stderr if fails else json.loads(done.stdout)

    return run


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_of_a_group_share_a_store(place: Path, work: As, umask: int) -> None:
    """As its folder says (``chgrp GROUP``, ``chmod 2770``), and whatever their umask says."""
    (place / "store").mkdir()
    os.chown(place / "store", 0, GROUP)
    (place / "store").chmod(0o2770)
    work(ADA, umask, "add=one", "add=two", "view=one")
    seen = work(BEN, umask, "verify", "view=one", "view=two", "tag=one:1", "add=one", "add=three", "pull=two")
    assert seen == {"refs": ["one:1", "one:again", "three:1", "two:1", "two:pulled"], "damaged": 0}
    # Each removes what the other made, and keeps what both need.
    assert work(BEN, umask, "delete=one", "collect", "verify", "view=two")["refs"] == ["three:1", "two:1", "two:pulled"]
    assert work(ADA, umask, "delete=three", "collect", "verify", "add=one", "view=two")["refs"][0] == "one:1"
    assert work(ADA, umask, "delete=one", "delete=two", "collect", "verify") == {"refs": [], "damaged": 0}
    layout = Layout(place / "store")
    assert not list(layout.blobs.iterdir())
    assert not list(layout.temporary().iterdir())
    assert not [path for kind in (layout.root / "views").iterdir() for path in kind.iterdir()]
    assert "Permission denied" in work(EVE, umask, "view=two", group=EVE, fails=True)


def test_a_folder_of_a_model_refuses_what_is_written_and_goes_with_the_model(place: Path, work: As) -> None:
    (place / "store").mkdir()
    os.chown(place / "store", ADA, ADA)
    assert work(ADA, 0o022, "add=one", "spoil=one", "verify", "view=one", group=ADA)["damaged"] == 0
    work(ADA, 0o022, "delete=one", "collect", group=ADA)
    assert not list((place / "store" / "views" / "models").iterdir())
    # what a killed process left unsealed is sealed by the next that looks
    work(ADA, 0o022, "add=one", "view=one", group=ADA)
    (view,) = (place / "store" / "views" / "models").iterdir()
    view.chmod(0o755)
    work(ADA, 0o022, "spoil=one", group=ADA)


def test_a_new_store_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Layout(tmp_path / "a" / "store").put(b"weights", "x/y")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "store").stat().st_mode) == 0o700


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    Layout(tmp_path / "store").put(b"weights", "x/y")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o755


def test_a_new_store_in_a_folder_that_a_group_shares_is_shared(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    layout = Layout(tmp_path / "store")
    layout.put(b"weights", "x/y")
    for folder in (layout.root, layout.blobs, layout.temporary()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    assert stat.S_IMODE((layout.root / "oci-layout").stat().st_mode) == 0o644
