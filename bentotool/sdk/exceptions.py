"""Errors that service code raises, and how each becomes an HTTP answer.

The names are BentoML's (``bentoml.exceptions``). Whatever a service raises of this family reaches the caller with its
own message and status; any other exception is answered with a masked 500 and logged with its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from bentotool.errors import BentotoolError

__all__ = [
    "BadInput",
    "BentoMLException",
    "ClientGone",
    "DeadlineExceeded",
    "InternalServerError",
    "InvalidArgument",
    "InvalidOutput",
    "NotFound",
    "PayloadTooLarge",
    "RemoteException",
    "ServiceError",
    "ServiceUnavailable",
    "TooManyRequests",
    "UnprocessableEntity",
    "UnsupportedMediaType",
]


class ServiceError(BentotoolError):
    """A failure that the caller of an API shall see.

    Args:
        message: what failed, in one line.
        error_code: HTTP status; by default that of the class.
        retry_after: seconds after which trying again makes sense; sent as ``Retry-After``.
    """

    code = "service_error"
    http_status = 500

    def __init__(
        self,
        message: str = "",
        error_code: int | HTTPStatus | None = None,
        *,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        declared = error_code if error_code is not None else getattr(type(self), "error_code", None)
        if declared is not None:
            self.http_status = int(declared)
        self.retry_after = retry_after


class InvalidArgument(ServiceError):
    """The input does not have the declared form (400). ``details["path"]`` names the field, as ``$.x[2]``."""

    code = "invalid_input"
    http_status = 400


class BadInput(InvalidArgument):
    """BentoML's other name for a wrong input."""


class NotFound(ServiceError):
    code = "not_found"
    http_status = 404


class UnprocessableEntity(ServiceError):
    code = "unprocessable"
    http_status = 422


class PayloadTooLarge(ServiceError):
    code = "payload_too_large"
    http_status = 413


class UnsupportedMediaType(ServiceError):
    """The body is not of a type that is read here (415)."""

    code = "unsupported_media_type"
    http_status = 415


class TooManyRequests(ServiceError):
    """More requests in flight than ``traffic.max_concurrency`` allows (429)."""

    code = "too_many_requests"
    http_status = 429


class ServiceUnavailable(ServiceError):
    """Overloaded or not ready (503)."""

    code = "unavailable"
    http_status = 503


class DeadlineExceeded(ServiceError):
    """The request's deadline passed before the answer was there (504)."""

    code = "deadline_exceeded"
    http_status = 504


class ClientGone(ServiceError):
    """The caller closed its connection (499, seen in logs and metrics only)."""

    code = "client_gone"
    http_status = 499


class InternalServerError(ServiceError):
    code = "internal"
    http_status = 500


class RemoteException(ServiceError):
    """A service that this one depends on failed with an exception that has no class here (500), or was lost (503)."""

    code = "remote"
    http_status = 500


class InvalidOutput(ServiceError):
    """The API returned something other than it declares: the service's fault (500), never the caller's."""

    code = "invalid_output"
    http_status = 500


BentoMLException = ServiceError
