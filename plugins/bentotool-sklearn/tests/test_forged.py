"""Forged files: scikit-learn would follow what their arrays say out of its memory, so they are refused before."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from bentotool_sklearn import loader
from scipy.sparse import csr_matrix, save_npz
from sklearn import ensemble, neighbors, pipeline, random_projection, tree

CHANCE = np.random.RandomState(0)
X = CHANCE.randn(40, 3)
Y = (X[:, 0] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
Schema = dict[str, Any]
Change = Callable[["Forgery"], None]


class Forgery:
    """A model's archive, open to changes."""

    def __init__(self, model: Any) -> None:
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.schema: Schema = json.loads(self.members.pop("schema.json"))

    def write(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**self.members, "schema.json": json.dumps(self.schema).encode()}.items():
                archive.writestr(name, content)
        return path

    def find(self, name: str, number: int = 0) -> Schema:
        """A node by the name of its type."""
        return [node for node in loader.nodes(self.schema) if node.get("__class__") == name][number]

    def own(self, name: str) -> Schema:
        """The attributes of an object, by name."""
        table: Schema = self.find(name)["content"]["content"]
        return table

    def array(self, node: Schema, change: Callable[[Any], Any]) -> None:
        """Change the array of a node, in place or to what the function gives back."""
        content = np.load(io.BytesIO(self.members[node["file"]]))
        changed = change(content)
        target = io.BytesIO()
        np.save(target, content if changed is None else changed)
        self.members[node["file"]] = target.getvalue()


def put(where: Any, what: Any) -> Callable[[Any], None]:
    def change(array: Any) -> None:
        field, index = where
        array[field][index] = what

    return change


def nodes_of_tree(where: Any, what: Any) -> Change:
    return lambda file: file.array(file.own("Tree")["nodes"], put(where, what))


def number(owner: str, name: str, value: object) -> Change:
    def change(file: Forgery) -> None:
        plain = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}
        file.own(owner)[name] = plain

    return change


def argument(index: int, value: object) -> Change:
    def change(file: Forgery) -> None:
        node = file.find("Tree")["__reduce__"]["args"]["content"][index]
        node.update(content=json.dumps(value), __id__=-1 - index)

    return change


def fewer_keys(file: Forgery) -> None:
    """The last attributes get lost, n_features_in_ among them."""
    del file.find("DecisionTreeClassifier")["content"]["key_types"]["content"][2:]


def another_identity(file: Forgery) -> None:
    """What stands there is sound; what is made is the object of the same number that came before it."""
    table = file.own("DecisionTreeClassifier")
    sound = json.loads(json.dumps(table["tree_"]))
    file.schema["content"]["content"] = {"first": table["tree_"], **table, "tree_": sound}
    file.schema["content"]["key_types"]["content"].append(file.schema["content"]["key_types"]["content"][0])
    for name in ("nodes", "values"):
        node = sound["content"]["content"][name]
        file.members[f"other-{name}.npy"] = file.members[node["file"]]
        node["file"] = f"other-{name}.npy"
    nodes_of_tree(("feature", 0), 4000)(file)


def reference(file: Forgery) -> None:
    file.own("DecisionTreeClassifier")["tree_"]["__loader__"] = "CachedNode"


def tree_in_a_pipeline(file: Forgery) -> None:
    """A bare tree as a step: it has a predict method, and checks nothing."""
    steps = file.own("Pipeline")["steps"]["content"][0]["content"]
    steps[1] = steps[1]["content"]["content"]["tree_"]


def method_replaced(file: Forgery) -> None:
    """np.absolute instead of the method that looks at the input."""
    table = file.find("DecisionTreeClassifier")["content"]
    kind = {"__class__": "absolute", "__module__": "numpy", "__loader__": "FunctionNode", "__id__": 77}
    table["content"]["_validate_X_predict"] = kind
    table["key_types"]["content"].append(table["key_types"]["content"][0])


def larger_nodes(file: Forgery) -> None:
    """The same names, other types: a copy would cut them."""
    node = file.own("Tree")["nodes"]
    file.array(node, lambda array: array.astype([(name, np.float64) for name in array.dtype.names]))


TREE: dict[str, tuple[Change, str]] = {
    "child out of bounds": (nodes_of_tree(("left_child", 0), 1 << 40), "out of bounds"),
    "negative child": (nodes_of_tree(("right_child", 0), -7), "out of bounds"),
    "loop": (nodes_of_tree(("left_child", 0), 0), "out of bounds"),
    "two parents": (nodes_of_tree(("left_child", 0), 2), "two parents|out of bounds"),
    "feature out of bounds": (nodes_of_tree(("feature", 0), 3), "a feature of a tree's node"),
    "negative feature": (nodes_of_tree(("feature", 0), -1), "a feature of a tree's node"),
    "more nodes than there are": (number("Tree", "node_count", 1 << 40), "other lengths"),
    "fewer nodes than there are": (number("Tree", "node_count", 1), "other lengths"),
    "less deep than it is": (number("Tree", "max_depth", 0), "deeper than it says"),
    "far too deep": (number("Tree", "max_depth", 1 << 60), "deeper than it says"),
    "no number": (number("Tree", "max_depth", "deep"), "a number is none"),
    "values of another shape": (
        lambda file: file.array(file.own("Tree")["values"], lambda array: array[:1]),
        "other lengths",
    ),
    "no nodes": (lambda file: file.array(file.own("Tree")["nodes"], lambda array: array[:0]), "other lengths"),
    "nodes of another type": (larger_nodes, "an array is of type"),
    "more features than the estimator": (argument(0, 4000), "another number of features than its estimator"),
    "more outputs than there are": (argument(2, 9), "numbers of classes"),
    "another estimator's input": (
        number("DecisionTreeClassifier", "n_features_in_", 4000),
        "another number of features",
    ),
    "lost attributes": (fewer_keys, "attributes of an object are forged"),
    "another identity": (another_identity, "share one identity"),
    "attributes in another kind of table": (
        lambda file: file.find("DecisionTreeClassifier")["content"].update(
            __module__="collections", __class__="OrderedDict"
        ),
        "attributes of an object are forged",
    ),
    "reference": (reference, "refers to an unknown object"),
    "method replaced": (method_replaced, "_validate_X_predict of DecisionTreeClassifier is replaced"),
    "old format": (lambda file: file.schema.update(protocol=0), "another version of the format"),
    "kept as an object": (
        lambda file: file.find("Tree").update(__loader__="ObjectNode"),
        "max_depth of Tree is replaced",
    ),
}


def refuses(file: Forgery, path: Path, reason: str) -> None:
    file.write(path)
    with pytest.raises((loader.UnsafeModelError, loader.InvalidModelError), match=reason):
        loader.load(path)


@pytest.mark.parametrize("what", TREE)
def test_forged_trees(tmp_path: Path, what: str) -> None:
    change, reason = TREE[what]
    file = Forgery(tree.DecisionTreeClassifier().fit(X, Y if what != "two parents" else THREE))
    change(file)
    refuses(file, tmp_path / "model.skops", reason)


ENSEMBLES: dict[str, tuple[Callable[[], Any], Change, str]] = {
    "forest of fewer features": (
        lambda: ensemble.RandomForestClassifier(2).fit(X, Y),
        number("RandomForestClassifier", "n_features_in_", 1),
        "than its forest",
    ),
    "forest without features": (
        lambda: ensemble.RandomForestClassifier(2).fit(X, Y),
        lambda file: file.own("RandomForestClassifier").update(n_features_in_=file.own("Tree")["values"]),
        "not as scikit-learn writes it",
    ),
    "isolation by all columns": (
        lambda: ensemble.IsolationForest(n_estimators=2, max_features=2).fit(X),
        number("IsolationForest", "_max_features", 3),
        "than are chosen for it",
    ),
    "isolation by fewer columns": (
        lambda: ensemble.IsolationForest(n_estimators=2, max_features=2).fit(X),
        lambda file: [
            file.array(each, lambda array: array[:1])
            for each in file.own("IsolationForest")["estimators_features_"]["content"]
        ][:0],
        "than are chosen for it",
    ),
    "boosting into columns that are not there": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=2).fit(X, THREE),
        lambda file: file.find("HalfMultinomialLoss").update(__class__="HalfBinomialLoss"),
        "first guess of a boosting",
    ),
    "boosting with a guess of its own": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=2).fit(X, THREE),
        lambda file: file.array(file.own("DummyClassifier")["class_prior_"], lambda array: array[:1]),
        "first guess of a boosting",
    ),
    "boosting with a link of its own": (
        lambda: ensemble.GradientBoostingRegressor(n_estimators=2).fit(X, Y),
        lambda file: file.find("IdentityLink").update(__module__="numpy", __class__="max", __loader__="FunctionNode"),
        "first guess of a boosting",
    ),
    "boosting from zero for fewer": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(X, THREE),
        number("GradientBoostingClassifier", "n_trees_per_iteration_", 1),
        "first guess of a boosting",
    ),
}


@pytest.mark.parametrize("what", ENSEMBLES)
def test_forged_ensembles(tmp_path: Path, what: str) -> None:
    make, change, reason = ENSEMBLES[what]
    file = Forgery(make())
    change(file)
    refuses(file, tmp_path / "model.skops", reason)


def nodes_of_predictor(where: Any, what: Any) -> Change:
    return lambda file: file.array(file.own("TreePredictor")["nodes"], put(where, what))


def backwards(array: Any) -> Any:
    """A copy into the right type goes by position, not by name."""
    kind = array.dtype
    return np.zeros(array.shape, [(name, kind[name]) for name in reversed(kind.names)])


HISTOGRAM: dict[str, tuple[Change, str]] = {
    "child out of bounds": (nodes_of_predictor(("left", 0), 0xFFFFFFFF), "out of bounds"),
    "feature out of bounds": (nodes_of_predictor(("feature_idx", 0), 4000), "a feature of a tree's node"),
    "categories": (nodes_of_predictor(("is_categorical", 0), 1), "categories"),
    "fewer features": (number("HistGradientBoostingClassifier", "n_features_in_", 1), "a feature of a tree's node"),
    "as if in a fit": (number("HistGradientBoostingClassifier", "_in_fit", True), "categories|forged"),
    "categories of the bins": (
        lambda file: file.array(file.own("_BinMapper")["is_categorical_"], lambda array: array + 1),
        "categories",
    ),
    "names in another order": (
        lambda file: file.array(file.own("TreePredictor")["nodes"], backwards),
        "an array is of type",
    ),
}


@pytest.mark.parametrize("what", HISTOGRAM)
def test_forged_histogram_boosting(tmp_path: Path, what: str) -> None:
    change, reason = HISTOGRAM[what]
    file = Forgery(ensemble.HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(X, X[:, 2] > 0))
    change(file)
    refuses(file, tmp_path / "model.skops", reason)


def state_of_neighbours(index: int, change: Callable[[Any], Any]) -> Change:
    return lambda file: file.array(file.find("KDTree")["content"]["content"][index], change)


NEIGHBOURS: dict[str, tuple[Change, str]] = {
    "a point out of bounds": (state_of_neighbours(1, lambda array: array + 5), "beyond its points"),
    "nodes beyond the points": (state_of_neighbours(2, put(("idx_end", 0), 4000)), "beyond its points"),
    "a leaf that is none": (
        state_of_neighbours(2, put(("is_leaf", slice(None)), 0)),
        "a child of one of its nodes lies out of bounds",
    ),
    "fewer bounds": (state_of_neighbours(3, lambda array: array[:, :1]), "bounds have another shape"),
    "more nodes": (
        lambda file: file.find("KDTree")["content"]["content"][6].update(content="4000"),
        "other lengths",
    ),
    "a distance of its own": (
        lambda file: file.find("EuclideanDistance64").update(__class__="SEuclideanDistance64"),
        "SEuclideanDistance64",
    ),
}


@pytest.mark.parametrize("what", NEIGHBOURS)
def test_forged_neighbours(tmp_path: Path, what: str) -> None:
    change, reason = NEIGHBOURS[what]
    file = Forgery(neighbors.KNeighborsClassifier(leaf_size=5, algorithm="kd_tree").fit(X, Y))
    change(file)
    refuses(file, tmp_path / "model.skops", reason)


def test_a_tree_outside_an_estimator(tmp_path: Path) -> None:
    file = Forgery(pipeline.make_pipeline(tree.DecisionTreeClassifier()).fit(X, Y))
    tree_in_a_pipeline(file)
    refuses(file, tmp_path / "model.skops", "outside an estimator")


def test_a_sparse_matrix_with_forged_indices(tmp_path: Path) -> None:
    file = Forgery(random_projection.SparseRandomProjection(2, density=0.9, random_state=0).fit(X))
    forged = csr_matrix(np.ones((2, 3)))
    forged.indices[0] = 4000
    target = io.BytesIO()
    save_npz(target, forged)
    file.members[file.find("csr_matrix")["file"]] = target.getvalue()
    refuses(file, tmp_path / "model.skops", r"scipy\.sparse\._csr\.csr_matrix \(it is not as scikit-learn writes it")
    file.find("csr_matrix")["__loader__"] = "ObjectNode"
    refuses(file, tmp_path / "model.skops", "is kept as ObjectNode")


def test_arrays_that_take_more_memory_than_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Forgery(tree.DecisionTreeClassifier().fit(X, Y))
    node = file.own("Tree")["values"]
    sound = file.members[node["file"]]
    file.members[node["file"]] = sound.replace(b"1, 2), }  ", b"1, 2000), }")[: len(sound)]
    if file.members[node["file"]] == sound:
        file.members[node["file"]] = sound[:-8]
    refuses(file, tmp_path / "model.skops", "is not an array: its size is not what its header says")


def test_a_bomb_inside_a_sparse_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_sklearn.loader import schema

    file = Forgery(random_projection.SparseRandomProjection(2, density=0.9, random_state=0).fit(X))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(8 << 20))
    file.members[file.find("csr_matrix")["file"]] = bomb.getvalue()
    monkeypatch.setattr(schema, "MAX_UNPACKED", 1 << 20)
    refuses(file, tmp_path / "model.skops", "would unpack to more than")


def test_random_changes_never_crash(tmp_path: Path) -> None:
    """Whatever loads predicts: bytes of the arrays changed at random, many times, in this very process."""
    model = ensemble.RandomForestClassifier(3, random_state=0).fit(X, THREE)
    path, loaded = tmp_path / "model.skops", 0
    for _ in range(150):
        file = Forgery(model)
        name = CHANCE.choice([each for each in file.members if len(file.members[each]) > 200])
        content = bytearray(file.members[name])
        for _ in range(CHANCE.randint(1, 4)):
            content[CHANCE.randint(128, len(content))] = CHANCE.randint(256)
        file.members[name] = bytes(content)
        try:
            found = loader.load(file.write(path))
        except ValueError:
            continue
        loaded += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.predict(X)
            found.decision_path(X)
    assert 10 < loaded < 150
