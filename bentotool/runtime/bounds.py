"""What a server may be told: ports, seconds, processes. Whatever says them, the bounds are the same."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from bentotool.errors import UsageError
from bentotool.runtime.parts import Part

__all__ = ["LONGEST_S", "check_parts", "check_port", "check_seconds", "check_workers", "most_workers"]

LONGEST_S = 7 * 86400
"""What waits for events takes no number of milliseconds above 2**31, which are 24 days."""
_PER_PROCESSOR, _ALWAYS = 16, 64


def most_workers() -> int:
    """Worker processes that one service may have here: 16 for each processor, and 64 anywhere.

    More give no more answers, and each of them is an interpreter with the service's libraries: a number with some zeros
    too many would take the machine down.
    """
    return max(_ALWAYS, _PER_PROCESSOR * (os.cpu_count() or 1))


def check_workers(count: int, said: str) -> int:
    """A number of worker processes.

    Args:
        said: where the number stands, as ``--workers``.

    Raises:
        UsageError: it is below 1, or more than this machine should have.
    """
    if count < 1:
        raise UsageError(f"{said} {count}: at least 1 is needed")
    if count > (most := most_workers()):
        raise UsageError(
            f"{said} {count}: more than the {most} that this machine may have, {_PER_PROCESSOR} for each processor and "
            f"{_ALWAYS} anywhere",
            hint=f"--workers {os.cpu_count() or 1} is one for each processor",
        )
    return count


def check_parts(parts: Iterable[Part], workers: int | None) -> list[Part]:
    """The services of a server, the entry first; with as many workers of that as the user says.

    Raises:
        UsageError: one of them declares more workers than this machine should have.
    """
    found = list(parts)
    if workers is not None:
        found[0] = replace(found[0], workers=workers)
    for part in found:
        check_workers(part.workers, f"workers of {part.name}:")
    return found


def check_port(port: int) -> int:
    """A TCP port number; 0 asks for a free one.

    Raises:
        UsageError: when it is none.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is not between 0 and 65535")
    return port


def check_seconds(seconds: float, said: str) -> float:
    """A time to wait.

    Args:
        said: where the number stands, as ``--grace``.

    Raises:
        UsageError: it is negative, not a number, or longer than a week.
    """
    if not 0 <= seconds <= LONGEST_S:  # false for nan
        example = f"{said}{' ' if said.startswith('-') else '='}30"
        raise UsageError(f"{said} {seconds:g}: not between 0 and {LONGEST_S} seconds", hint=f"for example {example}")
    return seconds
