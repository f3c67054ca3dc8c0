"""Taking up what was left: one taker at a time, whoever it was that died."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.partial import claim_file, claim_folder, draft_of, still_ours

HOLD = """
import sys
from pathlib import Path
from bentotool.oci.partial import claim_file
path, file = claim_file(Path(sys.argv[1]), "part-a")
file.write(b"half")
print(path.name, flush=True)
sys.stdin.read()
"""


def test_a_killed_writers_bytes_are_taken_up_and_a_living_ones_are_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    with holder:
        name = holder.stdout.readline().strip()
        path, file = claim_file(tmp_path, "part-a")
        with file:
            assert path.name != name
            assert file.read() == b""
        path.unlink()
        holder.kill()
    path, file = claim_file(tmp_path, "part-a")
    with file:
        assert file.read() == b"half"
        assert path.name != name
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_other_keys_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part-ab-0123").write_text("other")
    path, file = claim_file(tmp_path, "part-a")
    with file:
        assert file.read() == b""
        assert still_ours(path, file)
        if sys.platform != "win32":
            path.rename(tmp_path / "gone")
            assert not still_ours(path, file)
    assert (tmp_path / "part-ab-0123").read_text() == "other"


def nothing(descriptor: int, operation: int) -> None:
    """Says that it locks."""


def unknown(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can rename an open file")
@pytest.mark.parametrize("flock", [nothing, unknown])
def test_without_locks_two_takers_get_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[[int, int], None]
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "part-a-0").write_text("half")
    first, one = claim_file(tmp_path, "part-a")
    second, two = claim_file(tmp_path, "part-a")  # a rename took it away from the first
    with one, two:
        assert not still_ours(first, one)
        assert still_ours(second, two)
        assert one.read() == two.read() == b"half"
        one.write(b", wrong")
        assert second.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [second]


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can rename an open file")
def test_without_locks_both_writers_of_a_blob_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", nothing)
    layout, content = Layout(tmp_path / "store"), random.Random(1).randbytes(3 << 20)
    digest = sha256_bytes(content)
    for last in (0, 1):  # whoever is first to finish
        with layout.writer(digest) as first:
            first.write(content[: 1 << 20])
            with layout.writer(digest) as second:
                assert second.take_up(len(content), lambda piece: None) == 1 << 20
                writers = (first, second) if last else (second, first)
                for writer in writers:
                    writer.write(content[1 << 20 :])
                    assert writer.commit(digest, len(content)) == (digest, len(content))
                    assert layout.read(digest, len(content)) == content
        assert list(layout.temporary().iterdir()) == []
        layout.blob_path(digest).unlink()


def test_folders(tmp_path: Path) -> None:
    with claim_folder(tmp_path, "fetch-a") as mine:
        (mine / "model.bin.part").write_text("half")
        with claim_folder(tmp_path, "fetch-a") as other:
            assert other != mine
            assert not (other / "model.bin.part").exists()
        for path in (*other.iterdir(), other):
            path.unlink() if path.is_file() else path.rmdir()
    with claim_folder(tmp_path, "fetch-a") as again:
        assert (again / "model.bin.part").read_text() == "half"


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can rename what is in use")
@pytest.mark.parametrize("flock", [nothing, unknown])
def test_without_locks_a_folder_in_use_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[[int, int], None]
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", flock)
    with claim_folder(tmp_path, "fetch-a") as mine:
        (mine / "model.bin.part").write_text("half")
        with claim_folder(tmp_path, "fetch-a") as other:
            assert other != mine
            assert (mine / "model.bin.part").exists()
            shutil.rmtree(other)
    for path in (*mine.iterdir(), mine):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with claim_folder(tmp_path, "fetch-a") as again:
        assert (again / "model.bin.part").read_text() == "half"
    assert list(tmp_path.iterdir()) == [again]


DRAFT = """
import sys
from pathlib import Path
from bentotool.oci.partial import draft_of
with draft_of(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writers_draft_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path: Path) -> None:
    target = tmp_path / "m [1].tar"
    other = tmp_path / ".other.tar.0123456789ab.tmp"
    other.write_bytes(b"somebody's")
    command = [sys.executable, "-c", DRAFT, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "writing\n"
        with draft_of(target) as file:
            file.write(b"first")
        left = {path.name for path in tmp_path.iterdir()} - {target.name, other.name}
        assert len(left) == 1, "the draft of one that lives is gone"
        writer.kill()
    with draft_of(target, buffering=1 << 16) as file:
        file.write(b"second")
    assert target.read_bytes() == b"second"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, other.name}


def test_a_draft_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "m.tar"
    target.write_bytes(b"before")

    def fail() -> None:
        with draft_of(target) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (target.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (b"before", ["m.tar"])
