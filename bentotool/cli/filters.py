"""``--filter`` of ``model list``, ``list`` and ``prune``: on what stands beside a reference; no manifest is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.oci.refs import Ref

__all__ = ["bento_filter", "labels_of", "model_filter"]

_MODEL_FIELDS = {"framework": "io.bentotool.framework", "safety": "io.bentotool.safety"}
_SAFETY = ("data", "program", "pickle")
_BENTO_FIELDS = {"service": "io.bentotool.service", "python": "io.bentotool.python"}


def model_filter(values: Sequence[str]) -> Callable[[Ref], bool]:
    """A test that a reference passes when it fits every filter.

    Args:
        values: ``framework=F``, ``safety=S``, ``label=K=V`` (also ``label.K=V``), or ``label=K`` for any value.

    Raises:
        UsageError: for anything else.
    """
    for value in values:
        key, _, content = value.partition("=")
        if key == "safety" and content not in _SAFETY:
            raise UsageError(f"--filter {value!r}: no model has that class", hint=f"one of: {', '.join(_SAFETY)}")
    return _all([_test(value, _MODEL_FIELDS, "framework=NAME or safety=CLASS") for value in values])


def bento_filter(values: Sequence[str]) -> Callable[[Ref], bool]:
    """The same for Bentos.

    Args:
        values: ``service=MODULE:CLASS``, ``python=X.Y``, ``label=K=V`` or ``label=K``.

    Raises:
        UsageError: for anything else.
    """
    return _all([_test(value, _BENTO_FIELDS, "service=MODULE:CLASS or python=X.Y") for value in values])


def _all(tests: Sequence[Callable[[Ref], bool]]) -> Callable[[Ref], bool]:
    return lambda ref: all(test(ref) for test in tests)


def _test(value: str, fields: Mapping[str, str], others: str) -> Callable[[Ref], bool]:
    key, equals, content = value.partition("=")
    if equals and key.startswith("label.") and key != "label.":
        key, content = "label", value.removeprefix("label.")
    if equals and key in fields:
        return lambda ref: ref.descriptor.annotations.get(fields[key]) == content
    if not equals or key != "label" or not content:
        raise UsageError(f"--filter {value!r} is not known", hint=f"use label=KEY=VALUE, label=KEY, {others}")
    label, has_value, wanted = content.partition("=")
    return lambda ref: label in (labels := labels_of(ref)) and (not has_value or labels[label] == wanted)


def labels_of(ref: Ref) -> dict[str, str]:
    """Labels of a model or Bento, as its reference repeats them; empty when that is damaged."""
    text = ref.descriptor.annotations.get("io.bentotool.labels")
    if text is None:
        return {}
    try:
        labels = json.loads(text)
    except ValueError:
        return {}
    return labels if isinstance(labels, dict) else {}
