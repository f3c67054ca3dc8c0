"""How a framework's loaded model is asked: what ``bentotool model serve`` needs of a plugin to serve it with no code.

A plugin names a :class:`MakePredictor` in its :class:`~bentotool.interfaces.FrameworkDecl`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
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
            those or as numpy's own. A ``ValueError`` or an ``ArithmeticError`` says that the model refuses what it
            was given, and is the caller's fault; a ``RuntimeError`` that the model itself failed (500). The log has a
            traceback of neither.
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


def rows_predictor(
    rows: TensorSpec, example: Any, methods: Mapping[str, Callable[[Any], Any]], *, further: Sequence[Any] = ()
) -> Predictor:
    """How a model is asked that takes the rows of one array, and answers each by itself.

    Args:
        rows: the one input, whose first axis is free.
        example: an array of one row. The model is asked once, here, to see what it gives; that also warms it up.
        methods: what gives an output, by the output's name.
        further: rows that are tried where the model refuses the values of the example. Where it refuses these and a row
            of ones too, with a ``ValueError``, nobody knows what it gives: an output has then any type and axes.

    Raises:
        UsageError: it fails for another reason, or gives no array with one entry for each row.
    """
    import numpy as np

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = arrays[rows.name]
        return {name: _array(name, ask(given)) for name, ask in methods.items()}

    ones = [np.ones_like(example)] if example.dtype.kind in "biuf" else []
    outputs = _seen(run, rows.name, [example, *further, *ones])
    return Predictor((rows,), outputs or tuple(TensorSpec(name, "any", ANY_AXES) for name in methods), run)


def _array(name: str, given: Any) -> Any:
    import numpy as np

    try:
        return np.asarray(given)
    except ValueError:  # of which a caller would be told that it is his fault
        raise TypeError(f"its {name} is no array") from None


def _seen(
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]], name: str, examples: Sequence[Any]
) -> tuple[TensorSpec, ...]:
    """What is given for the first of some rows that is not refused; nothing where all are."""
    reason = ""
    for example in examples:
        try:
            return tuple(_output(name, array) for name, array in run({name: example}).items())
        except UsageError:
            raise
        except (ValueError, ArithmeticError) as error:
            reason = reason or " ".join(str(error).split())
        except Exception as error:  # whatever a model raises for what it was not made for
            what = " ".join(str(error).split())
            raise UsageError(f"it does not take a row of numbers or a text: {what:.200}") from error
    logging.getLogger("bentotool.service").warning(
        "what the model gives is told when it is asked: it refuses the rows made up to see it: %.200s", reason
    )
    return ()


def _output(name: str, array: Any) -> TensorSpec:
    if array.ndim < 1 or len(array) != 1 or array.dtype.kind not in "biufOSU":
        raise UsageError(f"its {name} is no array with one entry for each row")
    return TensorSpec(name, array.dtype.name if array.dtype.kind in "biuf" else "str", (None, *array.shape[1:]))
