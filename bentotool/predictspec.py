"""How a framework's loaded model is asked: what ``bentotool model serve`` needs of a plugin to serve it with no code.

A plugin names a :class:`MakePredictor` in its :class:`~bentotool.interfaces.FrameworkDecl`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec

__all__ = ["ANY_AXES", "MakePredictor", "Predictor", "rows_predictor"]

ANY_AXES = ("...",)
"""The shape of a :class:`~bentotool.interfaces.TensorSpec` of which not even the number of axes is known."""


@dataclass(frozen=True)
class Predictor:
    """One call of a model, from named arrays to named arrays.

    Args:
        inputs: what it takes. The dtype is numpy's name, ``str`` for texts, or ``any`` for numbers as they come; an
            axis whose length is free has None or a symbol, and a shape that is not known is :data:`ANY_AXES`.
        outputs: what it gives, in the same words.
        run: numpy arrays by input name, of the declared dtypes and shapes → arrays by output name. It may be called
            from any thread, by one at a time. Texts come as arrays of objects, each a ``str``, and may be given as
            those or as numpy's own. A ``ValueError`` says that the model refuses what it was given, and is the
            caller's fault; a ``RuntimeError`` that the model itself failed (500). Of both the log has no traceback.
        rows: the first axis of every input and output counts samples that do not depend on one another, so that
            requests may share a call.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    rows: bool = True

    def __post_init__(self) -> None:
        for what in ("inputs", "outputs"):
            names = [spec.name for spec in getattr(self, what)]
            if not names or not all(names) or len(set(names)) != len(names):
                raise ValueError(f"{what} {names!r} are not names that differ")


class MakePredictor(Protocol):
    """A function that says how a loaded model is asked.

    When:
        In each worker of ``bentotool model serve``, once, after the loader.

    Arguments:
        ``model`` is what the framework's loader gave; ``info`` what the store knows of it: ``framework``, ``format``,
        ``signature``, ``metadata``, ``labels``.

    Return:
        See :class:`Predictor`. A model that is not asked in such a way is a :class:`~bentotool.errors.UsageError`.

    Example::

        def predictor(model, info):
            inputs = (TensorSpec("x", "float32", (None, 4)),)
            outputs = (TensorSpec("y", "float32", (None,)),)
            return Predictor(inputs, outputs, lambda arrays: {"y": model.predict(arrays["x"])})
    """

    def __call__(self, model: Any, info: Mapping[str, Any]) -> Predictor: ...


def rows_predictor(rows: TensorSpec, example: Any, methods: Mapping[str, Callable[[Any], Any]]) -> Predictor:
    """How a model is asked that takes the rows of one array, and answers each by itself.

    Args:
        rows: the one input, whose first axis is free.
        example: an array of one row. The model is asked once, here, to see what it gives; that also warms it up.
        methods: what gives an output, by the output's name.

    Raises:
        UsageError: it fails, or gives no array with one entry for each row.
    """
    import numpy as np

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = arrays[rows.name]
        return {name: np.asarray(ask(given)) for name, ask in methods.items()}

    try:
        found = run({rows.name: example})
    except Exception as error:  # whatever a model raises for what it was not made for
        what = " ".join(str(error).split())
        raise UsageError(f"it does not take a row of numbers or a text: {what:.200}") from error
    outputs = []
    for name, array in found.items():
        if array.ndim < 1 or len(array) != 1 or array.dtype.kind not in "biufOSU":
            raise UsageError(f"its {name} is no array with one entry for each row")
        dtype = array.dtype.name if array.dtype.kind in "biuf" else "str"
        outputs.append(TensorSpec(name, dtype, (None, *array.shape[1:])))
    return Predictor((rows,), tuple(outputs), run)
