"""The memory of where models were seen: a hint that may be lost or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.oci.layout import Layout
from bentotool.transfer.places import KnownPlaces

DIGEST = "sha256:" + "a" * 64


def test_newest_first_and_few(tmp_path: Path) -> None:
    places = KnownPlaces(Layout(tmp_path))
    assert places.find("r.example", DIGEST) == ()
    for repository in ("one", "two", "three", "four", "five", "two"):
        places.remember("r.example", repository, DIGEST)
    assert places.find("r.example", DIGEST) == ("two", "five", "four", "three")
    assert places.find("other.example", DIGEST) == ()


@pytest.mark.parametrize("text", ["", "[]", '{"r.example": 5}', '{"r.example": {"d": 5}}', "\xff"])
def test_damage_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "places.json").write_bytes(text.encode("latin-1"))
    places = KnownPlaces(Layout(tmp_path))
    assert places.find("r.example", DIGEST) == ()
    places.remember("r.example", "one", DIGEST)
    assert places.find("r.example", DIGEST) == ("one",)


def test_a_store_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    KnownPlaces(Layout(tmp_path / "file" / "store")).remember("r.example", "one", DIGEST)
