"""Reads CatBoost's JSON format and checks what CatBoost itself believes.

Source: catboost/libs/model/model_export/json_model_helpers.cpp of CatBoost, which reads what is missing as 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bentotool_catboost.flatbuffer import FormatError
from bentotool_catboost.model import (
    MAX_DEPTH,
    MAX_DIMENSION,
    CatboostModel,
    Feature,
    Features,
    check_features,
)

MAX_JSON = 128 * 1024 * 1024  # bytes; as Python's objects they take a multiple
_MAX_CONTAINERS = 10_000_000
_MAX_NAME = 64 * 1024
_MEANS = ("BinarizedTargetMeanValue", "FloatTargetMeanValue")
_COUNTERS = ("Counter", "FeatureFreq")
_CLASSES = ("Borders", "Buckets")


def read_document(path: Path) -> CatboostModel:
    """Read and check a model file; FormatError where it is not one."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise FormatError(f"it has {size} bytes, and {MAX_JSON} is the most for JSON; save it as .cbm")
    with path.open("rb") as file:
        text = file.read(MAX_JSON + 1)
    if text.count(b"[") + text.count(b"{") > _MAX_CONTAINERS:
        raise FormatError(f"it has more than {_MAX_CONTAINERS} objects and lists")
    try:
        return _checked(json.loads(text))
    except RecursionError:
        raise FormatError("it is nested too deep") from None
    except ValueError as error:
        raise FormatError(f"it is not JSON: {str(error)[:200]}") from None


def _checked(document: Any) -> CatboostModel:
    columns = _table(document, "features_info")
    features = Features(_features(columns, "float_features"), _features(columns, "categorical_features"))
    check_features(features)
    splits = _splits(columns)
    symmetric = "oblivious_trees" in document
    trees = _list(document, "oblivious_trees" if symmetric else "trees", needed=True)
    dimensions = {_symmetric(tree, splits) if symmetric else _asymmetric(tree, splits) for tree in trees}
    if len(dimensions) > 1:
        raise FormatError("its trees do not give as many values each")
    bias = _bias(document)
    dimension = dimensions.pop() if dimensions else max(1, bias)
    if bias not in (0, dimension):
        raise FormatError("its biases are not as many as its values")
    _check_statistics(document, columns)
    info = document.get("model_info", {})
    if not isinstance(info, dict):
        raise FormatError("its model_info is no object")
    return CatboostModel(features, dimension, len(trees), symmetric, info)


def _features(columns: Mapping[str, Any], key: str) -> tuple[Feature, ...]:
    found = []
    for item in _list(columns, key):
        name = item.get("feature_id", "") if isinstance(item, dict) else None
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise FormatError(f"{key} has a feature whose name is no text")
        found.append(Feature(_whole(item, "feature_index"), _whole(item, "flat_feature_index"), name))
    return tuple(found)


def _splits(columns: Mapping[str, Any]) -> int:
    """How many splits the trees can choose from."""
    splits = sum(_numbers(item, "borders") for item in _list(columns, "float_features"))
    for item in _list(columns, "categorical_features"):
        if "values" in item:
            splits += _numbers(item, "values")
    return splits + sum(_numbers(item, "borders") for item in _list(columns, "ctrs"))


def _symmetric(tree: Any, splits: int) -> int:
    chosen = _list(tree, "splits")
    if len(chosen) > MAX_DEPTH:
        raise FormatError(f"a tree of depth {len(chosen)}, and {MAX_DEPTH} is the most")
    for split in chosen:
        _check_split(split, splits)
    leaves = 1 << len(chosen)
    values = _numbers(tree, "leaf_values")
    if not values or values % leaves or values // leaves > MAX_DIMENSION:
        raise FormatError(f"a tree of {leaves} leaves has {values} values")
    if "leaf_weights" in tree and _numbers(tree, "leaf_weights") not in (0, leaves):
        raise FormatError(f"a tree of {leaves} leaves has {len(tree['leaf_weights'])} weights")
    return values // leaves


def _asymmetric(tree: Any, splits: int) -> int:
    dimensions = {_dimension(leaf) for leaf in _leaves(tree, splits)}
    if len(dimensions) != 1 or not 0 < max(dimensions) <= MAX_DIMENSION:
        raise FormatError("a tree's leaves do not give as many values each")
    return dimensions.pop()


def _leaves(tree: Any, splits: int) -> Iterator[Mapping[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            raise FormatError("a tree has a node that is no object")
        if "value" in node:
            yield node
        else:
            _check_split(node.get("split"), splits)
            waiting += [node.get("left"), node.get("right")]


def _dimension(leaf: Mapping[str, Any]) -> int:
    if isinstance(leaf["value"], list):
        return _numbers(leaf, "value")
    if not _is_number(leaf["value"]):
        raise FormatError("a leaf's value is no number")
    return 1


def _check_split(split: Any, splits: int) -> None:
    number = _whole(split, "split_index")
    if not 0 <= number < splits:
        raise FormatError(f"a tree splits by {number} of {splits}")


def _bias(document: Mapping[str, Any]) -> int:
    if "scale_and_bias" not in document:
        return 0
    pair = document["scale_and_bias"]
    if not isinstance(pair, list) or len(pair) != 2 or not _is_number(pair[0]):
        raise FormatError("its scale_and_bias is not a number and a list")
    return _numbers({"bias": pair[1]}, "bias")


def _check_statistics(document: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Tables of categories: CatBoost divides by the stride, and reads on by it."""
    tables = document.get("ctr_data") or {}
    if not isinstance(tables, dict):
        raise FormatError("its ctr_data is no object")
    strides = {}
    for key, table in tables.items():
        kind = _kind(key)
        stride = _whole(table, "hash_stride")
        least, most = (3, 3) if kind in _MEANS else (2, 2) if kind in _COUNTERS else (2, 1 << 20)
        values = _list(table, "hash_map", needed=True)
        if not least <= stride <= most or len(values) % stride or kind not in (*_MEANS, *_COUNTERS, *_CLASSES):
            raise FormatError(f"a table of categories has {len(values)} values by {stride}, of kind {kind!r:.40}")
        hashes = values[::stride]
        if not all(isinstance(item, str) and item.isascii() and item.isdigit() and len(item) <= 20 for item in hashes):
            raise FormatError("a table of categories has a hash that is no number")
        strides[key] = stride
    for item in _list(columns, "ctrs"):
        key = item.get("identifier") if isinstance(item, dict) else None
        if not isinstance(key, str) or key not in strides:
            raise FormatError("the table of a feature made of categories is missing")
        border = _whole(item, "target_border_idx")
        if item.get("ctr_type") != _kind(key) or (_kind(key) in _CLASSES and not 0 <= border < strides[key] - 1):
            raise FormatError("a feature made of categories does not fit its table")


def _kind(key: str) -> str:
    described = json.loads(key)
    kind = described.get("type") if isinstance(described, dict) else None
    return kind if isinstance(kind, str) else ""


def _table(parent: Any, key: str) -> dict[str, Any]:
    table = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(table, dict):
        raise FormatError(f"it has no {key!r}")
    return table


def _list(parent: Any, key: str, *, needed: bool = False) -> list[Any]:
    values = parent.get(key) if isinstance(parent, dict) else None
    if values is None and isinstance(parent, dict) and (not needed or key in parent):
        return []  # CatBoost writes null for none
    if not isinstance(values, list):
        raise FormatError(f"it has no list {key!r}")
    return values


def _whole(table: Any, key: str) -> int:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{key} is {value!r:.40}, no whole number")
    return value


def _numbers(table: Any, key: str) -> int:
    """How many numbers a list has; FormatError where it has something else."""
    values = _list(table, key)
    if not all(map(_is_number, values)):
        raise FormatError(f"{key} has a value that is no number")
    return len(values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
