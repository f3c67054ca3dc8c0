"""How an XGBoost model is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bentotool.interfaces import TensorSpec
from bentotool.predictspec import Predictor, rows_predictor

__all__ = ["predictor"]

_WHERE = re.compile(r"^\[[\d:]+\] \S+:\d+: (?:Check failed: .*?: )?")
"""Before what XGBoost says stands when, and where in its source."""


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """A ``Booster``: rows of numbers in which NaN (in JSON null) is a missing value; categories by their codes."""
    import numpy as np
    import xgboost

    features = model.num_features()

    def predict(rows: Any) -> Any:
        try:
            data = xgboost.DMatrix(
                rows, feature_names=model.feature_names, feature_types=model.feature_types, enable_categorical=True
            )
            return model.predict(data)
        except xgboost.core.XGBoostError as error:
            raise ValueError(_WHERE.sub("", str(error).partition("\nStack trace")[0], count=1)) from error

    rows = TensorSpec("X", "float32", (None, features))
    return rows_predictor(rows, np.zeros((1, features), dtype="float32"), {"prediction": predict})
