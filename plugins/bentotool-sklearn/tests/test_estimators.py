"""Every estimator of the installed scikit-learn: saved, loaded without options, and the same predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bentotool_sklearn import loader
from bentotool_sklearn.framework import SklearnFramework
from sklearn import (
    calibration,
    compose,
    ensemble,
    feature_extraction,
    feature_selection,
    linear_model,
    model_selection,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.base import BaseEstimator, is_regressor
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances

from bentotool.errors import BentotoolError, UnsafeError
from bentotool.frameworks import namespace

CHANCE = np.random.RandomState(0)
X = np.abs(CHANCE.randn(60, 4))
Y = (X[:, 0] > 0.6).astype(int)
THREE = np.digitize(X[:, 0], [0.4, 0.9])
TEXTS = ["a word or two", "some other text"] * 5

NEED_TRUSTED = {"BisectingKMeans", "SplineTransformer"}
"""Load only with ``trusted=[...]``; the README lists them."""
NOT_SAVED = {"Birch"}
"""Nothing that skops can keep."""
NOT_FITTED = {"FrozenEstimator", "SparseCoder"}
"""Made of something else than data."""
BY_CHANCE = {"BernoulliRBM", "DummyClassifier"}
"""Predict something else each time."""
METHODS = ("predict", "predict_proba", "transform", "decision_function", "score_samples", "apply", "kneighbors")


def data_for(name: str, estimator: Any) -> tuple[Any, ...]:
    special: dict[str, tuple[Any, ...]] = {
        "ClassifierChain": (X, np.c_[Y, 1 - Y]),
        "CountVectorizer": (TEXTS,),
        "DictVectorizer": ([{"a": 1, "b": 2}, {"a": 3}],),
        "FeatureHasher": ([{"a": 1, "b": 2}, {"a": 3}],),
        "HashingVectorizer": (TEXTS,),
        "IsotonicRegression": (X[:, 0], X[:, 1]),
        "KernelCenterer": (X[:4],),
        "LabelBinarizer": (Y,),
        "LabelEncoder": (Y,),
        "MultiLabelBinarizer": ([(1, 2), (3,)],),
        "RegressorChain": (X, X[:, :2]),
        "TfidfVectorizer": (TEXTS,),
    }
    if name in special:
        return special[name]
    target = X[:, 0] + 0.1 if is_regressor(estimator) else Y
    two = estimator.__sklearn_tags__().target_tags.two_d_labels or (
        name.startswith("Multi") and name != "MultinomialNB"
    )
    return X, np.c_[target, target] if two else target


def save_and_load(name: str, estimator: Any) -> Any:
    saved = namespace("sklearn").save_model(name.lower(), estimator)
    assert saved.info["safety"] == "data"
    return namespace("sklearn").load_model(saved)


def check_same(estimator: Any, loaded: Any, data: Any) -> None:
    for method in METHODS:
        if not hasattr(estimator, method):
            continue
        try:
            expected = getattr(estimator, method)(data)
        except (TypeError, ValueError):  # not for new data
            continue
        found = getattr(loaded, method)(data)
        for one, other in zip(
            *((each if isinstance(each, tuple) else (each,)) for each in (expected, found)), strict=True
        ):
            dense = [part.toarray() if hasattr(part, "toarray") else np.asarray(part) for part in (one, other)]
            if dense[0].dtype.kind == "f":  # some sum in an order of their own
                np.testing.assert_allclose(dense[1], dense[0], rtol=1e-9, err_msg=method)
            else:
                np.testing.assert_array_equal(dense[1], dense[0], err_msg=method)


@pytest.mark.parametrize(("name", "kind"), all_estimators(), ids=[name for name, _ in all_estimators()])
def test_each_estimator(name: str, kind: type[BaseEstimator]) -> None:
    if name in NOT_FITTED:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence and the like, on so little data
        estimator = next(iter(_construct_instances(kind)))
        data, *target = data_for(name, estimator)
        estimator.fit(data, *target)
        if name in NOT_SAVED:
            with pytest.raises(BentotoolError, match="cannot be saved") as caught:
                namespace("sklearn").save_model("model", estimator)
            assert caught.value.hint
            return
        if name in NEED_TRUSTED:
            with pytest.raises(UnsafeError, match=r"pass trusted=\[|runs code when it is loaded"):
                save_and_load(name, estimator)
            return
        loaded = save_and_load(name, estimator)
        if name not in BY_CHANCE:
            check_same(estimator, loaded, data)


def rows_of_text() -> Any:
    return np.array([["a", "1"], ["b", "2"], ["a", "3"], ["c", "1"]] * 15, dtype=object)


FITTED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "a forest of two outputs": lambda: (ensemble.RandomForestRegressor(5).fit(X, X[:, :2]), X),
    "a pruned tree": lambda: (tree.DecisionTreeClassifier(ccp_alpha=0.02).fit(X, THREE), X),
    "a tree grown by its best leaf": lambda: (tree.DecisionTreeClassifier(max_leaf_nodes=5).fit(X, THREE), X),
    "a tree of one leaf": lambda: (tree.DecisionTreeClassifier().fit(X, np.zeros(60)), X),
    "boosting of three classes": lambda: (ensemble.GradientBoostingClassifier(n_estimators=5).fit(X, THREE), X),
    "boosting from zero": lambda: (ensemble.GradientBoostingClassifier(n_estimators=5, init="zero").fit(X, THREE), X),
    "boosting of a quantile": lambda: (ensemble.GradientBoostingRegressor(loss="quantile").fit(X, X[:, 0]), X),
    "histogram boosting of three classes": lambda: (
        ensemble.HistGradientBoostingClassifier(max_iter=5).fit(X, THREE),
        X,
    ),
    "isolation by some columns": lambda: (ensemble.IsolationForest(n_estimators=5, max_features=2).fit(X), X),
    "bagging by some columns": lambda: (ensemble.BaggingClassifier(n_estimators=5, max_features=2).fit(X, Y), X),
    "trees in a stack": lambda: (
        ensemble.StackingClassifier(
            [("t", tree.DecisionTreeClassifier()), ("f", ensemble.RandomForestClassifier(3))]
        ).fit(X, Y),
        X,
    ),
    "a search over forests": lambda: (
        model_selection.GridSearchCV(ensemble.RandomForestClassifier(3), {"max_depth": [1, 2]}, scoring="roc_auc").fit(
            X, Y
        ),
        X,
    ),
    "a calibrated forest": lambda: (
        calibration.CalibratedClassifierCV(ensemble.RandomForestClassifier(3), cv=2).fit(X, Y),
        X,
    ),
    "a ball tree": lambda: (neighbors.KNeighborsClassifier(algorithm="ball_tree", p=1).fit(X, Y), X),
    "text by its words": lambda: (
        pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), linear_model.LogisticRegression()).fit(
            TEXTS, [0, 1] * 5
        ),
        TEXTS,
    ),
    "columns of text": lambda: (
        pipeline.make_pipeline(
            compose.ColumnTransformer(
                [("one", preprocessing.OneHotEncoder(), [0]), ("two", preprocessing.OrdinalEncoder(), [1])]
            ),
            ensemble.RandomForestClassifier(3),
        ).fit(rows_of_text(), Y),
        rows_of_text(),
    ),
    "a logarithm, the best columns, a machine": lambda: (
        pipeline.make_pipeline(
            preprocessing.FunctionTransformer(np.log1p),
            feature_selection.SelectKBest(feature_selection.mutual_info_classif, k=2),
            svm.SVC(probability=False),
        ).fit(X, Y),
        X,
    ),
    "no fit at all": lambda: (ensemble.RandomForestClassifier(), X),
}


@pytest.mark.parametrize("what", FITTED)
def test_other_ways_to_fit(what: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator, data = FITTED[what]()
    loaded = save_and_load("model", estimator)
    if what != "no fit at all":
        check_same(estimator, loaded, data)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "histogram boosting of categories": (
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(
            np.c_[THREE, X[:, 1:]], Y
        ),
        "categories, which are not checked",
    ),
    "a distance with parameters": (lambda: neighbors.KNeighborsClassifier(p=3).fit(X, Y), "MinkowskiDistance64"),
    "boosting on top of another model": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=2, init=linear_model.LogisticRegression()).fit(X, Y),
        "the first guess of a boosting cannot be checked",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_checked_has_to_be_named(what: str, tmp_path: Path) -> None:
    make, reason = REFUSED[what]
    estimator = make()
    SklearnFramework().save(estimator, tmp_path)
    with pytest.raises(loader.UnsafeModelError, match=reason) as caught:
        loader.load(tmp_path / "model.skops")
    names = str(caught.value).partition("pass trusted=")[2]
    trusted = [name.strip("'") for name in names.strip("[]").split(", ")]
    check_same(estimator, loader.load(tmp_path / "model.skops", trusted=trusted), X)
