"""Reads CatBoost's binary format, ``.cbm``, and checks what CatBoost itself believes.

Source: catboost/libs/model/model.cpp, ctr_data.cpp and flatbuffers/*.fbs of CatBoost. ``CBM1``, the length of the core,
the core, a FlatBuffers table, and then the parts that the core names: tables of statistics of categories, each with its
length, and the processing of texts and embeddings, which is left to CatBoost.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import BinaryIO

from bentotool_catboost.flatbuffer import FormatError, Table, numbers, root
from bentotool_catboost.model import (
    MAX_DEPTH,
    MAX_DIMENSION,
    CatboostModel,
    Feature,
    Features,
    check_features,
    check_range,
)
from bentotool_catboost.statistics import check_statistics, read_statistics

MAX_SIZE = 2 * 1024 * 1024 * 1024  # what FlatBuffers can address
_MAX_TEXT = 64 * 1024 * 1024
_MAX_NAME = 64 * 1024
_MAX_FACTS = 10_000
_STATISTICS = "static_provider_v1"
_OTHER_PARTS = ("text_process_v", "embed_process_")  # with a version, which CatBoost checks
_LONG = 0xFFFFFFFF

# numbers of fields in the schema
_SPLITS, _SIZES, _STARTS, _CATEGORIES, _FLOATS, _ONE_HOT, _CTRS, _LEAVES, _WEIGHTS = range(1, 10)
_STEPS, _LEAF_IDS, _TEXTS, _ESTIMATED, _SCALE, _BIAS, _BIASES, _BINS, _EMBEDDINGS = range(10, 19)


def read_binary(path: Path) -> CatboostModel:
    """Read and check a model file; FormatError where it is not one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"CBM1":
            raise FormatError("it does not start with 'CBM1'")
        core = root(file.read(read_length(file, size)))
        if core.text(0, _MAX_NAME) != "FlabuffersModel_v1":
            raise FormatError("its core is of an unknown version")
        trees = core.table(1)
        if trees is None:
            raise FormatError("it has no trees")
        model = _checked(trees, _facts(core))
        _check_parts(file, size, core, trees)
    return model


def read_length(file: BinaryIO, size: int) -> int:
    """A length as CatBoost writes it, and no more than what is left of a file of ``size`` bytes."""
    head = file.read(4)
    if head == b"\xff" * 4:
        head = file.read(8)
    if len(head) not in (4, 8):
        raise FormatError("it is cut short")
    length = int(struct.unpack("<I" if len(head) == 4 else "<Q", head)[0])
    left = size - file.tell()
    if length > min(left, MAX_SIZE):
        raise FormatError(f"a part of {length} bytes is stated, and {left} are left")
    return length


def _facts(core: Table) -> dict[str, str]:
    if core.count(2, 4) > _MAX_FACTS:
        raise FormatError(f"it has more than {_MAX_FACTS} facts")
    return {pair.text(0, _MAX_NAME): pair.text(1, _MAX_TEXT) for pair in core.tables(2)}


def _checked(trees: Table, info: dict[str, str]) -> CatboostModel:
    dimension = trees.integer(0, 0)
    if not 1 <= dimension <= MAX_DIMENSION:
        raise FormatError(f"it gives {dimension} values for each row")
    if trees.count(_BIASES, 8) not in (0, dimension):
        raise FormatError("its biases are not as many as its values")
    features = Features(
        _features(trees, _FLOATS, index=1, name=4),
        _features(trees, _CATEGORIES),
        _features(trees, _TEXTS),
        _features(trees, _EMBEDDINGS),
    )
    check_features(features)
    symmetric = not trees.count(_STEPS, 4) and not trees.count(_LEAF_IDS, 4)
    splits = _splits(trees, {item.index for item in features.categories})
    if splits:
        check_range(trees.values(_SPLITS, "i"), 0, splits - 1, "a tree's splits")
    else:  # trees of one leaf each
        check_range(trees.values(_SPLITS, "i"), 0, -1 if symmetric else 0, "a tree's splits")
    sizes = trees.values(_SIZES, "i")
    _check_starts(trees, sizes)
    if symmetric:
        _check_symmetric(trees, sizes, dimension)
    else:
        _check_asymmetric(trees, sizes, dimension)
    return CatboostModel(features, dimension, len(sizes), symmetric, info)


def _features(trees: Table, field: int, *, index: int = 0, name: int = 2) -> tuple[Feature, ...]:
    found = []
    room = _MAX_TEXT  # names of many features may be one text, which would be read as often
    for item in trees.tables(field):
        text = item.text(name, min(_MAX_NAME, room))
        room -= len(text)
        found.append(Feature(item.integer(index, -1), item.integer(index + 1, -1), text))
    return tuple(found)


def _splits(trees: Table, categories: set[int]) -> int:
    """How many splits the trees can choose from. CatBoost copies them, so one list of borders is not many features'."""
    counts = [item.count(3, 4) for item in (*trees.tables(_FLOATS), *trees.tables(_ESTIMATED))]
    for item in trees.tables(_ONE_HOT):
        if item.integer(0, -1) not in categories:
            raise FormatError("it splits by values of a feature that is no category")
        counts.append(item.count(1, 4))
        if item.count(2, 4) not in (0, counts[-1]):
            raise FormatError("it names other values than it splits by")
    counts += [item.count(1, 4) for item in trees.tables(_CTRS)]
    if sum(counts) > MAX_SIZE // 4:
        raise FormatError("it has more splits than a file of its size can hold")
    return sum(counts)


def _check_starts(trees: Table, sizes: array[int]) -> None:
    starts = trees.values(_STARTS, "i")
    splits = trees.count(_SPLITS, 4)
    if len(starts) != len(sizes):
        raise FormatError(f"{len(sizes)} trees have a size and {len(starts)} a start")
    at = 0
    for start, size in zip(starts, sizes, strict=True):
        if start != at or size < 0:
            raise FormatError(f"a tree starts at split {start}, and the one before ends at {at}")
        at += size
    if at != splits:
        raise FormatError(f"its trees take {at} splits of {splits}")


def _check_symmetric(trees: Table, sizes: array[int], dimension: int) -> None:
    check_range(sizes, 0, MAX_DEPTH, "depth of trees")
    leaves = sum(1 << size for size in sizes)
    if trees.count(_LEAVES, 8) != leaves * dimension:
        raise FormatError(f"its trees have {leaves} leaves and {trees.count(_LEAVES, 8)} values")
    if trees.count(_WEIGHTS, 8) not in (0, leaves):
        raise FormatError(f"its trees have {leaves} leaves and {trees.count(_WEIGHTS, 8)} weights")


def _check_asymmetric(trees: Table, sizes: array[int], dimension: int) -> None:
    """Each step goes down within its tree, so that going down ends; each end has a leaf, which exists."""
    steps = numbers(trees.content(_STEPS, 4), "H")
    leaf_ids = trees.values(_LEAF_IDS, "I")
    values = trees.count(_LEAVES, 8)
    if not len(steps) // 2 == len(leaf_ids) == trees.count(_SPLITS, 4):
        raise FormatError("its trees' nodes, splits and leaves are not as many")
    if trees.count(_WEIGHTS, 8) not in (0, values // dimension):
        raise FormatError("its trees' leaves and weights are not as many")
    node = 0
    for size in sizes:
        end = node + size
        if not size:
            raise FormatError("a tree has no node")
        for at in range(node, end):
            left, right = steps[2 * at], steps[2 * at + 1]
            if max(left, right) >= end - at:
                raise FormatError(f"node {at} leads out of its tree")
            leaf = leaf_ids[at]
            if not (left and right) and (leaf % dimension or leaf + dimension > values):
                raise FormatError(f"node {at} ends at leaf {leaf}, which is not there")
        node = end


def _check_parts(file: BinaryIO, size: int, core: Table, trees: Table) -> None:
    if core.count(3, 4) > len(_OTHER_PARTS) + 1:
        raise FormatError("it names too many parts")
    parts = [name.rstrip("\0") for name in core.texts(3, _MAX_NAME)]
    others = [part for part in parts if part != _STATISTICS]
    unknown = sorted(part for part in others if not part.startswith(_OTHER_PARTS))
    if unknown or len(set(parts)) != len(parts):
        raise FormatError(f"it has the unknown or repeated part {(unknown or parts)[0]!r:.60}")
    statistics = {}
    if _STATISTICS in parts:
        if parts[0] != _STATISTICS:
            raise FormatError("its parts are out of order")
        for _ in range(_count(file)):
            key, classes = read_statistics(root(file.read(read_length(file, size))))
            statistics[key] = classes
    check_statistics(trees.tables(_CTRS), statistics)
    left = size - file.tell()
    if bool(left) != bool(others):
        raise FormatError(f"{left} bytes follow its parts" if left else f"its part {others[0]} is missing")


def _count(file: BinaryIO) -> int:
    head = file.read(4)
    if len(head) < 4 or head == b"\xff" * 4:
        raise FormatError("it is cut short")
    return int(struct.unpack("<I", head)[0])
