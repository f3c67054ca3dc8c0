"""``bentotool config``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bentotool.cli.state import State, current

__all__ = ["show_config"]


def show_config(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Show each setting and where it comes from"""
    state = current()
    rows = _settings(state)
    document = {name: {"value": value, "origin": source} if origin else value for name, value, source in rows}
    columns = ("setting", "value", "origin") if origin else ("setting", "value")
    shown = [(name, _text(value), source)[: len(columns)] for name, value, source in rows]
    state.console.result(document, lambda: state.console.table(columns, shown))


def _settings(state: State) -> list[tuple[str, object, str]]:
    options = state.options
    store = "--store" if options.store else "BENTOTOOL_STORE" if os.environ.get("BENTOTOOL_STORE") else "default"
    named = os.environ.get("BENTOTOOL_DISABLE_PLUGINS", "")
    disabled = sorted({*options.disable_plugin, *(name.strip() for name in named.split(","))} - {""})
    sources = [
        *(["--disable-plugin"] if options.disable_plugin else []),
        *(["BENTOTOOL_DISABLE_PLUGINS"] if named else []),
    ]
    color = "--no-color" if options.no_color else "NO_COLOR" if os.environ.get("NO_COLOR") else "terminal"
    return [
        ("store", str(state.store), store),
        ("disabled-plugins", disabled, " and ".join(sources) or "default"),
        ("color", state.color, color),
    ]


def _text(value: object) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)
