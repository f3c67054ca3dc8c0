"""Sizes, times and ``key=value`` options as people write and read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from bentotool.errors import UsageError

__all__ = [
    "count",
    "human_size",
    "human_time",
    "parse_labels",
    "parse_metadata",
    "parse_pairs",
    "parse_size",
    "shown_argument",
]


def shown_argument(argument: Mapping[str, Any]) -> str:
    """The value of a Bento's template argument; a secret's is never there."""
    if argument.get("secret"):
        return "given when it runs"
    if "value" not in argument:
        return "the service's default"
    value = argument["value"]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def count(number: int, word: str) -> str:
    """``1 model``, ``2 models``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def human_size(size: int) -> str:
    """Bytes in units of 1000, three digits: ``512 B``, ``1.3 MB``."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{size} B" if unit == "B" else f"{amount:.3g} {unit}" if amount < 100 else f"{amount:.0f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def human_time(created: str) -> str:
    """An RFC 3339 time in the local zone, to the second."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return created


def parse_pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """``key=value`` options; a later one wins.

    Raises:
        UsageError: for one without ``=`` or without a key.
    """
    pairs = {}
    for value in values:
        key, equals, content = value.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {value!r} is not KEY=VALUE", hint=f"for example {option} team=search")
        pairs[key.strip()] = content
    return pairs


def parse_labels(values: Iterable[str]) -> dict[str, str]:
    """``--label`` options."""
    return parse_pairs(values, "--label")


def parse_metadata(values: Iterable[str]) -> dict[str, Any]:
    """``--metadata`` options; a value that is JSON is taken as such, anything else as text."""

    def decode(text: str) -> Any:
        try:
            return json.loads(text, parse_constant=str)
        except (ValueError, RecursionError):
            return text

    return {key: decode(value) for key, value in parse_pairs(values, "--metadata").items()}


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(text: str, option: str) -> int:
    """Bytes written as ``500``, ``20GB`` (powers of 1000) or ``20GiB`` (powers of 1024).

    Raises:
        UsageError: for anything else.
    """
    number, unit = text.strip().lower().removesuffix("b"), ""
    while number and not number[-1].isdigit():
        number, unit = number[:-1], number[-1] + unit
    if not number.isascii() or not number.isdigit() or unit.strip() not in _UNITS:
        raise UsageError(f"{option} {text!r} is not a size", hint=f"for example {option} 20GB")
    return int(number) * _UNITS[unit.strip()]
