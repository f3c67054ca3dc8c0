"""Whether anybody names a policy here: a look at one variable and two files, before anything else is imported."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["VARIABLE", "may_name_policy", "policy_is_named"]

VARIABLE = "BENTOTOOL_POLICY"
"""Names the policy of this environment."""
_FILES = ("bentofile.yaml", "pyproject.toml")
_LIMIT = 1 << 20


def policy_is_named(project: Path | None = None) -> bool:
    """Whether a policy may be in force: the variable is set, or a configuration has the word in it.

    Args:
        project: folder of the project; default: the working folder.
    """
    return bool(os.environ.get(VARIABLE)) or may_name_policy(project or Path())


def may_name_policy(folder: Path) -> bool:
    """Whether the configuration of a project has the word in it, in whatever meaning."""
    return any(b"policy" in _peek(folder / name) for name in _FILES)


def _peek(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""
