"""Loads an ONNX model with ONNX Runtime. This file travels in a Bento: standard library and onnxruntime only."""

from __future__ import annotations

import os
from pathlib import Path


def load(path, *, providers=None, provider_options=None, session_options=None, **options):
    """An ``onnxruntime.InferenceSession`` for a model.

    Args:
        path: the model file, or a folder with one ``.onnx`` file (or one named ``model.onnx``).
        providers: execution providers by preference; default: those ONNX Runtime has, an accelerator first.
        provider_options: one dictionary for each provider.
        session_options: an ``onnxruntime.SessionOptions``.
        options: other arguments of ``InferenceSession``.

    Raises FileNotFoundError where there is no model, ValueError where a folder holds several.
    """
    # From 1.2x on, importing ONNX Runtime starts a telemetry client that writes below the home folder. Nothing here
    # reports on its user, so it is off unless the user says otherwise.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    file = _model_file(Path(path))
    if providers is None:
        providers = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(
        str(file),
        sess_options=session_options,
        providers=providers,
        provider_options=provider_options,
        **options,
    )


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
