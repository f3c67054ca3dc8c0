"""Reads LightGBM's text format, line by line, and checks what LightGBM itself believes.

Source: src/boosting/gbdt_model_text.cpp and src/io/tree.cpp of LightGBM. A header of ``key=value`` lines, the trees,
each a block of such lines, ``end of trees``, then importances and parameters, which are not needed to predict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_LINE = 64 * 1024 * 1024  # bytes; a tree of a million leaves has lines of twenty
_MAX_HEADER = 64
_MAX_TREE_LINES = 64
_MAX_FEATURES = 4_000_000
_MAX_LEAVES = 1 << 22
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_DECIMALS = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?|inf|nan)")
_CATEGORICAL = 1  # bit of a decision type


class FormatError(Exception):
    """The text is not what it should be; the message says what."""


@dataclass(frozen=True)
class LightgbmModel:
    """What was read. ``features`` are names, ``classes`` the number of outputs for each row."""

    version: str
    objective: str
    features: tuple[str, ...]
    classes: int
    trees: int


def read_model(path: Path) -> LightgbmModel:
    """Read and check a model file; FormatError where it is not one."""
    with path.open("rb") as file:
        return _Reader(file).read()


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._line_number = 0

    def read(self) -> LightgbmModel:
        if self._line() != "tree":
            raise FormatError("it does not start with 'tree'")
        header = self._block(_MAX_HEADER)
        features = _words(header, "feature_names", _MAX_FEATURES)
        highest = _whole(header, "max_feature_idx", _MAX_FEATURES)
        if len(features) != highest + 1 or highest < 0:
            raise FormatError(f"it names {len(features)} features and states {highest + 1}")
        classes = _whole(header, "num_tree_per_iteration", 1 << 20)
        if classes < 1:
            raise FormatError("it states no tree for an iteration")
        stated = len(_words(header, "tree_sizes", _MAX_LEAVES))
        trees = 0
        for tree in self._trees():
            try:
                _check_tree(tree, highest)
            except FormatError as error:
                raise FormatError(f"tree {trees}: {error}") from None
            trees += 1
        if trees != stated or trees % classes:
            raise FormatError(f"it has {trees} trees and states {stated}, {classes} for an iteration")
        objective = header.get("objective", "")
        return LightgbmModel(header.get("version", ""), objective[:200], tuple(features), classes, trees)

    def _trees(self) -> Iterator[Mapping[str, str]]:
        while True:
            line = self._line()
            if line == "end of trees":
                return
            if line.startswith("Tree="):
                yield self._block(_MAX_TREE_LINES)
            elif line:
                raise FormatError(f"line {self._line_number} is {line!r:.60}, not the start of a tree")

    def _block(self, limit: int) -> Mapping[str, str]:
        """Lines up to an empty one, as a table."""
        table: dict[str, str] = {}
        for _ in range(limit):
            line = self._line()
            if not line:
                return table
            key, _, value = line.partition("=")
            if key in table:
                raise FormatError(f"line {self._line_number} repeats {key!r:.60}")
            table[key] = value
        raise FormatError(f"a block of more than {limit} lines at line {self._line_number}")

    def _line(self) -> str:
        line = self._file.readline(_MAX_LINE)
        self._line_number += 1
        if not line.endswith(b"\n"):
            problem = "is too long" if len(line) == _MAX_LINE else "is missing or cut short"
            raise FormatError(f"line {self._line_number} {problem}")
        try:
            return line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"line {self._line_number} is not UTF-8") from None


def _check_tree(tree: Mapping[str, str], highest: int) -> None:
    leaves = _whole(tree, "num_leaves", _MAX_LEAVES)
    if leaves < 1:
        raise FormatError("it has no leaf")
    _numbers(tree, "leaf_value", leaves)
    if "is_linear" in tree and _whole(tree, "is_linear", 2):
        raise FormatError("linear trees are not taken in")
    nodes = leaves - 1
    if not nodes:
        return
    _integers(tree, "split_feature", nodes, 0, highest)
    kinds = _integers(tree, "decision_type", nodes, -128, 127)
    thresholds = _numbers(tree, "threshold", nodes)
    _check_children(tree, nodes)
    categories = _whole(tree, "num_cat", _MAX_LEAVES)
    if categories:
        _check_categories(tree, categories)
    for kind, threshold in zip(kinds, thresholds, strict=True):
        if kind & _CATEGORICAL and not 0 <= threshold < categories:
            raise FormatError(f"it splits by category set {threshold:g} of {categories}")


def _check_children(tree: Mapping[str, str], nodes: int) -> None:
    """Each node and leaf but the root hangs on one node before it, so that going down ends at a leaf."""
    seen = set()
    for key in ("left_child", "right_child"):
        for parent, child in enumerate(_integers(tree, key, nodes, -nodes - 1, nodes - 1)):
            if 0 <= child <= parent or child in seen:
                raise FormatError(f"{key} of node {parent} is {child}, which is no node below it")
            seen.add(child)


def _check_categories(tree: Mapping[str, str], categories: int) -> None:
    words = _words(tree, "cat_threshold", _MAX_LEAVES)
    bounds = _integers(tree, "cat_boundaries", categories + 1, 0, len(words))
    if bounds[0] != 0 or sorted(bounds) != bounds:
        raise FormatError("its category sets are out of order")
    _integers(tree, "cat_threshold", len(words), 0, (1 << 32) - 1)


def _whole(table: Mapping[str, str], key: str, limit: int) -> int:
    text = table.get(key, "")
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > limit:
        raise FormatError(f"{key} is {text!r:.60}, not a number up to {limit}")
    return int(text)


def _words(table: Mapping[str, str], key: str, most: int) -> list[str]:
    text = table.get(key, "").strip(" ")
    if text.count(" ") > most:  # before they are split: as many small texts they take thirty times the memory
        raise FormatError(f"{key} has more values than {most}")
    return text.split(" ") if text else []


def _integers(table: Mapping[str, str], key: str, count: int, low: int, high: int) -> list[int]:
    values = [int(word) for word in _exactly(table, key, count, _DIGITS)]
    if values and not low <= min(values) <= max(values) <= high:
        raise FormatError(f"{key} has a value outside {low} to {high}")
    return values


def _numbers(table: Mapping[str, str], key: str, count: int) -> list[float]:
    return [float(word) for word in _exactly(table, key, count, _DECIMALS)]


def _exactly(table: Mapping[str, str], key: str, count: int, form: re.Pattern[str]) -> list[str]:
    """Values that Python and LightGBM read alike: Python takes ``1_0`` for ten, and other scripts' digits."""
    words = _words(table, key, count)
    if len(words) != count:
        raise FormatError(f"{key} has {len(words)} values and needs {count}")
    if not all(map(form.fullmatch, words)):
        raise FormatError(f"{key} has a value that is no number")
    return words
