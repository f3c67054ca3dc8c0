"""Ids of requests: taken from ``X-Request-ID`` or made, and seen by whatever logs while the request is answered."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from bentotool.sdk.requested import REQUEST, request_id, trace_ids

__all__ = ["make_request_ids", "mark_log_records"]

_HEADER = b"x-request-id"
_LONGEST = 128


def make_request_ids() -> Callable[[Mapping[bytes, bytes]], bytes]:
    """What gives a request its id: the caller's where that is harmless, else a new one.

    It is called once for each request, in the request's own context, and leaves the id there for `request_id`.
    """
    prefix, numbers, leave = secrets.token_hex(4).encode(), itertools.count(1), REQUEST.set

    def give(headers: Mapping[bytes, bytes]) -> bytes:
        found = headers.get(_HEADER)
        if found is None or not _is_harmless(found):
            found = b"%s-%x" % (prefix, next(numbers))
        leave((found, headers))
        return found

    return give


def _is_harmless(given: bytes) -> bool:
    return 0 < len(given) <= _LONGEST and given.isascii() and given.decode().isprintable()


def mark_log_records() -> None:
    """Give every record of this process ``request_id``, ``trace_id`` and ``span_id``, for formatters of any logger."""
    make = logging.getLogRecordFactory()

    def marked(*args: Any, **named: Any) -> logging.LogRecord:
        record = make(*args, **named)
        record.request_id = request_id()
        record.trace_id, record.span_id = trace_ids() or (None, None)
        return record

    logging.setLogRecordFactory(marked)
