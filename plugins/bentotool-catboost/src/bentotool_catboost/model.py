"""What a CatBoost model says of itself, whichever format it is in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bentotool_catboost.flatbuffer import FormatError
from bentotool_catboost.loader import fitting_estimator

MAX_FEATURES = 4_000_000
MAX_DIMENSION = 65_536
MAX_DEPTH = 24  # of a symmetric tree: CatBoost trains up to 16
_MAX_INFO = 4 << 20  # bytes of a JSON text in the model's table of facts
_MAX_LABEL = (1 << 31) - 1
_MAX_CLASSES = 1000  # labels that are kept
_MULTILABEL = ("MultiLogloss", "MultiCrossEntropy")
_LABEL_TYPES = {"Integer": "int64", "Float": "float64", "String": "str", "Boolean": "bool"}


@dataclass(frozen=True)
class Feature:
    """A column. ``flat`` is its number among all, ``index`` that among those of its kind."""

    index: int
    flat: int
    name: str


@dataclass(frozen=True)
class Features:
    """The columns that a model was trained with, by kind."""

    floats: tuple[Feature, ...] = ()
    categories: tuple[Feature, ...] = ()
    texts: tuple[Feature, ...] = ()
    embeddings: tuple[Feature, ...] = ()

    def all(self) -> list[Feature]:
        """In the order of the input's columns."""
        return sorted((*self.floats, *self.categories, *self.texts, *self.embeddings), key=lambda item: item.flat)


@dataclass(frozen=True)
class CatboostModel:
    """What was read. ``dimension`` is the number of values that the trees give for each row.

    Attributes:
        info: CatBoost's own table: of texts, or of what is written in them.
    """

    features: Features
    dimension: int
    trees: int
    symmetric: bool
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> str:
        """Name of the loss function; empty where none is recorded."""
        loss = _parsed(self.info, "params").get("loss_function") or _parsed(self.info, "loss_function")
        name = loss.get("type") if isinstance(loss, dict) else None
        return name[:200] if isinstance(name, str) else ""

    @property
    def estimator(self) -> str:
        """The class of CatBoost's that fits the loss function."""
        return fitting_estimator(self.loss)

    @property
    def classes(self) -> list[str | int | float | bool]:
        """Labels of the classes, as far as recorded."""
        labels = _parsed(self.info, "class_params").get("class_names")
        if not isinstance(labels, list) or not all(isinstance(label, str | int | float) for label in labels):
            return []
        return [label[:200] if isinstance(label, str) else label for label in labels[:_MAX_CLASSES]]

    @property
    def output(self) -> tuple[str, tuple[int | None, ...]]:
        """Type, by numpy's name, and shape of what ``predict`` of the estimator gives."""
        if self.estimator != "CatBoostClassifier":
            return "float64", (None,) if self.dimension == 1 else (None, self.dimension)
        if self.loss in _MULTILABEL:
            return "int64", (None, self.dimension)
        kind = _parsed(self.info, "class_params").get("class_label_type")
        dtype = _LABEL_TYPES.get(kind, "int64") if isinstance(kind, str) else "int64"
        return dtype, (None,) if self.dimension == 1 else (None, 1)

    @property
    def version(self) -> str:
        """CatBoost's release, as far as its build says; empty otherwise."""
        text = self.info.get("catboost_version_info")
        _, found, rest = text[:4096].partition("Branch: tags/v") if isinstance(text, str) else ("", "", "")
        return rest.split("\n", 1)[0].strip()[:40] if found else ""


def _parsed(info: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = info.get(key)
    if isinstance(value, str):
        if len(value) > _MAX_INFO:
            raise FormatError(f"its {key} have more than {_MAX_INFO} characters")
        try:
            value = json.loads(value) if value else {}
        except (ValueError, RecursionError):
            raise FormatError(f"its {key} are not JSON") from None
    return value if isinstance(value, dict) else {}


def check_classes(info: Mapping[str, Any]) -> None:
    """CatBoost looks classes up by ``class_to_label`` without asking how many there are, when it loads a model."""
    for key in ("class_params", "multiclass_params"):
        params = _parsed(info, key)
        labels, names, count = (params.get(name) for name in ("class_to_label", "class_names", "classes_count"))
        if not (labels is None or isinstance(labels, list)) or not (names is None or isinstance(names, list)):
            raise FormatError(f"its {key} have labels or names that are no list")
        if count is not None and (not isinstance(count, int) or not 0 <= count <= MAX_DIMENSION):
            raise FormatError(f"its {key} state {count!r:.40} classes")
        known = len(names or ()) or count or 0
        low, high = (0, known - 1) if known else (-_MAX_LABEL, _MAX_LABEL)
        for label in labels or ():
            if not isinstance(label, int | float) or not low <= label <= high:
                raise FormatError(f"its {key} lead to class {label!r:.40} of {known or 'any'}")


def check_features(features: Features) -> None:
    """CatBoost takes the last column of each kind for the highest; and no two have one place."""
    for kind in (features.floats, features.categories, features.texts, features.embeddings):
        numbers = [item.index for item in kind]
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise FormatError("its features are out of order")
        if numbers and not 0 <= numbers[0] <= numbers[-1] < MAX_FEATURES:
            raise FormatError(f"it has a feature outside 0 to {MAX_FEATURES - 1}")
    places = [item.flat for item in features.all()]
    if len(set(places)) != len(places) or (places and not 0 <= places[0] <= places[-1] < MAX_FEATURES):
        raise FormatError("two of its features have one place, or one is outside the input")


def check_range(values: Sequence[int] | Iterable[int], low: int, high: int, what: str) -> None:
    """FormatError where a value of a list is below ``low`` or above ``high``."""
    values = list(values) if not isinstance(values, Sequence) else values
    if len(values) and not low <= min(values) <= max(values) <= high:
        raise FormatError(f"{what} has a value outside {low} to {high}")
