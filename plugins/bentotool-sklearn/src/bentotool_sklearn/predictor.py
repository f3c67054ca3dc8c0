"""How a scikit-learn estimator is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import Predictor, rows_predictor
from bentotool.sdk.wording import kind_of

__all__ = ["predictor"]

_ASKED = ("predict", "transform")


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """A fitted estimator: ``predict`` and, where it has one, ``predict_proba``; of a transformer ``transform``.

    It takes one array ``X``: rows of as many numbers as it was fitted with, or texts where it begins with a vectorizer.

    Raises:
        UsageError: it is not fitted, takes other things than rows of numbers or texts, or gives other things.
    """
    import numpy as np

    methods = [name for name in _ASKED if callable(getattr(model, name, None))][:1]
    if not methods:
        raise UsageError(f"{kind_of(model)} has neither predict nor transform")
    # of several outputs the probabilities are a list of arrays, which may be of different sizes
    several = isinstance(getattr(model, "classes_", None), list)
    if methods == ["predict"] and callable(getattr(model, "predict_proba", None)) and not several:
        methods.append("predict_proba")
    first = getattr(model, "steps", [("", model)])[0][1]
    features = getattr(model, "n_features_in_", None)
    if callable(getattr(first, "build_analyzer", None)):  # a vectorizer of texts
        asked = {name: _method(model, name, lambda texts: texts) for name in methods}
        return rows_predictor(TensorSpec("X", "str", (None,)), np.array(["a"], dtype=object), asked)
    if not isinstance(features, int):
        raise UsageError(f"it is not known what {kind_of(first)} takes, or it is not fitted")
    named = _named(model)
    asked = {name: _method(model, name, named) for name in methods}
    rows, zeros = TensorSpec("X", "float64", (None, features)), np.zeros((1, features))
    further = _categories(first, features)
    try:
        return rows_predictor(rows, zeros, asked, further=further)
    except UsageError:
        if len(asked) == 1:
            raise
    return rows_predictor(rows, zeros, {"predict": asked["predict"]}, further=further)


def _categories(first: Any, features: int) -> list[Any]:
    """A row of the first category of each column, of an encoder that refuses others."""
    import numpy as np

    try:
        row = np.array([[column[0] for column in first.categories_]], dtype="float64")
    except (AttributeError, TypeError, ValueError, IndexError):
        return []
    return [row] if row.shape == (1, features) else []


def _method(model: Any, name: str, prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    method = getattr(model, name)

    def ask(rows: Any) -> Any:
        try:
            found = method(prepare(rows))
        except ValueError as error:  # the first line says what is wrong, those after it what else could be fitted
            raise ValueError(next(iter(str(error).splitlines()), "")) from error
        return found.toarray() if hasattr(found, "toarray") else found  # a sparse matrix

    return ask


def _named(model: Any) -> Callable[[Any], Any]:
    """What gives columns the names that the model was fitted with."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return lambda rows: rows
    try:
        import pandas
    except ModuleNotFoundError:
        return lambda rows: rows
    columns = [str(name) for name in names]
    return lambda rows: pandas.DataFrame(rows, columns=columns)
