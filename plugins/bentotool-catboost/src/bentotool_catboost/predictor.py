"""How a CatBoost model is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import Predictor, rows_predictor

__all__ = ["predictor"]


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """A CatBoost estimator of numbers: what it predicts and, of a classifier, ``probabilities``.

    Raises:
        UsageError: it takes categories, texts or embeddings too, for which one array has no place.
    """
    import numpy as np

    kinds = ("get_cat_feature_indices", "get_text_feature_indices", "get_embedding_feature_indices")
    if any(len(getattr(model, kind)()) for kind in kinds):
        raise UsageError("it takes categories, texts or embeddings beside numbers")
    features = len(model.feature_names_)
    asked = {"prediction": model.predict}
    if hasattr(model, "predict_proba"):
        asked["probabilities"] = model.predict_proba
    rows = TensorSpec("X", "float32", (None, features))
    return rows_predictor(rows, np.zeros((1, features), dtype="float32"), asked)
