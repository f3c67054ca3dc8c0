"""Tolerating absent packages while a service is only being looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PROBE_VARIABLE", "importing"]

PROBE_VARIABLE = "BENTOTOOL_PROBE"
"""Set by the probe that ``bentotool build`` runs: the service's own dependencies may be absent there."""


@contextmanager
def importing() -> Iterator[None]:
    """Imports inside may fail while a Bento is built; when the service is served they fail as usual.

    Example::

        with bentotool.importing():
            import torch
    """
    try:
        yield
    except ImportError as error:
        if not os.environ.get(PROBE_VARIABLE):
            raise
        import logging  # a build with nothing changed reads this module for a name alone

        logging.getLogger("bentotool").warning("import left out while probing: %s", error)
