"""Loads SavedModels with TensorFlow, and TFLite models with LiteRT or TensorFlow.

This file travels in a Bento: standard library, tensorflow and ai_edge_litert only. What makes an operation more than a
computation stands here, and not in the plugin, because it is asked again before a model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAVED_MODEL = "saved_model.pb"

# Operations with which a graph does more than compute: they run Python, open files or addresses that the graph names,
# or call into libraries. An initialiser runs while a model is loaded, so one WriteFile is as good as a pickle. See
# tensorflow/core/ops/*.cc; to these names TensorFlow adds Experimental before, and Stateless, V2, V3 … behind.
_NAMES = """
PyFunc EagerPyFunc ReadFile WriteFile MatchingFiles RecordInput DumpTensor LoadAndRemapMatrix GenerateVocabRemapping
Skipgram DistributedSave CalibrationStatisticsSaver CreateSummaryFileWriter CreateSummaryDbWriter DatasetToTFRecord
WholeFileReader TextLineReader FixedLengthRecordReader TFRecordReader LMDBReader TextLineDataset TFRecordDataset
FixedLengthRecordDataset CSVDataset LMDBDataset SqlDataset MatchingFilesDataset CacheDataset SaveDataset LoadDataset
SnapshotDataset SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset ListSnapshotChunksDataset
DataServiceDataset RegisterDataset DebugIdentity DebugNanCount DebugNumericSummary RpcServer RpcServerStart
RpcServerRegister RpcClient RpcCall FileSystemSetConfiguration XlaCustomCall
"""
_OUTWARD = tuple(_NAMES.split())
# Of these the first version only: SaveV2 and RestoreV2 are in every SavedModel, and write none but checkpoint files.
_CHECKPOINTS = ("Save", "SaveSlices", "Restore", "RestoreSlice")
_OPERATION = re.compile(
    rf"(Experimental)?({'|'.join(_OUTWARD)})(Stateless)?(V\d+)?|{'|'.join(_CHECKPOINTS)}",
)
_PIECE = 16 * 1024 * 1024

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
    if _OPERATION.fullmatch(op):
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
    if not _mentioned(path, {"Flex": (b"Flex",)}):
        return []
    texts: dict[str, tuple[bytes, ...]]
    texts = {name: (name.encode(),) for name in (*_OUTWARD, *CONDITIONAL, "file://")}
    # too short to be looked for without the byte before them, which is the last of their length
    texts |= {name: (bytes([len(name)]) + name.encode(), b"\0" + name.encode()) for name in _CHECKPOINTS}
    found = _mentioned(path, texts)
    if "file://" not in found:
        found.discard("PrintV2")
    return [f"it has the operation {name}" for name in sorted(found - {"file://"})]


def _mentioned(path: Path, texts: dict[str, tuple[bytes, ...]]) -> set[str]:
    """Which texts a file has in it, read in pieces."""
    found: set[str] = set()
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            piece = tail + piece
            found.update(name for name, forms in texts.items() if any(form in piece for form in forms))
            tail = piece[-64:]
    return found


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
    flex = bool(_mentioned(path, {"Flex": (b"Flex",)}))
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
