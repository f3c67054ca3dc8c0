"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import SourceDecl


@hookimpl
def bentotool_sources() -> list[SourceDecl]:
    return [
        SourceDecl(
            "bentoml",
            "bentotool_bentoml.source:BentomlSource",
            "BentoML: a model of its store, a folder or an export",
            schemes=("bentoml",),
            suffixes=(".bentomodel",),
            forms=("bentoml:NAME[:VERSION]", "FILE.bentomodel"),
        )
    ]
