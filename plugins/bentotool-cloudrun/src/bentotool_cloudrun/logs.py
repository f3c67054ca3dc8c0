"""Log lines of a service, from Cloud Logging: Cloud Run keeps none itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bentotool_cloudrun.api import CloudRun

__all__ = ["last_line", "lines"]

_EVERY_S = 2.0
_MOST = 1000
_NAME = re.compile(r"[A-Za-z0-9-]+")


def _filter(client: CloudRun, service: str, more: str = "") -> str:
    return (
        'resource.type="cloud_run_revision" AND logName:"run.googleapis.com%2Fstd" '
        f'AND resource.labels.service_name="{service}" AND resource.labels.location="{client.place.region}"{more}'
    )


def lines(client: CloudRun, service: str, *, follow: bool, tail: int) -> Iterator[str]:
    """The last ``tail`` lines (0: the last 1,000), the oldest first; with ``follow`` those to come, asked for every
    two seconds.
    """
    found = _entries(client, _filter(client, service), newest=True, size=tail or _MOST)
    seen, since = {_key(each) for each in found}, str(found[-1].get("timestamp", "")) if found else ""
    yield from map(_text, found)
    while follow:
        client.pause(_EVERY_S)
        more = f' AND timestamp>="{since}"' if since else ""
        found = [
            each for each in _entries(client, _filter(client, service, more), newest=False, size=_MOST)
            if _key(each) not in seen
        ]  # fmt: skip
        yield from map(_text, found)
        if found:
            since = str(found[-1].get("timestamp", since))
            seen = {key for key in seen if key[0] >= since} | {_key(each) for each in found}


def last_line(client: CloudRun, service: str, revision: str) -> str:
    """What a revision said last; nothing where it said nothing."""
    if not _NAME.fullmatch(revision):
        return ""
    more = f' AND resource.labels.revision_name="{revision}"'
    found = _entries(client, _filter(client, service, more), newest=True, size=5)
    return next((text for each in reversed(found) if (text := _text(each).strip())), "")


def _entries(client: CloudRun, wanted: str, *, newest: bool, size: int) -> list[dict[str, Any]]:
    query = {
        "resourceNames": [f"projects/{client.place.project}"], "filter": wanted,
        "orderBy": "timestamp desc" if newest else "timestamp asc", "pageSize": min(size, _MOST),
    }  # fmt: skip
    found = client.entries(query)
    return found[::-1] if newest else found


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return str(entry.get("timestamp", "")), str(entry.get("insertId", ""))


def _text(entry: dict[str, Any]) -> str:
    if "textPayload" in entry:
        return str(entry["textPayload"]).rstrip("\n")
    document = entry.get("jsonPayload") or {}
    return str(document.get("message") or document)
