"""Exceptions on their way between services: by name, never by importing what a name says.

An error travels as the names of its classes, from its own up to its bases, and what `BentotoolError` holds. The other
side looks the names up among the exception classes that it already has; the first one that it knows is raised. A class
is filled in without calling its own constructor, whose parameters nobody knows.
"""

from __future__ import annotations

import builtins
import contextlib
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from bentotool.errors import BentotoolError
from bentotool.sdk.exceptions import RemoteException, ServiceError
from bentotool.sdk.wording import text_of

__all__ = ["CarriedError", "by_code", "carry", "revive"]

_Scalar = None | bool | int | float | str
_MESSAGE = 65536
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_E = TypeVar("_E", bound=Exception)


class CarriedError(msgspec.Struct, omit_defaults=True):
    """One exception as it travels.

    Attributes:
        names: ``module:qualified name`` of its class and the bases, most special first.
        arguments: of an exception of another family, where they are plain.
        attributes: what its class keeps in it besides, where it is plain.
        ours: it is a `BentotoolError`, so what follows holds.
    """

    names: list[str]
    message: str
    arguments: list[_Scalar] = []
    attributes: dict[str, _Scalar] = {}
    ours: bool = False
    code: str = ""
    status: int = 500
    hint: str | None = None
    retry_after: float | None = None
    details: dict[str, Any] = {}


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _short(value: Any) -> _Scalar:
    """A plain value, or the text of any other, so that it can travel."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and _SMALLEST <= value <= _LARGEST:
        return int(value)
    return text_of(value)[:_MESSAGE]


def _part(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name, None)
    except BaseException:
        return None


def _number(given: Any) -> float | None:
    try:
        return float(given) if isinstance(given, numbers.Real) else None
    except OverflowError:
        return None


def carry(error: BaseException) -> CarriedError:
    """An exception in the form in which it travels. Whatever it holds, it has one."""
    bases = [cls for cls in type(error).__mro__ if issubclass(cls, Exception) and cls is not Exception]
    names = [_name(cls) for cls in bases]
    message = text_of(error)[:_MESSAGE]
    attributes = {text_of(k): _short(v) for k, v in vars(error).items() if _plain(v) and not k.startswith("__")}
    if not isinstance(error, BentotoolError):
        arguments: list[_Scalar] = [message]
        if all(_plain(value) for value in error.args):
            arguments = [_short(value) for value in error.args]
        return CarriedError(names, message, arguments, attributes)
    status = _number(_part(error, "http_status")) or 0
    details, hint = _part(error, "details"), _part(error, "hint")
    return CarriedError(
        names,
        text_of(_part(error, "message"))[:_MESSAGE],
        attributes=attributes,
        ours=True,
        code=text_of(_part(error, "code")),
        status=int(status) if 100 <= status <= 599 else 500,
        hint=None if hint is None else text_of(hint),
        retry_after=_number(_part(error, "retry_after")),
        details={text_of(k): _short(v) for k, v in details.items()} if isinstance(details, Mapping) else {},
    )


def _loaded(base: type[BaseException]) -> Iterator[type[BaseException]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _loaded(cls)


_KNOWN: dict[str, type[Exception]] = {}


def _find(name: str) -> type[Exception] | None:
    """The class of that name, if this process has it."""
    module, _, qualified = name.partition(":")
    if module == "builtins":
        found = getattr(builtins, qualified, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    known = _KNOWN.get(name)
    if known is None:
        # the folder of a service may be imported under two names: __main__ never matches, which is as well
        known = next((cls for cls in _loaded(Exception) if _name(cls) == name and issubclass(cls, Exception)), None)
        if known is not None:
            _KNOWN[name] = known
    return known


def _fill(cls: type[BentotoolError], carried: CarriedError) -> BentotoolError:
    error = cls.__new__(cls)
    if isinstance(error, ServiceError):
        ServiceError.__init__(
            error, carried.message, carried.status,
            hint=carried.hint, details=carried.details, retry_after=carried.retry_after,
        )  # fmt: skip
    else:
        BentotoolError.__init__(error, carried.message, hint=carried.hint, details=carried.details)
    if carried.code and error.code != carried.code:
        error.code = carried.code
    return _complete(error, carried)


def _complete(error: _E, carried: CarriedError) -> _E:
    for name, value in carried.attributes.items():
        vars(error).setdefault(name, value)
    return error


def revive(carried: CarriedError, where: str) -> Exception:
    """The exception that a service raised, to be raised again here.

    Args:
        where: the service and its API, for an exception that has no class here.
    """
    for name in carried.names:
        cls = _find(name)
        if cls is None:
            continue
        if issubclass(cls, BentotoolError):
            return _fill(cls, carried)
        if carried.ours:
            continue
        if cls.__module__ == "builtins":
            with contextlib.suppress(TypeError, ValueError):
                return cls(*carried.arguments)
            continue
        error = cls.__new__(cls)
        error.args = tuple(carried.arguments)
        return _complete(error, carried)
    kind = carried.names[0].partition(":")[2] if carried.names else "error"
    if carried.ours:
        return _fill(ServiceError, carried)
    return RemoteException(f"{where}: {kind}: {carried.message}")


def by_code(code: str, status: int, message: str, hint: str | None) -> ServiceError:
    """The error of an answer over HTTP, by the ``code`` of its envelope."""
    cls = next((c for c in _loaded(ServiceError) if vars(c).get("code") == code), RemoteException)
    assert issubclass(cls, ServiceError)
    return _fill(cls, CarriedError([], message, ours=True, code=code, status=status, hint=hint))  # type: ignore[return-value]
