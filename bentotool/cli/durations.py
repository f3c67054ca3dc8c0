"""Durations as people type them."""

from __future__ import annotations

import re

from bentotool.errors import UsageError

__all__ = ["parse_duration"]

_PART = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str, option: str) -> float:
    """``90s``, ``10m``, ``1h30m``, ``7d`` or ``0`` in seconds.

    Raises:
        UsageError: for anything else.
    """
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{option} {text!r} is not a duration", hint=f"for example {option} 30s, 10m, 1h or 7d")
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))
