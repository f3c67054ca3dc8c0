"""Whatever an error of a service is, there is an answer that tells what can be told."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from bentotool.runtime.failing import failure, harmless
from bentotool.sdk.exceptions import ServiceError


class Mute(BaseException):
    def __str__(self) -> str:
        raise SystemExit(1)


class Weird(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


class Text:
    def __str__(self) -> str:
        raise Mute


def answer(error: Exception) -> tuple[int, dict[bytes, bytes], Any]:
    status, headers, body = failure(error, b"id", "api")
    found = dict(headers)
    assert found[b"content-length"] == b"%d" % len(body)
    return status, found, msgspec.json.decode(body)["error"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (2, b"2"),
        (0.2, b"1"),
        (0, b"0"),
        (np.float32(3), b"3"),
        (1e300, b"2147483647"),
        ("soon", None),
        ("5", None),
        (math.nan, None),
        (math.inf, None),
        (-1, None),
        (10**400, None),
        (datetime.timedelta(seconds=3), None),
        (decimal.Decimal("nan"), None),
        (Text(), None),
    ],
)
def test_when_to_try_again_is_told_where_it_is_a_number(given: Any, told: bytes | None) -> None:
    for error, expected in ((Weird(given), 500), (ServiceError("no", 503, retry_after=given), 503)):
        status, headers, _ = answer(error)
        assert (status, headers.get(b"retry-after")) == (expected, told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ServiceError("bad file \udcff", 422), {"message": "bad file \ufffd", "hint": None}),
        (ServiceError("\ud83d\ude00", 422, hint="\udcff"), {"message": "\U0001f600", "hint": "\ufffd"}),
        (ServiceError("a", 422, details={"\udcff": 1, "b": {"c": 2}}), {"message": "a", "\ufffd": 1, "b": {"c": 2}}),
        (ServiceError("a", 422, details={"b": Text(), "c": [1]}), {"message": "a", "b": "", "c": [1]}),
        (ServiceError("a", 422, details={"b": {(1, 2): 3}}), {"message": "a", "b": {"(1, 2)": 3}}),
        (ServiceError(Text(), 422), {"message": "", "code": "service_error"}),  # type: ignore[arg-type]
    ],
)
def test_what_can_be_told_is_told(error: ServiceError, told: dict[str, Any]) -> None:
    status, _, document = answer(error)
    assert status == 422
    assert {name: document[name] for name in told} == told


def test_details_that_hold_themselves() -> None:
    details: dict[str, Any] = {"n": 1}
    details["all"] = details
    told = answer(ServiceError("a", 422, details=details))[2]
    assert (told["n"], told["all"]) == (1, "{'n': 1, 'all': {...}}")


class Unkept(ServiceError):
    details = property(lambda self: 1 / 0, lambda self, given: None)  # type: ignore[assignment]
    hint = property(lambda self: Text(), lambda self, given: None)  # type: ignore[assignment]
    retry_after = property(lambda self: int("x"), lambda self, given: None)  # type: ignore[assignment]


class Untold(ServiceError):
    def to_dict(self) -> dict[str, object]:
        raise Mute


@pytest.mark.parametrize("error", [Unkept("a", 422), Untold("a", 422)])
def test_an_error_whose_own_code_fails(error: Exception) -> None:
    status, headers, document = answer(error)
    assert (status, document["code"], document["message"]) == (422, "service_error", "a")
    assert b"retry-after" not in headers


@pytest.mark.parametrize(("given", "status"), [("many", 500), (math.nan, 500), (None, 500), (99, 500), ("429", 429)])
def test_a_status_of_another_type(given: Any, status: int) -> None:
    error = ServiceError("a")
    error.http_status = given
    assert answer(error)[0] == status


def test_a_log_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Mute

    monkeypatch.setattr("bentotool.runtime.failing._log.error", fail)
    assert answer(ValueError("a"))[0] == 500
    assert answer(ServiceError("a"))[0] == 500


def test_what_has_no_text_is_harmless() -> None:
    assert str(harmless(Mute())) == "it raised Mute"
    assert str(harmless(SystemExit(3))) == "it raised SystemExit: 3"
    found = ValueError("a")
    assert harmless(found) is found
