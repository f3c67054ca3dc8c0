"""How configuration keys are declared once: type, default and description in one place.

A table of the configuration is a frozen dataclass whose fields are made with :func:`key`. From that declaration come
reading, the path of a wrong key, the suggestion for a misspelt one, and the reference page and JSON schema that
:mod:`bentotool.build.reference` makes.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Generic, TypeVar

from bentotool.errors import ConfigError

__all__ = [
    "Key",
    "Parser",
    "boolean",
    "check_text",
    "key",
    "keys",
    "one_of",
    "parser",
    "read_table",
    "sequence",
    "table",
    "text",
    "text_map",
    "version_text",
]

Where = tuple[str, ...]
Table = TypeVar("Table")
Value = TypeVar("Value")

_TEXT_LIMIT = 64 << 10
_ITEM_LIMIT = 10_000


@dataclass(frozen=True)
class Parser(Generic[Value]):
    """Reads a value as YAML or TOML gave it.

    Args:
        read: returns the field's type, or raises ConfigError.
        schema: what it takes, as a JSON schema.
        shown: the same in a word or two for people, e.g. ``list of text``.
    """

    read: Callable[[object, Where], Value]
    schema: Mapping[str, Any]
    shown: str

    def __call__(self, value: object, where: Where) -> Value:
        return self.read(value, where)


def parser(schema: Mapping[str, Any], shown: str) -> Callable[[Callable[[object, Where], Value]], Parser[Value]]:
    """Make a :class:`Parser` of a function."""
    return lambda read: Parser(read, schema, shown)


@dataclass(frozen=True)
class Key:
    """Declaration of one key.

    Args:
        parse: reads its value.
        description: one line for the reference page.
        refused: the key is known from BentoML and not taken: setting it to anything but the default is an error,
            because ignoring it would build something other than what was asked for. The text says what to do instead.
    """

    parse: Parser[Any]
    description: str
    refused: str = ""


def key(parse: Parser[Any], default: Any, description: str, *, refused: str = "") -> Any:
    """A dataclass field for one configuration key; see :class:`Key`."""
    metadata = {"key": Key(parse, description, refused)}
    if isinstance(default, (dict, type)):
        return field(default_factory=default if isinstance(default, type) else lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def keys(cls: type) -> dict[str, Key]:
    """The declared keys of a configuration table, by name."""
    return {item.name: item.metadata["key"] for item in fields(cls) if "key" in item.metadata}


def _kind(value: object) -> str:
    names = {
        type(None): "nothing",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def wrong_type(value: object, where: Where, expected: str) -> ConfigError:
    """The error for a value of the wrong type."""
    return ConfigError(f"expected {expected}, got {_kind(value)}", path=where)


def check_text(value: str, where: Where, *, multiline: bool = False) -> str:
    """Return ``value`` when it is printable text.

    Line ends and other control characters would change the meaning of a requirements file, a Dockerfile or a label, so
    they stop here rather than at each place that writes one.

    Raises:
        ConfigError: for control characters, lone surrogates, Unicode line separators, or more than 64 KiB.
    """
    if len(value) > _TEXT_LIMIT:
        raise ConfigError(f"longer than {_TEXT_LIMIT} characters", path=where)
    allowed = "\n\t" if multiline else ""
    for char in value:
        if char not in allowed and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
            raise ConfigError(f"control character {char!r} is not allowed", path=where)
    return value


def text(pattern: str | None = None, expected: str = "text", *, multiline: bool = False) -> Parser[str]:
    """Parser of a string; ``pattern`` must match all of it and ``expected`` says in words what it asks for."""

    def parse(value: object, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, where, expected)
        check_text(value, where, multiline=multiline)
        if pattern is not None and not re.fullmatch(pattern, value):
            raise ConfigError(f"expected {expected}, got {value[:120]!r}", path=where)
        return value

    schema = {"type": "string"} if pattern is None else {"type": "string", "pattern": f"^(?:{pattern})$"}
    return Parser(parse, schema, "text")


@parser({"type": ["string", "number"], "not": {"const": 3.1}}, "version")
def version_text(value: object, where: Where) -> str:
    """Parser of a version that people write without quotes: ``3.12`` is a float in YAML and in TOML."""
    if isinstance(value, float) and not isinstance(value, bool):
        value = str(value)
        if value == "3.1":
            raise ConfigError("3.1 is what YAML and TOML make of 3.10", path=where, hint='put it in quotes: "3.10"')
    elif isinstance(value, int) and not isinstance(value, bool):  # `cuda_version: 12`
        value = str(value)
    return str(text()(value, where))


@parser({"type": "boolean"}, "true or false")
def boolean(value: object, where: Where) -> bool:
    """Parser of true or false."""
    if not isinstance(value, bool):
        raise wrong_type(value, where, "true or false")
    return value


def one_of(*choices: str) -> Parser[str]:
    """Parser of a string out of a closed list."""

    def parse(value: object, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, where, "one of " + ", ".join(choices))
        if value not in choices:
            hint = _did_you_mean(value, choices) or f"one of {', '.join(choices)}"
            raise ConfigError(f"unknown value {value[:80]!r}", path=where, hint=hint)
        return value

    return Parser(parse, {"enum": list(choices)}, "one of " + ", ".join(choices))


def sequence(item: Parser[Value], *, single: bool = False) -> Parser[tuple[Value, ...]]:
    """Parser of a list, as a tuple; with ``single`` one bare string stands for a list of it."""

    def parse(value: object, where: Where) -> tuple[Value, ...]:
        if single and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise wrong_type(value, where, "a list")
        if len(value) > _ITEM_LIMIT:
            raise ConfigError(f"more than {_ITEM_LIMIT} items", path=where)
        return tuple(item(part, (*where, str(index))) for index, part in enumerate(value))

    schema: dict[str, Any] = {"type": "array", "items": item.schema, "maxItems": _ITEM_LIMIT}
    return Parser(parse, {"anyOf": [schema, {"type": "string"}]} if single else schema, f"list of {item.shown}")


def text_map(pattern: str | None = None, expected: str = "a name") -> Parser[dict[str, str]]:
    """Parser of a table of strings; numbers and booleans are taken as they are written."""
    name = text(pattern, expected)

    def parse(value: object, where: Where) -> dict[str, str]:
        if not isinstance(value, dict):
            raise wrong_type(value, where, "a table of text")
        if len(value) > _ITEM_LIMIT:
            raise ConfigError(f"more than {_ITEM_LIMIT} items", path=where)
        result = {}
        for label, content in value.items():
            place = (*where, str(label)[:80])
            name(label, place)
            if isinstance(content, bool):
                content = "true" if content else "false"
            elif isinstance(content, (int, float)):
                content = str(content)
            result[str(label)] = text()(content, place)
        return result

    schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    if pattern is not None:
        schema["propertyNames"] = {"pattern": f"^(?:{pattern})$"}
    return Parser(parse, schema, "table of text")


def table(cls: type[Table]) -> Parser[Table]:
    """Parser of a nested table."""
    return Parser(lambda value, where: read_table(cls, value, where), table_schema(cls), "table")


def table_schema(cls: type[Any]) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a table: its keys, with descriptions and defaults, and no others."""
    properties = {}
    for item in fields(cls):
        declared: Key = item.metadata["key"]
        if declared.refused:
            continue
        schema = {**declared.parse.schema, "description": declared.description}
        if item.default not in (MISSING, None, ()):
            schema["default"] = list(item.default) if isinstance(item.default, tuple) else item.default
        properties[item.name] = schema
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _did_you_mean(name: str, known: tuple[str, ...] | list[str]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def read_table(cls: type[Table], value: object, where: Where) -> Table:
    """Read one table of the configuration into its dataclass.

    Args:
        where: the file and the keys that lead to the table, for messages.

    Raises:
        ConfigError: naming the path of an unknown key, of a wrong value, or of a key that cannot be honoured yet.
    """
    if not isinstance(value, Mapping):
        raise wrong_type(value, where, "a table")
    known = keys(cls)
    for name in value:
        if name not in known:
            shown = str(name)[:80]
            hint = _did_you_mean(shown, list(known)) or f"known keys: {', '.join(known)}"
            raise ConfigError(f"unknown key {shown!r}", path=where, hint=hint)
    values = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name not in value or (value[item.name] is None and item.name in known):
            continue  # `labels:` with nothing after it is an absent key, as BentoML reads it
        place = (*where, item.name)
        declared = known[item.name]
        values[item.name] = declared.parse(value[item.name], place)
        default = item.default if item.default is not MISSING else {}
        if declared.refused and values[item.name] != default:
            raise ConfigError("this key of BentoML is not taken", path=place, hint=declared.refused)
    return cls(**values)
