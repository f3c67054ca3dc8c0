"""Configuration files as reference pages and JSON schemas, made from the declarations of their keys.

Without arguments they are those of the build configuration, from the declarations in ``config``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, cast

from bentotool.build.config import BuildConfig, EnvConfig, IndexConfig, ModelConfig
from bentotool.build.schema import Key, table_schema

__all__ = ["json_schema", "reference_page", "schema_document"]

_ENTRIES: Mapping[str, type[Any]] = {"models": ModelConfig, "envs": EnvConfig, "python.indexes": IndexConfig}


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of ``bentofile.yaml``, for editors and for checks in CI.

    A key without a value (``labels:``) is read as if it were absent; the schema asks for a value.
    """
    about = "Configuration of a Bento; the same keys stand in [tool.bentotool] of pyproject.toml."
    return schema_document(BuildConfig, "bentofile.yaml", about)


def schema_document(cls: type[Any], title: str, description: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the file that a declared table is."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **table_schema(cls),
    }


def reference_page(cls: type[Any] = BuildConfig, entries: Mapping[str, type[Any]] = _ENTRIES) -> str:
    """All keys as Markdown tables, one for each table of the configuration.

    Args:
        entries: the tables that lists hold, by the list's key.
    """
    return "\n".join(_sections(cls, "", entries)).rstrip() + "\n"


def _sections(cls: type[Any], prefix: str, entries: Mapping[str, type[Any]]) -> Iterator[str]:
    rows: list[str] = []
    nested: list[tuple[type[Any], str, str]] = []
    for item in fields(cls):
        declared: Key = item.metadata["key"]
        name, made_by = f"{prefix}{item.name}", cast("Any", item.default_factory)
        if isinstance(made_by, type) and is_dataclass(made_by):
            nested.append((made_by, name, f"{name}."))
            continue
        if name in entries:
            nested.append((entries[name], f"{name}[]", f"{name}[]."))
        about = f"not taken: {declared.refused}" if declared.refused else declared.description
        rows.append(f"| `{name}` | {declared.parse.shown} | {_default(item.default)} | {_cell(about)} |")
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows
    yield ""
    for table, name, inner in nested:
        yield f"### {name}"
        yield ""
        yield from _sections(table, inner, entries)


def _default(value: Any) -> str:
    if value is MISSING or value in (None, (), ""):
        return ""
    shown = "true" if value is True else "false" if value is False else value
    return f"`{', '.join(shown) if isinstance(shown, tuple) else shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
