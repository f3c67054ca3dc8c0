"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="xgboost",
            target="bentotool_xgboost.framework:XgboostFramework",
            loader="bentotool_xgboost.loader",
            summary="XGBoost models, in XGBoost's JSON and UBJSON formats",
            suffixes=(".json", ".ubj"),
            predictor="bentotool_xgboost.predictor:predictor",
            magic=(
                Magic(0, b"{L\0\0\0\0\0\0\0\x07learner"),
                *(Magic(0, start) for start in (b'{"learner"', b'{"version"', b"{\n", b"{\r\n")),
            ),
        )
    ]
