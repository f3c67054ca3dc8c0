"""The scripts complete commands, groups, options and shells; bash is asked for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentotool.oci.descriptor import MANIFEST
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore
from bentotool.paths import default_store


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
    ],
)
def test_bash_completes(cli, require_tool, tmp_path: Path, typed: list[str], expected: set[str]) -> None:
    bash = require_tool("bash")
    layout = Layout(default_store())
    names, some = RefStore(layout), layout.put(b"{}", MANIFEST)
    for kind, name in (("models", "iris"), ("models", "iris-2"), ("models", "other"), ("bentos", "flowers")):
        names.set(kind, name, "1", some, size=2)
    program = tmp_path / "bin" / "bentotool"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bentotool "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(cli("completion", "bash").out)
    words = " ".join(f"'{word}'" for word in ["bentotool", *typed])
    ask = f'source "{script}"; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; '
    ask += '_bentotool_completion bentotool; printf "%s\\n" "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert set(done.stdout.split()) == expected
