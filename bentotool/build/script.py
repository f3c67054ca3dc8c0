"""Inline metadata of a service's file (PEP 723): ``# /// script`` … ``# ///``, read as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool.build.contain import read_inside
from bentotool.build.tomlfile import parse_toml, text_at, texts_at
from bentotool.errors import ConfigError

__all__ = ["Script", "read_script"]

_LIMIT = 4 << 20
_BLOCK = re.compile(r"^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$", re.MULTILINE)
"""The expression of PEP 723."""


@dataclass(frozen=True)
class Script:
    """What the block says.

    Args:
        file: the service's file in the project.
        document: the block as TOML; its ``[tool.uv]`` is read elsewhere.
    """

    file: str
    dependencies: tuple[str, ...]
    requires_python: str
    document: Mapping[str, Any]


def read_script(project: Path, service: str) -> Script | None:
    """The block of the service's file, or None where the file has none or is a package.

    Args:
        service: ``module:Class`` or ``path/file.py:Class``.

    Raises:
        ConfigError: two blocks, or one that is not TOML of the form.
    """
    module = service.split(":", maxsplit=1)[0]
    file = module if module.endswith(".py") else module.replace(".", "/") + ".py"
    file = file if (project / file).is_file() else f"src/{file}"
    if not (project / file).is_file():
        return None
    text = read_inside(project, file, ("service",), limit=_LIMIT).decode("utf-8", "replace").replace("\r\n", "\n")
    blocks = [found for found in _BLOCK.finditer(text) if found["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise ConfigError(f"{file} has {len(blocks)} script blocks", hint="PEP 723 allows one")
    lines = (line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines())
    document = parse_toml("\n".join(lines), f"the script block of {file}")
    where = (file, "script")
    return Script(
        file, texts_at(document, "dependencies", where), text_at(document, "requires-python", where), document
    )
