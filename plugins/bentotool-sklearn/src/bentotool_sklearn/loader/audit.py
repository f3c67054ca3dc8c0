"""Looks at what the arrays of a skops file hold, and vouches for types where all is sound.

skops says which types a file may hold; it says nothing of what the arrays in them hold, and scikit-learn's compiled
code follows the indices of a tree without a look. Hence skops vouches for no tree. Here the object tree is walked and
the arrays are read before any object is made. What is not recognised is not vouched for.
"""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Callable, Collection
from typing import Any

from .known import FUNCTION_NAMES, METRICS, NEIGHBOURS, PLAIN_TYPES, PREDICTOR, TREE
from .schema import name_of, nodes
from .structure import DoubtError, check_neighbours, check_sparse, check_tree, is_below

_PROTOCOLS = (1, 2)  # of the format: those whose nodes mean what is read into them here
_TREES = (TREE, PREDICTOR)
Check = Callable[[dict[str, Any]], None]


def vouch(schema: dict[str, Any], archive: zipfile.ZipFile, unsafe: Collection[str]) -> dict[str, str]:
    """Look into the types that skops does not vouch for.

    Args:
        unsafe: full names of those types.

    Returns:
        for the full name of each type that was looked at: ``""`` where all its objects are sound, else what is wrong
        with one of them.
    """
    audit = _Audit(archive)
    verdicts: dict[str, str] = {}
    doubt = _doubt_of_file(schema, archive, [name for name in unsafe if name not in audit.known])
    if not doubt:
        for node in nodes(schema):
            audit.place_trees(node)
    for node in nodes(schema):
        check = audit.check_of(node)
        if check is None:
            continue
        try:
            if doubt:
                raise DoubtError(doubt)
            check(node)
        except Exception as error:
            verdicts[name_of(node)] = _reason(error)
        else:
            verdicts.setdefault(name_of(node), "")
    return verdicts


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DoubtError) else f"it is not as scikit-learn writes it: {error!r:.80}"


def _doubt_of_file(schema: dict[str, Any], archive: zipfile.ZipFile, foreign: Collection[str]) -> str:
    """What is wrong with the file as a whole, if anything."""
    if schema.get("protocol") not in _PROTOCOLS:
        return "the file is of another version of the format"
    try:
        _check_identities(schema, archive)
        for node in nodes(schema):
            own = str(node.get("__module__")).startswith("sklearn.") and name_of(node) not in foreign
            if own and node.get("__loader__") == "ObjectNode":
                _check_attributes(node)
    except Exception as error:
        return _reason(error)
    return ""


def _check_identities(schema: dict[str, Any], archive: zipfile.ZipFile) -> None:
    """All nodes of one identity become one object, so they have to say the same, down to the bytes of arrays."""
    first: dict[object, dict[str, Any]] = {}
    stack: list[object] = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        if not isinstance(item, dict):
            continue
        if item.get("__loader__") == "CachedNode":
            raise DoubtError("an object stands for another")
        identity = item.get("__id__")
        named = identity is not None and not isinstance(identity, dict | list)
        if named and not _same(first.setdefault(identity, item), item, archive):
            raise DoubtError("two objects share one identity")
        stack.extend(item.values())


def _same(one: object, other: object, archive: zipfile.ZipFile) -> bool:
    """Whether two nodes say the same; the identities and file names in them may differ."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return False
        return all(_same_part(key, value, other[key], archive) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(*pair, archive) for pair in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def _same_part(key: str, one: object, other: object, archive: zipfile.ZipFile) -> bool:
    plain = not isinstance(one, dict | list) and not isinstance(other, dict | list)
    if key == "__id__" and plain:
        return True
    if key == "file" and isinstance(one, str) and isinstance(other, str):
        return one == other or archive.read(one) == archive.read(other)
    return _same(one, other, archive)


def _attributes(node: dict[str, Any]) -> dict[str, Any]:
    """The nodes of an object's attributes, by name, as skops will read them."""
    content: dict[str, Any] = node["content"]["content"]
    keys = node["content"]["key_types"]
    kinds = [node["content"]["__loader__"], name_of(node["content"]), keys["__loader__"], name_of(keys)]
    types = [(each["__loader__"], name_of(each)) for each in keys["content"]]
    if kinds != ["DictNode", "builtins.dict", "ListNode", "builtins.list"] or types != [
        ("TypeNode", "builtins.str")
    ] * len(content):
        raise DoubtError("the attributes of an object are forged")
    return content


def _check_attributes(node: dict[str, Any]) -> None:
    """No attribute may take the place of a method, such as one that checks the input."""
    content = node.get("content")
    nothing = content is None or (content["__loader__"] == "JsonNode" and _json(content) is None)
    if nothing or content["__loader__"] == "TupleNode":  # of compiled classes, which look at it by themselves
        return
    class_ = getattr(importlib.import_module(node["__module__"]), node["__class__"])
    hidden = [name for name in _attributes(node) if is_below(class_, name)]
    if hidden:
        raise DoubtError(f"{hidden[0]} of {node['__class__']} is replaced")


def _json(node: dict[str, Any]) -> Any:
    if node["__loader__"] != "JsonNode":
        raise DoubtError("a plain value is none")
    return json.loads(node["content"])


def _fine(node: dict[str, Any]) -> None:
    """Nothing more to look at."""


def _misplaced(node: dict[str, Any]) -> None:
    raise DoubtError(f"it is kept as {node.get('__loader__')}")


class _Audit:
    """The checks of the objects of one file; each raises DoubtError, or anything else where a part is missing."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._placed: dict[int, str] = {}
        self._checks: dict[tuple[str, str], Check] = {
            ("TreeNode", TREE): self._in_place,
            ("ObjectNode", PREDICTOR): self._in_place,
            ("DTypeNode", "numpy.dtype"): _fine,
            ("DictNode", "sklearn.utils._bunch.Bunch"): _fine,
            **{("ObjectNode", name): self._neighbours for name in NEIGHBOURS},
            **{("ObjectNode", name): _fine for name in (*PLAIN_TYPES, *METRICS)},
            **{("FunctionNode", name): _fine for name in FUNCTION_NAMES},
        }
        self.known = {name for _, name in self._checks}

    def check_of(self, node: dict[str, Any]) -> Check | None:
        """What looks at a node of the object tree; None where nothing here does."""
        kind, name = str(node.get("__loader__")), name_of(node)
        if kind == "SparseMatrixNode":
            return self._sparse
        unusual = name in self.known or name.startswith("scipy.sparse.")
        return self._checks.get((kind, name)) or (_misplaced if unusual else None)

    def place_trees(self, node: dict[str, Any]) -> None:
        """Check the trees of an estimator against what it says of its input. Ensembles come before their members."""
        checks: dict[str, Check] = {
            "sklearn.tree._classes": self._tree_estimator,
            "sklearn.ensemble._forest": self._forest,
            "sklearn.ensemble._gb": self._gradient_boosting,
            "sklearn.ensemble._iforest": self._isolation_forest,
            "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": self._histogram_boosting,
        }
        check = checks.get(str(node.get("__module__")))
        trees = [each for each in nodes(node) if name_of(each) in _TREES] if check else []
        if check is None or not trees:
            return
        try:
            if node["__loader__"] != "ObjectNode":
                raise DoubtError(f"its estimator is kept as {node['__loader__']}")
            check(node)
        except Exception as error:
            self._placed.update((id(tree), _reason(error)) for tree in trees)

    def _in_place(self, node: dict[str, Any]) -> None:
        """A tree is called by the estimator it belongs to, which is what its numbers were compared with."""
        reason = self._placed.get(id(node), "it stands outside an estimator that checks its input")
        if reason:
            raise DoubtError(reason)

    def _array(self, node: dict[str, Any], dtype: Any = None) -> Any:
        from numpy.lib import format as npy

        if node["__loader__"] != "NdArrayNode" or node["type"] != "numpy":
            raise DoubtError("an array is none")
        array = npy.read_array(io.BytesIO(self._archive.read(node["file"])), allow_pickle=False)
        if dtype is not None and (array.dtype != dtype or name_of(node) != "numpy.ndarray"):
            raise DoubtError(f"an array is of type {array.dtype}, not {dtype}")
        return array

    def _integer(self, node: dict[str, Any]) -> int:
        value = self._array(node).item() if node["__loader__"] == "NdArrayNode" else _json(node)
        if type(value) is not int:
            raise DoubtError("a number is none")
        return value

    def _sparse(self, node: dict[str, Any]) -> None:
        check_sparse(io.BytesIO(self._archive.read(node["file"])))

    def _neighbours(self, node: dict[str, Any]) -> None:
        import numpy as np

        state = node["content"]
        if state["__loader__"] != "TupleNode" or name_of(state) != "builtins.tuple":
            raise DoubtError("its state is forged")
        data, order, tree_nodes, bounds, *_, metric, weights = state["content"]
        points, found = self._array(data), self._array(tree_nodes)
        names = ("idx_start", "idx_end", "is_leaf", "radius")
        if found.dtype != np.dtype(list(zip(names, (np.intp, np.intp, np.intp, np.float64), strict=True)), align=True):
            raise DoubtError("its nodes are forged")
        n_nodes = self._integer(state["content"][6])
        check_neighbours(points, self._array(order, np.intp), found, self._array(bounds), n_nodes)
        if name_of(metric) not in METRICS or metric["__loader__"] != "ObjectNode":
            raise DoubtError("it measures distance by a function that cannot be checked")
        if weights["__loader__"] != "JsonNode" and self._array(weights, np.float64).shape != (len(points),):
            raise DoubtError("it has another number of weights than of points")

    def _tree_estimator(self, node: dict[str, Any]) -> None:
        import numpy as np
        from sklearn.tree._tree import NODE_DTYPE

        own = _attributes(node)
        tree = own["tree_"]
        if tree["__loader__"] != "TreeNode" or tree["__reduce__"]["args"]["__loader__"] != "TupleNode":
            raise DoubtError("the tree of an estimator is forged")
        (n_features, classes, n_outputs), state = tree["__reduce__"]["args"]["content"], _attributes(tree)
        features, outputs = self._integer(n_features), self._integer(n_outputs)
        if features != self._integer(own["n_features_in_"]):
            raise DoubtError("a tree has another number of features than its estimator")
        found, values = self._array(state["nodes"], NODE_DTYPE), self._array(state["values"], np.float64)
        n_classes, count = self._array(classes, np.intp), self._integer(state["node_count"])
        if not outputs or n_classes.shape != (outputs,) or n_classes.min() < 1:
            raise DoubtError("the numbers of classes of a tree are forged")
        if found.shape != (count,) or values.shape != (count, outputs, int(n_classes.max())):
            raise DoubtError("the arrays of a tree have other lengths than it says")
        left, right = found["left_child"], found["right_child"]
        depth = check_tree(left, right, left != -1, found["feature"], features)
        if not depth <= self._integer(state["max_depth"]) <= count:
            raise DoubtError("a tree is deeper than it says")
        self._placed.setdefault(id(tree), "")

    def _forest(self, node: dict[str, Any]) -> None:
        """The trees of a forest are called without a check of their own."""
        expected = self._integer(_attributes(node)["n_features_in_"])
        if any(features != expected for features in self._members(node)):
            raise DoubtError("a tree has another number of features than its forest")

    def _members(self, node: dict[str, Any]) -> list[int]:
        """The numbers of features of the trees in an ensemble."""
        kept = (each for each in nodes(node) if each.get("__module__") == "sklearn.tree._classes")
        tables = [_attributes(each) for each in kept if each.get("__loader__") == "ObjectNode"]
        return [self._integer(table["n_features_in_"]) for table in tables if "tree_" in table]

    def _isolation_forest(self, node: dict[str, Any]) -> None:
        """Each tree is called with the columns chosen for it, or with all of them."""
        own = _attributes(node)
        expected, chosen = self._integer(own["n_features_in_"]), self._integer(own["_max_features"])
        columns = own["estimators_features_"]["content"] if chosen != expected else []
        lengths = {len(self._array(each)) for each in columns} or {expected}
        if lengths | set(self._members(node)) != lengths or len(lengths) != 1:
            raise DoubtError("a tree has another number of features than are chosen for it")

    def _gradient_boosting(self, node: dict[str, Any]) -> None:
        """Each column of trees writes into its column of an array that the first guess has made."""
        self._forest(node)
        own = _attributes(node)
        rows = own["estimators_"]["content"]
        lengths = {len(row["content"]) for row in rows if row["__loader__"] == "ListNode"}
        if len(lengths) != 1 or any(row["__loader__"] != "ListNode" for row in rows):
            raise DoubtError("the trees of a boosting are no table")
        first, [columns] = own["init_"], lengths
        if first["__loader__"] == "JsonNode":
            sound = _json(first) == "zero" and self._integer(own["n_trees_per_iteration_"]) == columns
        else:
            sound = first["__loader__"] == "ObjectNode" and self._guesses_for(columns, first, own["_loss"])
        if not sound:
            raise DoubtError("the first guess of a boosting cannot be checked against its trees")

    def _guesses_for(self, columns: int, first: dict[str, Any], loss: dict[str, Any]) -> bool:
        """Whether a first guess has a number for each column of trees; for one column of the default guesses it has."""
        kind, guess, losses = name_of(first), _attributes(first), _attributes(loss)
        link = losses["link"]
        if link["__loader__"] != "ObjectNode" or link["__module__"] != "sklearn._loss.link":
            return False
        if kind == "sklearn.dummy.DummyRegressor":
            return columns == 1 == self._integer(guess["n_outputs_"])
        if kind != "sklearn.dummy.DummyClassifier" or "is_multiclass" in losses:
            return False
        multiclass = name_of(loss) == "sklearn._loss.loss.HalfMultinomialLoss"
        prior = self._array(guess["class_prior_"]).shape
        plain = _json(guess["strategy"]) == "prior" and self._integer(guess["n_outputs_"]) == 1
        return plain and (prior == (columns,) if multiclass else (columns, prior) == (1, (2,)))

    def _histogram_boosting(self, node: dict[str, Any]) -> None:
        """Categories are looked up in tables whose sizes depend on much else, so trees that use them are left out."""
        from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

        own = _attributes(node)
        mapper = _attributes(own["_bin_mapper"])
        plain = own["_preprocessor"]["__loader__"] == "JsonNode" and _json(own["_preprocessor"]) is None
        fitting = "_in_fit" in own and _json(own["_in_fit"]) is not False
        if not plain or fitting or self._array(mapper["is_categorical_"]).any():
            raise DoubtError("it has categories, which are not checked")
        n_features = self._integer(own["n_features_in_"])
        for tree in (tree for row in own["_predictors"]["content"] for tree in row["content"]):
            if name_of(tree) != PREDICTOR:
                raise DoubtError("a tree of a boosting is none")
            found = self._array(_attributes(tree)["nodes"], PREDICTOR_RECORD_DTYPE)
            inner = found["is_leaf"] == 0
            if found.ndim != 1 or found["is_categorical"].any():
                raise DoubtError("it has categories, which are not checked")
            check_tree(found["left"], found["right"], inner, found["feature_idx"], n_features)
            self._placed.setdefault(id(tree), "")
