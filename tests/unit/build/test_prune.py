"""Which Bentos a pruning may take."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from bentotool.build.prune import prunable
from bentotool.oci.descriptor import MANIFEST, Descriptor
from bentotool.oci.refs import Ref

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


def ref(tag: str, days: int, *, name: str = "a", content: str | None = None) -> Ref:
    digest = f"sha256:{(content or tag) * 64}"[:71]
    created = (NOW - timedelta(days=days)).isoformat()
    return Ref("bentos", name, tag, Descriptor(MANIFEST, digest, 1), created, 1)


def tags(found: list[Ref]) -> list[str]:
    return [item.ref for item in found]


def test_the_newest_of_each_name_stay() -> None:
    refs = [ref("4", 1), ref("9", 1, name="b"), ref("3", 2), ref("2", 3), ref("8", 9, name="b")]
    assert tags(prunable(refs, keep=1, now=NOW)) == ["a:3", "a:2", "b:8"]
    assert tags(prunable(refs, keep=0, now=NOW)) == ["a:4", "b:9", "a:3", "a:2", "b:8"]


def test_a_further_tag_keeps_a_bento_and_counts_once() -> None:
    refs = [ref("4", 1), ref("prod", 2, content="3"), ref("3", 2), ref("2", 3), ref("1", 4)]
    assert tags(prunable(refs, keep=2, now=NOW)) == ["a:2", "a:1"]


def test_age_and_filter_spare_too() -> None:
    refs = [ref("4", 1), ref("3", 20), ref("2", 40)]
    assert tags(prunable(refs, keep=0, older_than=30 * 86400, now=NOW)) == ["a:2"]
    assert tags(prunable(refs, keep=1, accept=lambda item: item.tag == "3", now=NOW)) == ["a:3"]
    unreadable = Ref("bentos", "a", "5", Descriptor(MANIFEST, f"sha256:{'5' * 64}", 1), "yesterday", 1)
    assert not prunable([unreadable], keep=0, now=NOW)
