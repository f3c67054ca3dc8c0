"""The build configuration as a reference page and a JSON schema, made from the declarations in ``config``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, cast

from bentotool.build.config import BuildConfig, EnvConfig, IndexConfig, ModelConfig
from bentotool.build.schema import Key, table_schema

__all__ = ["json_schema", "reference_page"]

_ENTRIES = {"models": ModelConfig, "envs": EnvConfig, "python.indexes": IndexConfig}


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of ``bentofile.yaml``, for editors and for checks in CI.

    A key without a value (``labels:``) is read as if it were absent; the schema asks for a value.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bentofile.yaml",
        "description": "Configuration of a Bento; the same keys stand in [tool.bentotool] of pyproject.toml.",
        **table_schema(BuildConfig),
    }


def reference_page() -> str:
    """All keys as Markdown tables, one for each table of the configuration."""
    return "\n".join(_sections(BuildConfig, "")).rstrip() + "\n"


def _sections(cls: type[Any], prefix: str) -> Iterator[str]:
    rows: list[str] = []
    nested: list[tuple[type[Any], str, str]] = []
    for item in fields(cls):
        declared: Key = item.metadata["key"]
        name, made_by = f"{prefix}{item.name}", cast("Any", item.default_factory)
        if isinstance(made_by, type) and is_dataclass(made_by):
            nested.append((made_by, name, f"{name}."))
            continue
        if name in _ENTRIES:
            nested.append((_ENTRIES[name], f"{name}[]", f"{name}[]."))
        about = f"not taken: {declared.refused}" if declared.refused else declared.description
        rows.append(f"| `{name}` | {declared.parse.shown} | {_default(item.default)} | {_cell(about)} |")
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows
    yield ""
    for table, name, inner in nested:
        yield f"### {name}"
        yield ""
        yield from _sections(table, inner)


def _default(value: Any) -> str:
    if value is MISSING or value in (None, (), ""):
        return ""
    shown = "true" if value is True else "false" if value is False else value
    return f"`{', '.join(shown) if isinstance(shown, tuple) else shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
