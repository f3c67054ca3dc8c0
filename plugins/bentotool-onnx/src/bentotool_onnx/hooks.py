"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic

# A ModelProto has no magic number, but every known writer starts with field 1 (ir_version), followed by one of the
# others: the producer's name or version, the domain, the model's version, its description, the graph, the operators.
_IR_VERSIONS = range(1, 16)
_NEXT_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
MAGIC = tuple(Magic(0, bytes((8, version, field))) for version in _IR_VERSIONS for field in _NEXT_FIELDS)


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="onnx",
            target="bentotool_onnx.framework:OnnxFramework",
            loader="bentotool_onnx.loader",
            summary="ONNX models, run by ONNX Runtime",
            suffixes=(".onnx",),
            magic=MAGIC,
            media_types=("application/onnx",),
            predictor="bentotool_onnx.predictor:predictor",
        )
    ]
