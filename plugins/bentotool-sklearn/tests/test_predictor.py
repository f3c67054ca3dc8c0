"""How a scikit-learn estimator is asked when it is served with no code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bentotool_sklearn.predictor import predictor
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PowerTransformer, StandardScaler

from bentotool.errors import UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import ANY_AXES
from bentotool.testing import ContractError, check_served

pytest.importorskip("skops")

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
SEVERAL = np.column_stack([Y, X[:, 1] > 0]).astype(int)
WORDS = np.array(["red", "blue"] * 20)
TEXTS = np.array(["good film", "bad film"] * 20)

KINDS = {
    "numbers": (LinearRegression(), X, X[:, 0] * 2),
    "several numbers": (LinearRegression(), X, X[:, :2]),
    "classes": (LogisticRegression(), X, Y),
    "classes with names": (make_pipeline(StandardScaler(), LogisticRegression()), X, WORDS),
    "several classes": (RandomForestClassifier(5, random_state=0), X, SEVERAL),
    "clusters": (KMeans(2, n_init=1, random_state=0), X, None),
    "texts": (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, Y),
    "a transformer": (StandardScaler(), X, None),
    "a sparse transformer": (OneHotEncoder(handle_unknown="ignore"), X.round(), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_estimator(kind: str) -> None:
    estimator, given, target = KINDS[kind]
    estimator.fit(given, target)
    namespace("sklearn").save_model("m", estimator)
    found = check_served("m", {"X": given[:7]})
    for name, answer in found.items():
        expected: Any = getattr(estimator, name)(given[:7])
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        if np.asarray(answer).dtype.kind == "f":
            np.testing.assert_allclose(answer, expected, atol=1e-9)
        else:
            assert answer == expected.tolist()
    wanted = {"a transformer": {"transform"}, "a sparse transformer": {"transform"}}
    probable = {"predict", "predict_proba"} if kind in ("classes", "classes with names", "texts") else {"predict"}
    assert set(found) == wanted.get(kind, probable)


def test_a_long_text_and_one_that_ends_in_nul() -> None:
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 1))
    estimator = make_pipeline(vectorizer, LogisticRegression(C=1e4)).fit(
        ["a", "b", "a\0", "b\0"], ["x", "y", "x\0z", "y"]
    )
    namespace("sklearn").save_model("texts", estimator)
    given = np.array(["a\0", "a", "b" * 5000], dtype=object)
    found = check_served("texts", {"X": given})
    assert found["predict"] == estimator.predict(given).tolist() == ["x\0z", "x", "y"]
    np.testing.assert_allclose(found["predict_proba"], estimator.predict_proba(given), atol=1e-9)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names", "ignore:X has feature names")
def test_columns_have_the_names_they_had() -> None:
    estimator = LogisticRegression().fit(X, Y)
    expected = estimator.predict(X[:5]).tolist()
    estimator.feature_names_in_ = np.array(["a", "b", "c"], dtype=object)
    found = predictor(estimator, {})
    assert found.inputs == (TensorSpec("X", "float64", (None, 3)),)
    assert found.run({"X": X[:5]})["predict"].tolist() == expected


CATEGORIES = np.random.default_rng(1).integers(1, 4, (40, 2)) * 10
PARITY = CATEGORIES[:, 0] // 10 % 2
BESIDE = ColumnTransformer([("kind", OneHotEncoder(), [0]), ("size", StandardScaler(), [1])])
ENCODED = {
    "an encoder": (OneHotEncoder().fit(CATEGORIES), (None, 6)),
    "codes": (OrdinalEncoder().fit(CATEGORIES), (None, 2)),
    "encoded": (make_pipeline(OneHotEncoder(), LogisticRegression()).fit(CATEGORIES, PARITY), (None,)),
    "above zero": (PowerTransformer(method="box-cox").fit(CATEGORIES), (None, 2)),
    "one column of them": (make_pipeline(BESIDE, LogisticRegression()).fit(CATEGORIES, PARITY), ANY_AXES),
    "several classes": (
        make_pipeline(BESIDE, RandomForestClassifier(3, random_state=0)).fit(
            CATEGORIES, np.column_stack([PARITY, CATEGORIES[:, 1]])
        ),
        ANY_AXES,
    ),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_a_model_that_refuses_zeros_is_served(kind: str) -> None:
    estimator, shape = ENCODED[kind]
    assert predictor(estimator, {}).outputs[0].shape == shape
    namespace("sklearn").save_model("m", estimator)
    for name, answer in check_served("m", {"X": CATEGORIES[:5].astype(float)}).items():
        expected = getattr(estimator, name)(CATEGORIES[:5])
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        np.testing.assert_allclose(answer, expected, atol=1e-9)
    with pytest.raises(ContractError, match="m answers 400: .*the model refuses the input: "):
        check_served("m", {"X": np.zeros((1, 2))})


def test_categories_that_are_texts_are_no_numbers() -> None:
    estimator = OneHotEncoder(handle_unknown="ignore").fit(np.array([["a"], ["b"]], dtype=object))
    with pytest.raises(UsageError, match="it does not take a row of numbers or a text"):
        predictor(estimator, {})


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (LogisticRegression(), "it is not known what a LogisticRegression takes, or it is not fitted"),
        (NearestNeighbors().fit(X), "a NearestNeighbors has neither predict nor transform"),
        (5, "an int has neither predict nor transform"),
    ],
)
def test_what_cannot_be_asked(estimator: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        predictor(estimator, {})
