"""The global options: one definition, accepted before the command and after it.

Each leaf command gets its own copies appended, so they show in its help and complete there. Their values never
reach the command function; a callback gathers them into :class:`GlobalOptions`, which the state is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.core import TyperOption

from bentotool.errors import UsageError

__all__ = ["PANEL", "GlobalOptions", "global_params"]

PANEL = "Global options"


@dataclass
class GlobalOptions:
    """What the user said globally in this invocation, gathered while the arguments are parsed."""

    store: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False
    disable_plugin: list[str] = field(default_factory=list)


def global_params(options: GlobalOptions) -> list[TyperOption]:
    """New option objects whose values are gathered into ``options``; later ones add to or replace earlier ones."""

    def store(_ctx: Any, _param: Any, value: str | None) -> None:
        if value == "":
            raise UsageError("--store is empty", hint="name a folder, or leave --store out")
        if value is not None:
            options.store = Path(value)

    def flag(name: str) -> Any:
        def remember(_ctx: Any, _param: Any, value: bool | None) -> None:
            if value:
                setattr(options, name, True)

        return remember

    def verbose(_ctx: Any, _param: Any, value: int | None) -> None:
        options.verbose += value or 0

    def disable(_ctx: Any, _param: Any, value: tuple[str, ...] | None) -> None:
        options.disable_plugin.extend(value or ())

    def option(declarations: list[str], help: str, callback: Any, **settings: Any) -> TyperOption:
        shared = {"callback": callback, "expose_value": False, "rich_help_panel": PANEL}
        return TyperOption(param_decls=declarations, help=help, **shared, **settings)

    return [
        option(["--store"], "The store to work on (env BENTOTOOL_STORE).", store, metavar="PATH", type=str),
        option(["--json"], "Print one JSON document.", flag("json"), is_flag=True, default=False),
        option(["-q", "--quiet"], "Print results only.", flag("quiet"), is_flag=True, default=False),
        option(["-v", "--verbose"], "Say more; twice for tracebacks.", verbose, count=True, default=0, type=int),
        option(["--no-color"], "Plain output (env NO_COLOR).", flag("no_color"), is_flag=True, default=False),
        option(["--disable-plugin"], "Leave a plugin out (repeatable).", disable, metavar="NAME", multiple=True),
    ]
