"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from collections.abc import Sequence

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic, SourceDecl, SourceFile

_INDEXES = ("config.json", "modules.json", "model_index.json")


@hookimpl
def bentotool_frameworks() -> list[FrameworkDecl]:
    return [
        FrameworkDecl(
            name="huggingface",
            target="bentotool_huggingface.framework:HuggingFaceFramework",
            loader="bentotool_huggingface.loader",
            summary="transformers, sentence-transformers, diffusers, safetensors and GGUF models",
            suffixes=(".safetensors", ".gguf", ".json"),
            magic=(Magic(0, b"GGUF"), Magic(8, b'{"')),  # a safetensors file starts with a length, and JSON
            media_types=("application/vnd.safetensors", "application/vnd.gguf"),
        )
    ]


@hookimpl
def bentotool_sources() -> list[SourceDecl]:
    target = "bentotool_huggingface.source:HubSource"
    summary = "a repository of the Hugging Face hub"
    return [SourceDecl("huggingface-hub", target, summary, schemes=("hf",), forms=("hf://ORG/REPO[@REVISION]",))]


@hookimpl
def bentotool_identify_model(files: Sequence[SourceFile]) -> str | None:
    """A Hugging Face folder with weights of its own is ours, though it also holds an export to ONNX."""
    names = {file.name for file in files}
    exported = any(name.endswith(".onnx") for name in names)
    if not exported or names.isdisjoint(_INDEXES) or not any(name.endswith(".safetensors") for name in names):
        return None
    from bentotool_huggingface.folders import read_folder

    return "huggingface" if read_folder(files) is not None else None
