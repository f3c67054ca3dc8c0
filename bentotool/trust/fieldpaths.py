"""What a predicate says at a path, and versions that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bentotool.trust.policyschema import FieldRule

__all__ = ["TEXT_LIMIT", "flaw_of", "matches_whole", "numbers_of", "says"]

TEXT_LIMIT = 4096
"""Characters of the longest text that a regular expression is tried on."""


def matches_whole(pattern: str, text: str) -> bool:
    """Whether a regular expression matches all of a text."""
    return len(text) <= TEXT_LIMIT and re.fullmatch(pattern, text) is not None


def numbers_of(version: str) -> tuple[int, ...] | None:
    """A version of numbers, without zeros at its end; None for any other, such as one made of a digest."""
    if not re.fullmatch(r"v?\d{1,9}(?:\.\d{1,9}){0,5}", version, re.ASCII):
        return None
    found = [int(number) for number in version.removeprefix("v").split(".")]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _values(value: object, path: Sequence[str]) -> Iterator[object]:
    """What stands at a path; ``*`` is each item of a list or object, a number one item of a list."""
    if not path:
        yield value
        return
    step, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        inner: Iterable[object] = value.values() if step == "*" else (value[step],) if step in value else ()
    elif isinstance(value, (list, tuple)):
        place = int(step) if re.fullmatch(r"\d{1,6}", step, re.ASCII) else len(value)
        inner = value if step == "*" else value[place : place + 1]
    else:
        return
    for each in inner:
        yield from _values(each, rest)


def _same(one: object, other: object) -> bool:
    """Equal and of one kind: in JSON ``true`` is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def says(predicate: Mapping[str, Any], rule: FieldRule) -> bool:
    """Whether a predicate says what a rule asks for; with ``*``, whether any of the items does."""
    for value in _values(predicate, rule.path):
        if rule.matches:
            good = isinstance(value, str) and matches_whole(rule.matches, value)
        else:
            good = any(_same(value, each) for each in rule.one_of or (rule.equals,))
        if good:
            return True
    return False


def flaw_of(predicate: Mapping[str, Any], rule: FieldRule) -> str:
    """In what way a predicate does not say what a rule asks for; ends a sentence."""
    path = ".".join(rule.path)
    found = [value for value in _values(predicate, rule.path) if not isinstance(value, (Mapping, list))]
    if not found:
        return f"has no field {path}"
    shown = "".join(c if c.isprintable() else " " for c in str(found[0]))[:120]
    return f"has {shown!r} at {path}"
