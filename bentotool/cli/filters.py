"""``--filter`` of ``model list``, ``list`` and ``prune``: on what stands beside a reference; no manifest is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.oci.refs import Ref

__all__ = ["bento_filter", "model_filter"]

_MODEL_FIELDS = {"framework": "io.bentotool.framework", "safety": "io.bentotool.safety"}
_BENTO_FIELDS = {"service": "io.bentotool.service", "python": "io.bentotool.python"}


def model_filter(values: Sequence[str]) -> Callable[[Ref], bool]:
    """A test that a reference passes when it fits every filter.

    Args:
        values: ``framework=F``, ``safety=S``, ``label=K=V``, or ``label=K`` for any value of a label.

    Raises:
        UsageError: for anything else.
    """
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
    if equals and key in fields:
        return lambda ref: ref.descriptor.annotations.get(fields[key]) == content
    if not equals or key != "label" or not content:
        raise UsageError(f"--filter {value!r} is not known", hint=f"use label=KEY=VALUE, label=KEY, {others}")
    label, has_value, wanted = content.partition("=")
    return lambda ref: label in (labels := _labels(ref)) and (not has_value or labels[label] == wanted)


def _labels(ref: Ref) -> dict[str, str]:
    try:
        labels = json.loads(ref.descriptor.annotations.get("io.bentotool.labels", "{}"))
    except ValueError:
        return {}
    return labels if isinstance(labels, dict) else {}
