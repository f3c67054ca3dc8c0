"""Detects, describes and saves ONNX models; imports neither onnx nor ONNX Runtime."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_onnx.hooks import MAGIC
from bentotool_onnx.model import OnnxModel, read_model
from bentotool_onnx.wire import WireError

NAME = "onnx"
REQUIREMENTS = ("numpy", "onnxruntime>=1.17")


class OnnxFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None:
            return None
        if main.name.lower().endswith(".onnx"):
            _read(main, files)
            return Match(NAME, "onnx", 1.0, main.name)
        try:  # the first bytes look like a ModelProto's, the name does not: not worth an error
            _read(main, files)
        except UnsafeError:
            raise
        except BentotoolError:
            return None
        return Match(NAME, "onnx", 0.9, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        if main is None:
            raise UsageError("there is no ONNX file among the files")
        model = _read(main, files)
        metadata: dict[str, JSON] = {
            "ir_version": model.ir_version,
            "opsets": model.opsets,
            "graph": model.graph,
            "producer": model.producer,
        }
        if model.properties:
            metadata["properties"] = model.properties
        if model.external:
            metadata["external_data"] = sorted({data.location for data in model.external})
        return ModelInfo(
            framework=NAME,
            format="onnx",
            inputs=model.inputs,
            outputs=model.outputs,
            metadata=metadata,
            requirements=REQUIREMENTS,
            safety="data",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write an ``onnx.ModelProto``, its bytes, or a copy of a file (with its external data) as ``model.onnx``."""
        if options:
            raise UsageError(f"onnx takes no option {', '.join(sorted(options))} when saving")
        target = Path(directory) / "model.onnx"
        if isinstance(obj, str | Path):
            _copy(Path(obj), target)
        elif isinstance(obj, bytes | bytearray | memoryview):
            target.write_bytes(obj)
        elif callable(serialise := getattr(obj, "SerializeToString", None)):
            target.write_bytes(serialise(deterministic=True))
        else:
            raise UsageError(f"{kind_of(obj)} is not an ONNX model", hint="give a ModelProto, bytes or a path")


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NotFoundError(f"there is no file {source}")
    with source.open("rb") as file:
        try:
            model = read_model(file, source.stat().st_size)
        except WireError as error:
            raise UsageError(f"{source.name} is not a valid ONNX model: {error}") from None
    for location in {data.location for data in model.external}:
        relative = _contained(location, source.name, "")
        (target.parent / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / relative, target.parent / relative)
    shutil.copyfile(source, target)


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one file that starts as a model, or the one named ``model.onnx``, or a single file whatever it is."""
    models = main_files(files, _starts, (".onnx",), sure=False)
    if len(models) > 1:
        named = [file for file in models if file.name == "model.onnx"]
        if not named:
            names = ", ".join(sorted(file.name for file in models))
            raise UsageError(f"there are several ONNX models: {names}", hint="import one file, or call it model.onnx")
        models = named
    if models:
        return models[0]
    return files[0] if len(files) == 1 else None


def _starts(file: SourceFile) -> bool:
    head = first_bytes(file)
    return any(head.startswith(magic.data) for magic in MAGIC)


def _read(main: SourceFile, files: Sequence[SourceFile]) -> OnnxModel:
    if main.path.stat().st_size == 0:
        raise UsageError(f"{main.path.name} is empty", hint="was it cut short while it was copied?")
    try:
        with main.path.open("rb") as file:
            model = read_model(file, main.path.stat().st_size)
        _check_external(model, main, files)
    except WireError as error:
        hint = "was it cut short while it was copied, or is it another format?"
        raise UsageError(f"{main.path.name} is not a valid ONNX model: {error}", hint=hint) from None
    return model


def _check_external(model: OnnxModel, main: SourceFile, files: Sequence[SourceFile]) -> None:
    by_name = {file.name: file for file in files}
    for data in model.external:
        name = _contained(data.location, main.path.name, posixpath.dirname(main.name))
        if name not in by_name:
            raise UsageError(
                f"{main.path.name} keeps weights in {data.location!r}, which is not there",
                hint="import the folder that holds both files",
            )
        size = by_name[name].path.stat().st_size
        if data.offset + data.length > size:
            raise WireError(f"it needs {data.offset + data.length} bytes of {data.location!r}, which has {size}")


def _contained(location: str, model: str, folder: str) -> str:
    """The place of an external data file inside the model; UnsafeError where it would be outside."""
    parts = location.split("/")
    unusual = any(character in location for character in ("\\", ":", "\0"))
    if not location or unusual or location.startswith("/") or ".." in parts:
        raise UnsafeError(
            f"{model} keeps weights in {location!r}, which is not a file in the model's folder",
            hint="save the model again with its external data beside it",
        )
    return posixpath.normpath(posixpath.join(folder, location))
