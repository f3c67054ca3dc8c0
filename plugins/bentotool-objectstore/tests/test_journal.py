"""What is believed of an earlier transfer, whatever its notes say."""

from __future__ import annotations

import tempfile
import zlib
from datetime import datetime, timezone
from pathlib import Path

from bentotool_objectstore.journal import Journal, Span, gaps
from bentotool_objectstore.listing import RemoteObject
from hypothesis import given
from hypothesis import strategies as st

CONTENT = bytes(range(200))
ITEM = RemoteObject("k/m", "m", len(CONTENT), "tag", datetime(2026, 1, 1, tzinfo=timezone.utc))


def written(span: tuple[int, int]) -> Span:
    start, length = span
    return Span(start, length, zlib.crc32(CONTENT[start : start + length]))


SPANS = st.lists(st.tuples(st.integers(0, 199), st.integers(1, 60)).filter(lambda span: sum(span) <= 200))


@given(SPANS, st.binary(max_size=200), st.integers(1, 70))
def test_present_and_missing_make_the_whole(spans: list[tuple[int, int]], noise: bytes, longest: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, notes = Path(folder, "m"), Path(folder, "journal")
        path.write_bytes(CONTENT)
        journal = Journal(notes)
        for span in spans:
            journal.add(ITEM, written(span))
        journal.close()
        notes.write_bytes(notes.read_bytes() + noise)
        journal = Journal(notes)
        present = journal.present(ITEM, path)
        journal.close()
    covered = [at for span in present for at in range(span.start, span.stop)]
    missing = gaps(present, ITEM.size, longest)
    covered += [at for start, stop in missing for at in range(start, stop)]
    assert sorted(covered) == list(range(200))
    assert all(stop - start <= longest for start, stop in missing)


@given(st.integers(0, 199))
def test_a_span_whose_bytes_changed_is_missing(at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, notes = Path(folder, "m"), Path(folder, "journal")
        journal = Journal(notes)
        journal.add(ITEM, written((0, 100)))
        journal.add(ITEM, written((100, 100)))
        journal.close()
        path.write_bytes(CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :])
        journal = Journal(notes)
        present = journal.present(ITEM, path)
        journal.close()
    assert [span.start for span in present] == [100 if at < 100 else 0]


def test_another_version_and_no_tag_have_nothing(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(CONTENT)
    journal = Journal(tmp_path / "journal")
    journal.add(ITEM, written((0, 200)))
    untagged = RemoteObject(ITEM.key, ITEM.name, ITEM.size, "", ITEM.modified)
    journal.add(untagged, written((0, 200)))
    journal.close()
    journal = Journal(tmp_path / "journal")
    other = RemoteObject(ITEM.key, ITEM.name, ITEM.size, "other", ITEM.modified)
    assert [len(journal.present(item, tmp_path / "m")) for item in (ITEM, other, untagged)] == [1, 0, 0]
    assert journal.present(ITEM, tmp_path / "absent") == []
    journal.close()
