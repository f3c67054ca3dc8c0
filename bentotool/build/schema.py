"""How configuration keys are declared once: type, default and description in one place.

A table of the configuration is a frozen dataclass whose fields are made with :func:`key`. From that declaration come
reading, the path of a wrong key, the suggestion for a misspelt one, and (later) the reference page and JSON schema.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from bentotool.errors import ConfigError

__all__ = [
    "Key",
    "boolean",
    "check_text",
    "key",
    "keys",
    "one_of",
    "read_table",
    "sequence",
    "table",
    "text",
    "text_map",
    "version_text",
]

Where = tuple[str, ...]
Parser = Callable[[object, Where], Any]
Table = TypeVar("Table")

_TEXT_LIMIT = 64 << 10
_ITEM_LIMIT = 10_000


@dataclass(frozen=True)
class Key:
    """Declaration of one key.

    Args:
        parse: turns the value as YAML or TOML gave it into the field's type, or raises ConfigError.
        description: one line for the reference page.
        later: the key is known and cannot be honoured yet: setting it to anything but the default is an error, because
            ignoring it would build something other than what was asked for.
    """

    parse: Parser
    description: str
    later: bool = False


def key(parse: Parser, default: Any, description: str, *, later: bool = False) -> Any:
    """A dataclass field for one configuration key; see :class:`Key`."""
    metadata = {"key": Key(parse, description, later)}
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


def text(pattern: str | None = None, expected: str = "text", *, multiline: bool = False) -> Parser:
    """Parser of a string; ``pattern`` must match all of it and ``expected`` says in words what it asks for."""

    def parse(value: object, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, where, expected)
        check_text(value, where, multiline=multiline)
        if pattern is not None and not re.fullmatch(pattern, value):
            raise ConfigError(f"expected {expected}, got {value[:120]!r}", path=where)
        return value

    return parse


def version_text(value: object, where: Where) -> str:
    """Parser of a version that people write without quotes: ``3.12`` is a float in YAML and in TOML."""
    if isinstance(value, float) and not isinstance(value, bool):
        value = str(value)
        if value == "3.1":
            raise ConfigError("3.1 is what YAML and TOML make of 3.10", path=where, hint='put it in quotes: "3.10"')
    return str(text()(value, where))


def boolean(value: object, where: Where) -> bool:
    """Parser of true or false."""
    if not isinstance(value, bool):
        raise wrong_type(value, where, "true or false")
    return value


def one_of(*choices: str) -> Parser:
    """Parser of a string out of a closed list."""

    def parse(value: object, where: Where) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, where, "one of " + ", ".join(choices))
        if value not in choices:
            hint = _did_you_mean(value, choices) or f"one of {', '.join(choices)}"
            raise ConfigError(f"unknown value {value[:80]!r}", path=where, hint=hint)
        return value

    return parse


def sequence(item: Parser, *, single: bool = False) -> Parser:
    """Parser of a list, as a tuple; with ``single`` one bare string stands for a list of it."""

    def parse(value: object, where: Where) -> tuple[Any, ...]:
        if single and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise wrong_type(value, where, "a list")
        if len(value) > _ITEM_LIMIT:
            raise ConfigError(f"more than {_ITEM_LIMIT} items", path=where)
        return tuple(item(part, (*where, str(index))) for index, part in enumerate(value))

    return parse


def text_map(pattern: str | None = None, expected: str = "a name") -> Parser:
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

    return parse


def table(cls: type[Table]) -> Callable[[object, Where], Table]:
    """Parser of a nested table."""
    return lambda value, where: read_table(cls, value, where)


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
        if declared.later and values[item.name] != default:
            raise ConfigError("not supported yet: remove the key, it would change nothing", path=place)
    return cls(**values)
