"""Detects, describes and saves CatBoost models; catboost is not imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, TensorSpec
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_catboost.binary import read_binary
from bentotool_catboost.document import read_document
from bentotool_catboost.flatbuffer import FormatError
from bentotool_catboost.hooks import STARTS
from bentotool_catboost.loader import ESTIMATORS, RECORD, recorded_estimator
from bentotool_catboost.model import CatboostModel, check_classes

NAME = "catboost"
_MAX_NAMES = 1000  # features whose names are kept


class CatboostFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        found = _main_file(files)
        if found is None:
            return None
        main, format = found
        _read(main, format)
        return Match(NAME, format, 1.0, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        found = _main_file(files)
        if found is None:
            raise UsageError("there is no CatBoost model among the files")
        main, format = found
        model = _read(main, format)
        estimator = _recorded(files) or model.estimator
        metadata: dict[str, JSON] = {"estimator": estimator, "trees": model.trees, "symmetric": model.symmetric}
        facts: dict[str, JSON] = {
            "catboost_version": model.version,
            "loss": model.loss,
            "classes": model.classes,
            "categories": [item.flat for item in model.features.categories[:_MAX_NAMES]],
            "texts": [item.flat for item in model.features.texts[:_MAX_NAMES]],
            "embeddings": [item.flat for item in model.features.embeddings[:_MAX_NAMES]],
        }
        metadata |= {key: value for key, value in facts.items() if value}
        names = [item.name for item in model.features.all()]
        if any(names):
            metadata["features"] = names[:_MAX_NAMES]
        return ModelInfo(
            framework=NAME,
            format=format,
            inputs=(_input(model),),
            outputs=(TensorSpec("prediction", *_output(model, estimator)),),
            metadata=metadata,
            requirements=("catboost>=1.2", "numpy"),
            safety="data",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write a fitted ``CatBoost``, or one of its estimators, as ``model.cbm``, and which of them it was."""
        if options:
            raise UsageError(f"catboost takes no option {', '.join(sorted(options))} when saving")
        names = [base.__name__ for base in type(obj).__mro__]
        estimator = next((name for name in names if name in ESTIMATORS), None)
        save = getattr(obj, "save_model", None)
        if isinstance(obj, type) or estimator is None or not callable(save):
            raise UsageError(
                f"{kind_of(obj)} is not a CatBoost model",
                hint="give a fitted CatBoost or one of its estimators",
            )
        fitted = getattr(obj, "is_fitted", None)
        if callable(fitted) and not fitted():
            raise UsageError(f"this {estimator} is not fitted", hint="call fit() first")
        save(str(Path(directory) / "model.cbm"))
        record = json.dumps({"estimator": estimator}) + "\n"
        (Path(directory) / RECORD).write_text(record, encoding="utf-8")


def _input(model: CatboostModel) -> TensorSpec:
    features = model.features
    plain = not (features.categories or features.texts or features.embeddings)
    columns = features.all()
    return TensorSpec("X", "float32" if plain else "object", (None, columns[-1].flat + 1 if columns else 0))


def _output(model: CatboostModel, estimator: str) -> tuple[str, tuple[int | None, ...]]:
    if estimator == model.estimator:
        return model.output
    return "float64", (None,) if model.dimension == 1 else (None, model.dimension)  # CatBoost: the trees' own values


def _recorded(files: Sequence[SourceFile]) -> str | None:
    record = next((file for file in files if file.name == RECORD), None)
    if record is None:
        return None
    try:
        return recorded_estimator(record.path)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _main_file(files: Sequence[SourceFile]) -> tuple[SourceFile, str] | None:
    """The one file that is called, or starts, like a model, and its format."""
    found = main_files(files, lambda file: _format(file) is not None, (".cbm",))
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found)[:5])
        raise UsageError(f"there are several CatBoost models: {names}", hint="import one file")
    return (found[0], _format(found[0]) or "cbm") if found else None


def _format(file: SourceFile) -> str | None:
    head = first_bytes(file)
    if head.startswith(b"CBM1"):
        return "cbm"
    return "json" if b"".join(head.split()).startswith(STARTS) else None


def _read(main: SourceFile, format: str) -> CatboostModel:
    try:
        model = read_binary(main.path) if format == "cbm" else read_document(main.path)
        _ = model.loss, model.classes  # what is written in its texts is read here, where a fault has a name
        check_classes(model.info)
    except FormatError as error:
        hint = "was it cut short while it was copied, or is it another format?"
        raise UsageError(f"{main.path.name} is not a valid CatBoost model: {error}", hint=hint) from None
    return model
