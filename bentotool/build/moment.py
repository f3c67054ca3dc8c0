"""A moment as configuration files state it: a date, a time, or a span before now, in the one form that uv is given."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone

from bentotool.build.schema import Where, check_text, parser, wrong_type
from bentotool.errors import ConfigError

__all__ = ["moment"]

_SPAN = re.compile(r"P(?:\d{1,4}[YMWD])*(?:T(?:\d{1,4}[HMS])+)?|\d{1,4} (?:hour|day|week|month)s?", re.ASCII)


@parser({"type": "string"}, "date or RFC 3339 time")
def moment(value: object, where: Where) -> str:
    """Parser of a date, a time or a span such as ``7 days``.

    A date is the whole day in UTC: uv itself would take that of this machine's time zone, and two machines would lock
    two things. A time without a zone is in UTC.

    Raises:
        ConfigError: for anything else.
    """
    expected = "a date, an RFC 3339 time or a span such as 7 days"
    if isinstance(value, str):
        text = check_text(value, where).strip()
        if len(text) > 1 and _SPAN.fullmatch(text):
            return text
        try:
            # Python 3.10 reads no Z.
            value = (
                date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text))
            )
        except ValueError:
            raise ConfigError(f"expected {expected}, got {text[:80]!r}", path=where) from None
    if isinstance(value, datetime):
        found = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day, tzinfo=timezone.utc) + timedelta(days=1)
    else:
        raise wrong_type(value, where, expected)
    return found.astimezone(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")
