"""The Python packages of a Bento of BentoML: what was asked for, at the versions it was locked to, without BentoML."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bentotool.build.requirement_line import normal_name
from bentotool.build.requirements import LITESTAR_NEEDS, RUNTIME_REQUIREMENTS

__all__ = ["bounded_text", "write_requirements"]

_REQUIREMENTS, _CONSTRAINTS = "bentoml-requirements.txt", "bentoml-constraints.txt"
_LIMIT = 8 << 20  # bytes of a file of text
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[\w., -]*\])?(==[^\s;\\,]+)\s*(;[^\\#]*)?", re.ASCII)
_OUR_OWN = frozenset(normal_name(line) for line in (*RUNTIME_REQUIREMENTS, *LITESTAR_NEEDS))
"""Packages of our runtime: BentoML's choice of their versions says nothing of what the service needs."""

_BROUGHT = {
    **{name: name for name in ("aiohttp", "aiosqlite", "anyio", "cattrs", "click", "cloudpickle", "fsspec", "httpx")},
    **{name: name for name in ("jinja2", "numpy", "packaging", "pathspec", "psutil", "pydantic", "rich", "starlette")},
    "attr": "attrs",
    "attrs": "attrs",
    "dateutil": "python-dateutil",
    "opentelemetry": "opentelemetry-sdk",
    "a2wsgi": "a2wsgi",
    "multipart": "python-multipart",
    "schema": "schema",
    "watchfiles": "watchfiles",
    "prometheus_client": "prometheus-client",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}
"""What BentoML 1.4 requires itself, by the name under which it is imported: services use it without asking for it."""


def write_requirements(room: Path, project: Path, image: Mapping[str, Any]) -> str:
    """Write requirements files into the project.

    Args:
        room: the unpacked Bento.
        image: the table of that name in ``bento.yaml``, which may hold them too.

    Returns:
        The name of the file, empty where nothing is required.
    """
    folder = room / "env" / "python"
    wanted, locked = bounded_text(folder / "requirements.in"), bounded_text(folder / "requirements.txt")
    if not wanted:  # before 1.4 the one was requirements.txt, the other requirements.lock.txt
        wanted, locked = locked, bounded_text(folder / "requirements.lock.txt")
    wanted = wanted or str(image.get("python_requirements") or "")
    lines = [line for line in _lines(wanted) if not _is_bentoml(line)]
    named = {normal_name(line) for line in lines}
    lines += sorted({_BROUGHT[name] for name in _imported(project) & _BROUGHT.keys()} - named)
    if not lines:
        return ""
    _move_wheels(folder / "wheels", project / "wheels")
    pins = list(_pins(locked))
    _write(project / _CONSTRAINTS, pins)
    _write(project / _REQUIREMENTS, [*lines, *([f"-c {_CONSTRAINTS}"] if pins else [])])
    return _REQUIREMENTS


def _imported(project: Path) -> set[str]:
    """Names of the packages that the code imports, wherever in a file; nothing is run."""
    found: set[str] = set()
    for path in sorted(project.rglob("*.py")):
        try:
            tree = ast.parse(bounded_text(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the import of the service tells, if it is one of its files
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def bounded_text(path: Path) -> str:
    """The first 8 MiB of a file; empty where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_LIMIT).decode("utf-8", "replace")


def _lines(text: str) -> Iterator[str]:
    """Whole lines: without comments, those that go on joined."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        stripped = re.sub(r"(^|\s)#.*$", "", line).strip()
        if stripped:
            yield stripped


def _is_bentoml(line: str) -> bool:
    """Whether a line asks for BentoML: by name, as an archive, or as a file that BentoML packed of itself."""
    return normal_name(line) == "bentoml" or re.match(r"\.?/?(\S*/)?bentoml-[\w.+!-]+\.(whl|tar\.gz)", line) is not None


def _pins(locked: str) -> Iterator[str]:
    for line in _lines(locked):
        found = _PIN.match(line.partition(" --hash")[0])
        if found and normal_name(found[1]) not in _OUR_OWN | {"bentoml"}:
            yield f"{found[1]}{found[2]}{' ' + found[3].strip() if found[3] else ''}"


def _move_wheels(source: Path, target: Path) -> None:
    """Packages that were packed lie beside the requirements, or already in the code."""
    for wheel in sorted(source.glob("*")) if source.is_dir() else ():
        if not (target / wheel.name).exists():
            target.mkdir(exist_ok=True)
            wheel.rename(target / wheel.name)


def _write(path: Path, lines: list[str]) -> None:
    if lines:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
