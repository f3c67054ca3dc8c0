"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="sklearn",
            target="bentotool_sklearn.framework:SklearnFramework",
            loader="bentotool_sklearn.loader",
            summary="scikit-learn models, kept safely by skops",
            suffixes=(".skops", ".joblib", ".pkl", ".pickle"),
            # a zip archive, and the pickle protocols 2 to 5
            magic=(Magic(0, b"PK\x03\x04"), *(Magic(0, bytes((0x80, protocol))) for protocol in range(2, 6))),
        )
    ]
