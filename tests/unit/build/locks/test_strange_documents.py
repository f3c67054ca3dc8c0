"""Locks and settings with anything in any place: refused by name, never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.build.pylock import read_pylock
from bentotool.build.target import marker_environment
from bentotool.build.uvlock import outdated, read_uv_lock, uv_lock_document
from bentotool.build.uvrun import toml_text
from bentotool.build.uvsettings import find_source, group_lines, read_settings
from bentotool.errors import BentotoolError

ENVIRONMENT = marker_environment("3.12", "linux/amd64")
FILE = {"url": "https://h/a-1-py3-none-any.whl", "hash": f"sha256:{'0' * 64}"}
UV: dict[str, Any] = {
    "version": 1,
    "requires-python": ">=3.10",
    "package": [
        {
            "name": "demo",
            "version": "1",
            "source": {"virtual": "."},
            "dependencies": [{"name": "a", "marker": "sys_platform == 'linux'", "extra": ["x"]}, {"name": "g"}],
            "optional-dependencies": {"gpu": [{"name": "a"}]},
            "dev-dependencies": {"test": [{"name": "a"}]},
            "metadata": {"requires-dist": [{"name": "a", "specifier": ">=1", "extras": ["x"]}, {"name": "g"}]},
        },
        {
            "name": "a",
            "version": "1",
            "source": {"registry": "https://h/simple"},
            "sdist": FILE,
            "wheels": [FILE],
            "optional-dependencies": {"x": [{"name": "g"}]},
        },
        {"name": "g", "version": "1", "source": {"git": f"https://h/g?rev=main&subdirectory=s#{'1' * 40}"}},
    ],
}
HASHES = {"sha256": "0" * 64}
PY: dict[str, Any] = {
    "lock-version": "1.0",
    "requires-python": ">=3.10",
    "environments": ["sys_platform == 'linux'"],
    "extras": ["gpu"],
    "dependency-groups": ["test"],
    "default-groups": ["test"],
    "packages": [
        {"name": "a", "version": "1", "marker": "'gpu' in extras", "wheels": [{"name": "a-1.whl", "hashes": HASHES}]},
        {"name": "b", "version": "1", "sdist": {"name": "b-1.tar.gz", "hashes": HASHES}},
        {"name": "c", "archive": {"url": "https://h/c-1.zip", "hashes": HASHES}},
        {"name": "v", "version": "1", "vcs": {"type": "git", "url": "https://h/v", "commit-id": "1" * 40}},
        {"name": "d", "directory": {"path": "."}},
    ],
}
SETTINGS: dict[str, Any] = {
    "tool": {
        "uv": {
            "sources": {
                "i": {"index": "corp"},
                "g": [{"git": "https://h/g", "tag": "v1", "subdirectory": "s", "marker": "os_name == 'nt'"}],
                "p": {"path": "p", "editable": True},
                "w": {"workspace": True},
                "u": {"url": "https://h/u.whl"},
            },
            "index": [{"name": "corp", "url": "https://h/s", "explicit": True, "default": False, "format": "flat"}],
            "constraint-dependencies": ["a<2"],
            "exclude-newer": "2025-01-01",
            "prerelease": "allow",
            "workspace": {"members": ["packages/*"]},
        }
    },
    "dependency-groups": {"test": ["a", {"include-group": "base"}], "base": ["b"]},
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


ANYTHING = st.one_of(
    st.sampled_from(["", "..", "../x", "/etc", "a\nb", "\x00", "[", "git+file:///x", "https://u:p@h/x", "https://["]),
    st.text(max_size=20), st.integers(), st.booleans(), st.floats(allow_nan=False),
    st.sampled_from([[], {}, [[]], [{}], {"x": {}}, [1], ["x"], [None]]),
)  # fmt: skip


def _changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(document)
    if not place:
        return value if isinstance(value, dict) else {}
    inner: Any = result
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return result


def _read(kind: str, document: dict[str, Any], folder: Path) -> None:
    names = {"extras": ("gpu",), "groups": ("test",)}
    if kind == "uv":
        (folder / "uv.lock").write_text(toml_text(document), encoding="utf-8")
        found = uv_lock_document(folder, "uv.lock")
        outdated(found, "uv.lock", "demo", {"": ("a[x]>=1",), "gpu": ()}, {"test": ("a",)}, ENVIRONMENT)
        read_uv_lock(folder, "uv.lock", found, "demo", ENVIRONMENT, **names)
    elif kind == "pylock":
        (folder / "pylock.toml").write_text(toml_text(document), encoding="utf-8")
        read_pylock(folder, "pylock.toml", ENVIRONMENT, **names)
    else:
        found_settings = read_settings(document, ("pyproject.toml",))
        list(group_lines(document, "test", ("pyproject.toml",)))
        for name in ("i", "g", "p", "w", "u"):
            find_source(folder, found_settings, name, ENVIRONMENT, found_settings)


@pytest.mark.parametrize(("kind", "document"), [("uv", UV), ("pylock", PY), ("settings", SETTINGS)])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place(tmp_path: Path, kind: str, document: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(_places(document))))
    value = data.draw(ANYTHING)
    if None in (value if isinstance(value, list) else ()):
        value = [0]
    said = ""
    try:
        _read(kind, _changed(document, place, value), tmp_path)
    except BentotoolError as error:
        said = error.message
    assert "\n" not in said
    if place and place[-1] in ("url", "git", "registry"):
        assert "u:p" not in said


def test_the_documents_are_fine(tmp_path: Path) -> None:
    _read("uv", UV, tmp_path)
    _read("pylock", PY, tmp_path)
