"""A command group that imports a command when it is chosen.

The group fills itself with named stubs, because typer looks at ``self.commands`` for help, completion and "did you
mean"; ``resolve_command`` replaces the chosen stub by the real command.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import typer
from typer.core import TyperCommand, TyperGroup

from bentotool.cli.options import (
    PANEL,
    PLACE_PANEL,
    REGISTRY_PANEL,
    SIGNING_PANEL,
    TARGET_PANEL,
    GlobalOptions,
    global_params,
)
from bentotool.cli.state import State
from bentotool.cli.table import CommandDecl, GroupDecl
from bentotool.errors import PluginError

__all__ = ["WORDS", "Declaration", "LazyGroup", "load_function"]

WORDS = "bentotool.words"
"""In the context's ``meta``: what stands after the command's name. Help is asked for before any of it is taken in."""

_PLAIN = ("str", "int", "float")  # the first word of a type's name; "int range" is one too


class Declaration(Protocol):
    """What the group reads of a command declaration, ours or a plugin's."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def panel(self) -> str: ...


def load_function(target: str) -> Callable[..., Any]:
    """Import ``module:function``.

    Raises:
        PluginError: the module cannot be imported or has no such function.
    """
    module_name, _, attribute = target.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"command target {target!r} cannot be loaded: {error}") from error
    return function


def _write_options(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    """Arguments, the command's own options, then the global ones under their own heading."""
    sections: dict[str, list[tuple[str, str]]] = {
        "Arguments": [],
        "Options": [],
        TARGET_PANEL: [],
        PLACE_PANEL: [],
        SIGNING_PANEL: [],
        REGISTRY_PANEL: [],
        PANEL: [],
    }
    params = sorted(command.get_params(ctx), key=lambda param: getattr(param, "help_place", lambda _ctx: 0)(ctx))
    for param in params:
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            name, text = record
            sections["Arguments"].append((name, text.removesuffix("  [required]")))  # as the usage line says it
        else:
            sections[getattr(param, "rich_help_panel", None) or "Options"].append(record)
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


class _Leaf(TyperCommand):
    more_help: Callable[[State], tuple[str, list[tuple[str, str]]]] | None = None
    """Makes a title and rows that the command's help ends with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        if isinstance(ctx.obj, State):  # every option has been parsed, wherever it stood
            ctx.obj.check_disabled()
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Plain names for what must be given; typer puts them into braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)
        if self.more_help is not None and isinstance(ctx.obj, State):
            title, rows = self.more_help(ctx.obj)
            with formatter.section(title):
                formatter.write_dl(rows)


class _Stub(TyperCommand):
    """Stands for a command that is not imported yet: a name, a summary, a panel."""

    def __init__(self, declaration: Declaration, name: str) -> None:
        super().__init__(name, help=declaration.summary, rich_markup_mode=None, rich_help_panel=declaration.panel)
        self.target = declaration.target


class LazyGroup(TyperGroup):
    """A group over declarations.

    Args:
        name: what the user types, ``None`` for the root.
        summary: the help text.
        declarations: commands; their names are relative to this group.
        options: where the global options are gathered.
        groups: groups one level below.
        more: asked once for further declarations, when a name is unknown or the help is shown.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        declarations: Iterable[Declaration],
        options: GlobalOptions,
        *,
        groups: Iterable[GroupDecl] = (),
        more: Callable[[], Iterable[Declaration]] | None = None,
        panel: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            help=summary,
            rich_markup_mode=None,
            params=list(global_params(options)),
            rich_help_panel=panel,
            context_settings={"help_option_names": ["-h", "--help"]},  # commands below inherit it
        )
        self._options = options
        self._groups = {group.name: group for group in groups}
        self._more = more
        self._add(declarations)

    def _add(self, declarations: Iterable[Declaration]) -> None:
        nested: dict[str, list[Declaration]] = {}
        order: dict[str, Declaration | None] = {}
        for declaration in declarations:
            first, _, rest = declaration.name.partition(" ")
            if rest:
                nested.setdefault(first, []).append(
                    CommandDecl(rest, declaration.target, declaration.summary, declaration.panel)
                )
                order.setdefault(first, None)
            else:
                order[first] = declaration
        for name, leaf in order.items():
            existing = self.commands.get(name)
            if isinstance(existing, LazyGroup):
                existing._add(nested.get(name, ()))
            elif existing is None and leaf is not None:  # a plugin never replaces a command that stands
                self.commands[name] = _Stub(leaf, name)
            elif existing is None:
                group = self._groups.get(name) or GroupDecl(name, f"Commands of {name}", nested[name][0].panel)
                self.commands[name] = LazyGroup(name, group.summary, nested[name], self._options, panel=group.panel)

    def _extend(self) -> None:
        if self._more is not None:
            more, self._more = self._more, None
            self._add(more())

    def list_commands(self, ctx: Any) -> list[str]:
        self._extend()
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            self._extend()
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _Stub):
            command = self.commands[str(command.name)] = self._load(command)
        return name, command, rest

    def _load(self, stub: _Stub) -> TyperCommand:
        # add_completion=False: otherwise the help of every leaf grows two completion options
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        function = load_function(stub.target)
        app.command(stub.name, cls=_Leaf, help=stub.help if not stub.target else None)(function)
        command = typer.main.get_command(app)
        if not isinstance(command, TyperCommand):
            raise PluginError(f"command target {stub.target!r} is not a plain function")
        for param in command.params:  # --name NAME, where typer writes --name <str>
            if param.param_type_name == "option" and param.metavar is None and param.type.name.split()[0] in _PLAIN:
                param.metavar = str(param.name).upper()
        more = getattr(function, "more_params", None)
        command.params.extend(more(self._options) if more else ())
        command.params.extend(global_params(self._options))
        if isinstance(command, _Leaf):
            command.more_help = getattr(function, "more_help", None)
        gc.freeze()
        gc.enable()  # off since __main__
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            if ctx.parent is None:
                args = ["--help"]
            else:
                ctx.fail("no command given")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if not command.hidden:
                panel = "Commands" if ctx.parent is not None else getattr(command, "rich_help_panel", None) or "Other"
                panels.setdefault(panel, []).append((name, command.help or ""))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        _write_options(self, ctx, formatter)
