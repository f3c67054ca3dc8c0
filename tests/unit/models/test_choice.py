"""Which files of a model are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.errors import UsageError
from bentotool.interfaces import SourceFile, SourceModel
from bentotool.models.choice import EVERYTHING, Choice

NAMES = ["config.json", "model.safetensors", "onnx/model.onnx", "onnx/config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (EVERYTHING, NAMES),
        (Choice(exclude=("*.bin", "onnx/*")), ["config.json", "model.safetensors"]),
        (Choice(include=("config.json",)), ["config.json", "onnx/config.json"]),
        (Choice(include=("onnx/*",), exclude=("*.json",)), ["onnx/model.onnx"]),
        (Choice(exclude=("absent",)), NAMES),
    ],
)
def test_patterns(choice: Choice, left: list[str]) -> None:
    assert [name for name in NAMES if choice(name)] == left


def test_a_part_has_no_version_of_the_whole(tmp_path: Path) -> None:
    model = SourceModel(tuple(SourceFile(tmp_path / name, name) for name in NAMES), "m", "7")
    assert EVERYTHING.of(model) is model
    part = Choice(include=("*.onnx",)).of(model)
    assert ([file.name for file in part.files], part.version) == (["onnx/model.onnx"], None)


@pytest.mark.parametrize(
    "choice", [Choice(include=("*.gguf",)), Choice(exclude=("*",)), Choice(("*.bin",), ("*.bin",))]
)
def test_what_leaves_nothing_is_a_mistake(choice: Choice, tmp_path: Path) -> None:
    model = SourceModel(tuple(SourceFile(tmp_path / name, name) for name in NAMES), "m")
    with pytest.raises(UsageError, match="no file of the model"):
        choice.of(model)
