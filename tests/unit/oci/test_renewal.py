"""Work that takes longer than the grace period of a collection keeps what it has finished."""

from __future__ import annotations

import os
from pathlib import Path

from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout
from bentotool.oci.renewal import Renewal

LONG_AGO = 10_000


def aged(layout: Layout, data: bytes) -> str:
    digest = layout.put(data, "application/x").digest
    os.utime(layout.blob_path(digest), (LONG_AGO, LONG_AGO))
    return digest


def test_what_is_finished_is_renewed_when_it_is_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    mine, other = aged(layout, b"mine"), aged(layout, b"other")
    renewal = Renewal(layout, every=0.0)
    renewal.finished(mine)
    renewal.tick()
    assert collect(layout).blobs == (other,)
    assert layout.has(mine)


def test_it_is_not_done_all_the_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    renewal = Renewal(layout)
    digest = aged(layout, b"mine")
    renewal.finished(digest)
    renewal.tick()
    assert layout.last_used(digest) == LONG_AGO
