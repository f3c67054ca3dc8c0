"""``--filter`` of ``model list``: on what stands beside a reference, so that no manifest is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.oci.refs import Ref

__all__ = ["model_filter"]

_FIELDS = {"framework": "io.bentotool.framework", "safety": "io.bentotool.safety"}


def model_filter(values: Sequence[str]) -> Callable[[Ref], bool]:
    """A test that a reference passes when it fits every filter.

    Args:
        values: ``framework=F``, ``safety=S``, ``label=K=V``, or ``label=K`` for any value of a label.

    Raises:
        UsageError: for anything else.
    """
    tests = [_test(value) for value in values]
    return lambda ref: all(test(ref) for test in tests)


def _test(value: str) -> Callable[[Ref], bool]:
    key, equals, content = value.partition("=")
    if equals and key in _FIELDS:
        return lambda ref: ref.descriptor.annotations.get(_FIELDS[key]) == content
    if not equals or key != "label" or not content:
        raise UsageError(
            f"--filter {value!r} is not known", hint="use label=KEY=VALUE, label=KEY, framework=NAME or safety=CLASS"
        )
    label, has_value, wanted = content.partition("=")
    return lambda ref: label in (labels := _labels(ref)) and (not has_value or labels[label] == wanted)


def _labels(ref: Ref) -> dict[str, str]:
    try:
        labels = json.loads(ref.descriptor.annotations.get("io.bentotool.labels", "{}"))
    except ValueError:
        return {}
    return labels if isinstance(labels, dict) else {}
