"""The scripts complete commands, groups, options and shells; bash is asked for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentotool.deploy.records import Records
from bentotool.oci.descriptor import MANIFEST
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore
from bentotool.paths import default_store
from bentotool.targetspec import Deployment

UNIT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where ``bentotool`` is a program, and the store holds a few names."""
    layout = Layout(default_store())
    names, some = RefStore(layout), layout.put(b"{}", MANIFEST)
    for kind, name in (("models", "iris"), ("models", "iris-2"), ("models", "other"), ("bentos", "flowers")):
        names.set(kind, name, "1", some, size=2)
    deployed = Deployment("flower-shop", "attic", "ready", "")
    Records(layout).keep(deployed, {}, {})
    program = tmp_path / "bin" / "bentotool"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bentotool "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_script_for_each_shell(cli, shell: str) -> None:
    outcome = cli("completion", shell)
    assert outcome.status == 0
    assert "_BENTOTOOL_COMPLETE" in outcome.out
    assert "bentotool" in outcome.out


def test_as_json_the_script_is_a_field(cli) -> None:
    document = json.loads(cli("completion", "fish", "--json").out)
    assert document["shell"] == "fish"
    assert document["script"].startswith("complete --command bentotool")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["mod"], {"model"}),
        (["model", "im"], {"import", "import-archive"}),
        (["completion", ""], {"bash", "zsh", "fish", "powershell"}),
        (["config", "show", "--o"], {"--origin"}),
        (["init", "--js"], {"--json"}),
        (["model", "show", "ir"], {"iris", "iris-2"}),
        (["model", "delete", "iris", "ot"], {"other"}),
        (["path", ""], {"flowers"}),
        (["deploy", "somewhere", "fl"], {"flowers"}),
        (["deploy", "somewhere", f"{UNIT}"[:-1]], {f"{UNIT}/"}),
        (["deployment", "show", "fl"], {"flower-shop"}),
        (["deployment", "prune", ""], {"flower-shop"}),
    ],
)
def test_bash_completes(
    cli, require_tool, tmp_path: Path, environment: dict[str, str], typed: list[str], expected: set[str]
) -> None:
    bash = require_tool("bash")
    script = tmp_path / "completion.bash"
    script.write_text(cli("completion", "bash").out)
    words = " ".join(f"'{word}'" for word in ["bentotool", *typed])
    ask = f'source "{script}"; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; '
    ask += '_bentotool_completion bentotool; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("mod", {"model"}), ("model show ir", {"iris", "iris-2"}), ("model import --che", {"--checksum"})],
)
def test_fish_completes(
    cli, require_tool, tmp_path: Path, environment: dict[str, str], typed: str, expected: set[str]
) -> None:
    fish = require_tool("fish")
    environment |= {f"XDG_{kind}_HOME": str(tmp_path) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
    environment["BENTOTOOL_STORE"] = str(default_store())
    script = tmp_path / "bentotool.fish"
    script.write_text(cli("completion", "fish").out)
    ask = f'source "{script}"; complete -C"bentotool {typed}"'
    done = subprocess.run([fish, "-c", ask], capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert {line.partition("\t")[0] for line in done.stdout.split("\n") if line.strip()} == expected


def test_zsh_completes_at_the_first_tab(cli, require_tool, tmp_path: Path, environment: dict[str, str]) -> None:
    """The script as a file of fpath, which is how the documentation installs it."""
    zsh = require_tool("zsh")
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "_bentotool").write_text(cli("completion", "zsh").out)
    prepare = f'fpath=("{tmp_path}/functions" $fpath); autoload -Uz compinit; compinit -u -D; print -r re""ady'
    ask = f"""zmodload zsh/zpty
zpty shell {zsh} -f -i
zpty -w shell '{prepare}'
zpty -r -m shell shown '*ready*'
zpty -w -n shell $'bentotool model show ot\\t'
zpty -r -m shell shown '*other*' && print found
zpty -d shell
"""
    done = subprocess.run([zsh, "-f", "-c", ask], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.split() == ["found"], done
