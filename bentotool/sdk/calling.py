"""The request that is being answered: what calls to other services take along from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple

from bentotool.sdk.requested import request_id, trace_headers

__all__ = ["CURRENT", "Call", "carried", "seconds_left"]


class Call(NamedTuple):
    """One request.

    Attributes:
        deadline: on the monotonic clock.
        request_id: as it is logged and answered.
        headers: as they came, names in lower case.
    """

    deadline: float
    request_id: bytes
    headers: Mapping[bytes, bytes]


CURRENT: ContextVar[Call | None] = ContextVar("bentotool_call", default=None)
"""Set while a service with dependencies answers; a thread that runs its method sees it too."""


def seconds_left() -> float | None:
    """Until the deadline of the request that is being answered; None outside of one."""
    call = CURRENT.get()
    return None if call is None else call.deadline - time.monotonic()


def carried() -> dict[str, str]:
    """Headers that a call to another service takes along: the request id and the trace context."""
    found, own = trace_headers(), request_id()
    return found if own is None else {"x-request-id": own, **found}
