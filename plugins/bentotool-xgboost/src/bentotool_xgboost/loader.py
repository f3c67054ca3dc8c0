"""Loads an XGBoost model. This file travels in a Bento: standard library and xgboost only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ESTIMATORS = ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBModel", "XGBRFClassifier", "XGBRFRegressor")


def load(path: str | Path, *, estimator: str | None = None, **options: Any) -> Any:
    """An ``xgboost.Booster`` for a model file.

    Args:
        path: the file, as ``save_model`` wrote it.
        estimator: name of a scikit-learn wrapper, e.g. ``XGBClassifier``, to load into instead.
        options: other arguments of ``Booster`` or of the wrapper.

    Raises ValueError for a wrapper that XGBoost does not have.
    """
    import xgboost

    if estimator is None:
        return xgboost.Booster(model_file=str(path), **options)
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is none of {', '.join(_ESTIMATORS)}")
    model = getattr(xgboost, estimator)(**options)
    model.load_model(str(path))
    return model
