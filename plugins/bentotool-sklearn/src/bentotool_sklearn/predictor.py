"""How a scikit-learn estimator is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import Predictor

__all__ = ["predictor"]

INPUT = "X"
_ASKED = ("predict", "transform")
_NUMBERS = "biuf"


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """A fitted estimator: ``predict`` and, where it has one, ``predict_proba``; of a transformer ``transform``.

    It takes one array ``X``: rows of as many numbers as it was fitted with, or texts where it begins with a vectorizer.
    It is asked once here, on zeros or an empty text, to see what it gives.

    Raises:
        UsageError: it is not fitted, takes other things than rows of numbers or texts, or gives other things.
    """
    methods = [name for name in _ASKED if callable(getattr(model, name, None))][:1]
    if not methods:
        raise UsageError(f"a {type(model).__name__} has neither predict nor transform")
    if methods == ["predict"] and callable(getattr(model, "predict_proba", None)):
        methods.append("predict_proba")
    first = getattr(model, "steps", [("", model)])[0][1]
    texts, features = callable(getattr(first, "build_analyzer", None)), getattr(model, "n_features_in_", None)
    if not texts and not isinstance(features, int):
        raise UsageError(f"it is not known what a {type(first).__name__} takes, or it is not fitted")
    spec = TensorSpec(INPUT, "str", (None,)) if texts else TensorSpec(INPUT, "float64", (None, features))
    prepare = _prepare(model, texts)

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = prepare(arrays[INPUT])
        return {name: _dense(getattr(model, name)(given)) for name in methods}

    return Predictor((spec,), _outputs(run, _zeros(texts, features)), run)


def _zeros(texts: bool, features: int | None) -> Any:
    import numpy as np

    return np.array(["a"]) if texts else np.zeros((1, features or 0))


def _prepare(model: Any, texts: bool) -> Callable[[Any], Any]:
    """What becomes of the rows before the model gets them: columns get the names that it was fitted with."""
    names = getattr(model, "feature_names_in_", None)
    if texts:
        return lambda rows: rows.astype(object)
    if names is None:
        return lambda rows: rows
    try:
        import pandas
    except ModuleNotFoundError:
        return lambda rows: rows
    columns = [str(name) for name in names]
    return lambda rows: pandas.DataFrame(rows, columns=columns)


def _dense(value: Any) -> Any:
    import numpy as np

    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


def _outputs(run: Callable[[Mapping[str, Any]], dict[str, Any]], row: Any) -> tuple[TensorSpec, ...]:
    try:
        found = run({INPUT: row})
    except Exception as error:  # whatever a model of somebody raises for what it was not made for
        what = " ".join(str(error).split())[:200]
        raise UsageError(f"it does not take a row of numbers: {what}") from error
    specs = []
    for name, array in found.items():
        if array.ndim < 1 or len(array) != 1 or array.dtype.kind not in _NUMBERS + "OU":
            raise UsageError(f"its {name} gives no array with one entry for each row")
        dtype = array.dtype.name if array.dtype.kind in _NUMBERS else "str"
        specs.append(TensorSpec(name, dtype, (None, *array.shape[1:])))
    return tuple(specs)
