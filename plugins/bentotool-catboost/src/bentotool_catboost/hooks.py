"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="catboost",
            target="bentotool_catboost.framework:CatboostFramework",
            loader="bentotool_catboost.loader",
            summary="CatBoost models, in CatBoost's binary and JSON formats",
            suffixes=(".cbm", ".json"),
            magic=(Magic(0, b"CBM1"),),
        )
    ]
