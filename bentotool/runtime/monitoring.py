"""Data logging of a server: the service's options at the start, what is still buffered at the end."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from bentotool.sdk.monitor import close_all, use_folder, use_options
from bentotool.sdk.service import Service

__all__ = ["close_monitors", "open_monitors", "remember_folder"]

_SECONDS = 3.0
"""For what is buffered when the server ends; files take milliseconds, a collector that does not answer would not."""


def remember_folder() -> None:
    """Before a service is imported, for which the working folder changes: relative paths are below where we started."""
    with contextlib.suppress(OSError):
        use_folder(Path.cwd())


def open_monitors(service: Service[Any]) -> None:
    """Let `monitor()` do what the service's ``monitoring`` says."""
    use_options(service.config.monitoring)


async def close_monitors() -> None:
    """Write what is buffered; what comes later is counted as dropped."""
    await asyncio.to_thread(close_all, _SECONDS)
