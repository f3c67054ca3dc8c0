"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="lightgbm",
            target="bentotool_lightgbm.framework:LightgbmFramework",
            loader="bentotool_lightgbm.loader",
            summary="LightGBM models, in LightGBM's text format",
            suffixes=(".lgb", ".lightgbm"),
            predictor="bentotool_lightgbm.predictor:predictor",
            magic=(Magic(0, b"tree\nversion="), Magic(0, b"tree\r\nversion=")),
        )
    ]
