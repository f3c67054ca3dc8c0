"""Loads SavedModels with TensorFlow, and TFLite models with LiteRT or TensorFlow.

This file travels in a Bento: standard library, tensorflow and ai_edge_litert only. What makes an operation more than a
computation stands here, and not in the plugin, because it is asked again before a model is loaded.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAVED_MODEL = "saved_model.pb"

# Operations with which a graph does more than compute: they run Python, open files or addresses that the graph names,
# or call into libraries. An initialiser runs while a model is loaded, so one WriteFile is as good as a pickle. By
# name, with the versions that TensorFlow appends; see tensorflow/core/ops/*.cc.
_FAMILIES = (
    r"(Eager)?PyFunc(Stateless)?",
    r"ReadFile|WriteFile|MatchingFiles|RecordInput|DumpTensor|LoadAndRemapMatrix|GenerateVocabRemapping|Skipgram",
    r"DistributedSave|CalibrationStatisticsSaver|CreateSummary(File|Db)Writer|DatasetToTFRecord",
    r"(WholeFile|TextLine|FixedLengthRecord|TFRecord|LMDB)Reader",
    r"(TextLine|FixedLengthRecord|TFRecord|CSV|LMDB|Sql|MatchingFiles|Cache|Save|Load|Register)Dataset",
    r"(Snapshot\w{0,20}|ListSnapshotChunks|DataService)Dataset(Reader)?|RegisterDataset",
    r"Debug(Identity|NanCount|NumericSummary)",
    r"Rpc(Server\w{0,20}|Client|Call)|FileSystemSetConfiguration|XlaCustomCall",
)
# Of these only the first version: SaveV2 and RestoreV2 are in every SavedModel, and write none but checkpoint files.
_CHECKPOINTS = r"Save|SaveSlices|Restore|RestoreSlice"
_NAMES = rf"(Experimental)?({'|'.join(_FAMILIES)})(V\d+)?"
_OUTWARD = re.compile(rf"{_NAMES}|{_CHECKPOINTS}")
# Within a file the names follow their length, whose last byte is one of these.
_OUTWARD_BYTES = re.compile(rf"(?:{_NAMES})|(?<=[\x00\x04\x07\x0a\x0c])(?:{_CHECKPOINTS})(?!V2)".encode())

# Operations that do so only with some values of an attribute: its name, and the harmless values.
CONDITIONAL = {
    "PrintV2": ("output_stream", re.compile(rb"stderr|stdout|log\((info|warning|error)\)")),
    "DecodeProtoV2": ("descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
    "EncodeProto": ("descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
    "FixedUnigramCandidateSampler": ("vocab_file", re.compile(rb"")),
}


class InvalidModelError(ValueError):
    """The file is not a model, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would let the model do more than compute."""

    unsafe = True


def load(
    path: str | Path,
    *,
    trust: bool = False,
    device_name: str | None = None,
    tags: Any = None,
    num_threads: int | None = None,
    **options: Any,
) -> Any:
    """What ``tf.saved_model.load`` gives, or an ``Interpreter`` of a TFLite model with its tensors allocated.

    Args:
        path: a ``saved_model.pb``, the folder of one, or a TFLite file.
        trust: loads a model whose operations reach files, addresses or Python.
        device_name: device to place a SavedModel on, as ``tf.device`` takes it.
        tags: of the graph to take from a SavedModel.
        num_threads: for the interpreter of a TFLite model.
        options: for ``tf.saved_model.load``, or for ``Interpreter``.

    Raises UnsafeModelError for what needs trust, InvalidModelError for a damaged file, FileNotFoundError.
    """
    path = Path(path)
    folder = path.parent if path.name == SAVED_MODEL else path
    if folder.is_dir():
        if num_threads is not None:
            raise TypeError("num_threads is for TFLite models; see tf.config.threading for a SavedModel")
        return _load_saved_model(folder, trust, device_name, tags, options)
    if tags is not None or device_name is not None:
        raise TypeError("tags and device_name are for SavedModels")
    return _load_lite(path, trust, num_threads, options)


def outward(op: str, values: Callable[[str], list[bytes] | None]) -> str | None:
    """Why an operation is more than a computation; None where it is none.

    Args:
        op: its name.
        values: gives the texts of an attribute; None where it holds something else, an empty list where it is absent.
    """
    if _OUTWARD.fullmatch(op):
        return f"it has the operation {op}"
    if op in CONDITIONAL:
        name, harmless = CONDITIONAL[op]
        found = values(name)
        if found is None or not all(harmless.fullmatch(value) for value in found):
            return f"it has the operation {op} with {name} {(found or [b'?'])[0]!r:.80}"
    return None


def lite_reasons(path: Path) -> list[str]:
    """Why the TensorFlow operations of a TFLite model are more than computations.

    What such an operation does is said by a message within its options, not by its name in the table of operations, so
    the whole file is searched.
    """
    if not path.stat().st_size:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"Flex") < 0:
            return []
        found = {match.group().decode() for match in _OUTWARD_BYTES.finditer(content)}
        found.update(name for name in CONDITIONAL if name != "PrintV2" and content.find(name.encode()) >= 0)
        if content.find(b"PrintV2") >= 0 and content.find(b"file://") >= 0:
            found.add("PrintV2")
    return [f"it has the operation {name}" for name in sorted(found)]


def _load_saved_model(folder: Path, trust: bool, device_name: str | None, tags: Any, options: dict[str, Any]) -> Any:
    from contextlib import nullcontext

    import tensorflow as tf

    if trust is not True:
        reasons = list(dict.fromkeys(_graph_reasons(folder / SAVED_MODEL)))
        if reasons:
            raise UnsafeModelError(f"{folder.name} does more than compute: {_listed(reasons)}; trust=True loads it")
    with tf.device(device_name) if device_name else nullcontext():
        return tf.saved_model.load(str(folder), tags=tags, **options)


def _graph_reasons(path: Path) -> Iterator[str]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InvalidModelError(f"{path.name} is not a SavedModel: {error}") from None
    for meta in model.meta_graphs:
        graph = meta.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                reason = outward(node.op, lambda name, node=node: _texts(node, name))  # type: ignore[misc]
                if reason:
                    yield reason


def _texts(node: Any, name: str) -> list[bytes] | None:
    if name not in node.attr:
        return []
    value = node.attr[name]
    return [value.s] if value.WhichOneof("value") == "s" else None


def _load_lite(path: Path, trust: bool, num_threads: int | None, options: dict[str, Any]) -> Any:
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise InvalidModelError(f"{path.name} is not a TFLite model")
    reasons = lite_reasons(path) if trust is not True else []
    if reasons:
        raise UnsafeModelError(f"{path.name} does more than compute: {_listed(reasons)}; trust=True loads it")
    interpreter = _interpreter(path)(model_path=str(path), num_threads=num_threads, **options)
    interpreter.allocate_tensors()
    return interpreter


def _interpreter(path: Path) -> Any:
    """LiteRT's interpreter, or TensorFlow's: that one alone knows TensorFlow's own operations."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        flex = content.find(b"Flex") >= 0
    if not flex:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            pass
        else:
            return Interpreter
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if flex:
            raise
        raise ModuleNotFoundError(
            "neither ai_edge_litert nor tensorflow is installed", name="ai_edge_litert"
        ) from error
    return tf.lite.Interpreter


def _listed(reasons: list[str]) -> str:
    more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return "; ".join(reasons[:5]) + more
