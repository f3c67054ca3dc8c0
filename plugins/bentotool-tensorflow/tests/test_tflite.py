"""TFLite models written by hand, table by table; TensorFlow is not needed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from bentotool_tensorflow import loader, tflite
from bentotool_tensorflow.framework import TensorflowFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files

Node = Any
"""A table as ``{field: value}``; a value is ``("I", 3)``, text, bytes, a list of tables, or ``("i", [1, 2])``."""


class Writer:
    """Writes a flatbuffer front to back: what a table refers to follows it."""

    def __init__(self, root: Node, identifier: bytes = b"TFL3") -> None:
        self.out = bytearray(bytes(4) + identifier)
        self._refer(0, root)

    def _refer(self, at: int, node: Node) -> None:
        self.out += bytes(-len(self.out) % 8)
        target = self._table(node) if isinstance(node, dict) else self._vector(node)
        struct.pack_into("<I", self.out, at, target - at)

    def _table(self, node: dict[int, Node]) -> int:
        fields = max(node, default=-1) + 1
        vtable = len(self.out)
        self.out += bytes(4 + 2 * fields)
        self.out += bytes(-len(self.out) % 8)
        at = len(self.out)
        self.out += bytes(8 + 8 * fields)
        struct.pack_into("<HH", self.out, vtable, 4 + 2 * fields, 8 + 8 * fields)
        struct.pack_into("<i", self.out, at, at - vtable)
        for field, value in node.items():
            struct.pack_into("<H", self.out, vtable + 4 + 2 * field, 8 + 8 * field)
            place = at + 8 + 8 * field
            if isinstance(value, tuple) and isinstance(value[1], int):
                struct.pack_into("<" + value[0], self.out, place, value[1])
            else:
                self._refer(place, value)
        return at

    def _vector(self, node: Node) -> int:
        at = len(self.out)
        if isinstance(node, str | bytes):
            content = node.encode() if isinstance(node, str) else node
            self.out += struct.pack("<I", len(content)) + content + b"\0"
        elif isinstance(node, tuple):
            self.out += struct.pack(f"<I{len(node[1])}{node[0]}", len(node[1]), *node[1])
        else:
            self.out += struct.pack("<I", len(node)) + bytes(4 * len(node))
            for index, item in enumerate(node):
                self._refer(at + 4 + 4 * index, item)
        return at


def tensor(name: str, dtype: int, shape: list[int], signature: list[int] | None = None) -> Node:
    table: dict[int, Node] = {0: ("i", shape), 1: ("b", dtype), 2: ("I", 0), 3: name}
    return table if signature is None else {**table, 7: ("i", signature)}


def model(**changes: Node) -> Node:
    """A model of one operation; ``changes`` are further fields of its root, as ``f5=…``."""
    graph = {
        0: [tensor("in:0", 0, [1, 4], [-1, 4]), tensor("out:0", 9, [1, 2])],
        1: ("i", [0]),
        2: ("i", [1]),
        3: [{0: ("I", 0), 1: ("i", [0]), 2: ("i", [1])}],
        4: "main",
    }
    signature = {
        0: [{0: "x", 1: ("I", 0)}],
        1: [{0: "y", 1: ("I", 1)}],
        2: "serving_default",
        4: ("I", 0),
    }
    root = {0: ("I", 3), 1: [{0: ("b", 9)}], 2: [graph], 3: "by hand", 4: [{}, {0: b"weights!"}], 7: [signature]}
    return {**root, **{int(key[1:]): value for key, value in changes.items()}}


def custom(*names: str) -> list[Node]:
    return [{0: ("b", 32), 1: name, 3: ("i", 32)} for name in names]


def put(tmp_path: Path, content: bytes | Node, name: str = "net.tflite") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes | bytearray) else Writer(content).out)
    return path


def describe(path: Path) -> ModelInfo:
    framework = TensorflowFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_description(tmp_path: Path) -> None:
    found = describe(put(tmp_path, model()))
    assert (found.format, found.safety, found.main_file) == ("tflite", "data", "net.tflite")
    assert found.inputs == (TensorSpec("x", "float32", (None, 4)),)
    assert found.outputs == (TensorSpec("y", "int8", (1, 2)),)
    assert found.metadata == {
        "operators": 1,
        "kinds_of_operators": 1,
        "subgraphs": 1,
        "description": "by hand",
        "signatures": ["serving_default"],
    }
    assert "ai-edge-litert>=1.2" in found.requirements


def test_without_signatures_the_tensors_have_their_own_names(tmp_path: Path) -> None:
    found = describe(put(tmp_path, model(f7=[])))
    assert [spec.name for spec in (*found.inputs, *found.outputs)] == ["in:0", "out:0"]


def test_another_name_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    stored = import_model(put(tmp_path, model(), "model.bin"))
    assert (stored.info["framework"], stored.info["main_file"]) == ("tensorflow", "model.bin")


def test_custom_operators_are_named(tmp_path: Path) -> None:
    found = describe(put(tmp_path, model(f1=custom("TFLite_Detection_PostProcess"))))
    assert (found.safety, found.metadata["custom_operators"]) == ("data", ["TFLite_Detection_PostProcess"])


def test_operators_of_tensorflow_make_it_a_program(tmp_path: Path) -> None:
    found = describe(put(tmp_path, model(f1=custom("FlexErf", "FlexReadVariableOp"))))
    assert (found.safety, found.metadata["tensorflow_operators"]) == ("program", ["FlexErf", "FlexReadVariableOp"])
    assert "tensorflow>=2.16" in found.requirements
    assert "needs_trust" not in found.metadata


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("FlexWriteFile", b""),
        ("FlexAdd", b"\x12\x09WriteFile"),  # what runs is what the options say, whatever the operation is called
        ("FlexAdd", b"\x12\x84\x00Save\x1a\x01x"),
        ("FlexPyFunc", b""),
        ("FlexAdd", b"PrintV2 ... file:///home/user/.bashrc"),
    ],
)
def test_operators_of_tensorflow_that_do_more_than_compute(tmp_path: Path, code: str, options: bytes) -> None:
    path = put(tmp_path, model(f1=custom(code), f5={0: options}))
    found = describe(path)
    assert (found.safety, len(found.metadata["needs_trust"])) == ("pickle", 1)
    with pytest.raises(UnsafeError):
        import_model(path)
    for trust in (False, 1, "yes"):
        with pytest.raises(loader.UnsafeModelError, match="does more than compute"):
            loader.load(path, trust=trust)


def test_a_name_over_the_edge_of_two_pieces_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_PIECE", 64)
    for padding in range(70):
        path = put(tmp_path, b"Flex" + bytes(padding) + b"SnapshotNestedDatasetReader")
        assert loader.lite_reasons(path) == ["it has the operation SnapshotNestedDatasetReader"]


def test_without_such_operators_the_weights_may_say_what_they_like(tmp_path: Path) -> None:
    path = put(tmp_path, model(f4=[{}, {0: b"FlexWriteFile"}]))
    assert describe(path).safety == "data"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "truncated"),
        (b"just some text\n", "TFL3"),
        (bytes(Writer(model()).out)[:-60], "truncated|leads to byte|damaged"),
        (b"\0\0\0\0TFL3", "leads to byte 0"),
        (b"\xff\xff\xff\xffTFL3", "leads to byte"),
        (b"\x08\0\0\0TFL3\xff\xff\xff\x7f", "truncated at byte 12"),
        (model(f0=("I", 2)), "states version 2"),
        (model(f2=[]), "no graph with outputs"),
        (model(f1=[]), "no known kind"),
        (model(f2=[{0: [tensor("a", 0, [1])], 1: ("i", []), 2: ("i", [7])}]), "no tensor"),
        (model(f2=[{0: [tensor("a", 0, [1])], 1: ("i", [-1]), 2: ("i", [0])}]), "no tensor"),
        (model(f2=[{0: [{**tensor("a", 0, [1]), 2: ("I", 9)}], 2: ("i", [0])}]), "without its buffer"),
        (model(f2=[{0: [tensor("a", 0, [1] * 65)], 2: ("i", [0])}]), "65 axes"),
        (model(f4=[{}, {1: ("Q", 100), 2: ("Q", 1 << 63)}]), "bytes of weights at byte 100"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes | Node, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        describe(put(tmp_path, content))
    assert caught.value.message.startswith("net.tflite is not a valid TFLite model: ")


def test_offsets_to_one_place_cost_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "_MAX_READS", 1000)
    with pytest.raises(UsageError, match="more than 1000 values"):
        describe(put(tmp_path, model(f4=[{}] * 2000)))
    monkeypatch.setattr(tflite, "_MAX_READS", 1 << 20)
    monkeypatch.setattr(tflite, "_MAX_TEXT", 1000)
    with pytest.raises(UsageError, match="more than 1000 bytes of names"):
        describe(put(tmp_path, model(f3="x" * 2000)))


SAMPLE = bytes(Writer(model(f1=custom("FlexErf"))).out)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any) -> None:
    content = bytearray(SAMPLE)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content) * 2))
    try:
        describe(put(tmp_path, bytes(content[:cut])))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.integers(8, 64), content=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, head: int, content: bytes) -> None:
    try:
        describe(put(tmp_path, struct.pack("<I", head) + b"TFL3" + content))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "model.pkl", "model.safetensors"])
def test_the_name_of_another_format_does_not_matter(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, model(), name)
    assert describe_model(source_files(path), load_plugins(), trust=True).framework == "tensorflow"
    (tmp_path / "README.md").write_text("# A model", encoding="utf-8")
    assert describe_model(source_files(tmp_path), load_plugins(), trust=True).main_file == name
