"""Deployments that are elsewhere than a target looks by itself: another cluster, namespace, region or engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bentotool.deploy.options import option_values
from bentotool.errors import UsageError
from bentotool.targetspec import Deployment, Placed, Target, TargetDecl

if TYPE_CHECKING:
    from bentotool.deploy.records import Record

__all__ = ["asked_target", "found_by", "moved", "place_values", "placed", "same_deployment"]


def place_values(decl: TargetDecl, pairs: Sequence[str]) -> dict[str, Any]:
    """The values of the options that say where, None where one is left out.

    Args:
        pairs: ``NAME=VALUE``.

    Raises:
        UsageError: the target has no such option, or it says something else than where.
    """
    # their defaults are those of a deployment that is made
    places = tuple(replace(option, default=None, needs=()) for option in decl.options if option.place)
    names = [option.name for option in places]
    for pair in pairs:
        name = pair.partition("=")[0]
        if name not in names:
            there = f"where they are is said by {', '.join(f'--{each}' for each in names)}" if names else ""
            raise UsageError(
                f"deployments of target {decl.name} are not found by --{name}", hint=there or f"leave --{name} out"
            )
    return option_values(replace(decl, options=places, variables={}), pairs)


def asked_target(target: str | None, recorded: Record | None, where: Sequence[str]) -> str:
    """The target that a place is one of.

    Raises:
        UsageError: nobody says which.
    """
    if target is not None:
        return target
    if recorded is not None:
        return recorded.target
    raise UsageError(
        f"--{where[0].partition('=')[0]} says where to look, and not at which target", hint="--target TARGET"
    )


def placed(target: Target, name: str) -> Placed:
    """A target that looks elsewhere, too.

    Raises:
        UsageError: it does not.
    """
    if not isinstance(target, Placed):
        raise UsageError(f"target {name} looks at one place only", hint="leave out where to look")
    return target


def moved(deployment: Deployment, place: Mapping[str, Any]) -> Deployment:
    """A deployment as it is reached by what is said now, in place of what was recorded."""
    said = {name: value for name, value in place.items() if value is not None}
    return replace(deployment, facts={**deployment.facts, **said})


def same_deployment(target: Target, recorded: Deployment, found: Deployment) -> bool:
    """Whether what a target finds is what was recorded, and not one of the same name elsewhere."""
    if recorded.name != found.name:
        return False
    return not isinstance(target, Placed) or target.is_at(recorded, found.facts)


def found_by(target: Target, name: str, where: Mapping[str, Any] | None) -> Deployment | None:
    """What a target itself finds under a name, at a place or where it looks by itself."""
    found = target.list() if where is None else placed(target, "").list_at(where)
    return next((each for each in found if each.name == name), None)
