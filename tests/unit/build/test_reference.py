"""The JSON schema and the reference page say what the reader does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.config import BuildConfig
from bentotool.build.reference import json_schema, reference_page
from bentotool.build.schema import read_table
from bentotool.cli.main import main
from bentotool.errors import ConfigError

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"service": "service:Iris", "name": "iris", "labels": {"a": 1, "b": True}, "include": "*.py"},
    {"python": {"version": 3.11, "packages": ["numpy"], "find_links": "wheels", "no_index": True}},
    {"docker": {"env": ["A=b"], "distro": "debian", "cuda_version": "12.8", "system_packages": ["git"]}},
    {"docker": {"env": ".env"}, "models": ["iris", {"tag": "a:1", "alias": "b"}]},
    {"docker": {"cuda_version": 12}, "python": {"version": "3.10", "indexes": [{"name": "a", "url": "https://a"}]}},
    {"envs": [{"name": "A", "stage": "runtime"}], "conda": {"dependencies": ["numpy", {"pip": ["x"]}]}},
]
REFUSED: list[Any] = [
    [],
    {"servise": "a:B"},
    {"name": "Not A Name"},
    {"labels": ["a"]},
    {"python": {"packages": ["a", 3]}},
    {"python": {"no_index": "yes"}},
    {"docker": {"distro": "debain"}},
    {"envs": [{"nam": "x"}]},
    {"envs": [{"value": "x"}]},
    {"models": [{"alias": "x"}]},
    {"python": {"indexes": [{"name": "x"}]}},
    {"python": {"indexes": [{"url": "https://x"}]}},
    {"python": {"version": 3.10}},
    {"docker": {"cuda_version": True}},
    {"docker": {"dockerfile_template": "x"}},
]


@pytest.fixture
def valid(require_package: Callable[[str], None]) -> Callable[[Any], bool]:
    require_package("jsonschema")
    import jsonschema

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return lambda document: bool(jsonschema.Draft202012Validator(schema).is_valid(document))


def test_the_schema_takes_what_the_reader_takes(valid: Callable[[Any], bool]) -> None:
    for document in ACCEPTED:
        read_table(BuildConfig, document, ())
        assert valid(document), document
    for document in REFUSED:
        assert not valid(document), document
        with pytest.raises(ConfigError):
            read_table(BuildConfig, document, ())


def test_every_key_is_described() -> None:
    def names(cls: type[Any], prefix: str = "") -> list[str]:
        found = []
        for item in fields(cls):
            nested = item.default_factory if isinstance(item.default_factory, type) else None
            inner = names(nested, f"{prefix}{item.name}.") if nested and is_dataclass(nested) else None
            found += inner or [f"{prefix}{item.name}"]
        return found

    page = reference_page()
    for name in names(BuildConfig):
        assert f"| `{name}` |" in page
    assert "`envs[].stage`" in page
    docs = Path(__file__).parents[3] / "docs" / "bentofile.md"
    written = docs.read_text(encoding="utf-8").partition("a test compares -->\n")[2].partition("<!-- end")[0]
    assert written == page, "write reference_page() into docs/bentofile.md"


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "bentofile"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert main(["schema", "nothing"]) == 2
