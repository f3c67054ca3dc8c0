"""What an XGBoost model's document says, checked: sizes agree, trees are trees, features and categories exist.

Source: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html (the schema, at its end).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool_xgboost.ubjson import FormatError, read_ubjson

MAX_JSON = 128 * 1024 * 1024  # bytes; as Python's objects they take a multiple
MAX_UBJSON = 2 * 1024 * 1024 * 1024
_MAX_CONTAINERS = 10_000_000  # objects and lists in JSON: some twenty for a tree
_MAX_NUMBER = (1 << 31) - 1
_LEAF = -1


@dataclass(frozen=True)
class XgboostModel:
    """What was read. ``outputs`` is the number of values for each row."""

    version: str
    booster: str
    objective: str
    features: int
    names: tuple[str, ...]
    outputs: int
    trees: int


def read_model(path: Path, format: str) -> XgboostModel:
    """Read and check a model file of ``format`` ``json`` or ``ubj``; FormatError where it is not one."""
    size = path.stat().st_size
    limit = MAX_JSON if format == "json" else MAX_UBJSON
    if size > limit:
        raise FormatError(f"it has {size} bytes, and {limit} is the most for {format}; .ubj files take less")
    with path.open("rb") as file:
        if format == "ubj":
            return _checked(read_ubjson(file, size))
        text = file.read(limit + 1)
        if text.count(b"[") + text.count(b"{") > _MAX_CONTAINERS:
            raise FormatError(f"it has more than {_MAX_CONTAINERS} objects and lists")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"it is not JSON: {str(error)[:200]}") from None
    return _checked(document)


def _checked(document: Any) -> XgboostModel:
    learner = _table(document, "learner")
    parameters = _table(learner, "learner_model_param")
    features = _whole(parameters, "num_feature")
    classes = max(1, _whole(parameters, "num_class", 0))
    targets = max(1, _whole(parameters, "num_target", 1))
    names = learner.get("feature_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError("its feature_names are not texts")
    if names and len(names) != features:
        raise FormatError(f"it names {len(names)} features and states {features}")
    objective = _table(learner, "objective").get("name")
    booster = _table(learner, "gradient_booster")
    kind = booster.get("name")
    if not isinstance(objective, str) or not isinstance(kind, str):
        raise FormatError("it names no objective or no booster")
    trees = _check_booster(booster, kind, features, classes * targets)
    version = document.get("version", [])
    return XgboostModel(
        version=".".join(str(part) for part in version[:3]) if isinstance(version, list) else "",
        booster=kind,
        objective=objective[:200],
        features=features,
        names=tuple(names),
        outputs=targets if classes == 1 else classes,
        trees=trees,
    )


def _check_booster(booster: Mapping[str, Any], kind: str, features: int, groups: int) -> int:
    if kind == "gblinear":
        _numbers(_table(booster, "model"), "weights", (features + 1) * groups)
        return 0
    if kind == "dart":
        count = _check_booster(_table(booster, "gbtree"), "gbtree", features, groups)
        _numbers(booster, "weight_drop", count)
        return count
    if kind != "gbtree":
        raise FormatError(f"it is of the unknown booster {kind!r:.60}")
    model = _table(booster, "model")
    trees = model.get("trees")
    if not isinstance(trees, list):
        raise FormatError("it has no list of trees")
    if len(trees) != _whole(_table(model, "gbtree_model_param"), "num_trees"):
        raise FormatError(f"it has {len(trees)} trees and states another number")
    _integers(model, "tree_info", len(trees), 0, groups - 1)
    if "iteration_indptr" in model:
        ends = _integers(model, "iteration_indptr", None, 0, len(trees))
        if list(ends) != sorted(ends):
            raise FormatError("its iterations are out of order")
    for number, tree in enumerate(trees):
        try:
            _check_tree(tree, features)
        except FormatError as error:
            raise FormatError(f"tree {number}: {error}") from None
    return len(trees)


def _check_tree(tree: Any, features: int) -> None:
    parameters = _table(tree, "tree_param")
    nodes = _whole(parameters, "num_nodes")
    if nodes < 1:
        raise FormatError("it has no node")
    if _whole(parameters, "num_feature", features) > features:
        raise FormatError("it states more features than the model")
    left = _integers(tree, "left_children", nodes, _LEAF, nodes - 1)
    right = _integers(tree, "right_children", nodes, _LEAF, nodes - 1)
    split = _integers(tree, "split_indices", nodes, 0, _MAX_NUMBER)
    _numbers(tree, "split_conditions", nodes)
    _integers(tree, "default_left", nodes, 0, 1)
    _integers(tree, "parents", nodes, -1, _MAX_NUMBER)
    seen = {0}  # nothing leads to the root, and one thing to each other node: going down ends
    for node in range(nodes):
        if (left[node] == _LEAF) != (right[node] == _LEAF):
            raise FormatError(f"node {node} has one child")
        if left[node] == _LEAF:
            continue
        if split[node] >= features:
            raise FormatError(f"node {node} splits by feature {split[node]} of {features}")
        for child in (left[node], right[node]):
            if child in seen:
                raise FormatError(f"two nodes lead to node {child}")
            seen.add(child)
    _check_categories(tree, nodes, left)


def _check_categories(tree: Mapping[str, Any], nodes: int, left: Sequence[int]) -> None:
    if "split_type" not in tree:
        return
    kinds = _integers(tree, "split_type", nodes, 0, 1)
    owners = _integers(tree, "categories_nodes", None, 0, nodes - 1)
    starts = _integers(tree, "categories_segments", len(owners), 0, _MAX_NUMBER)
    sizes = _integers(tree, "categories_sizes", len(owners), 0, _MAX_NUMBER)
    categories = _integers(tree, "categories", None, 0, _MAX_NUMBER)
    if any(start + size > len(categories) for start, size in zip(starts, sizes, strict=True)):
        raise FormatError("a set of categories reaches beyond their list")
    missing = {node for node in range(nodes) if kinds[node] and left[node] != _LEAF} - set(owners)
    if missing:
        raise FormatError(f"node {min(missing)} splits by categories that are not there")


def _table(parent: Any, key: str) -> dict[str, Any]:
    table = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(table, dict):
        raise FormatError(f"it has no {key!r}")
    return table


def _whole(table: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A number, which XGBoost writes as text."""
    text = str(table.get(key, "" if default is None else default))
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > _MAX_NUMBER:
        raise FormatError(f"{key} is {text!r:.60}, not a number")
    return int(text)


def _integers(table: Any, key: str, count: int | None, low: int, high: int) -> Sequence[int]:
    values: Sequence[int] = _list(table, key, count)
    if not isinstance(values, array) and not all(isinstance(value, int) for value in values):
        raise FormatError(f"{key} has a value that is no whole number")
    if isinstance(values, array) and values.typecode in "fd":
        raise FormatError(f"{key} has a value that is no whole number")
    if len(values) and not low <= min(values) <= max(values) <= high:
        raise FormatError(f"{key} has a value outside {low} to {high}")
    return values


def _numbers(table: Any, key: str, count: int) -> None:
    values = _list(table, key, count)
    if not isinstance(values, array) and not all(isinstance(value, int | float) for value in values):
        raise FormatError(f"{key} has a value that is no number")


def _list(table: Any, key: str, count: int | None) -> Any:
    values = table.get(key) if isinstance(table, dict) else None
    if not isinstance(values, list | array):
        raise FormatError(f"it has no list {key!r}")
    if count is not None and len(values) != count:
        raise FormatError(f"{key} has {len(values)} values and needs {count}")
    return values
