"""The request that code runs for: its id, and what the trace context around it says.

One context variable, set once for each request; everything else is worked out when somebody asks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar

__all__ = ["REQUEST", "request_id", "trace_headers", "trace_ids"]

REQUEST: ContextVar[tuple[bytes, Mapping[bytes, bytes]] | None] = ContextVar("bentotool_request", default=None)
"""The id of the request that is being answered, and its headers with names in lower case."""

_CARRIED = (b"traceparent", b"tracestate", b"baggage")
_TRACE, _SPAN = 32, 16


def request_id() -> str | None:
    """The id of the request that this code runs for, as it is answered and logged; None outside of one."""
    found = REQUEST.get()
    return None if found is None else found[0].decode("latin-1")


def trace_headers() -> dict[str, str]:
    """The W3C trace context that a call from here takes along (https://www.w3.org/TR/trace-context/).

    That of the current span, where OpenTelemetry runs in this process; else what the request brought.
    """
    found = REQUEST.get()
    carried = {} if found is None else {n.decode(): found[1][n].decode("latin-1") for n in _CARRIED if n in found[1]}
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        propagate.inject(carried)
    return carried


def trace_ids() -> tuple[str, str] | None:
    """Trace id (32 hex digits) and span id (16) of the current span, else of the caller's; None without a trace."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"{context.trace_id:032x}", f"{context.span_id:016x}"
    found = REQUEST.get()
    if found is None or (given := found[1].get(b"traceparent")) is None:
        return None
    parts = given.decode("latin-1").split("-")
    if len(parts) < 4 or len(parts[1]) != _TRACE or len(parts[2]) != _SPAN:
        return None
    return parts[1], parts[2]
