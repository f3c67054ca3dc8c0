"""Start-up is guarded by what is imported, not by a clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FORBIDDEN = {
    "rich",
    "pydantic",
    "httpx",
    "requests",
    "litestar",
    "oras",
    "sigstore",
    "importlib.metadata",
    "asyncio",
    "ssl",
    "jinja2",
    "numpy",
    "uvicorn",
    "msgspec",
    "yaml",
    "tomlkit",
    "onnx",
    "onnxruntime",
    "sklearn",
    "torch",
    "docker",
    "cryptography",
    "cyclonedx",
    "spdx_tools",
    "bentotool.trust",
    "urllib.request",
    "http.client",
}
MODULE_LIMIT = 230
"""About 200 are loaded today, 130 of them by typer; a limit that speaks before the budget of 120 ms is gone."""

_REPORT = """
import json, sys
sys.argv = ["bentotool", *{arguments!r}]
from bentotool.__main__ import run
try:
    run()
except SystemExit as leaving:
    status = leaving.code or 0
else:
    status = 0
print(json.dumps({{"status": status, "modules": sorted(sys.modules)}}), file=sys.stderr)
"""


def _modules(*arguments: str) -> set[str]:
    code = _REPORT.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    report = json.loads(done.stderr.strip().splitlines()[-1])
    assert report["status"] == 0, done.stderr
    return set(report["modules"])


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "list", "list --json", "model list", "model --help", "serve --help"],
)
def test_light_commands_import_nothing_heavy(arguments: str) -> None:
    modules = _modules(*arguments.split())
    assert not sorted(modules & FORBIDDEN)
    assert len(modules) < MODULE_LIMIT


def test_version_is_answered_without_typer() -> None:
    assert not _modules("--version") & {"typer", "pluggy", "dataclasses"}


def test_importing_bentotool_imports_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import bentotool; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = {name.split(".")[0].lstrip("_") for name in done.stdout.split()}
    assert loaded - {"bentotool"} <= {name.lstrip("_") for name in sys.stdlib_module_names}
    assert not set(done.stdout.split()) & FORBIDDEN
