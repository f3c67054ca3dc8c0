"""Loads Keras models; what would run code of the file only with ``trust=True``.

This file travels in a Bento: standard library, keras and h5py only. A ``.keras`` file says which classes and functions
to make the model of. Keras has a safe mode that refuses some, and has had ways around it (CVE-2025-1550,
CVE-2025-8747, CVE-2026-1462): here only what is on a list of Keras's own layers and the like passes, before Keras sees
the file. The checks are here, and not in the plugin, because they are made again before a file is loaded.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

KERAS, HDF5 = "keras", "keras_h5"
CONFIG, METADATA, WEIGHTS, ARRAYS = "config.json", "metadata.json", "model.weights.h5", "model.weights.npz"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_MEMBERS = 10_000
MAX_DIRECTORY = 4 * 1024 * 1024  # bytes of the archive's directory, which zipfile reads at once
MAX_CONFIG = 64 * 1024 * 1024  # bytes of a JSON document; weights lie beside it
MAX_CONTAINERS = 2_000_000  # objects and lists in a JSON document
MAX_UNPACKED = 1 << 30  # bytes that a small archive may unpack to; a large one may unpack to MAX_RATIO times its size
MAX_RATIO = 20
MAX_OBJECTS = 1_000_000  # groups and datasets of the weights
MAX_REASONS = 100

# What Keras 3 may make a model of: the classes of its public interface that are data to it. Not among them: Lambda,
# layers that wrap a program of another framework (TFSMLayer, TorchModuleWrapper, JaxLayer, FlaxLayer), and functions
# that fetch, read or import. A class that a later Keras adds is unknown until it stands here.
_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense
DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell
GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer
IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D
MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D
SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
SpectralNormalization StackedRNNCells StringLookup Subtract TextVectorization TimeDistributed UnitNormalization
UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
_LOSSES = """
BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy
CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber KLDivergence LogCosh
MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
SparseCategoricalCrossentropy SquaredHinge Tversky
"""
_METRICS = """
AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy CategoricalHinge
ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives FalsePositives Hinge IoU KLDivergence
LogCoshError Mean MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError
MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson Precision PrecisionAtRecall R2Score
Recall RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity SparseCategoricalAccuracy
SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum
TopKCategoricalAccuracy TrueNegatives TruePositives
"""
_MODELS = "Functional Model Sequential"
CLASSES = {
    module: frozenset(names.split())
    for module, names in {
        "keras": f"{_MODELS} DTypePolicy FloatDTypePolicy",
        "keras.models": _MODELS,
        "keras.src.models.functional": "Functional",
        "keras.layers": _LAYERS,
        "keras.losses": _LOSSES,
        "keras.metrics": _METRICS,
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
        "keras.initializers": "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal "
        "LecunUniform Ones Orthogonal RandomNormal RandomUniform STFT TruncatedNormal VarianceScaling Zeros",
        "keras.optimizers": "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon "
        "Nadam RMSprop SGD ScheduleFreeAdamW",
        "keras.optimizers.schedules": "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay "
        "PiecewiseConstantDecay PolynomialDecay",
        "keras.dtype_policies": "AWQDTypePolicy DTypePolicyMap GPTQDTypePolicy Int4DTypePolicy QuantizedDTypePolicy "
        "QuantizedFloat8DTypePolicy",
        "keras.quantizers": "AWQConfig AbsMaxQuantizer Float8QuantizationConfig GPTQConfig Int4QuantizationConfig "
        "Int8QuantizationConfig",
        "keras.random": "SeedGenerator",
        "keras.src.ops.core": "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient "
        "Unstack",
    }.items()
}
# arithmetic on tensors, which Keras names by the module it lies in
_ARITHMETIC = re.compile(r"keras\.src\.ops\.(numpy|nn|math|linalg|image|einops)")
_OPERATION = re.compile(r"[A-Z]\w*")
_FUNCTIONS = """
acc accuracy bce binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy
categorical_crossentropy categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge celu
circle concordance_correlation cosine_similarity ctc dice elu exponential gelu glu hard_shrink hard_sigmoid hard_silu
hard_swish hard_tanh hinge huber kl_divergence leaky_relu linear log_cosh log_sigmoid log_softmax logcosh mae mape
mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error mish mse msle
pearson_correlation poisson relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign
sparse_categorical_accuracy sparse_categorical_crossentropy sparse_plus sparse_sigmoid
sparse_top_k_categorical_accuracy sparsemax squared_hinge squareplus swish tanh tanh_shrink threshold
top_k_categorical_accuracy tversky
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
_FUNCTION_MODULES = ("builtins", "keras.activations", "keras.losses", "keras.metrics", "keras.ops")
_PLAIN = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__"})


class InvalidModelError(ValueError):
    """The file is not a Keras model, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would run code that the file chooses."""

    unsafe = True


class Inspection(NamedTuple):
    """What a file is: KERAS or HDF5, why loading it may run code of the file's choice, and for KERAS the description of
    the model, what Keras says of the file, and the sizes of the archive's files in bytes by name.
    """

    format: str
    reasons: tuple[str, ...] = ()
    config: dict[str, Any] = {}  # noqa: RUF012 - read only
    metadata: dict[str, Any] = {}  # noqa: RUF012
    members: dict[str, int] = {}  # noqa: RUF012


def load(
    path: str | Path,
    *,
    trust: bool = False,
    custom_objects: Any = None,
    compile: bool = True,
    device_name: str | None = None,
) -> Any:
    """The Keras model.

    Args:
        path: the file.
        trust: loads what runs code of the file's choice.
        custom_objects: classes and functions of yours, by the names that the file gives them.
        compile: whether to compile it, if it was compiled when it was saved.
        device_name: where to place it, e.g. ``gpu:0``.

    Raises UnsafeModelError for what needs trust, InvalidModelError for a damaged file.
    """
    path = Path(path)
    found = inspect(path)
    if found is None:
        raise InvalidModelError(f"{path.name} is not a file of Keras")
    if found.reasons and trust is not True:
        listed = "; ".join(found.reasons[:5])
        raise UnsafeModelError(f"{path.name} may run code when it is loaded: {listed}; trust=True loads it")
    if found.format == HDF5 and not path.name.endswith((".h5", ".hdf5")):
        raise InvalidModelError(f"Keras loads HDF5 only from a file named .h5, and this is {path.name}")
    from contextlib import nullcontext

    import keras

    if found.format == KERAS and trust is not True:
        check_weights(path)
    with keras.device(device_name.rpartition("device:")[2].lower()) if device_name else nullcontext():
        # safe also with trust, where nothing asks for more
        return keras.saving.load_model(
            str(path), custom_objects=custom_objects, compile=compile, safe_mode=not found.reasons
        )


def inspect(path: Path) -> Inspection | None:
    """What a file is, by its structure; None where it is nothing of Keras's.

    Raises InvalidModelError where it is and is damaged.
    """
    with path.open("rb") as file:
        head = file.read(len(HDF5_SIGNATURE))
    if head == HDF5_SIGNATURE:
        if not _mentions(path, b"model_config"):
            return None
        return Inspection(HDF5, ("it is an HDF5 file, for which Keras has no safe mode",))
    if not head.startswith(b"PK\x03\x04"):
        return None
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _archive(archive, path.stat().st_size)
    except InvalidModelError:
        raise
    except Exception as error:  # zipfile, zlib and the rest each have errors of their own
        raise InvalidModelError(f"the archive is damaged: {type(error).__name__}: {_line(error)}") from None


def _mentions(path: Path, text: bytes) -> bool:
    """Whether a file has a text in it, read in pieces."""
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            if text in tail + piece:
                return True
            tail = piece[-len(text) :]
    return False


def _check_directory(path: Path) -> None:
    """Refuse an archive whose directory is larger than any model needs, before zipfile reads it into memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 66_000))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise InvalidModelError("the archive has no directory")
    length = struct.unpack_from("<I", tail, at + 12)[0]
    if at >= 76 and tail.startswith(b"PK\x06\x07", at - 20):  # zipfile believes the longer record where there is one
        length = max(length if length != 0xFFFF_FFFF else 0, struct.unpack_from("<Q", tail, at - 76 + 40)[0])
    if length > min(MAX_DIRECTORY, size):
        raise InvalidModelError(f"the archive claims a directory of {length} bytes")


def _archive(archive: zipfile.ZipFile, size: int) -> Inspection | None:
    infos = archive.infolist()
    members = {info.filename: info.file_size for info in infos}
    if CONFIG not in members or not {METADATA, WEIGHTS, ARRAYS} & set(members):
        return None
    if len(infos) > MAX_MEMBERS:
        raise InvalidModelError(f"the archive has more than {MAX_MEMBERS} members")
    if len(members) < len(infos):
        raise InvalidModelError("the archive has members of the same name")
    for info in infos:
        _check_member(info)
    unpacked = sum(members.values())
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * size):
        raise InvalidModelError(f"the archive would unpack to {unpacked} bytes")
    config = _json(archive, CONFIG)
    if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), dict):
        raise InvalidModelError(f"its {CONFIG} describes no model")
    reasons = dict.fromkeys(_reasons(config))
    if ARRAYS in members:
        reasons[f"its weights are in {ARRAYS}, which some releases of Keras unpickle"] = None
    elif WEIGHTS not in members:
        raise InvalidModelError(f"the archive has no {WEIGHTS}")
    metadata = _json(archive, METADATA) if METADATA in members else {}
    return Inspection(KERAS, tuple(reasons)[:MAX_REASONS], config, metadata, members)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename
    unusual = any(character in name for character in ("\\", ":", "\0"))
    if not name or unusual or name.startswith("/") or ".." in name.split("/") or info.external_attr >> 28 == 0xA:
        raise InvalidModelError(f"member {name!r:.80} is not a file inside the archive")
    if info.flag_bits & 1:
        raise InvalidModelError(f"member {name!r:.80} is encrypted")


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with archive.open(name) as member:
        text = member.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise InvalidModelError(f"{name} is larger than {MAX_CONFIG} bytes")
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidModelError(f"{name} has more than {MAX_CONTAINERS} objects and lists")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{name} is not JSON: {_line(error)}") from None
    if not isinstance(document, dict):
        raise InvalidModelError(f"{name} is not a JSON object")
    return document


def tables(document: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON document, the outer before the inner."""
    level = [document]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                yield item
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner


def _reasons(config: dict[str, Any]) -> Iterator[str]:
    for table in tables(config):
        if "class_name" in table:
            reason = _object_reason(table)
            if reason:
                yield reason
        if isinstance(table.get("vocabulary"), str):
            yield f"it reads the file {table['vocabulary']!r:.80}"


def _object_reason(table: dict[str, Any]) -> str | None:
    """Why Keras must not make an object: it is not on the list, or asks for another under the name of one that is."""
    kind, module, alias = table["class_name"], table.get("module"), table.get("registered_name")
    if not isinstance(kind, str) or not isinstance(module, str | None) or not isinstance(alias, str | None):
        return f"it makes an object of no named class, {kind!r:.80}"
    if kind in _PLAIN:
        return None
    if kind == "function":
        name = table.get("config")
        if module in _FUNCTION_MODULES and isinstance(name, str) and name in FUNCTIONS and alias in (None, kind, name):
            return None
        return f"it uses the function {_shown(module)}.{_shown(name)}"
    known = kind in CLASSES.get(module or "", ()) or (
        _ARITHMETIC.fullmatch(module or "") and _OPERATION.fullmatch(kind) is not None
    )
    if known and alias in (None, kind):
        return None
    registered = f", registered as {_shown(alias)}" if alias not in (None, kind) else ""
    return f"it makes a {_shown(module)}.{_shown(kind)}{registered}"


def _shown(name: Any) -> str:
    return repr(str(name))[1:-1][:80] if name else "?"


def check_weights(path: Path) -> None:
    """Refuse weights that lead out of their file: HDF5 has links to other files and datasets kept in them.

    Raises UnsafeModelError for such, InvalidModelError for a damaged file.
    """
    import h5py

    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file, archive.open(WEIGHTS) as member:
            info = archive.getinfo(WEIGHTS)
            with h5py.File(_Stored(file, info) if info.compress_type == zipfile.ZIP_STORED else member, "r") as weights:
                _check_group(weights, h5py)
    except (UnsafeModelError, InvalidModelError):
        raise
    except Exception as error:  # h5py raises whatever fits the C library's error
        raise InvalidModelError(f"{WEIGHTS} is damaged: {type(error).__name__}: {_line(error)}") from None


class _Stored(io.RawIOBase):
    """A member that is not compressed, where it lies: zipfile's own reader goes back by reading all again."""

    def __init__(self, file: BinaryIO, info: zipfile.ZipInfo) -> None:
        file.seek(info.header_offset + 26)
        self._start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        self._file, self._size, self._at = file, info.file_size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _check_group(file: Any, h5py: Any) -> None:
    seen, waiting = set(), [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UnsafeModelError(f"{WEIGHTS} has the link {name!r:.80} to another place")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise InvalidModelError(f"{WEIGHTS} has more than {MAX_OBJECTS} objects")
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_dataset(item)


def _check_dataset(item: Any) -> None:
    if item.external or item.is_virtual:
        raise UnsafeModelError(f"{WEIGHTS} keeps {item.name!r:.80} in another file")
    if item.nbytes > max(MAX_UNPACKED, MAX_RATIO * item.id.get_storage_size()):
        raise InvalidModelError(f"{item.name!r:.80} would unpack to {item.nbytes} bytes")


def _line(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:200]
