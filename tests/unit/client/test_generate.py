"""Generated clients: deterministic, typed, and nothing of a hostile schema runs or escapes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bentotool
from bentotool.client.generate import generate_module
from bentotool.errors import RemoteError

HOSTILE = {
    "name": 'Evil"""\nimport os; os.system("x")\n"""',
    "routes": [
        {
            "name": '"); import os; os.system("rm -rf /"); ("',
            "route": "/a",
            "description": '"""\nimport os\n\\N{BULLET}',
            "input": {
                "type": "object",
                "properties": {
                    "a: __import__('os')": {"type": "integer"},
                    "self": {"type": "string"},
                    "arguments": {"type": "list[__import__('os')]"},
                    "class": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "file"}}]},
                    "*": {"type": ["string", "null"]},
                },
                "required": ["self", 3],
            },
            "output": {"type": "array", "items": {"type": "eval"}},
            "is_task": True,
        },
        {"name": "list", "route": "/l", "input": {"root_input": True, "type": "file"}, "output": {"type": "null"}},
        {"name": "__init__", "route": "/i", "input": {}, "output": {"is_stream": True, "type": "string"}},
        {"name": "client", "route": "/c", "input": {}, "output": {"type": "object"}},
        {"name": "\u202eclient", "route": "/c2", "input": {}, "output": {"type": "file"}},
        {"name": "elsewhere", "route": "//evil.example/x", "input": {}, "output": {}},
    ],
}
ALLOWED_CALLS = {"cast", "SyncHTTPClient", "AsyncHTTPClient"}
ALLOWED_METHODS = {"call", "submit", "close", "__aenter__"}


def check_harmless(source: str) -> ast.Module:
    """The module imports what its head says, and calls nothing but a client."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert len(imports) == 6
    assert modules <= {"__future__", "collections.abc", "pathlib", "types", "typing", "bentotool.client.http"}
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.Assign, ast.ClassDef}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id in ALLOWED_CALLS
            else:
                assert isinstance(node.func, ast.Attribute)
                assert node.func.attr in ALLOWED_METHODS
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        names = [node.name for node in cls.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        assert len(names) == len(set(names))
    return tree


@bentotool.service
class Typed:
    """A service."""

    @bentotool.api
    def add(self, a: int, b: float = 2.0, *, names: list[str] | None = None) -> dict[str, float]:
        """Add "things"."""
        return {}

    @bentotool.api
    async def items(self, n: int):  # type: ignore[no-untyped-def]
        yield n

    @bentotool.task
    def train(self, rows: list[list[float]]) -> str:
        return ""

    @bentotool.api(method="GET", route="/found/{word}/{page}")
    def find(self, limit: int, word: str, page: int, *, exact: bool = False) -> list[str]:
        return []

    @bentotool.api
    def root(self, rows: list[int], /) -> None:
        return None


def test_the_same_service_gives_the_same_module() -> None:
    source = generate_module(Typed.schema())
    assert source == generate_module(Typed.schema())
    check_harmless(source)
    for line in (
        "    def add(self, a: int, b: float | EllipsisType = ..., ",
        "    def root(self, value: list[int], /) -> None:",
        "    def find(self, limit: int, word: str, page: int, exact: bool | EllipsisType = ...) -> list[str]:",
        "    def submit_train(self, rows: list[list[float]]) -> Task:",
        "    async def submit_train(self, rows: list[list[float]]) -> AsyncTask:",
        "    def items(self, n: int) -> AsyncIterator[Any]:",
    ):
        assert line in source


def test_a_hostile_schema_stays_text() -> None:
    tree = check_harmless(generate_module(HOSTILE))
    assert "evil.example" not in ast.unparse(tree)


@pytest.mark.parametrize("document", [None, [], {}, {"routes": 3}])
def test_what_is_no_schema_is_refused(document: Any) -> None:
    with pytest.raises(RemoteError, match="is not one"):
        generate_module(document)


WORDS = st.text(max_size=12) | st.sampled_from(["name", "self", "list", "None", "def", "Any", '"""', "a\nb", "cast"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "file", "integer", "tensor"]) | JSON,
        "properties": st.dictionaries(
            WORDS, st.fixed_dictionaries({}, optional={"type": JSON, "items": JSON}), max_size=4
        ),
        "required": st.lists(WORDS, max_size=3) | JSON,
        "root_input": st.booleans() | JSON,
        "is_stream": st.booleans() | JSON,
        "anyOf": JSON,
        "additionalProperties": JSON,
    },
)
ROUTES = st.fixed_dictionaries(
    {"name": WORDS, "route": WORDS.map(lambda word: f"/{word}")},
    optional={"input": SCHEMAS | JSON, "output": SCHEMAS | JSON, "is_task": st.booleans(), "description": WORDS | JSON},
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"name": WORDS | JSON, "routes": st.lists(ROUTES | JSON, max_size=4)}))
def test_any_schema_gives_a_harmless_module(document: Any) -> None:
    source = generate_module(document)
    check_harmless(source)
    assert source == generate_module(document)


def test_the_modules_are_typed(tmp_path: Path, require_package: Callable[[str], None]) -> None:
    require_package("mypy")
    files = []
    for number, document in enumerate((Typed.schema(), HOSTILE)):
        files.append(tmp_path / f"module_{number}.py")
        files[-1].write_text(generate_module(document), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
