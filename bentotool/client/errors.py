"""Errors that a service answered with, raised here as what they are there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from bentotool.errors import AuthenticationError, RemoteError

__all__ = ["CallError", "call_error", "retry_after"]

_BY_STATUS = {
    400: "InvalidArgument",
    404: "NotFound",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    422: "UnprocessableEntity",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
    504: "DeadlineExceeded",
}
"""Status → name in `bentotool.exceptions`, where the code of the envelope says nothing more."""
_LONGEST = 2000


class CallError(RemoteError):
    """A service answered with an error; where `bentotool.exceptions` has the type that it raised, of that type too.

    Attributes:
        status: HTTP status.
        remote_code: the ``code`` of the error envelope, e.g. ``invalid_input``; empty where there is none.
        retry_after: seconds after which the service asks to try again, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        remote_code: str = "",
        hint: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details={"status": status, "remote_code": remote_code, **(details or {})})
        self.status = status
        self.http_status = status
        self.remote_code = remote_code
        self.retry_after = retry_after


@functools.cache
def typed(cls: type[Exception]) -> type[CallError]:
    """`CallError` and another class in one; each of the two catches it."""

    def __init__(self: CallError, message: str, **facts: Any) -> None:  # noqa: N807 - it becomes a method
        CallError.__init__(self, message, **facts)

    return type(cls.__name__, (CallError, cls), {"__init__": __init__, "__module__": __name__})


def _class_for(code: str, status: int) -> type[CallError]:
    from bentotool.sdk import exceptions

    if status in (401, 403):
        return typed(AuthenticationError)
    known = [getattr(exceptions, name) for name in exceptions.__all__]
    for cls in known:
        if code and vars(cls).get("code") == code:
            return typed(cls)
    name = _BY_STATUS.get(status, "InvalidArgument" if 400 <= status < 500 else "ServiceError")
    return typed(getattr(exceptions, name if status in _BY_STATUS or status >= 500 else "ServiceError"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds in ``Retry-After``; None where it is absent, or a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _detail(item: Any) -> str:
    """One line of what pydantic found wrong, as BentoML passes it on."""
    if not isinstance(item, dict):
        return ""
    place = item.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"; {where}: {item.get('msg', '')}"[:200]


def call_error(name: str, status: int, body: Any, headers: Mapping[str, str] | None = None) -> CallError:
    """The error for an answer.

    Args:
        name: of the API.
        body: decoded JSON, or None: ours is ``{"error": {"code", "message", "hint"}}``, BentoML's is
            ``{"error": text}``, or a list with one of these.
    """
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    found = body.get("error") if isinstance(body, dict) else None
    wait = retry_after(headers or {})
    if isinstance(found, dict):
        code, hint = str(found.get("code") or ""), found.get("hint")
        message = str(found.get("message", ""))[:_LONGEST]
        details = {key: value for key, value in found.items() if key not in ("code", "message", "hint")}
        return _class_for(code, status)(
            f"{name}: {message}",
            status=status,
            remote_code=code,
            hint=hint if isinstance(hint, str) else None,
            retry_after=wait,
            details=details,
        )
    text = str(found)[:_LONGEST] if found else f"HTTP status {status}"
    if isinstance(body, dict) and isinstance(body.get("detail"), list):
        text += "".join(_detail(item) for item in body["detail"][:3])
    return _class_for("", status)(f"{name}: {text}", status=status, retry_after=wait)
