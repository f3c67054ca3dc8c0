"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="torch",
            target="bentotool_torch.framework:TorchFramework",
            loader="bentotool_torch.loader",
            summary="PyTorch models: safetensors, TorchScript, exported programs",
            suffixes=(".safetensors", ".pt", ".pth", ".pt2"),
            predictor="bentotool_torch.predictor:predictor",
            # a zip archive, the pickle of a number with which torch.save began until 2020, and safetensors' JSON
            magic=(
                Magic(0, b"PK\x03\x04"),
                Magic(0, b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"),
                Magic(8, b'{"'),
            ),
            media_types=("application/vnd.safetensors",),
        )
    ]
