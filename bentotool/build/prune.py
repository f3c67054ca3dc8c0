"""Which Bentos of a store are old enough to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

from bentotool.oci.refs import Ref

__all__ = ["prunable"]


def prunable(
    refs: Iterable[Ref],
    *,
    keep: int,
    older_than: float = 0.0,
    accept: Callable[[Ref], bool] = lambda ref: True,
    now: datetime | None = None,
) -> list[Ref]:
    """The references that a pruning removes, newest first.

    Of each name the newest ``keep`` Bentos stay, however many are accepted. A Bento that somebody gave a further tag,
    such as ``prod``, stays as well: that tag says that it is wanted.

    Args:
        refs: newest first, as a store lists them.
        older_than: seconds; younger Bentos stay.
        accept: which references may go.
        now: UTC; default: the clock's.
    """
    limit = (now or datetime.now(timezone.utc)) - timedelta(seconds=older_than)
    tags: dict[tuple[str, str], list[Ref]] = {}
    for ref in refs:
        tags.setdefault((ref.name, ref.digest), []).append(ref)
    seen: dict[str, int] = {}
    doomed = []
    for (name, _), same in tags.items():
        seen[name] = seen.get(name, 0) + 1
        (ref, *others) = same
        if seen[name] > keep and not others and _created(ref) <= limit and accept(ref):
            doomed.append(ref)
    return doomed


def _created(ref: Ref) -> datetime:
    try:
        created = datetime.fromisoformat(ref.created)
    except ValueError:
        return datetime.max.replace(tzinfo=timezone.utc)  # an unreadable age is no reason to delete
    return created if created.tzinfo else created.replace(tzinfo=timezone.utc)
