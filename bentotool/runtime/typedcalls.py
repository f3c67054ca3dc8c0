"""The signature of an API as both sides of a call see it: arguments and results by their annotations."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from bentotool.runtime.wire import WireError
from bentotool.sdk.answers import objection
from bentotool.sdk.codecs import load_foreign
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.places import locate
from bentotool.sdk.signature import MethodSpec

__all__ = ["TypedCall", "restore"]

_EMPTY = inspect.Parameter.empty
_STREAMS = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)


def _load(tp: Any, value: Any) -> Any:
    if isinstance(value, get_origin(tp) or tp):
        return value
    validate = getattr(tp, "model_validate", None)
    if validate is None:
        return load_foreign(tp, value)
    import pydantic

    try:
        return validate(value)
    except pydantic.ValidationError as error:
        from bentotool.sdk.pydantic_models import one_line

        raise one_line(error) from None


def restore(annotation: Any, value: Any) -> Any:
    """A value as it came, in its declared type; a type that msgspec cannot describe leaves it as it is.

    Raises:
        ValueError: the value is not of that type.
    """
    if annotation in (Any, _EMPTY, None):
        return value
    try:
        return msgspec.convert(value, annotation, dec_hook=_load)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    except TypeError:
        return value


class TypedCall:
    """One API, from outside.

    Args:
        service: the service's name, for messages.
        spec: the API.
    """

    def __init__(self, service: str, spec: MethodSpec) -> None:
        self.spec, self.where = spec, f"{service}.{spec.name}"
        signature = inspect.signature(spec.func)
        names = list(signature.parameters)[1:]
        kept = [signature.parameters[name] for name in names if name != spec.context]
        self._signature = signature.replace(parameters=kept)
        at = names.index(spec.context) if spec.context is not None else len(kept)
        # what stands behind the context is given by name, as the context is
        self._by_name = [p.name for p in kept[at:] if p.kind is p.POSITIONAL_OR_KEYWORD]
        try:
            self._hints = get_type_hints(spec.func)
        except Exception:  # an annotation that is not defined here says nothing
            self._hints = {}
        returned = self._hints.get("return", _EMPTY)
        if spec.stream:
            returned = get_args(returned)[0] if get_origin(returned) in _STREAMS and get_args(returned) else Any
        self._returned = returned

    def outgoing(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check a call as Python would. Raises: TypeError: these arguments do not fit."""
        try:
            self._signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{self.where}: {error}") from None
        return args, named

    def incoming(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call that came, in their declared types.

        Raises:
            InvalidArgument: they do not fit.
            WireError: they are no arguments.
        """
        if not (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[0], list)
            and isinstance(value[1], dict)
            and all(isinstance(key, str) for key in value[1])
        ):
            raise WireError("a call has no arguments")
        try:
            bound = self._signature.bind(*value[0], **value[1])
        except TypeError as error:
            raise InvalidArgument(f"{self.where}: {error}") from None
        for name, given in bound.arguments.items():
            try:
                bound.arguments[name] = self._argument(name, given)
            except ValueError as error:
                what, path = locate(str(error), f"$.{name}")
                raise InvalidArgument(f"{path}: {what}", details={"path": path}) from None
        named = {name: bound.arguments.pop(name) for name in self._by_name if name in bound.arguments}
        return bound.args, bound.kwargs | named

    def _argument(self, name: str, given: Any) -> Any:
        kind, hint = self._signature.parameters[name].kind, self._hints.get(name, Any)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(restore(hint, item) for item in given)
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: restore(hint, item) for key, item in given.items()}
        return restore(hint, given)

    def result(self, value: Any) -> Any:
        """A result, or an item of a stream, in its declared type. Raises: InvalidOutput: it is of another one."""
        try:
            return restore(self._returned, value)
        except ValueError as error:
            raise objection(self.where, error) from error
