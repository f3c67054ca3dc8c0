"""Revisions among themselves: what one changes, and how one is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool.deploy.records import Record, Revision
from bentotool.errors import NotFoundError
from bentotool.targetspec import TargetDecl

__all__ = ["changed_settings", "repeated_options", "revision_before"]


def revision_before(record: Record) -> Revision:
    """What was deployed before the current revision.

    Raises:
        NotFoundError: nothing was.
    """
    if len(record.revisions) < 2:
        raise NotFoundError(
            f"{record.name} was deployed once: there is nothing to go back to",
            hint=f"bentotool deployment delete {record.name} takes it away",
        )
    return record.revisions[1]


def repeated_options(decl: TargetDecl, revision: Revision) -> dict[str, Any]:
    """The values of a target's options as a revision had them; of those that are new since, the defaults.

    Where one was left out, what the target made of it then counts: the facts have it under the option's name.
    """
    facts = revision.deployment.facts
    values: dict[str, Any] = {}
    for option in decl.options:
        value = revision.options.get(option.name, option.default)
        if value in (None, ""):
            value = facts.get(option.name)
        values[option.name] = tuple(value or ()) if option.repeated else value
        if option.per_service:
            own = {name: each for name, each in revision.options.items() if name.endswith(f".{option.name}")}
            values |= {name: tuple(each or ()) if option.repeated else each for name, each in own.items()}
    return values


def changed_settings(before: Revision, values: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """What of the options and the environment is not as it was, a line each: what is left out is back at its default.

    Options that the target itself chose are no change.
    """
    lines, facts = [], before.deployment.facts
    own = {name: None for name in before.options if "." in name}
    for name, value in {**own, **values}.items():
        given = before.options.get(name)
        was, now = _shown(facts.get(name) if given in (None, "", ()) else given), _shown(value)
        if was != now and not (value is None and name in facts):
            lines.append(f"{name}: {now or 'not set'}, was {was or 'not set'}")
    for name in sorted(before.env.keys() | env.keys()):
        then, now_set = before.env.get(name), env.get(name)
        if then != now_set:
            lines.append(f"env {name}: {_text(now_set)}, was {_text(then)}")
    return lines


def _text(value: str | None) -> str:
    return "not set" if value is None else repr(value[:80])


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
