"""The root of the command line: table, global options, plugin commands, one boundary for failures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from typer.core import TyperOption

from bentotool.cli import boundary
from bentotool.cli.lazy import Declaration, LazyGroup
from bentotool.cli.options import GlobalOptions
from bentotool.cli.state import State, use
from bentotool.cli.table import COMMANDS, GROUPS

__all__ = ["main"]

PROGRAM = "bentotool"
COMPLETE_VARIABLE = "_BENTOTOOL_COMPLETE"
SUMMARY = """From a model file to a running, scaled, trusted service.

Start with `bentotool quickstart`. `bentotool COMMAND --help` explains one command."""


def main(arguments: Sequence[str]) -> int:
    """Run one command line; everything printable has been printed when it returns.

    Args:
        arguments: the words after the program's name.

    Returns:
        The exit status (see ``docs/cli.md``).
    """
    _safe_streams()
    options = GlobalOptions(json=_asks_for_json(arguments))
    state = State(options)
    with use(state):
        return boundary.run_guarded(lambda: _dispatch(list(arguments), options, state), state)


def _dispatch(arguments: list[str], options: GlobalOptions, state: State) -> None:
    root = LazyGroup(PROGRAM, SUMMARY, COMMANDS, options, groups=GROUPS, more=lambda: _plugin_commands(state))
    root.params.insert(0, _version_option(state))
    if COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # not re-exported by name

        completion_init()
        root.main(arguments, prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
        return
    with root.make_context(PROGRAM, arguments, obj=state) as context:
        root.invoke(context)


def _version_option(state: State) -> TyperOption:
    """``--version`` among other options; alone it is answered in ``__main__`` without this module."""

    def show(context: Any, _param: Any, value: bool | None) -> None:
        if value and not context.resilient_parsing:
            from bentotool import __version__

            state.console.result({"version": __version__}, f"{PROGRAM} {__version__}")
            context.exit()

    names = ["-V", "--version"]
    return TyperOption(
        param_decls=names, help="Show the version and exit.", callback=show, is_flag=True, expose_value=False
    )


def _plugin_commands(state: State) -> Iterable[Declaration]:
    """Commands contributed by plugins; asked for only when a name is not built in, or for the root's help."""
    return state.plugins.commands(reserved=[command.name for command in COMMANDS]).values()


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Known before parsing, so that a usage error is rendered in the form the user asked for."""
    words = list(arguments)
    if "--" in words:
        words = words[: words.index("--")]
    return "--json" in words


def _safe_streams() -> None:
    """A character the terminal's encoding lacks (Windows code pages, LANG=C) is escaped rather than fatal."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
