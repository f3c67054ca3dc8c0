"""Detects, describes and saves XGBoost models; xgboost is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, TensorSpec
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_xgboost.model import XgboostModel, read_model
from bentotool_xgboost.ubjson import FormatError

NAME = "xgboost"
_UBJSON = b"{L\0\0\0\0\0\0\0\x07learner"
_JSON_STARTS = (b'{"learner":', b'{"version":[')
_MAX_NAMES = 1000  # features whose names are kept


class XgboostFramework:
    """See :class:`bentotool.interfaces.Framework`."""

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
            raise UsageError("there is no XGBoost model among the files")
        main, format = found
        model = _read(main, format)
        metadata: dict[str, JSON] = {
            "xgboost_version": model.version,
            "booster": model.booster,
            "objective": model.objective,
            "trees": model.trees,
        }
        if model.names:
            metadata["features"] = list(model.names[:_MAX_NAMES])
        return ModelInfo(
            framework=NAME,
            format=format,
            inputs=(TensorSpec("X", "float32", (None, model.features)),),
            outputs=(TensorSpec("prediction", "float32", _columns(model)),),
            metadata=metadata,
            requirements=("numpy", f"{_distribution()}>=2.1"),
            safety="data",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write a ``Booster``, or that of a fitted estimator, as ``model.ubj``."""
        if options:
            raise UsageError(f"xgboost takes no option {', '.join(sorted(options))} when saving")
        ours = type(obj).__name__ == "Booster" or callable(getattr(obj, "get_booster", None))
        save = getattr(obj, "save_model", None)
        if isinstance(obj, type) or not ours or not callable(save):
            raise UsageError(f"{kind_of(obj)} is not an XGBoost model", hint="give a Booster or a fitted estimator")
        save(str(Path(directory) / "model.ubj"))


def _distribution() -> str:
    """Of the two distributions that bring XGBoost, the one installed here; ``xgboost`` where neither is.

    On Linux ``xgboost`` brings libraries of hundreds of megabytes for GPUs. Both have the same files in them, so a
    Bento must not get the one that its author does not use.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    for name in ("xgboost", "xgboost-cpu"):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        return name
    return "xgboost"


def _columns(model: XgboostModel) -> tuple[int | None, ...]:
    # softmax answers with the class, softprob with the probability of each
    single = model.outputs == 1 or model.objective == "multi:softmax"
    return (None,) if single else (None, model.outputs)


def _main_file(files: Sequence[SourceFile]) -> tuple[SourceFile, str] | None:
    """The one file that is called, or starts, like a model, and its format."""
    found = main_files(files, lambda file: _format(file) is not None, (".ubj",))
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found)[:5])
        raise UsageError(f"there are several XGBoost models: {names}", hint="import one file")
    return (found[0], _format(found[0]) or "ubj") if found else None


def _format(file: SourceFile) -> str | None:
    head = first_bytes(file)
    if head.startswith(_UBJSON):
        return "ubj"
    return "json" if b"".join(head.split()).startswith(_JSON_STARTS) else None


def _read(main: SourceFile, format: str) -> XgboostModel:
    try:
        return read_model(main.path, format)
    except FormatError as error:
        hint = "was it cut short while it was copied, or is it another format?"
        raise UsageError(f"{main.path.name} is not a valid XGBoost model: {error}", hint=hint) from None
