"""SavedModels written by hand, field by field; TensorFlow is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bentotool_tensorflow import loader, wire
from bentotool_tensorflow import saved_model as reader
from bentotool_tensorflow.framework import TensorflowFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import check_plugin, source_files


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(content)) + content
    return out


def node(op: str, **attributes: bytes) -> bytes:
    """A NodeDef; attributes are AttrValue messages."""
    entries = [(5, message((1, key), (2, value))) for key, value in attributes.items()]
    return message((1, f"some/{op}"), (2, op), (3, "x"), *entries)


def text(value: str) -> bytes:
    return message((2, value))


def tensor(dtype: int, shape: list[int] | None) -> bytes:
    axes = [(2, message((1, axis))) for axis in shape or []]
    return message((1, "x:0"), (2, dtype), (3, message(*axes) if shape is not None else message((3, 1))))


def signature(inputs: dict[str, bytes], outputs: dict[str, bytes]) -> bytes:
    return message(
        *((1, message((1, key), (2, value))) for key, value in inputs.items()),
        *((2, message((1, key), (2, value))) for key, value in outputs.items()),
        (3, "tensorflow/serving/predict"),
    )


SIGNATURE = signature({"x": tensor(1, [-1, 4])}, {"y": tensor(9, None)})


def saved_model(
    *nodes: bytes,
    inner: tuple[bytes, ...] = (),
    signatures: dict[str, bytes] | None = None,
    assets: tuple[str, ...] = (),
) -> bytes:
    function = message((1, message((1, "f"))), *((3, item) for item in inner))
    graph = message(*((1, item) for item in nodes or (node("AddV2"),)), (2, message((1, function))))
    offered = {"serving_default": SIGNATURE} if signatures is None else signatures
    meta = message(
        (1, message((4, "serve"), (5, "2.21.0"))),
        (2, graph),
        *((5, message((1, key), (2, value))) for key, value in offered.items()),
        *((6, message((2, name))) for name in assets),
    )
    return message((1, 1), (2, meta))


def put(tmp_path: Path, content: bytes, *others: str) -> Path:
    folder = tmp_path / "net"
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(content)
    for name in others:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"12345")
    return folder


def describe(path: Path) -> ModelInfo:
    framework = TensorflowFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_plugin() -> None:
    check_plugin("tensorflow")


def test_description(tmp_path: Path) -> None:
    found = describe(put(tmp_path, saved_model(inner=(node("MatMul"),))))
    assert (found.format, found.safety, found.main_file) == ("saved_model", "program", "saved_model.pb")
    assert found.inputs == (TensorSpec("x", "float32", (None, 4)),)
    assert found.outputs == (TensorSpec("y", "int64", ("...",)),)
    assert found.metadata == {
        "tags": [["serve"]],
        "tensorflow_version": "2.21.0",
        "operators": 2,
        "functions": 1,
        "signatures": {"serving_default": {"inputs": {"x": "float32[?, 4]"}, "outputs": {"y": "int64[...]"}}},
        "default_signature": "serving_default",
        "variables_bytes": 0,
    }


def test_the_signature_that_is_described(tmp_path: Path) -> None:
    other = signature({"a": tensor(7, [])}, {"b": tensor(99, [2])})
    names = {"__saved_model_init_op": SIGNATURE, "zeta": SIGNATURE, "alpha": other}
    found = describe(put(tmp_path, saved_model(signatures=names)))
    assert found.metadata["default_signature"] == "alpha"
    assert set(found.metadata["signatures"]) == {"alpha", "zeta"}
    assert (found.inputs, found.outputs) == ((TensorSpec("a", "str", ()),), (TensorSpec("b", "unknown(99)", (2,)),))
    assert describe(put(tmp_path, saved_model(signatures={}))).inputs == ()


@pytest.mark.parametrize(
    "op",
    [
        *("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "Save", "SaveSlices"),
        *("TextLineDataset", "TFRecordDatasetV2", "ExperimentalCSVDataset", "SnapshotDatasetV2", "SaveDatasetV2"),
        *(
            "DataServiceDatasetV4",
            "RegisterDatasetV2",
            "WholeFileReaderV2",
            "CreateSummaryFileWriter",
            "RpcServerStart",
        ),
        *("DebugIdentityV3", "DumpTensor", "FileSystemSetConfiguration", "XlaCustomCallV2", "Restore", "RecordInput"),
        *("SnapshotNestedDatasetReader", "ExperimentalDatasetToTFRecord", "DistributedSave", "LMDBReader"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_graph_that_does_more_than_compute_needs_trust(tmp_path: Path, op: str, inside: bool) -> None:
    content = saved_model(inner=(node("Identity"), node(op))) if inside else saved_model(node("Identity"), node(op))
    found = describe(folder := put(tmp_path, content))
    assert found.safety == "pickle"
    assert found.metadata["needs_trust"] == [f"it has the operation {op}"]
    with pytest.raises(UnsafeError) as caught:
        import_model(folder)
    assert caught.value.exit_status == 6
    assert import_model(folder, trust=True).info["safety"] == "pickle"


@pytest.mark.parametrize(
    "op",
    [
        *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "InitializeTableFromTextFileV2", "ReadVariableOp", "Print"),
        *("TensorSliceDataset", "MapDataset", "TensorArrayReadV3", "StatefulPartitionedCall", "Restored", "MyPyFuncs"),
    ],
)
def test_what_every_model_has_stays_a_program(tmp_path: Path, op: str) -> None:
    found = describe(put(tmp_path, saved_model(node(op))))
    assert found.safety == "program"
    assert found.metadata.get("reads_files") == ([op] if "TextFile" in op else None)


@pytest.mark.parametrize(
    ("attributes", "safety"),
    [
        ({}, "program"),
        ({"output_stream": text("stderr")}, "program"),
        ({"output_stream": text("log(info)")}, "program"),
        ({"end": text("file://")}, "program"),
        ({"output_stream": text("file:///etc/passwd")}, "pickle"),
        ({"output_stream": message((9, "chosen_by_the_caller"))}, "pickle"),
        ({"output_stream": text("stderr") + text("file://x")}, "pickle"),
    ],
)
def test_printing_is_fine_but_not_into_a_file(tmp_path: Path, attributes: dict[str, bytes], safety: str) -> None:
    assert describe(put(tmp_path, saved_model(node("PrintV2", **attributes)))).safety == safety


def test_a_graph_that_is_given_twice_is_read_twice(tmp_path: Path) -> None:
    """TensorFlow merges the two: the second does not replace the first."""
    graphs = message((2, message((1, node("WriteFile")))), (2, message((1, node("AddV2")))))
    content = message((1, 1), (2, message((1, message((4, "serve")))) + graphs))
    assert describe(put(tmp_path, content)).safety == "pickle"


def test_variables_and_assets_must_be_there(tmp_path: Path) -> None:
    content = saved_model(node("VarHandleOp"), assets=("vocab.txt",))
    shards = [f"variables/variables.data-0000{number}-of-00002" for number in (0, 1)]
    for others, expected in (
        ([], "assets/vocab.txt is missing"),
        (["assets/vocab.txt"], "variables are missing"),
        (["variables/variables.index"], "not all files"),
        ([shards[0]], "not all files"),
        ([shards[1]], None),
    ):
        folder = put(tmp_path, content, *others)
        if expected is None:
            break
        with pytest.raises(UsageError, match=expected):
            describe(folder)
    found = describe(folder)
    assert found.metadata["assets"] == ["vocab.txt"]
    assert found.metadata["variables_bytes"] == 15
    (folder / "variables/variables.index").unlink()
    with pytest.raises(UsageError, match=r"variables\.index is missing"):
        describe(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "", "a\\..\\b"])
def test_an_asset_outside_of_the_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeError, match="not a file in the model's folder"):
        describe(put(tmp_path, saved_model(assets=(name,))))


def test_a_model_in_a_folder_of_versions(tmp_path: Path) -> None:
    folder = put(tmp_path, saved_model(assets=("a",)), "assets/a")
    stored = import_model(tmp_path, "versions")
    assert (stored.info["main_file"], stored.main_path.name) == ("net/saved_model.pb", "saved_model.pb")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes())
    with pytest.raises(UsageError, match="several TensorFlow models"):
        import_model(tmp_path, "versions")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_other_forms_beside_it_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        describe(put(tmp_path, saved_model(), name))


def test_a_folder_of_transformers_stays_one(tmp_path: Path) -> None:
    """Its copies for TensorFlow are not the model."""
    folder = put(tmp_path, saved_model())
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}', encoding="utf-8")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert import_model(folder).info["framework"] == "huggingface"


def test_what_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "frozen.pb"
    path.write_bytes(saved_model())
    assert TensorflowFramework().detect(source_files(path)) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"just some text\n", "byte"),
        (b"\x08\x01", "has no graph"),
        (message((1, 9), (2, message((1, message((4, "serve"))), (2, message((1, node("Add"))))))), "schema version 9"),
        (message((2, b"")), "no tags or no operations"),
        (saved_model()[:-3], "truncated at byte"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated at byte 10"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\x13", "wire type 3"),
        (b"\x10\x01", "a number where a message"),
        (saved_model(signatures={"s": signature({}, {"y": tensor(1, [1] * 300)})}), "more than 256 axes"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        describe(put(tmp_path, content))
    assert caught.value.message.startswith("saved_model.pb is")


@pytest.mark.parametrize(
    ("module", "name", "value", "expected"),
    [
        (wire, "_MAX_FIELDS", 200, "more than 200 fields"),
        (wire, "_MAX_TEXT", 100, "more than 100 bytes"),
        (reader, "_MAX_KEPT", 10, "more than 10 bytes of names"),
    ],
)
def test_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: int, expected: str
) -> None:
    monkeypatch.setattr(module, name, value)
    with pytest.raises(UsageError, match=expected):
        describe(put(tmp_path, saved_model(*[node("AddV2")] * 100)))


SAMPLE = saved_model(node("PrintV2", output_stream=text("stderr")), inner=(node("MatMul"),), assets=("a",))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any) -> None:
    content = bytearray(SAMPLE)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content) * 2))
    folder = put(tmp_path, bytes(content[:cut]), "assets/a")
    try:
        describe(folder)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    try:
        describe(put(tmp_path, content))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017


def test_looking_at_a_model_imports_no_tensorflow(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins(), trust=True)
assert not {"tensorflow", "keras", "numpy", "pickle", "google.protobuf", "h5py"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(put(tmp_path, saved_model()))], check=True, timeout=60)


def test_the_loader_takes_nothing_but_true_for_consent(tmp_path: Path, require_package: Any) -> None:
    require_package("tensorflow")
    folder = put(tmp_path, saved_model(node("WriteFile")))
    for trust in (False, 1, "yes"):
        with pytest.raises(loader.UnsafeModelError, match="WriteFile"):
            loader.load(folder / "saved_model.pb", trust=trust)
