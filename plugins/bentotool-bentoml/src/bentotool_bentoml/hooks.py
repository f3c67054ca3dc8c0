"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import ArchiveDecl, SourceDecl


@hookimpl
def bentotool_archives() -> list[ArchiveDecl]:
    return [
        ArchiveDecl(
            "bentoml", "bentotool_bentoml.archive:BentoArchive", "BentoML: a Bento that it exported", (".bento",)
        )
    ]


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
