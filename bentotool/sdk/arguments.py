"""``use_arguments``: values that a service is built with, and secrets that it is given when it runs.

Whoever imports a service calls :func:`provide` before: the build's probe with what it was given, a worker with what the
Bento recorded. Without that, defaults and variables of the environment alone are there.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from bentotool.errors import UsageError
from bentotool.sdk.argument_forms import Form, FormField, WrongValue, form_of, json_text, read_json
from bentotool.sdk.secret import MASK

__all__ = [
    "Argument",
    "arguments_schema",
    "check_taken",
    "declared",
    "find_secret",
    "provide",
    "redacted",
    "texts_in",
    "use_arguments",
    "variable_of",
]

T = TypeVar("T")
_PREFIX = "BENTOTOOL_ARG_"
_SHORT = 6
"""Secrets shorter than this are looked for as whole values only: they stand in other texts by chance."""

_VALUES = ("config", "envs", "image", "labels")


@dataclass(frozen=True)
class Argument:
    """One argument that a service asked for.

    Args:
        type: in words.
        value: as a JSON value, where it was given and is no secret.
    """

    name: str
    type: str = "str"
    required: bool = False
    secret: bool = False
    given: bool = False
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; never with the value of a secret."""
        facts = {"name": self.name, "type": self.type, "required": self.required, "secret": self.secret}
        return {**facts, "value": self.value} if self.given and not self.secret else facts


@dataclass
class _State:
    values: dict[str, Any] = field(default_factory=dict)
    building: bool = False
    arguments: dict[str, Argument] = field(default_factory=dict)
    schemas: list[dict[str, Any]] = field(default_factory=list)
    open: bool = False
    asked: bool = False
    hidden: dict[str, tuple[str, ...]] = field(default_factory=dict)


_state = _State()


def provide(values: Mapping[str, Any], *, building: bool = False) -> None:
    """Give the values that :func:`use_arguments` answers with, and forget what was asked for before.

    Args:
        values: by name; texts, or JSON values.
        building: a secret that is not given is empty instead of missing: it is given when the Bento runs.
    """
    vars(_state).update(vars(_State(dict(values), building)))


def variable_of(name: str) -> str:
    """The environment variable of a secret argument."""
    return _PREFIX + re.sub(r"\W", "_", name, flags=re.ASCII).upper()


@overload
def use_arguments(cls: type[T]) -> T: ...
@overload
def use_arguments(cls: None = None) -> Any: ...
def use_arguments(cls: type[Any] | None = None) -> Any:
    """The arguments that a service is built or served with; called at the top of its module.

    Args:
        cls: what they are: a dataclass, a msgspec Struct or a pydantic model. A field of type `Secret` (or pydantic's
            ``SecretStr``) is recorded nowhere. None: texts by name.

    Returns:
        an instance of `cls`, or a namespace.

    Raises:
        UsageError: an argument is missing or has a wrong value.
        ConfigError: `cls` is none of these.
    """
    form = form_of(cls)
    state = _state
    state.asked = True
    state.open = state.open or form.open
    state.schemas.append(form.schema)
    values = dict(_found(form, state))
    if form.open:
        values = {**{name: value for name, value in state.values.items() if name not in values}, **values}
    fields = {item.name: item for item in form.fields}
    try:
        made = form.make(values)
    except WrongValue as wrong:
        raise _wrong(wrong, fields.get(wrong.name), values.get(wrong.name)) from None
    try:
        dumped = form.dump(made)
    except (WrongValue, TypeError, ValueError):
        dumped = {}
    others = {name: FormField(name, "str", False, False) for name in values if name not in fields}
    for name, item in {**fields, **others}.items():
        known = state.arguments.get(name)
        secret = item.secret or (known is not None and known.secret)
        given = name in values and not secret
        value = dumped.get(name, values.get(name)) if given else None
        state.arguments[name] = Argument(name, item.type, item.required, secret, given, value)
    return made


def _found(form: Form, state: _State) -> Iterator[tuple[str, Any]]:
    for item in form.fields:
        variable = variable_of(item.name)
        if item.name in state.values:
            value = state.values[item.name]
        elif item.secret and (text := os.environ.get(variable)) is not None:
            value = text
        elif item.secret and item.required and state.building:
            value = ""
        elif item.required:
            raise _missing(item, variable, state)
        else:
            continue
        if item.secret and value != "":
            state.hidden[item.name] = tuple(texts_in(value))
        yield item.name, value


def _missing(item: FormField, variable: str, state: _State) -> UsageError:
    if item.secret:
        return UsageError(
            f"secret argument {item.name!r} ({item.type}) is missing",
            hint=f"set {variable} in the environment, or give --arg {item.name}=VALUE",
        )
    known = set(state.arguments)
    close = difflib.get_close_matches(item.name, [name for name in state.values if name not in known], 1)
    hint = f"--arg {item.name}=VALUE, or args: in the configuration"
    return UsageError(
        f"argument {item.name!r} ({item.type}) is missing", hint=f"{close[0]!r} was given; {hint}" if close else hint
    )


def _wrong(wrong: WrongValue, item: FormField | None, value: Any) -> UsageError:
    reason = redacted(" ".join(wrong.reason.split()))[:300]
    if item is None:
        return UsageError(f"the arguments do not fit: {reason}", hint="--arg NAME=VALUE, or args: in the configuration")
    if item.secret:
        return UsageError(
            f"secret argument {item.name!r} is no {item.type}: {reason}", hint=f"set {variable_of(item.name)}"
        )
    return UsageError(
        f"argument {item.name!r} must be {item.type}, not {json_text(value)[:80]!r}: {reason}",
        hint=f"--arg {item.name}=VALUE, or args: in the configuration",
    )


def declared() -> tuple[Argument, ...]:
    """What was asked for since :func:`provide`, by name."""
    return tuple(_state.arguments[name] for name in sorted(_state.arguments))


def arguments_schema() -> dict[str, Any] | None:
    """JSON schema of what was asked for; None where nothing was."""
    schemas = _state.schemas
    return schemas[0] if len(schemas) == 1 else {"allOf": list(schemas)} if schemas else None


def check_taken() -> None:
    """Check, after the import of a service, that it asked for every argument that was given.

    Raises:
        UsageError: one has no taker.
    """
    unknown = sorted(set(_state.values) - set(_state.arguments))
    if not unknown or _state.open:
        return
    name, known = unknown[0], sorted(_state.arguments)
    if not _state.asked:
        raise UsageError(
            f"argument {name[:80]!r} is given, and the service takes none",
            hint="bentotool.use_arguments() at the top of its module takes them",
        )
    close = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f"the service has no argument {name[:80]!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"its arguments: {', '.join(known)}",
    )


def redacted(text: str) -> str:
    """A text without the secrets that this process was given."""
    for secrets in _state.hidden.values():
        for secret in secrets:
            if len(secret) >= _SHORT or text == secret:
                text = text.replace(secret, MASK)
    return text


def texts_in(value: Any) -> Iterator[str]:
    """The texts of a value: the whole before its parts, where it is a list or a table, or one written as JSON."""
    if isinstance(value, str):
        yield value
        read = read_json(value)
        if read is not None:
            yield from texts_in(read)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif value is not None and not isinstance(value, bool):
        yield json_text(value)


def find_secret(value: Any, where: str = "") -> tuple[str, str] | None:
    """Name and place of a secret in a JSON document, or in an object on its way into one; None where there is none."""
    if hasattr(value, "get_secret_value"):
        return next((name for name, item in _state.arguments.items() if item.secret), "?"), where
    if isinstance(value, str):
        return next(((name, where) for name, secrets in _state.hidden.items() if _holds(value, secrets, where)), None)
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, item in parts:
        found = find_secret(str(key), where) or find_secret(item, f"{where}.{key}" if where else str(key))
        if found:
            return found
    return None


def _holds(text: str, secrets: tuple[str, ...], where: str) -> bool:
    """Whether a text gives a secret away, or shows that one was written into it where a value is meant."""
    if MASK in text and where.partition(".")[0] in _VALUES:
        return True
    return any(text == secret or (len(secret) >= _SHORT and secret in text) for secret in secrets)
