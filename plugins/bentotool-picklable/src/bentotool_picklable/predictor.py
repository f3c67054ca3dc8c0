"""How a pickled object is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import Predictor, rows_predictor
from bentotool.sdk.wording import kind_of

__all__ = ["predictor"]


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """An object with ``predict`` that knows how many numbers it takes (``n_features_in_``), as estimators do.

    Raises:
        UsageError: it is another object.
    """
    import numpy as np

    features = getattr(model, "n_features_in_", None)
    if not isinstance(features, int) or not callable(getattr(model, "predict", None)):
        raise UsageError(f"{kind_of(model)} is not known to have predict, and to take rows of numbers")
    names = [name for name in ("predict", "predict_proba") if callable(getattr(model, name, None))]
    rows = TensorSpec("X", "float64", (None, features))
    return rows_predictor(rows, np.zeros((1, features)), {name: getattr(model, name) for name in names})
