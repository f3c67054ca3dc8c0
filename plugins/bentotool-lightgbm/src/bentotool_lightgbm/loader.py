"""Loads a LightGBM model. This file travels in a Bento: standard library and lightgbm only."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(path: str | Path, **options: Any) -> Any:
    """A ``lightgbm.Booster`` for a model file.

    Args:
        path: the file, as ``Booster.save_model`` wrote it.
        options: other arguments of ``Booster``.
    """
    import lightgbm

    return lightgbm.Booster(model_file=str(path), **options)
