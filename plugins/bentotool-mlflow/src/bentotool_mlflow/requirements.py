"""What an MLflow model says it needs: ``requirements.txt`` and ``python_env.yaml``, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_MAX_BYTES = 1 << 20
_MAX_LINES = 5000
_PYTHON = re.compile(rb"^python:\s*['\"]?([0-9]+(?:\.[0-9]+){1,2})['\"]?\s*$", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_DEFAULT = "mlflow>=2.10"


def read_requirements(by_name: Mapping[str, Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Requirements by name and version, and the lines that are none.

    A line that names an index, an address or a file would have a Bento fetch from where the model's author says, so it
    is left out and told.
    """
    needs: list[str] = []
    left: list[str] = []
    names = set()
    for line in _lines(by_name.get("requirements.txt")):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            left.append(line[:200])
            continue
        if requirement.url:
            left.append(line[:200])
        else:
            needs.append(str(requirement))
            names.add(canonicalize_name(requirement.name))
    if names.isdisjoint(("mlflow", "mlflow-skinny")):
        needs.append(_DEFAULT)
    return tuple(dict.fromkeys(needs)), tuple(left)


def read_python(by_name: Mapping[str, Path]) -> str:
    """The version of Python that ``python_env.yaml`` states; empty for none."""
    found = _PYTHON.search(_content(by_name.get("python_env.yaml")))
    return found[1].decode() if found else ""


def _lines(path: Path | None) -> list[str]:
    text = _content(path).decode("utf-8", "replace")
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    return [line for line in lines[:_MAX_LINES] if line]


def _content(path: Path | None) -> bytes:
    if path is None:
        return b""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES)
