"""``bentotool plugin list`` as a user runs it, with a broken plugin installed beside a good one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

GOOD = "@hookimpl\ndef bentotool_templates(): yield TemplateDecl('a', 'json', 'x', 'A')"


@pytest.fixture
def run(make: Any) -> Any:
    make.add("broken", "raise RuntimeError('boom')")
    make.add("good", GOOD)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(make.folder), "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "bentotool", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False, env=environment
        )

    return run


def test_json(run: Any) -> None:
    done = run("--json", "plugin", "list")
    assert done.returncode == 0
    plugins = {item["name"]: item for item in json.loads(done.stdout)}
    assert plugins["good"]["hooks"] == ["bentotool_templates"]
    assert plugins["good"]["version"] == "1.2"
    assert plugins["broken"]["state"] == "failed"
    assert plugins["broken"]["problem"] == "RuntimeError: boom"


def test_table_and_warning(run: Any) -> None:
    done = run("plugin", "list")
    assert done.returncode == 0
    assert "RuntimeError: boom" in done.stdout
    assert "plugin 'broken' (dist-broken 1.2): RuntimeError: boom" in done.stderr


def test_disabled(run: Any) -> None:
    done = run("--disable-plugin", "broken", "plugin", "list", "--json")
    assert done.stderr == ""
    assert {item["name"]: item["state"] for item in json.loads(done.stdout)}["broken"] == "disabled"


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("model", "list")])
def test_the_core_works_beside_a_broken_plugin(run: Any, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 0
