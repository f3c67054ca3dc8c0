"""What changes, value by value, and what of the settings is not as it was."""

from __future__ import annotations

from typing import Any

import pytest

from bentotool.deploy.differences import differences
from bentotool.deploy.earlier import changed_settings
from bentotool.deploy.records import Revision
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource

MOUNT = {"Source": "/a", "Target": "/b"}


def changes(now: Any, then: Any) -> list[tuple[str, Any, Any]]:
    resource = PlannedResource("box", "one", "replace", {"x": then}, {"x": now})
    plan = Plan("attic", DeployBento("iris", "1", ""), DeployOptions("one"), (resource,))
    return [(each.path, each.now, each.then) for _, found in differences(plan) for each in found]


@pytest.mark.parametrize(
    ("now", "then", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [("x.a", 1, 2)]),
        (["b", "a"], ["a", "b"], []),
        (["a"], ["a", "b"], [("x[]", None, "b")]),
        ([MOUNT], [], [("x[]", MOUNT, None)]),
        ([MOUNT], [MOUNT, {"Source": "/c"}], [("x[]", None, {"Source": "/c"})]),
        ([{"name": "a", "port": 1}], [{"name": "a", "port": 2}], [("x[a].port", 1, 2)]),
        ([{"name": "a"}], [{"name": "b"}], [("x[b]", None, {"name": "b"}), ("x[a]", {"name": "a"}, None)]),
        ([], None, []),
        (None, [1], [("x", None, [1])]),
    ],
)
def test_values(now: Any, then: Any, found: list[tuple[str, Any, Any]]) -> None:
    assert changes(now, then) == found


@pytest.mark.parametrize(
    ("was", "facts", "now", "lines"),
    [
        (0, {}, 0, []),
        (0, {}, 8, ["port: 8, was 0"]),
        (False, {}, True, ["port: True, was False"]),
        (None, {}, 0, ["port: 0, was not set"]),
        (None, {"port": 7}, None, []),
        (None, {"port": 7}, 7, []),
        (None, {"port": 7}, 8, ["port: 8, was 7"]),
    ],
)
def test_settings(was: Any, facts: dict[str, Any], now: Any, lines: list[str]) -> None:
    before = Revision(1, "", Deployment("one", "attic", "ready", "", facts=facts), {"port": was}, {})
    assert changed_settings(before, {"port": now}, {}) == lines
