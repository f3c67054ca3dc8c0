"""The answer to a request that failed: one envelope for every error.

An error of a service may be anything: its text, its status, what it says of trying again. None of that may keep the
caller from getting an answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import numbers
from collections.abc import Mapping
from typing import Any

import msgspec

from bentotool.errors import BentotoolError
from bentotool.sdk.exceptions import ServiceError
from bentotool.sdk.wording import text_of

__all__ = ["ENDING", "envelope", "failure", "harmless", "status_of"]

_log = logging.getLogger("bentotool.service")
ENDING = (asyncio.CancelledError, GeneratorExit)
"""What ends a task or a coroutine from outside; it is never an answer."""
_SERVER_ERRORS = 500
_TOO_SLOW = 408
_LONGEST_S = 2**31 - 1
"""RFC 9111, 1.2.2: whoever reads a larger number of seconds takes it for this one."""


def harmless(error: BaseException) -> Exception:
    """What code that is not ours raised, as an error that fails one request: not the thread or the event loop it ran
    in, as `SystemExit` or a panic of a compiled library would, and nothing that a future cannot carry.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    found = RuntimeError(f"it raised {type(error).__name__}: {text_of(error)}".removesuffix(": "))
    found.__cause__ = error
    return found


def _part(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name, None)
    except BaseException:
        return None


def status_of(error: BaseException) -> int:
    """The HTTP status that an error asks for; 500 where it asks for none that is one of an error."""
    try:
        found = int(error.http_status) if isinstance(error, BentotoolError) else _SERVER_ERRORS
    except BaseException:
        return _SERVER_ERRORS
    return found if 400 <= found <= 599 else _SERVER_ERRORS


def _retry_after(error: BaseException) -> int | None:
    """Seconds after which trying again makes sense, where the error says so in a number."""
    found = _part(error, "retry_after")
    try:
        seconds = float(found) if isinstance(found, numbers.Real) else -1.0
    except BaseException:
        return None
    return math.ceil(min(seconds, _LONGEST_S)) if 0 <= seconds < math.inf else None


def _encoded(value: object) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=str))
    except BaseException:
        return msgspec.Raw(msgspec.json.encode(text_of(value)))


def envelope(error: BentotoolError) -> bytes:
    """What an error tells, as JSON. What of it has no form in JSON is told as text."""
    try:
        return msgspec.json.encode(error.to_dict(), enc_hook=str)
    except BaseException:
        found = {name: _encoded(_part(error, name)) for name in ("code", "message", "hint")}
    try:
        found |= {text_of(name): _encoded(value) for name, value in error.details.items()}
    except BaseException:
        _log.debug("the details of an error cannot be told")
    return msgspec.json.encode({"error": found})


def failure(
    error: Exception, request_id: bytes, where: str, extra: Mapping[str, str] | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The status, the headers and the body for an error, which is logged where it is the service's own. It never fails.

    Args:
        where: what failed, for the log.
        extra: headers beside those of the error.
    """
    status = status_of(error)
    if isinstance(error, ServiceError):
        if status == _SERVER_ERRORS:
            _note("%s: %s", where, text_of(_part(error, "message")))
        body = envelope(error)
    else:
        _note("%s failed", where, exc_info=error)
        status = max(status, _SERVER_ERRORS)  # a model that is not in the store is no fault of the caller
        masked = {"error": {"code": "internal", "message": "the service failed; its log says why", "hint": None}}
        body = msgspec.json.encode(masked)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id),
    ]
    if status == _TOO_SLOW:
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    retry = _retry_after(error)
    if retry is not None:
        headers.append((b"retry-after", b"%d" % retry))
    headers += [(name.encode(), value.encode()) for name, value in (extra or {}).items()]
    return status, headers, body


def _note(text: str, *values: object, exc_info: BaseException | None = None) -> None:
    """Log it. A handler of the service may fail too."""
    try:
        _log.error(text, *values, exc_info=exc_info)
    except BaseException:
        _log.debug("an error could not be logged")
