"""Help, version, unknown commands, global options on either side of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import bentotool
from bentotool.cli.table import COMMANDS


def test_root_help_names_every_command(cli) -> None:
    outcome = cli("--help")
    assert outcome.status == 0
    assert outcome.err == ""
    for command in COMMANDS:
        assert f"  {command.name.split()[0]} " in outcome.out
        if " " not in command.name:
            assert command.summary in outcome.out


def test_root_help_is_plain_and_fits_80_columns(cli) -> None:
    lines = cli("--help").out.splitlines()
    assert all(line.isascii() and len(line) <= 80 for line in lines)


def test_no_command_is_the_help(cli) -> None:
    assert cli() == cli("--help")


@pytest.mark.parametrize("command", [[], ["model"], ["model", "import"], ["doctor"]])
def test_h_is_help(cli, command: list[str]) -> None:
    outcome = cli(*command, "-h")
    assert outcome.status == 0
    assert outcome == cli(*command, "--help")
    assert "-h, --help" in outcome.out


def test_a_group_shows_its_own_commands(cli) -> None:
    outcome = cli("model", "--help")
    assert outcome.status == 0
    assert "Import a model into the store" in outcome.out
    assert "quickstart" not in outcome.out


@pytest.mark.parametrize("command", ["init", "completion", "doctor", "config show"])
def test_a_leaf_shows_the_global_options(cli, command: str) -> None:
    out = cli(*command.split(), "--help").out
    own, _, shared = out.partition("Global options:")
    assert "--store" not in own
    for option in ("--store PATH", "--json", "-q, --quiet", "-v, --verbose", "--no-color", "--disable-plugin NAME"):
        assert option in shared
    assert "--install-completion" not in out


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_version(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentotool", *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"bentotool {bentotool.__version__}\n"


def test_version_as_json(cli) -> None:
    assert json.loads(cli("--json", "--version").out) == {"version": bentotool.__version__}


@pytest.mark.parametrize("before", [True, False])
def test_global_options_stand_before_or_after(cli, tmp_path: Path, before: bool) -> None:
    options = ["--store", str(tmp_path / "elsewhere"), "--json", "--disable-plugin", "x"]
    arguments = [*options, "config", "show"] if before else ["config", "show", *options]
    document = json.loads(cli(*arguments).out)
    assert document["store"] == str(tmp_path / "elsewhere")
    assert document["disabled-plugins"] == ["x"]


def test_global_options_stand_between_group_and_command(cli) -> None:
    assert json.loads(cli("config", "--json", "show", "--origin").out)["store"]["origin"] == "BENTOTOOL_STORE"


def test_a_later_store_wins(cli, tmp_path: Path) -> None:
    outcome = cli("--store", str(tmp_path / "a"), "config", "show", "--json", "--store", str(tmp_path / "b"))
    assert json.loads(outcome.out)["store"] == str(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["modle"], "no such command 'modle'", "did you mean 'model'?"),
        (["model", "imprt"], "no such command 'imprt'", "did you mean 'import'?"),
        (["frobnicate"], "no such command 'frobnicate'", "bentotool --help"),
        (["model"], "no command given", "bentotool model --help"),
        (["--store"], "option '--store' requires an argument", "bentotool --help"),
        (["completion"], "'SHELL'. Choose from: bash, zsh, fish, powershell", "bentotool completion --help"),
        (["completion", "tcsh"], "'tcsh' is not one of", "bentotool completion --help"),
        (["init", "--tmplate", "x"], "no such option: --tmplate", "did you mean --template?"),
        (["doctor", "extra"], "unexpected extra argument", "bentotool doctor --help"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(cli, arguments: list[str], message: str, hint: str) -> None:
    outcome = cli(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    error, hinted = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hinted == f"hint: {hint}"


@pytest.mark.parametrize("arguments", [["list"], ["model", "list"], ["store", "du"]])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_store_that_is_no_folder_is_wrong_usage(cli, tmp_path: Path, arguments: list[str], below: str) -> None:
    (tmp_path / "file").touch()
    outcome = cli(*arguments, "--store", str(tmp_path / "file" / below))
    assert (outcome.status, outcome.out) == (2, "")
    assert f"{tmp_path / 'file'} is not a folder" in outcome.err


def test_a_store_is_not_empty_text_and_need_not_exist(cli, tmp_path: Path) -> None:
    assert cli("--store", "", "list").status == 2
    assert cli("--store", str(tmp_path / "none" / "yet"), "list", "--json").out == "[]\n"
    assert not (tmp_path / "none").exists()


def test_an_empty_name_is_wrong_usage(cli, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    outcome = cli("model", "import", str(tmp_path / "model.onnx"), "--name", "")
    assert (outcome.status, outcome.err.splitlines()[0]) == (2, "error: '' is not a valid name")
    (tmp_path / "service.py").touch()
    assert cli("build", str(tmp_path), "--name", "").status == 2


@pytest.mark.parametrize("before", [True, False])
def test_disabling_a_plugin_that_is_not_there_warns(cli, before: bool) -> None:
    option = ["--disable-plugin", "nosuch"]
    outcome = cli(*option, "list") if before else cli("list", *option)
    assert outcome.status == 0
    assert outcome.err.startswith("warning: no plugin 'nosuch' to disable; installed: ")


@pytest.mark.parametrize("arguments", [["--json", "modle"], ["modle", "--json"], ["doctor", "--json", "--bogus"]])
def test_wrong_usage_as_json_wherever_the_flag_stands(cli, arguments: list[str]) -> None:
    outcome = cli(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert json.loads(outcome.err)["error"]["code"] == "usage"


def test_after_two_dashes_json_is_an_argument(cli) -> None:
    assert cli("modle", "--", "--json").err.startswith("error: ")
