"""What core imports is what it declares, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
IMPORTED_AS = {"pyyaml": "yaml", "prometheus-client": "prometheus_client"}
OPTIONAL = {
    "httpx": "the client extra",
    "numpy": "only when the user's service or model has it",
    "pandas": "only when the user's service has it",
    "polars": "only when the user's service has it",
    "PIL": "only when the user's service has it",
    "torch": "only when the user's service has it",
    "fastapi": "only when the user's service has it",
    "gradio": "only when the user's service has it",
    "multipart": "litestar brings it",
    "watchfiles": "the reload extra; without it files are looked at by turns",
    "pydantic": "only when the user's service has it",
    "zstandard": "the zstd extra",
    "cyclonedx": "the sbom extra",
    "packageurl": "the sbom extra",
    "spdx_tools": "the sbom extra",
    "opentelemetry": "the tracing extra",
    "pytest": "bentotool.testing, which runs under it",
}
NOT_IMPORTED_BY_NAME = {"tomli", "uvloop"}  # by import_module, and by uvicorn


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _declared(project: dict[str, Any]) -> set[str]:
    names = {re.split(r"[<>=;!~ \[]", line)[0].lower() for line in project["dependencies"]}
    return {IMPORTED_AS.get(name, name) for name in names}


def _imported() -> set[str]:
    found = set()
    for path in (ROOT / "bentotool").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"bentotool", "tomllib"}


def test_every_import_is_declared(project: dict[str, Any]) -> None:
    assert _imported() - set(OPTIONAL) <= _declared(project)


def test_every_dependency_is_used(project: dict[str, Any]) -> None:
    assert _declared(project) <= _imported() | NOT_IMPORTED_BY_NAME


def test_every_dependency_has_a_floor_and_no_pre_release(project: dict[str, Any]) -> None:
    extras = [line for name in ("client", "reload", "sbom", "zstd") for line in project["optional-dependencies"][name]]
    for line in [*project["dependencies"], *extras]:
        assert ">=" in line.split(";")[0]
        assert not re.search(r"\d(a|b|rc|\.dev)\d", line)


def test_there_are_few(project: dict[str, Any]) -> None:
    """The tool's own; the runtime's six come on top. One more needs a reason that outweighs this line."""
    runtime = {"litestar", "uvicorn", "httptools", "uvloop", "msgspec", "prometheus_client"}
    brought, only_python_310 = {"requests", "urllib3", "h11"}, {"tomli"}  # by oras and by uvicorn
    assert len(_declared(project) - runtime - brought - only_python_310) <= 9
