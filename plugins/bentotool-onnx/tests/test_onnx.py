"""Models are made with the onnx package; the plugin itself never imports it."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import onnx
import pytest
from bentotool_onnx import loader
from bentotool_onnx.framework import OnnxFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import SourceFile, TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import check_framework, check_plugin


def weight(name: str = "W", *, location: str | None = None, length: int = 16, offset: str = "0") -> TensorProto:
    tensor = helper.make_tensor(name, TensorProto.FLOAT, [4, 1], [0.1, 0.2, 0.3, 0.4])
    if location is not None:
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return tensor


def make(weights: TensorProto | None = None, **model: object) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "W"], ["Y"])],
        "linear",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("W", TensorProto.FLOAT, [4, 1]),
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 1])],
        [weights or weight()],
    )
    options = {"producer_name": "test", "ir_version": 8, "opset_imports": [helper.make_opsetid("", 17)], **model}
    proto = helper.make_model(graph, **options)
    helper.set_model_props(proto, {"author": "someone"})
    return proto.SerializeToString()


GOOD = make()


def describe(path: Path, *others: Path) -> object:
    files = [SourceFile(item, item.relative_to(path.parent).as_posix()) for item in (path, *others)]
    framework = OnnxFramework()
    assert framework.detect(files)
    return framework.describe(files)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    path = tmp_path / "linear.onnx"
    path.write_bytes(GOOD)
    return path


def test_plugin() -> None:
    assert check_plugin("onnx").hooks == ("bentotool_frameworks",)


def test_contract(linear: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (info,) = check_framework("onnx", [linear], scratch=scratch, options={"providers": ["CPUExecutionProvider"]})
    assert info.safety == "data"


def test_description(linear: Path) -> None:
    info = describe(linear)
    assert info.inputs == (TensorSpec("X", "float32", ("batch", 4)),)  # W is an initializer, not an input
    assert info.outputs == (TensorSpec("Y", "float32", ("batch", 1)),)
    assert info.metadata == {
        "ir_version": 8,
        "opsets": {"ai.onnx": 17},
        "graph": "linear",
        "producer": "test",
        "properties": {"author": "someone"},
    }


def test_description_agrees_with_onnx_on_every_dtype(tmp_path: Path) -> None:
    names = [name for name, code in TensorProto.DataType.items() if code]
    values = [helper.make_tensor_value_info(name, TensorProto.DataType.Value(name), [None, 0, "n"]) for name in names]
    graph = helper.make_graph([], "types", values, values)
    path = tmp_path / "types.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    inputs = {spec.name: spec for spec in describe(path).inputs}
    aliases = {"FLOAT": "float32", "DOUBLE": "float64", "STRING": "str"}
    for name in names:
        plain = inputs[name].dtype.replace("_", "").upper()
        assert inputs[name].dtype == aliases.get(name, inputs[name].dtype)
        assert name in aliases or plain == name.replace("_", "")
        assert inputs[name].shape == (None, 0, "n")


def test_sequences_maps_and_optionals(tmp_path: Path) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    types = {
        "s": helper.make_sequence_type_proto(tensor),
        "o": helper.make_optional_type_proto(tensor),
        "m": helper.make_map_type_proto(TensorProto.INT64, tensor),
    }
    values = [helper.make_value_info(name, kind) for name, kind in types.items()]
    path = tmp_path / "types.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([], "types", values, values)).SerializeToString())
    dtypes = {spec.name: spec.dtype for spec in describe(path).outputs}
    assert dtypes == {"s": "sequence(float32)", "o": "optional(float32)", "m": "map(int64,float32)"}


def test_another_name_is_recognised_by_its_first_bytes(linear: Path) -> None:
    other = linear.rename(linear.with_name("model.bin"))
    model = import_model(other)
    assert model.info["framework"] == "onnx"
    assert model.info["main_file"] == "model.bin"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"just some text\n", "byte"),
        (GOOD[: len(GOOD) // 2], f"truncated at byte {len(GOOD) // 2}"),
        (GOOD[:-1], f"truncated at byte {len(GOOD) - 1}"),
        (b"\x08\x08", "has no graph"),
        (b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated at byte 12"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x01", "field number 0"),
        (b"\x38\x01", "a number where a message"),
        (b"\x12\x02\xff\xff", "not UTF-8"),
        (make(ir_version=0), "no IR version"),
        (b"\x08\x08\x3a\x00", "operator set"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "iris.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        describe(path)
    assert caught.value.message.startswith("iris.onnx is not a valid ONNX model: ")
    assert caught.value.exit_status == 2


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "iris.onnx"
    path.touch()
    with pytest.raises(UsageError, match=r"^iris.onnx is empty$"):
        describe(path)


def nested(number: int, depth: int, inner: bytes = b"") -> bytes:
    """A message with a field of this number inside itself, ``depth`` times."""
    for _ in range(depth):
        length, prefix = len(inner), bytearray()
        while length > 0x7F:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        inner = bytes((number << 3 | 2,)) + bytes(prefix) + bytes((length,)) + inner
    return inner


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.onnx"
    graph = b""
    for _ in range(200):  # graph → node (1) → attribute (5) → graph (6)
        graph = nested(1, 1, nested(5, 1, nested(6, 1, graph)))
    path.write_bytes(b"\x08\x08" + nested(7, 1, graph))
    with pytest.raises(UsageError, match="graphs nested more than 32 deep"):
        describe(path)
    kind = b""
    for _ in range(200):  # type → sequence (4) → element type (1)
        kind = nested(4, 1, nested(1, 1, kind))
    path.write_bytes(b"\x08\x08" + nested(7, 1, nested(11, 1, nested(2, 1, kind))))
    with pytest.raises(UsageError, match="types nested more than 32 deep"):
        describe(path)


def test_large_weights_are_skipped(tmp_path: Path) -> None:
    """A sparse file of 256 MiB (a real one where the file system knows no holes), of which little may be read."""
    path = tmp_path / "large.onnx"
    size = 256 << 20
    prefix = bytearray()
    length = size
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    with path.open("wb") as file:
        file.write(b"\x32" + bytes(prefix))  # field 6, doc_string, which nobody asks for
        file.seek(size, 1)
        file.write(GOOD)
    tracemalloc.start()
    try:
        assert describe(path).inputs[0].name == "X"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_text_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(make(producer_name="x" * (17 << 20)))
    with pytest.raises(UsageError, match="bytes of names and metadata"):
        describe(path)


def test_external_data(tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "sub" / "weights.bin"
    data.parent.mkdir()
    data.write_bytes(bytes(16))
    path.write_bytes(make(weight(location="sub/weights.bin")))
    assert describe(path, data).metadata["external_data"] == ["sub/weights.bin"]
    with pytest.raises(UsageError, match=r"'sub/weights\.bin', which is not there") as caught:
        describe(path)
    assert caught.value.hint == "import the folder that holds both files"
    data.write_bytes(bytes(15))
    with pytest.raises(UsageError, match=r"needs 16 bytes of 'sub/weights\.bin', which has 15"):
        describe(path, data)


@pytest.mark.parametrize(
    "location", ["../secret", "a/../../secret", "/etc/passwd", "C:/x", "a\\b", "", "a\0b", "..", "sub/.."]
)
def test_external_data_outside_the_model_is_unsafe(tmp_path: Path, location: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make(weight(location=location)))
    with pytest.raises(UnsafeError, match="not a file in the model's folder") as caught:
        describe(path)
    assert caught.value.exit_status == 6


def test_external_data_hidden_in_a_node(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["C"], value=weight(location="../../secret"))
    value = helper.make_tensor_value_info("C", TensorProto.FLOAT, [4, 1])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", [], [value])).SerializeToString())
    with pytest.raises(UnsafeError):
        describe(path)


@pytest.mark.parametrize("offset", ["-1", "x", "1" * 30, "٣"])
def test_external_offsets_are_numbers(tmp_path: Path, offset: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make(weight(location="w", offset=offset)))
    with pytest.raises(UsageError, match="the offset of external tensor 'W'"):
        describe(path)


def test_several_models_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(GOOD)
    with pytest.raises(UsageError, match=r"several ONNX models: a\.onnx, b\.onnx"):
        import_model(tmp_path, "both")
    (tmp_path / "model.onnx").write_bytes(GOOD)
    assert import_model(tmp_path, "both").info["main_file"] == "model.onnx"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8),
    inserted=st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=12)),
)
def test_mutations_end_in_an_answer_or_an_error_of_one_line(
    tmp_path: Path, cut: int, changes: list[tuple[int, int]], inserted: tuple[int, bytes]
) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    content[inserted[0] : inserted[0]] = inserted[1]
    path = tmp_path / "fuzz.onnx"
    path.write_bytes(content[: cut or None])
    try:
        describe(path)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


def test_save_load_and_get(tmp_path: Path) -> None:
    import numpy as np

    saved = namespace("onnx").save_model("linear", onnx.load_from_string(GOOD), labels={"team": "a"})
    assert namespace("onnx").get("linear:latest").tag == saved.tag
    assert saved.info["labels"] == {"team": "a"}
    session = namespace("onnx").load_model("linear:latest", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"X": np.ones((2, 4), np.float32)})
    assert np.allclose(answer, 1.0)


def test_save_forms(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "m.onnx").write_bytes(make(weight(location="w.bin")))
    (source / "w.bin").write_bytes(bytes(16))
    forms = {
        "path": source / "m.onnx",
        "text": str(source / "m.onnx"),
        "bytes": GOOD,
        "proto": onnx.load_from_string(GOOD),
    }
    for name, form in forms.items():
        target = tmp_path / name
        target.mkdir()
        OnnxFramework().save(form, target)
        assert (target / "model.onnx").is_file()
    assert (tmp_path / "path" / "w.bin").is_file()
    with pytest.raises(UsageError, match="a dict is not an ONNX model"):
        OnnxFramework().save({}, tmp_path)
    with pytest.raises(NotFoundError, match="there is no file"):
        OnnxFramework().save("absent.onnx", tmp_path)
    with pytest.raises(UsageError, match="takes no option speed"):
        OnnxFramework().save(GOOD, tmp_path, speed=1)


def test_looking_at_a_model_imports_neither_onnx_nor_onnxruntime(linear: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.interfaces import SourceFile
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
path = Path(sys.argv[1])
describe_model([SourceFile(path, path.name)], load_plugins())
assert not {"onnx", "onnxruntime", "numpy", "google.protobuf"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(linear)], check=True, timeout=60)


CPU = ["CPUExecutionProvider"]


def test_providers_and_session_options(linear: Path) -> None:
    import onnxruntime

    import_model(linear, "linear")
    load = namespace("onnx").load_model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for asked in (options, {"intra_op_num_threads": 1}):
        session = load("linear", providers=CPU, session_options=asked)
        assert session.get_providers() == CPU
        assert session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(ValueError, match="no attribute 'threads'"):
        load("linear", session_options={"threads": 1})


@pytest.mark.parametrize(("rows", "expected"), [(None, []), (0, [{"X": (1, 4)}]), (3, [{"X": (3, 4)}])])
def test_warm_up_runs_the_model_once(
    linear: Path, monkeypatch: pytest.MonkeyPatch, rows: int | None, expected: list[object]
) -> None:
    import numpy as np
    import onnxruntime

    seen = []
    run = onnxruntime.InferenceSession.run

    def watched(self: object, names: object, inputs: dict[str, np.ndarray]) -> object:
        seen.append({name: value.shape for name, value in inputs.items()})
        return run(self, names, inputs)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watched)
    warmup = {"X": np.zeros((rows, 4), np.float32)} if rows else rows == 0
    import_model(linear, "linear")
    session = namespace("onnx").load_model("linear", providers=CPU, warmup=warmup)
    assert seen == expected
    assert session.run(None, {"X": np.zeros((2, 4), np.float32)})[0].shape == (2, 1)


def test_warm_up_of_every_type(tmp_path: Path) -> None:
    kinds = ("FLOAT", "DOUBLE", "FLOAT16", "INT64", "INT32", "INT8", "UINT8", "BOOL", "STRING")
    shapes = ([], ["batch", None, 3], [2])
    ends = [(f"{kind}-{at}", getattr(TensorProto, kind), shape) for kind in kinds for at, shape in enumerate(shapes)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in-{name}"], [f"out-{name}"]) for name, _, _ in ends],
        "types",
        [helper.make_tensor_value_info(f"in-{name}", kind, shape) for name, kind, shape in ends],
        [helper.make_tensor_value_info(f"out-{name}", kind, shape) for name, kind, shape in ends],
    )
    path = tmp_path / "types.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    assert len(loader.load(path, providers=CPU, warmup=True).get_inputs()) == len(ends)


def test_warm_up_needs_inputs_where_there_are_no_zeros(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["S"], ["n"])],
        "sequence",
        [helper.make_value_info("S", kind)],
        [helper.make_tensor_value_info("n", TensorProto.INT64, [])],
    )
    path = tmp_path / "sequence.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    with pytest.raises(ValueError, match="input 'S' is a seq"):
        loader.load(path, providers=CPU, warmup=True)
    import numpy as np

    loader.load(path, providers=CPU, warmup={"S": [np.zeros(2, np.float32)]})
