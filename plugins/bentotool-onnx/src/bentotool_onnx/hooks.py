"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic

# A ModelProto has no magic number, but every known writer starts with field 1 (ir_version) followed by field 2
# (producer).
_IR_VERSIONS = range(3, 16)


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="onnx",
            target="bentotool_onnx.framework:OnnxFramework",
            loader="bentotool_onnx.loader",
            summary="ONNX models, run by ONNX Runtime",
            suffixes=(".onnx",),
            magic=tuple(Magic(0, bytes((0x08, version, 0x12))) for version in _IR_VERSIONS),
            media_types=("application/onnx",),
        )
    ]
