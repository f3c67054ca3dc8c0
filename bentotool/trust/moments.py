"""Points in time as documents state them, so that a build can be repeated byte for byte."""

from __future__ import annotations

import os
from datetime import datetime, timezone

from bentotool.errors import UsageError

__all__ = ["source_date", "stated"]


def source_date() -> datetime | None:
    """The time that ``SOURCE_DATE_EPOCH`` sets, in UTC; None where it is not set.

    Raises:
        UsageError: when it is not a number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text[:40]!r} is not a number of seconds", hint="SOURCE_DATE_EPOCH=$(date +%s)"
        )
    return datetime.fromtimestamp(int(text), timezone.utc)


def stated(moment: datetime) -> str:
    """A time as RFC 3339 has it, in UTC and whole seconds."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
