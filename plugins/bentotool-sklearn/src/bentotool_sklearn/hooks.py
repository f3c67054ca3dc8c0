"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic

PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
# gzip, bzip2, xz, lzma, and zlib at each of its levels: what joblib compresses with
COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x5d\x00", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="sklearn",
            target="bentotool_sklearn.framework:SklearnFramework",
            loader="bentotool_sklearn.loader",
            summary="scikit-learn models, kept safely by skops",
            suffixes=(".skops", ".joblib", ".pkl", ".pickle"),
            magic=(Magic(0, b"PK\x03\x04"), *(Magic(0, start) for start in (*PICKLES, *COMPRESSED))),
            predictor="bentotool_sklearn.predictor:predictor",
        )
    ]
