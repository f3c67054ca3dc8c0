"""Reading the TOML files of a project as data: bounded, contained, and with types that are checked as they are used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentotool.build.contain import read_inside
from bentotool.build.schema import Where, check_text, wrong_type
from bentotool.errors import ConfigError

__all__ = ["parse_toml", "read_toml", "table_at", "tables_at", "text_at", "texts_at"]

_LIMIT = 1 << 20
_ITEM_LIMIT = 50_000


def read_toml(project: Path, name: str, *, limit: int = _LIMIT) -> Mapping[str, Any]:
    """A TOML file of the project as a document.

    Raises:
        ConfigError: no TOML, or larger than ``limit`` bytes.
        NotFoundError, UnsafeError: as :func:`bentotool.build.contain.read_inside`.
    """
    content = read_inside(project, name, (name,), limit=limit)
    try:
        return parse_toml(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8 text") from None


def parse_toml(content: str, name: str) -> Mapping[str, Any]:
    """TOML text as a document; ``name`` is the file, for the message of a ConfigError."""
    # The name is computed so that type checking needs only one of the two installed.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document: Mapping[str, Any] = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is not TOML: {' '.join(str(error).split())[:200]}") from None
    return document


def table_at(table: Mapping[str, Any], key: str, where: Where) -> Mapping[str, Any]:
    """A table's table; empty where it is absent. ConfigError for another type."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise wrong_type(value, (*where, key), "a table")
    return value


def tables_at(table: Mapping[str, Any], key: str, where: Where) -> tuple[Mapping[str, Any], ...]:
    """A table's array of tables; empty where it is absent. ConfigError for another type."""
    value = table.get(key, [])
    if not isinstance(value, list) or len(value) > _ITEM_LIMIT:
        raise wrong_type(value, (*where, key), f"a list of at most {_ITEM_LIMIT} tables")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise wrong_type(item, (*where, key, str(index)), "a table")
    return tuple(value)


def text_at(table: Mapping[str, Any], key: str, where: Where) -> str:
    """A table's text without control characters; "" where it is absent. ConfigError for another type."""
    value = table.get(key, "")
    if not isinstance(value, str):
        raise wrong_type(value, (*where, key), "text")
    return check_text(value, (*where, key))


def texts_at(table: Mapping[str, Any], key: str, where: Where) -> tuple[str, ...]:
    """A table's list of text; empty where it is absent. ConfigError for another type."""
    value = table.get(key, [])
    if not isinstance(value, list) or len(value) > _ITEM_LIMIT:
        raise wrong_type(value, (*where, key), "a list of text")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong_type(item, (*where, key, str(index)), "text")
        check_text(item, (*where, key, str(index)))
    return tuple(value)
