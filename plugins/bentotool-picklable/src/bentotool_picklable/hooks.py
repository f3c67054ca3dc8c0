"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="picklable",
            target="bentotool_picklable.framework:PicklableFramework",
            loader="bentotool_picklable.loader",
            summary="Pickled Python objects, always with --trust",
            suffixes=(".pkl", ".pickle"),
            predictor="bentotool_picklable.predictor:predictor",
            magic=tuple(Magic(0, bytes((0x80, protocol))) for protocol in range(2, 6)),
        )
    ]
