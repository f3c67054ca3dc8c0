"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from collections.abc import Sequence

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, SourceDecl, SourceFile


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="mlflow",
            target="bentotool_mlflow.framework:MlflowFramework",
            loader="bentotool_mlflow.loader",
            summary="MLflow model folders, loaded as mlflow.pyfunc does",
        )
    ]


@hookimpl
def bentotool_sources() -> list[SourceDecl]:
    target = "bentotool_mlflow.source:MlflowSource"
    forms = ("mlflow:FOLDER", "mlflow:runs:/RUN/PATH", "mlflow:models:/NAME/VERSION")
    summary = "MLflow: a folder, a run or a registered model"
    return [SourceDecl("mlflow", target, summary, schemes=("mlflow",), forms=forms)]


@hookimpl
def bentotool_identify_model(files: Sequence[SourceFile]) -> str | None:
    """A folder with an ``MLmodel`` is ours as a whole, whatever format the model in it is of."""
    return "mlflow" if any(file.name == "MLmodel" for file in files) else None
