"""The event loop of a worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

__all__ = ["run"]

_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another asks for it. The default, 5 ms, is longer than many batches:
for so long would a batch that is done wait while the event loop answers others."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on uvloop where there is one."""
    sys.setswitchinterval(_SWITCH_S)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
