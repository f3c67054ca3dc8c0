"""The references' cache: quick, and never believed against the files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore

COUNT = 80


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store with more names than the cache thinks worth its while, all old enough to be trusted."""
    layout = Layout(tmp_path / "store")
    one = layout.put(b"{}", "application/json")
    for number in range(COUNT):
        path = layout.root / "refs" / "models" / f"m{number % 9}" / f"v{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"descriptor": one.to_dict(), "created": f"2026-01-01T00:00:00.{number:06}+00:00", "size": 2}
        path.write_text(json.dumps(document))
        then = time.time_ns() - 10_000_000_000
        os.utime(path, ns=(then, then))
    RefStore(layout).set("models", "new", "v1", one)
    return layout


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    real = RefStore._read

    def counted(self: RefStore, kind: str, name: str, tag: str) -> object:
        read.append(f"{name}:{tag}")
        return real(self, kind, name, tag)

    monkeypatch.setattr(RefStore, "_read", counted)
    return read


def test_a_list_of_all_reads_only_what_is_new(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = sorted(
        (ref for name in RefStore(layout).names("models") for ref in RefStore(layout).list("models", name)), key=repr
    )
    read = forbid_reading(monkeypatch)
    listed = RefStore(layout).list("models")
    assert read == ["new:v1"]
    assert sorted(listed, key=repr) == plain
    assert len(listed) == COUNT + 1


def test_changing_one_name_reads_no_other(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Descriptor("application/json", layout.put(b"other", "x/y").digest, 5)
    read = forbid_reading(monkeypatch)
    RefStore(layout).set("models", "m1", "v1", one)
    assert set(read) <= {"m1:v1", "new:v1"}
    index = json.loads((layout.root / "index.json").read_text())
    assert len(index["manifests"]) == COUNT + 1
    assert sum(entry["digest"] == one.digest for entry in index["manifests"]) == 1


@pytest.mark.parametrize("replacement", ["other", "{", None])
def test_a_file_that_changed_beside_the_cache_counts(layout: Layout, replacement: str | None) -> None:
    path = layout.root / "refs" / "models" / "m1" / "v1.json"
    if replacement is None:
        path.unlink()
    elif replacement == "other":
        path.write_text(path.read_text().replace('"size": 2', '"size": 3'))
    else:
        path.write_text(replacement)
    store = RefStore(layout)
    found = [ref.size for ref in store.list("models") if ref.ref == "m1:v1"]
    assert found == ([3] if replacement == "other" else [])
    assert store.damaged == ([path] if replacement == "{" else [])


def test_a_file_younger_than_two_seconds_is_never_cached(layout: Layout) -> None:
    """Two replacements within one tick of the clock may look the same from outside."""
    assert "models/new:v1" not in json.loads((layout.root / "refs" / ".cache.json").read_text())


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"models/m1:v1": 5}', '{"models/m1:v1": [[1], {}]}', "[" * 9999]
)
def test_a_damaged_cache_costs_time_and_nothing_else(layout: Layout, damage: str) -> None:
    (layout.root / "refs" / ".cache.json").write_text(damage)
    assert len(RefStore(layout).list("models")) == COUNT + 1


def test_an_entry_of_the_cache_that_is_no_reference_is_read_anew(layout: Layout) -> None:
    path = layout.root / "refs" / ".cache.json"
    cache = json.loads(path.read_text())
    cache["models/m1:v1"][1] = {"descriptor": {"digest": "../x"}}
    path.write_text(json.dumps(cache))
    assert len(RefStore(layout).list("models")) == COUNT + 1
