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

    source = _source(Path(path))
    if estimator is None:
        return xgboost.Booster(model_file=source, **options)
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is none of {', '.join(_ESTIMATORS)}")
    model = getattr(xgboost, estimator)(**options)
    model.load_model(source)
    return model


def _source(path: Path) -> str | bytearray:
    """A path where its ending says the format, as XGBoost goes by it; else the bytes, at which XGBoost looks itself."""
    with path.open("rb") as file:
        start = file.read(2)
    ending = ".ubj" if start == b"{L" else ".json"
    return str(path) if path.name.endswith(ending) else bytearray(path.read_bytes())
