"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic

# The first of its keys, in the order of the alphabet, that a model in JSON has.
STARTS = tuple(
    f'{{"{key}":'.encode() for key in ("ctr_data", "features_info", "model_info", "oblivious_trees", "trees")
)


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="catboost",
            target="bentotool_catboost.framework:CatboostFramework",
            loader="bentotool_catboost.loader",
            summary="CatBoost models, in CatBoost's binary and JSON formats",
            suffixes=(".cbm", ".json"),
            predictor="bentotool_catboost.predictor:predictor",
            magic=tuple(Magic(0, start) for start in (b"CBM1", b"{\n", b"{\r\n", *STARTS)),
        )
    ]
