"""Size and direction: files and functions stay small, names tell, imports go downwards, core names no plugin."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "bentotool").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*/src/**/*.py"))
PRODUCT = [*CORE, *PLUGINS]
FILE_LIMIT, FUNCTION_LIMIT = 400, 60
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "base"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions with their length in lines, the docstring left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = node.body[0] if ast.get_docstring(node) is not None else None
            doc_lines = doc.end_lineno - doc.lineno + 1 if doc is not None and doc.end_lineno else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - doc_lines


def test_files_are_short() -> None:
    long = {_name(path): count for path in PRODUCT if (count := len(path.read_text("utf-8").splitlines())) > FILE_LIMIT}
    assert not long, f"split by responsibility: {long}"


def test_functions_are_short() -> None:
    sizes = [(f"{_name(path)}:{name}", size) for path in PRODUCT for name, size in _functions(path)]
    long = [(name, size) for name, size in sizes if size > FUNCTION_LIMIT]
    assert not long, f"name the parts: {long}"


def test_modules_have_telling_names() -> None:
    assert not [_name(path) for path in PRODUCT if path.stem in VAGUE]


def test_core_names_no_plugin() -> None:
    """No module of a plugin, not even in a string. A hint may say which distribution to install."""
    folders = [folder.name.replace("-", "_") for folder in (ROOT / "plugins").iterdir() if folder.is_dir()]
    lines = [
        (f"{_name(path)}:{number}", line)
        for path in CORE
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
    ]
    assert folders
    assert not [where for where, line in lines if any(name in line for name in folders)]


def test_core_declares_no_entry_point_of_its_own() -> None:
    assert 'entry-points."bentotool"' not in (ROOT / "pyproject.toml").read_text("utf-8")
    assert "entry-points.bentotool" not in (ROOT / "pyproject.toml").read_text("utf-8")


def test_imports_go_downwards(require_package: object) -> None:
    require_package("importlinter")  # type: ignore[operator]
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program
    result = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout[-3000:]


def test_the_runtime_side_names_no_upper_layer() -> None:
    """The same rule without import-linter, for every environment: in-function imports count."""
    upper = {"cli", "build", "oci", "images", "trust", "deploy", "plugins", "hookspecs", "plugin_scan"}
    found = [
        f"{_name(path)}:{node.lineno}: {name}"
        for part in ("sdk", "runtime", "client")
        for path in sorted((ROOT / "bentotool" / part).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in _imported(node)
        if name.startswith("bentotool.") and name.split(".")[1] in upper
    ]
    assert not found


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


@pytest.mark.parametrize("pattern", [r"BENTOTOOL_TEST", r"PYTEST_CURRENT_TEST", r"running_tests"])
def test_product_code_does_not_know_about_tests(pattern: str) -> None:
    assert not [_name(path) for path in PRODUCT if re.search(pattern, path.read_text("utf-8"))]
