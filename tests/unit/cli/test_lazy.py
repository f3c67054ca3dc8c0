"""The lazy group: stubs for help, imports on choice, plugin commands merged only when needed."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import pytest
import typer

from bentotool.cli.lazy import LazyGroup, load_function
from bentotool.cli.options import GlobalOptions
from bentotool.cli.table import CommandDecl
from bentotool.errors import PluginError

SAID: list[str] = []


def greet(name: Annotated[str, typer.Option()] = "you") -> None:
    """Greet somebody"""
    SAID.append(name)


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "greeting", sys.modules[__name__])
    SAID.clear()


def _group(asked: list[str], *more: CommandDecl) -> LazyGroup:
    def plugin_commands() -> tuple[CommandDecl, ...]:
        asked.append("plugins")
        return more

    own = [CommandDecl("greet", "greeting:greet", "Greet somebody"), CommandDecl("house keep", "absent:x", "Keep")]
    return LazyGroup("tool", "A tool.", own, GlobalOptions(), more=plugin_commands)


def _run(group: LazyGroup, *arguments: str) -> None:
    with group.make_context("tool", list(arguments)) as context:
        group.invoke(context)


def test_a_built_in_command_asks_no_plugin() -> None:
    asked: list[str] = []
    _run(_group(asked), "greet", "--name", "me")
    assert SAID == ["me"]
    assert asked == []


def test_an_unknown_name_asks_the_plugins_once() -> None:
    asked: list[str] = []
    offered = [CommandDecl(name, "greeting:greet", "Wave") for name in ("wave", "cloud up")]
    group = _group(asked, *offered)
    _run(group, "wave")
    _run(group, "cloud", "up", "--name", "sky")
    assert SAID == ["you", "sky"]
    assert asked == ["plugins"]


def test_a_plugin_joins_a_group_and_replaces_nothing() -> None:
    group = _group([], CommandDecl("greet", "absent:x", "Other"), CommandDecl("house paint", "greeting:greet", "Paint"))
    group.list_commands(None)
    _run(group, "greet")
    _run(group, "house", "paint")
    assert SAID == ["you", "you"]


def test_root_help_shows_plugin_commands_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        _run(_group([], CommandDecl("wave", "absent:x", "Wave a hand")), "--help")
    assert "Wave a hand" in capsys.readouterr().out
    assert "absent" not in sys.modules


@pytest.mark.parametrize("target", ["absent_module:f", "json:absent", "json"])
def test_a_target_that_is_not_there_is_a_plugin_error(target: str) -> None:
    with pytest.raises(PluginError, match="cannot be loaded"):
        load_function(target)


def test_help_is_written_for_people(cli) -> None:
    """No types and braces of the library; what must be given stands bare in the usage line."""
    from bentotool.cli.table import COMMANDS

    for command in COMMANDS:
        shown = cli(*command.name.split(), "--help").out
        assert not re.search(r"<(str|int|float)|\[required\]|\{[A-Z]", shown), shown
    assert "model tag [OPTIONS] REF TAG\n" in cli("model", "tag", "--help").out
