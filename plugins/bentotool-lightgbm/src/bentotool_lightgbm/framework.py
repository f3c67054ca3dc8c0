"""Detects, describes and saves LightGBM models; lightgbm is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, TensorSpec
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_lightgbm.text import FormatError, LightgbmModel, read_model

NAME = "lightgbm"
_SUFFIXES = (".lgb", ".lightgbm")
_MAX_NAMES = 1000  # features whose names are kept


class LightgbmFramework:
    """See :class:`bentotool.interfaces.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None:
            return None
        _read(main)
        return Match(NAME, "text", 1.0, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        if main is None:
            raise UsageError("there is no LightGBM model among the files")
        model = _read(main)
        metadata: dict[str, JSON] = {
            "format_version": model.version,
            "objective": model.objective,
            "trees": model.trees,
            "features": list(model.features[:_MAX_NAMES]),
        }
        columns = (None, model.classes) if model.classes > 1 else (None,)
        return ModelInfo(
            framework=NAME,
            format="text",
            inputs=(TensorSpec("X", "float64", (None, len(model.features))),),
            outputs=(TensorSpec("prediction", "float64", columns),),
            metadata=metadata,
            requirements=("lightgbm>=4.0", "numpy"),
            safety="data",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write a ``Booster``, or that of a fitted estimator, as ``model.txt``."""
        if options:
            raise UsageError(f"lightgbm takes no option {', '.join(sorted(options))} when saving")
        booster = obj if type(obj).__name__ == "Booster" else getattr(obj, "booster_", None)
        save = getattr(booster, "save_model", None)
        if isinstance(obj, type) or not callable(save):
            raise UsageError(f"{kind_of(obj)} is not a LightGBM model", hint="give a Booster or a fitted estimator")
        save(str(Path(directory) / "model.txt"))


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one file that is called, or starts, like a model."""
    found = main_files(files, _starts, _SUFFIXES)
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found)[:5])
        raise UsageError(f"there are several LightGBM models: {names}", hint="import one file")
    return found[0] if found else None


def _starts(file: SourceFile) -> bool:
    return first_bytes(file, 15).replace(b"\r", b"").startswith(b"tree\nversion=")


def _read(main: SourceFile) -> LightgbmModel:
    try:
        return read_model(main.path)
    except FormatError as error:
        hint = "was it cut short while it was copied, or is it another format?"
        raise UsageError(f"{main.path.name} is not a valid LightGBM model: {error}", hint=hint) from None
