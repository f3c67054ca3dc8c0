"""Loads an ONNX model with ONNX Runtime. This file travels in a Bento: standard library, onnxruntime and numpy only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# ONNX Runtime's names of types, and numpy's.
_TYPES = {
    **{name: name for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "string": "object",
}


def load(path, *, providers=None, provider_options=None, session_options=None, warmup=False, **options):
    """An ``onnxruntime.InferenceSession`` for a model.

    Args:
        path: the model file, or a folder with one ``.onnx`` file (or one named ``model.onnx``).
        providers: execution providers by preference; default: those ONNX Runtime has, an accelerator first.
        provider_options: one dictionary for each provider.
        session_options: an ``onnxruntime.SessionOptions``; or a dictionary of its attributes, such as
            ``{"intra_op_num_threads": 2}``.
        warmup: whether to run the model once before it is returned, on zeros of the shapes that it declares, with 1
            for each length that it leaves open; or the inputs to run it on, by name. What a provider compiles or
            allocates at the first run is done then.
        options: other arguments of ``InferenceSession``.

    Raises FileNotFoundError where there is no model, ValueError where a folder holds several, or where there are no
    zeros of the type of an input.
    """
    # From 1.2x on, importing ONNX Runtime starts a telemetry client that writes below the home folder. Nothing here
    # reports on its user, so it is off unless the user says otherwise.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    file = _model_file(Path(path))
    if providers is None:
        providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(
        str(file),
        sess_options=_session_options(session_options),
        providers=providers,
        provider_options=provider_options,
        **options,
    )
    if warmup is not False and warmup is not None:
        session.run(None, _zeros(session) if warmup is True else dict(warmup))
    return session


def _session_options(given):
    if not isinstance(given, Mapping):
        return given
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for name, value in given.items():
        if name.startswith("_") or not hasattr(options, name):
            raise ValueError(f"onnxruntime.SessionOptions has no attribute {name!r}")
        setattr(options, name, value)
    return options


def _zeros(session):
    """Inputs by name: a zero, or an empty text, for each element of the shape that is declared."""
    import numpy

    zeros = {}
    for item in session.get_inputs():
        kind = item.type.partition("(")[2].rstrip(")")
        if not item.type.startswith("tensor(") or kind not in _TYPES:
            raise ValueError(
                f"input {item.name!r} is a {item.type}, of which there are no zeros: give warmup the inputs"
            )
        shape = [length if isinstance(length, int) and length >= 0 else 1 for length in item.shape or ()]
        if _TYPES[kind] == "object":
            zeros[item.name] = numpy.full(shape, "", dtype=object)
        else:
            zeros[item.name] = numpy.zeros(shape, dtype=_TYPES[kind])
    return zeros


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    models = sorted(path.glob("*.onnx"))
    if not models:
        raise FileNotFoundError(f"there is no .onnx file in {path}")
    named = [model for model in models if model.name == "model.onnx"]
    if len(models) > 1 and not named:
        raise ValueError(f"there are several ONNX models in {path}: {', '.join(model.name for model in models)}")
    return (named or models)[0]
