"""Loads a CatBoost model. This file travels in a Bento: standard library and catboost only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = "estimator.json"
ESTIMATORS = ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker", "CatBoost")
_MAX_RECORD = 4096
_CLASSIFIED = (
    *("Logloss", "CrossEntropy", "Focal", "MultiClass", "MultiClassOneVsAll"),
    *("MultiLogloss", "MultiCrossEntropy"),
)
_MEASURED = (
    *(
        "RMSE",
        "MAE",
        "MAPE",
        "Quantile",
        "GroupQuantile",
        "MultiQuantile",
        "LogLinQuantile",
        "Lq",
        "Huber",
        "Expectile",
    ),
    *("LogCosh", "Poisson", "Tweedie", "Cox", "SurvivalAft"),
    *("RMSEWithUncertainty", "MultiRMSE", "MultiRMSEWithMissingValues"),
)
_RANKED = (
    *("YetiRank", "YetiRankPairwise", "PairLogit", "PairLogitPairwise", "QueryRMSE", "QuerySoftMax"),
    *("QueryCrossEntropy", "StochasticFilter", "StochasticRank", "LambdaMart"),
)


def load(path: str | Path, *, estimator: str | None = None, **options: Any) -> Any:
    """A CatBoost estimator for a model file.

    Args:
        path: the file, as ``save_model`` wrote it in format ``cbm`` or ``json``.
        estimator: one of CatBoost's classes, e.g. ``CatBoostClassifier``. Default: the class that was saved, or else
            the one that fits the loss function the model was trained with.
        options: other arguments of the class.

    Raises ValueError for a class that CatBoost does not have.
    """
    import catboost

    path = Path(path)
    format = "cbm"
    with path.open("rb") as file:
        if file.read(4) != b"CBM1":
            format = "json"
    record = path.with_name(RECORD)
    if estimator is None and record.is_file():
        estimator = recorded_estimator(record)
    if estimator is None:
        model = catboost.CatBoost(**options).load_model(str(path), format=format)
        estimator = fitting_estimator(_recorded_loss(model))
        if estimator == "CatBoost":
            return model
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator {estimator!r} is none of {', '.join(ESTIMATORS)}")
    return getattr(catboost, estimator)(**options).load_model(str(path), format=format)


def recorded_estimator(record: Path) -> str:
    """The class that the file beside a saved model names; ValueError where it names none of CatBoost's."""
    with record.open("rb") as file:
        text = file.read(_MAX_RECORD + 1)
    try:
        name = json.loads(text)["estimator"] if len(text) <= _MAX_RECORD else None
    except (ValueError, KeyError, TypeError, RecursionError):
        name = None
    if name not in ESTIMATORS:
        raise ValueError(f"{record.name} names none of {', '.join(ESTIMATORS)}")
    return str(name)


def _recorded_loss(model: Any) -> str:
    try:
        loss = json.loads(dict(model.get_metadata()).get("params", ""))["loss_function"]["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return loss if isinstance(loss, str) else ""


def fitting_estimator(loss: str) -> str:
    """The class of CatBoost's for a loss function; ``CatBoost`` for one that is not known here."""
    for names, estimator in ((_CLASSIFIED, "CatBoostClassifier"), (_MEASURED, "CatBoostRegressor")):
        if loss in names:
            return estimator
    return "CatBoostRanker" if loss in _RANKED else "CatBoost"
