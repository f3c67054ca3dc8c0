"""Loads a pickle, with ``trust=True`` only. This file travels in a Bento: standard library and cloudpickle only."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class UnsafeModelError(ValueError):
    """Loading would run code that the file chooses."""

    unsafe = True


def load(path: str | Path, *, trust: bool = False) -> Any:
    """The object of a pickle.

    Args:
        path: the file.
        trust: says that its origin is trusted; without it nothing is loaded.

    Raises UnsafeModelError without ``trust``.
    """
    path = Path(path)
    if trust is not True:
        raise UnsafeModelError(f"{path.name} is a pickle, which runs code when it is loaded; trust=True loads it")
    import cloudpickle

    with path.open("rb") as file:
        return cloudpickle.load(file)
