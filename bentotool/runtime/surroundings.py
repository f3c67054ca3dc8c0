"""What one generation of workers is given."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bentotool.runtime.bento import Target

__all__ = ["Surroundings"]


@dataclass(frozen=True)
class Surroundings:
    """What a generation is given.

    Attributes:
        target: what to serve.
        workers: processes of the entry service; None for what it declares.
        options: arguments for each worker.
        listeners: of the server; the entry's workers accept from them.
        metrics: folder of the workers' metric files.
        inside: dependencies live in the entry's own processes.
        number: a number for a new place, not in use by any other.
        selector: lines are registered in it, with ``(fleet, slot)``.
        note: says something to whoever reads the log.
    """

    target: Target
    workers: int | None
    options: Sequence[str]
    listeners: Sequence[socket.socket]
    metrics: Path
    inside: bool
    number: Callable[[], int]
    selector: selectors.BaseSelector
    note: Callable[[str], None]
