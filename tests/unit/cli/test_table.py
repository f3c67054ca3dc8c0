"""The table tells the truth about the commands."""

from __future__ import annotations

import importlib
import inspect

import pytest

from bentotool.cli.table import COMMANDS, GROUPS, PANELS, CommandDecl


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_summary_is_the_first_line_of_the_docstring(command: CommandDecl) -> None:
    module, _, function = command.target.partition(":")
    target = getattr(importlib.import_module(module), function)
    assert (inspect.getdoc(target) or "").split("\n")[0].rstrip(".") == command.summary


def test_names_are_unique_and_every_group_is_declared() -> None:
    names = [command.name for command in COMMANDS]
    assert len(names) == len(set(names))
    groups = {group.name for group in GROUPS}
    assert {name.split()[0] for name in names if " " in name} <= groups
    assert not groups & set(names)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_summary_fits_a_line(command: CommandDecl) -> None:
    assert 0 < len(command.summary) <= 72
    assert not command.summary.endswith(".")
    assert command.panel in PANELS
