"""The journal: what is not read again, what is, and that nobody can tell the difference by the result."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.build import journal as journals
from bentotool.build import stamps
from bentotool.build.collect import collect
from bentotool.build.journal import Journal
from bentotool.build.room import Room
from bentotool.build.stamps import stamp_at

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Files count as settled after 20 ms; the function waits until they do."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 20_000_000)
    return lambda: time.sleep(0.05)


def seen(folder: Path, before: Journal | None = None) -> Journal:
    journal = Journal()
    collect(folder, before=before, journal=journal)
    return journal


def test_a_file_that_stands_is_not_opened(
    write: Write, quick_clock: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"a.py": "1", "b/c.txt": "2"})
    quick_clock()
    first = seen(folder)
    assert (first.hits, first.misses) == (0, 2)
    (folder / "a.py").write_text("3")
    quick_clock()
    opened = []
    real = journals.open_inside
    monkeypatch.setattr(journals, "open_inside", lambda root, name: opened.append(name) or real(root, name))
    second = seen(folder, first)
    assert (opened, second.hits) == (["a.py"], 1)
    assert first.stands(folder) is None
    standing = second.stands(folder)
    assert standing is not None
    assert (standing.hits, standing.misses, standing.files) == (2, 0, second.files)


def test_a_young_file_is_read_again(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stamp may hide a second change within one tick of the clock."""
    folder = write({"a.py": "1"})
    first = seen(folder)
    stamp = stamp_at(folder / "a.py")
    (folder / "a.py").write_text("2")
    monkeypatch.setattr(journals, "stamp_of", lambda facts: stamp)
    assert seen(folder, first).files != first.files
    assert first.stands(folder) is None


@pytest.mark.skipif(os.name == "nt", reason="no ctime there")
def test_an_mtime_set_back_is_noticed(write: Write, quick_clock: Callable[[], None]) -> None:
    folder = write({"a.py": "1"})
    quick_clock()
    first, facts = seen(folder), (folder / "a.py").stat()
    (folder / "a.py").write_text("2")
    os.utime(folder / "a.py", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert seen(folder, first).files["a.py"][1] != first.files["a.py"][1]


def test_a_journal_stands_after_a_touch_and_falls_with_every_kind_of_change(write: Write) -> None:
    def fresh() -> Path:
        shutil.rmtree(folder)
        return write({"a.py": "1", "lib/b.py": "2", "data/c.bin": "3"})

    folder = write({"a.py": "1"})
    changes: list[Callable[[], object]] = [
        lambda: (folder / "a.py").write_text("9"),
        lambda: (folder / "a.py").unlink(),
        lambda: (folder / "new.py").write_text(""),
        lambda: (folder / "lib" / "new").mkdir(),
        lambda: (folder / "lib" / "b.py").rename(folder / "lib" / "d.py"),
        lambda: shutil.rmtree(folder / "data"),
        lambda: (folder / ".bentoignore").write_text("data/"),
    ]
    for change in changes:
        journal = seen(fresh())
        os.utime(folder / "a.py")
        assert journal.stands(folder) is not None
        change()
        assert journal.stands(folder) is None


def test_links_are_part_of_it(write: Write, tmp_path: Path) -> None:
    folder = write({"a.txt": "1", "b.txt": "1"})
    try:
        (folder / "link.txt").symlink_to("a.txt")
    except OSError:
        pytest.skip("needs links")
    journal = seen(folder)
    assert journal.stands(folder) is not None
    (folder / "link.txt").unlink()
    (folder / "link.txt").symlink_to("b.txt")
    now = journal.stands(folder)
    assert now is None or now.files["link.txt"] != journal.files["link.txt"]
    (folder / "link.txt").unlink()
    (tmp_path / "outside.txt").write_text("1")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    assert journal.stands(folder) is None


names = st.sampled_from(["a.py", "b.txt", "lib/c.py", "lib/d.bin", "x/y/z.txt"])
edits = st.lists(st.tuples(names, st.sampled_from(["1", "2", "long", None])), min_size=1, max_size=8)


@given(steps=st.lists(edits, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_never_changes_the_result(steps: list[list[tuple[str, str | None]]], tmp_path: Path) -> None:
    folder, before = tmp_path / "project", None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for step in steps:
        for name, content in step:
            path = folder / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        journal = Journal()
        assert collect(folder, before=before, journal=journal) == collect(folder)
        standing = before.stands(folder) if before else None
        if standing is not None and before is not None:
            assert {n: e[1] for n, e in standing.files.items()} == {n: e[1] for n, e in journal.files.items()}
        before = Journal.from_dict(
            journal.to_dict() | {"files": {n: [list(s), d, t] for n, (s, d, t) in journal.files.items()}}
        )


def test_a_room_forgets_what_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path)
    assert Room(tmp_path, writing=False).read("x") is None
    Room(tmp_path, writing=False).write("x", {"a": 1})
    assert not list(tmp_path.iterdir())
    room.write("x", {"a": 1})
    assert room.read("x") == {"a": 1, "format": 1}
    assert Room(tmp_path).key("k", 1) == room.key("k", 1) != Room(tmp_path / "other").key("k", 1)
    whole = (room.folder / "x").read_bytes()
    for damage in (b"", whole[:-1], whole.replace(b"1", b"2", 1), b"\0" * 100, b"[" * 100_000):
        (room.folder / "x").write_bytes(damage)
        assert room.read("x") is None
    old = time.time() - 100 * 86_400
    os.utime(room.folder / "x", (old, old))
    room.tidy()
    assert [path.name.partition("-")[0] for path in room.folder.iterdir()] == ["salt"]

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("bentotool.build.room.write_atomic", refuse)
    room.write("y", {})
    assert room.read("y") is None
