"""The answer to a request that failed: one envelope for every error."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping

import msgspec

from bentotool.errors import BentotoolError
from bentotool.sdk.exceptions import ServiceError

__all__ = ["ENDING", "failure", "harmless"]

_log = logging.getLogger("bentotool.service")
ENDING = (asyncio.CancelledError, GeneratorExit)
"""What ends a task or a coroutine from outside; it is never an answer."""
_SERVER_ERRORS = 500
_TOO_SLOW = 408


def harmless(error: BaseException) -> Exception:
    """What code that is not ours raised, as an error that fails one request: not the thread or the event loop it ran
    in, as `SystemExit` or a panic of a compiled library would, and nothing that a future cannot carry.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    found = RuntimeError(f"it raised {type(error).__name__}: {error}".removesuffix(": "))
    found.__cause__ = error
    return found


def failure(
    error: Exception, request_id: bytes, where: str, extra: Mapping[str, str] | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The status, the headers and the body for an error, which is logged where it is the service's own.

    Args:
        where: what failed, for the log.
        extra: headers beside those of the error.
    """
    status = error.http_status if isinstance(error, BentotoolError) and 400 <= error.http_status <= 599 else 500
    if isinstance(error, ServiceError):
        document = error.to_dict()
        if status == _SERVER_ERRORS:
            _log.error("%s: %s", where, error.message)
    else:
        _log.error("%s failed", where, exc_info=error)
        status = max(status, _SERVER_ERRORS)  # a model that is not in the store is no fault of the caller
        document = {"error": {"code": "internal", "message": "the service failed; its log says why", "hint": None}}
    body = msgspec.json.encode(document, enc_hook=str)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id),
    ]
    if status == _TOO_SLOW:
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    retry = getattr(error, "retry_after", None)
    if retry is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(retry)))
    headers += [(name.encode(), value.encode()) for name, value in (extra or {}).items()]
    return status, headers, body
