"""Detects, describes and saves SavedModels and TFLite models; TensorFlow is imported to save, and not to look."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, MissingDependencyError, UnsafeError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, Safety, SourceFile, TensorSpec
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_tensorflow.loader import SAVED_MODEL, lite_reasons
from bentotool_tensorflow.saved_model import MetaGraph, Signature, read_saved_model
from bentotool_tensorflow.tflite import FlatError, LiteModel, read_lite
from bentotool_tensorflow.wire import WireError

NAME = "tensorflow"
_DAMAGED = "was it cut short while it was copied, or is it another format?"
_MAX_LISTED = 50
_INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")
# TensorFlow reads these in place of saved_model.pb, or beside it: another graph than the one that was looked at
_OTHER_FORMS = ("saved_model.pbtxt", "saved_model.cpb")
# Operations that read files of the model's own; they stay class "program", and are named in the metadata.
_OWN_FILES = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")


class TensorflowFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None:
            return None
        if posixpath.basename(main.name) == SAVED_MODEL:
            _saved_model(main, files)
            return Match(NAME, "saved_model", 0.9, main.name)
        if main.name.lower().endswith(".tflite"):
            _lite(main)
            # among other files it may be a copy for telephones of the model that the folder is
            return Match(NAME, "tflite", 1.0 if len(files) == 1 else 0.8, main.name)
        try:  # the bytes look like TFLite's, the name does not: not worth an error
            _lite(main)
        except BentotoolError:
            return None
        return Match(NAME, "tflite", 0.9, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        if main is None:
            raise UsageError("there is no SavedModel and no TFLite model among the files")
        if posixpath.basename(main.name) == SAVED_MODEL:
            return _describe_saved_model(main, files)
        return _describe_lite(main)

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write a ``tf.Module`` or Keras model as SavedModel, or the bytes of a TFLite model as ``model.tflite``.

        Options are ``tf_signatures`` and ``tf_save_options`` of a SavedModel, as ``tf.saved_model.save`` takes them.
        """
        folder = Path(directory)
        if isinstance(obj, bytes | bytearray | memoryview):
            _no_options(options)
            (folder / "model.tflite").write_bytes(obj)
            return
        signatures, save_options = options.pop("tf_signatures", None), options.pop("tf_save_options", None)
        _no_options(options)
        try:
            import tensorflow as tf
        except ImportError as error:
            raise MissingDependencyError("tensorflow", purpose="to save TensorFlow models") from error
        if not isinstance(obj, tf.Module) and not hasattr(obj, "_gather_saveables_for_checkpoint"):
            raise UsageError(
                f"{kind_of(obj)} is not a TensorFlow model",
                hint="give a tf.Module, a Keras model, or the bytes of a TFLite model",
            )
        _save_saved_model(tf, obj, folder, signatures, save_options)


def _save_saved_model(tf: Any, obj: Any, folder: Path, signatures: object, options: object) -> None:
    plain = signatures is None and options is None
    if plain and callable(export := getattr(obj, "export", None)) and hasattr(obj, "get_config"):
        export(str(folder), verbose=False)  # a Keras model: its call becomes the signature "serve"
    else:
        tf.saved_model.save(obj, str(folder), signatures=signatures, options=options)


def _no_options(options: Mapping[str, object]) -> None:
    if options:
        raise UsageError(f"tensorflow takes no option {', '.join(sorted(options))} when saving this")


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one ``saved_model.pb``, which has no signature; else the one TFLite file, whatever its name."""
    for name in _OTHER_FORMS:
        if any(posixpath.basename(file.name) == name for file in files):
            raise UsageError(f"{name} is a form of SavedModel that is not supported", hint=f"save it as {SAVED_MODEL}")
    for found in (
        [file for file in files if posixpath.basename(file.name) == SAVED_MODEL],
        main_files(files, lambda file: first_bytes(file, 8)[4:] == b"TFL3", (".tflite",)),
    ):
        if len(found) > 1:
            names = ", ".join(sorted(file.name for file in found)[:5])
            raise UsageError(f"there are several TensorFlow models: {names}", hint="import one of them")
        if found:
            return found[0]
    return None


def _describe_lite(main: SourceFile) -> ModelInfo:
    model = _lite(main)
    flex = [name for name in model.custom if name.startswith("Flex")]
    metadata: dict[str, JSON] = {
        "operators": model.operators,
        "kinds_of_operators": model.builtin + len(model.custom),
        "subgraphs": model.subgraphs,
    }
    told: dict[str, JSON] = {
        "description": model.description[:500],
        "signatures": list(model.signatures[:_MAX_LISTED]),
        "custom_operators": [name for name in model.custom if name not in flex][:_MAX_LISTED],
        "tensorflow_operators": flex[:_MAX_LISTED],
    }
    metadata.update({key: value for key, value in told.items() if value})
    reasons = lite_reasons(main.path) if flex else []
    if reasons:
        metadata["needs_trust"] = reasons[:20]
    safety: Safety = "pickle" if reasons else "program" if flex else "data"
    needs = "tensorflow>=2.16" if flex else "ai-edge-litert>=1.2"
    return ModelInfo(NAME, "tflite", model.inputs, model.outputs, metadata, ("numpy", needs), safety, main.name)


def _lite(main: SourceFile) -> LiteModel:
    try:
        return read_lite(main.path)
    except FlatError as error:
        raise UsageError(f"{main.path.name} is not a valid TFLite model: {error}", hint=_DAMAGED) from None


def _describe_saved_model(main: SourceFile, files: Sequence[SourceFile]) -> ModelInfo:
    graphs = _saved_model(main, files)
    graph = next((graph for graph in graphs if "serve" in graph.tags), graphs[0])
    name, signature = _main_signature(graph.signatures)
    metadata: dict[str, JSON] = {
        "tags": [sorted(item.tags) for item in graphs[:_MAX_LISTED]],
        "tensorflow_version": graph.tensorflow_version,
        "operators": sum(graph.ops.values()),
        "functions": graph.functions,
    }
    if graph.signatures:
        metadata["signatures"] = _signatures(graph.signatures)
        metadata["default_signature"] = name
    folder = posixpath.dirname(main.name)
    variables = [file for file in files if file.name.startswith(posixpath.join(folder, "variables/"))]
    metadata["variables_bytes"] = sum(file.path.stat().st_size for file in variables)
    assets = sorted({asset for item in graphs for asset in item.assets})
    if assets:
        metadata["assets"] = assets[:_MAX_LISTED]
    own = sorted({op for item in graphs for op in item.ops if op in _OWN_FILES})
    if own:
        metadata["reads_files"] = own
    reasons = list(dict.fromkeys(reason for item in graphs for reason in item.reasons))
    if reasons:
        metadata["needs_trust"] = reasons[:20]
    return ModelInfo(
        framework=NAME,
        format="saved_model",
        inputs=tuple(signature.inputs.values()),
        outputs=tuple(signature.outputs.values()),
        metadata=metadata,
        requirements=("numpy", "tensorflow>=2.16"),
        safety="pickle" if reasons else "program",
        main_file=main.name,
    )


def _main_signature(signatures: Mapping[str, Signature]) -> tuple[str, Signature]:
    offered = [name for name in signatures if name not in _INTERNAL]
    for name in ("serving_default", "serve", *sorted(offered)):
        if name in offered:
            return name, signatures[name]
    return "", Signature()


def _signatures(signatures: Mapping[str, Signature]) -> dict[str, JSON]:
    offered = [name for name in signatures if name not in _INTERNAL][:_MAX_LISTED]
    return {
        name: {
            "inputs": {spec.name: _text(spec) for spec in list(signatures[name].inputs.values())[:_MAX_LISTED]},
            "outputs": {spec.name: _text(spec) for spec in list(signatures[name].outputs.values())[:_MAX_LISTED]},
        }
        for name in offered
    }


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if axis is None else str(axis) for axis in spec.shape)}]"


def _saved_model(main: SourceFile, files: Sequence[SourceFile]) -> list[MetaGraph]:
    size = main.path.stat().st_size
    if not size:
        raise UsageError(f"{main.path.name} is empty", hint="was it cut short while it was copied?")
    try:
        with main.path.open("rb") as file:
            graphs = read_saved_model(file, size)
    except WireError as error:
        raise UsageError(f"{main.path.name} is not a valid SavedModel: {error}", hint=_DAMAGED) from None
    names = {file.name for file in files}
    folder = posixpath.dirname(main.name)
    for asset in (asset for graph in graphs for asset in graph.assets):
        _check_asset(asset, folder, names)
    _check_variables(graphs, posixpath.join(folder, "variables"), names)
    return graphs


def _check_asset(asset: str, folder: str, names: set[str]) -> None:
    unusual = any(character in asset for character in ("\\", ":", "\0"))
    if not asset or unusual or asset.startswith("/") or ".." in asset.split("/"):
        raise UnsafeError(
            f"{SAVED_MODEL} names the asset {asset!r:.80}, which is not a file in the model's folder",
            hint="save the model again with its assets beside it",
        )
    if posixpath.normpath(posixpath.join(folder, "assets", asset)) not in names:
        raise UsageError(f"assets/{asset:.80} is missing", hint="import the whole folder of the SavedModel")


def _check_variables(graphs: Sequence[MetaGraph], folder: str, names: set[str]) -> None:
    """Every shard there is must have its fellows, and a graph with variables an index of them."""
    hint = "import the whole folder of the SavedModel"
    shards = [_SHARD.fullmatch(name[len(folder) + 1 :]) for name in names if name.startswith(folder + "/")]
    counts = {int(shard[2]) for shard in shards if shard}
    indexed = posixpath.join(folder, "variables.index") in names
    if indexed or counts:
        if len(counts) != 1 or len([shard for shard in shards if shard]) != max(counts):
            raise UsageError(f"not all files variables/variables.data-… are there: {len(shards)} found", hint=hint)
        if not indexed:
            raise UsageError("variables/variables.index is missing", hint=hint)
    elif any(op in graph.ops for graph in graphs for op in ("VarHandleOp", "VariableV2", "Variable")):
        raise UsageError("the model's variables are missing: there is no variables/variables.index", hint=hint)
