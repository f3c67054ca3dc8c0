"""Detects, describes and saves Keras models; keras is imported to save, and not to look at a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bentotool.errors import MissingDependencyError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, TensorSpec
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_tensorflow.keras_canonical import rewrite
from bentotool_tensorflow.keras_loader import (
    HDF5,
    HDF5_SIGNATURE,
    KERAS,
    WEIGHTS,
    Inspection,
    InvalidModelError,
    inspect,
)

NAME = "keras"
_DAMAGED = "was it cut short while it was copied, or is it another format?"
_REQUIREMENTS = ("keras>=3.12", "numpy", "tensorflow>=2.16")
_MAX_LISTED = 50
_MAX_AXES = 64
# options of BentoML's keras.save_model, and what to do instead
_NOT_TAKEN = {
    "include_optimizer": "Keras keeps the state of training of a compiled model: save one that is not compiled",
    "tf_signatures": "bentotool.tensorflow.save_model writes a SavedModel with signatures",
    "tf_save_options": "bentotool.tensorflow.save_model writes a SavedModel with options",
}
# layers whose output has the shape of their input
_SAME_SHAPE = ("Activation", "BatchNormalization", "Dropout", "LayerNormalization", "LeakyReLU", "ReLU", "Softmax")


class KerasFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        found = _inspect(main) if main else None
        if main is None or found is None:
            return None
        if found.format == KERAS and not main.name.endswith(".keras"):
            raise UsageError(
                f"{main.path.name} is a Keras model, and Keras loads it only from a file named .keras",
                hint=f"rename it to {main.path.stem}.keras",
            )
        return Match(NAME, found.format, 0.9, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        found = _inspect(main) if main else None
        if main is None or found is None:
            raise UsageError("there is no Keras model among the files")
        metadata: dict[str, JSON] = {}
        if found.format == KERAS:
            metadata = _facts(found)
        if found.reasons:
            metadata["needs_trust"] = list(found.reasons[:20])
        inputs, outputs = _ends(found.config)
        return ModelInfo(
            framework=NAME,
            format=found.format,
            inputs=inputs,
            outputs=outputs,
            metadata=metadata,
            requirements=(*_REQUIREMENTS, "h5py") if found.format == HDF5 else _REQUIREMENTS,
            safety="pickle" if found.reasons else "program",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write a Keras model as ``model.keras``; the same model gives the same bytes."""
        if options:
            hint = next((_NOT_TAKEN[name] for name in sorted(options) if name in _NOT_TAKEN), "")
            raise UsageError(f"keras takes no option {', '.join(sorted(options))} when saving", hint=hint or None)
        try:
            import keras
        except ImportError as error:
            raise MissingDependencyError("keras", purpose="to save Keras models") from error
        if not isinstance(obj, keras.Model):
            raise UsageError(f"{kind_of(obj)} is not a Keras model", hint="give a keras.Model")
        path = Path(directory) / "model.keras"
        obj.save(str(path))
        rewrite(path)


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one file that starts, or is called, as Keras's are, or a single file whatever it is.

    A folder with a configuration of Hugging Face's is not ours, whatever lies in it.
    """
    if {"config.json", "modules.json", "model_index.json"} & {file.name for file in files}:
        return None
    archives = main_files(files, _starts_as_archive, (".keras",), sure=False)
    tables = main_files(files, lambda file: first_bytes(file, 8) == HDF5_SIGNATURE, (".h5", ".hdf5"), sure=False)
    for found in (archives, tables):
        if len(found) > 1:
            listed = ", ".join(sorted(file.name for file in found)[:5])
            raise UsageError(f"there are several Keras models: {listed}", hint="import one file")
        if found:
            return found[0]
    return files[0] if len(files) == 1 else None


def _starts_as_archive(file: SourceFile) -> bool:
    """As a zip archive of which Keras wrote the first member."""
    head = first_bytes(file, 256)
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + length] in (
        b"metadata.json",
        b"config.json",
        b"model.weights.h5",
    )


def _inspect(main: SourceFile) -> Inspection | None:
    named = main.name.lower().endswith(".keras")
    try:
        found = inspect(main.path)
    except InvalidModelError as error:
        if not named:  # a zip archive of something else
            return None
        raise UsageError(f"{main.path.name} is not a valid Keras file: {error}", hint=_DAMAGED) from None
    if found is None and named:
        raise UsageError(f"{main.path.name} is not a valid Keras file: it is no archive of Keras 3", hint=_DAMAGED)
    return found


def _facts(found: Inspection) -> dict[str, JSON]:
    config = found.config
    layers = Counter(str(layer.get("class_name"))[:80] for layer in _layers(config["config"]))
    facts: dict[str, JSON] = {
        "keras_version": str(found.metadata.get("keras_version", ""))[:40],
        "model_class": str(config["class_name"])[:80],
        "layers": sum(layers.values()),
        "layer_types": dict(layers.most_common(_MAX_LISTED)),
        "compiled": bool(config.get("compile_config")),
        "weights_bytes": found.members.get(WEIGHTS, 0),
    }
    assets = [name for name in sorted(found.members) if name.startswith("assets/")][:_MAX_LISTED]
    return {**facts, "assets": assets} if assets else facts


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    layers = config.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
            yield layer


def _ends(model: dict[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs, as far as the description of the model says."""
    config = model.get("config", {})
    layers = {str(layer["config"].get("name")): layer for layer in _layers(config)}
    entries = [layer for layer in layers.values() if layer.get("class_name") == "InputLayer"]
    if "output_layers" not in config:  # a Sequential
        last = list(layers.values())[-1:]
        return tuple(_input(layer) for layer in entries[:1]), tuple(_output(layer) for layer in last)
    names = [name for name in _references(config.get("input_layers")) if name in layers]
    exits = [name for name in _references(config["output_layers"]) if name in layers]
    return tuple(_input(layers[name]) for name in names), tuple(_output(layers[name]) for name in exits)


def _references(value: Any) -> list[str]:
    """Layers that a model's ends refer to: ``[name, node, tensor]``, alone or in lists and tables."""
    found: list[str] = []
    waiting = [value]
    while waiting and len(found) < 1000:
        item = waiting.pop(0)
        if isinstance(item, list) and len(item) == 3 and isinstance(item[0], str):
            found.append(item[0])
        elif isinstance(item, list | dict):
            waiting[:0] = item.values() if isinstance(item, dict) else item
    return found


def _input(layer: dict[str, Any]) -> TensorSpec:
    config = layer["config"]
    shape = config.get("batch_shape", config.get("batch_input_shape"))
    return TensorSpec(_name(layer), _dtype(config.get("dtype")), _shape(shape))


def _output(layer: dict[str, Any]) -> TensorSpec:
    config, built = layer["config"], layer.get("build_config")
    shape: Any = built.get("input_shape") if isinstance(built, dict) else None
    kind = layer.get("class_name")
    if kind == "Dense" and isinstance(shape, list):
        shape = [*shape[:-1], config.get("units")]
    elif kind not in _SAME_SHAPE:
        shape = None
    return TensorSpec(_name(layer), _dtype(config.get("dtype")), _shape(shape))


def _name(layer: dict[str, Any]) -> str:
    return str(layer["config"].get("name", ""))[:200]


def _dtype(value: Any) -> str:
    """A type's name: as it stands, or of a policy such as ``mixed_float16``."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        value = value["config"].get("name")
    if not isinstance(value, str):
        return "undefined"
    return "str" if value == "string" else value.removeprefix("mixed_")[:40]


def _shape(value: Any) -> tuple[int | str | None, ...]:
    if not isinstance(value, list) or len(value) > _MAX_AXES:
        return ("...",)
    return tuple(axis if isinstance(axis, int) and not isinstance(axis, bool) else None for axis in value)
