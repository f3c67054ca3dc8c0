"""Keras files written by hand; neither Keras nor TensorFlow is needed."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from bentotool_tensorflow import keras_loader as loader
from bentotool_tensorflow.keras_canonical import rewrite
from bentotool_tensorflow.keras_framework import KerasFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import source_files

FLOAT = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}


def layer(kind: str, module: str = "keras.layers", registered: str | None = None, **config: Any) -> dict[str, Any]:
    table = {"module": module, "class_name": kind, "config": {"name": kind.lower(), "dtype": FLOAT, **config}}
    return {**table, "registered_name": registered}


ENTRY = layer("InputLayer", batch_shape=[None, 4], dtype="float32")
DENSE = {**layer("Dense", units=2, activation="relu"), "build_config": {"input_shape": [None, 4]}}


def sequential(*layers: Any, **config: Any) -> dict[str, Any]:
    return layer("Sequential", "keras", layers=[ENTRY, DENSE, *layers], **config)


def archive(members: dict[str, Any] | None = None, config: Any = None, **options: Any) -> bytes:
    """A file of Keras's; ``members`` replace and add, None leaves out."""
    content: dict[str, Any] = {
        "metadata.json": {"keras_version": "3.12.0", "date_saved": "2026-01-01@00:00:00"},
        "config.json": sequential() if config is None else config,
        "model.weights.h5": loader.HDF5_SIGNATURE + b"\0" * 100,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as target:
        for name, value in {**content, **(members or {})}.items():
            if value is not None:
                target.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return buffer.getvalue()


def put(tmp_path: Path, content: bytes, name: str = "net.keras") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def describe(path: Path) -> ModelInfo:
    framework = KerasFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_description(tmp_path: Path) -> None:
    found = describe(put(tmp_path, archive({"assets/a/vocabulary.txt": b"a\nb\n"})))
    assert (found.format, found.safety, found.main_file) == ("keras", "program", "net.keras")
    assert found.inputs == (TensorSpec("inputlayer", "float32", (None, 4)),)
    assert found.outputs == (TensorSpec("dense", "float32", (None, 2)),)
    assert found.metadata == {
        "keras_version": "3.12.0",
        "model_class": "Sequential",
        "layers": 2,
        "layer_types": {"InputLayer": 1, "Dense": 1},
        "compiled": False,
        "weights_bytes": 108,
        "assets": ["assets/a/vocabulary.txt"],
    }


def test_ends_of_a_functional_model(tmp_path: Path) -> None:
    config = {
        **layer("Functional", "keras.src.models.functional", "Functional", layers=[ENTRY, DENSE, layer("Flatten")]),
    }
    config["config"] |= {
        "input_layers": {"a": ["inputlayer", 0, 0]},
        "output_layers": [["dense", 0, 0], ["flatten", 0, 0], ["nowhere", 0, 0]],
    }
    found = describe(put(tmp_path, archive(config=config)))
    assert [spec.name for spec in found.inputs] == ["inputlayer"]
    assert [(spec.name, spec.shape) for spec in found.outputs] == [("dense", (None, 2)), ("flatten", ("...",))]


GOOD = [
    layer("Bidirectional", layer=layer("LSTM", units=3, kernel_initializer=layer("HeNormal", "keras.initializers"))),
    layer("Add", "keras.src.ops.numpy", "Add"),
    layer("Cast", "keras.src.ops.core", "Cast"),
    layer(
        "Dense",
        activation={"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "relu"},
    ),
    layer(
        "Dense",
        activation={"module": "builtins", "class_name": "function", "config": "mse", "registered_name": "function"},
    ),
    layer("StringLookup", vocabulary=["a", "http://b"]),
    {"class_name": "__keras_tensor__", "config": {"shape": [None, 4]}},
]

CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA", "defaults": None, "closure": None}}
BAD = [
    (layer("Lambda", function=CODE), "keras.layers.Lambda"),
    (
        layer("TimeDistributed", layer=layer("Bidirectional", layer=layer("Lambda", function=CODE))),
        "keras.layers.Lambda",
    ),
    (layer("Dense", activation=CODE), "__lambda__"),
    (layer("Dense", kernel_initializer=[{"x": [[CODE]]}]), "__lambda__"),
    (layer("TFSMLayer", filepath="/tmp/x"), "TFSMLayer"),  # CVE-2026-1462
    (layer("TorchModuleWrapper", module="AAAA"), "TorchModuleWrapper"),
    (layer("JaxLayer"), "JaxLayer"),
    (layer("FlaxLayer"), "FlaxLayer"),
    (layer("MyLayer", "my_package.layers", "my_package>MyLayer"), "my_package.layers.MyLayer"),
    (layer("Dense", registered="my_package>Dense"), "registered as my_package>Dense"),
    (layer("Popen", "subprocess"), "subprocess.Popen"),
    (layer("_SubprocessFunction", "keras.src.layers"), "keras.src.layers._SubprocessFunction"),
    (layer("Dense", "keras.layers.core"), "keras.layers.core.Dense"),
    (layer("Add", "keras.src.ops.numpy.os"), "keras.src.ops.numpy.os.Add"),
    (layer("os", "keras.src.ops.numpy"), "keras.src.ops.numpy.os"),
    ({"class_name": "Dense", "config": {"name": "d"}}, "makes a ?.Dense"),  # the legacy form, which has its own reader
    ({"class_name": ["Dense"], "module": "keras.layers", "config": {}}, "no named class"),
    ({"class_name": "Dense", "module": ["keras.layers"], "config": {}}, "no named class"),
    ({"class_name": "__typespec__", "module": "os", "spec_name": "x", "config": []}, "os.__typespec__"),
    (layer("StringLookup", vocabulary="/etc/passwd"), "reads the file '/etc/passwd'"),
    (layer("TextVectorization", vocabulary="gs://bucket/words"), "reads the file 'gs://bucket/words'"),
]
FUNCTIONS = [  # CVE-2025-1550, CVE-2025-8747, CVE-2025-9906 and what resembles them
    ("os", "system"),
    ("builtins", "exec"),
    ("builtins", "eval"),
    ("keras.utils", "get_file"),
    ("keras.utils", "load_img"),
    ("keras.config", "enable_unsafe_deserialization"),
    ("keras.models", "load_model"),
    ("keras.saving", "deserialize_keras_object"),
    ("keras.activations", "deserialize"),
    ("keras.src.utils.python_utils", "func_load"),
    ("numpy", "load"),
    (None, "relu"),
    ("keras.layers", "TFSMLayer"),  # a class called as a function, past its from_config
    ("keras.layers", "Lambda"),
    ("keras.x", "a\nb"),
]


@pytest.mark.parametrize("part", GOOD)
def test_models_of_keras_own_parts_are_programs(tmp_path: Path, part: Any) -> None:
    found = describe(put(tmp_path, archive(config=sequential(part))))
    assert (found.safety, found.metadata.get("needs_trust")) == ("program", None)


def refused(tmp_path: Path, config: Any, reason: str) -> None:
    path = put(tmp_path, archive(config=config))
    found = describe(path)
    assert found.safety == "pickle"
    assert any(reason in text for text in found.metadata["needs_trust"]), found.metadata["needs_trust"]
    with pytest.raises(UnsafeError) as caught:
        import_model(path)
    assert caught.value.exit_status == 6
    for trust in (False, 1, "yes"):
        with pytest.raises(loader.UnsafeModelError, match="trust=True loads it"):
            loader.load(path, trust=trust)  # before anything of Keras is imported


@pytest.mark.parametrize(("part", "reason"), BAD, ids=[str(number) for number in range(len(BAD))])
@pytest.mark.parametrize("place", ["layer", "compile_config", "build_config"])
def test_anything_else_needs_trust(tmp_path: Path, part: Any, reason: str, place: str) -> None:
    config = sequential(part) if place == "layer" else {**sequential(), place: {"deep": [{"er": [part]}]}}
    refused(tmp_path, config, reason)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_functions_that_are_no_part_of_a_model_need_trust(tmp_path: Path, module: str | None, name: str) -> None:
    function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    shown = name.replace("\n", "\\n")
    refused(tmp_path, sequential(layer("Dense", activation=function)), f"uses the function {module or '?'}.{shown}")


def test_a_function_without_a_name_needs_trust(tmp_path: Path) -> None:
    function = {"module": "builtins", "class_name": "function", "config": ["relu"], "registered_name": None}
    refused(tmp_path, sequential(layer("Dense", activation=function)), "uses the function builtins.")


def test_an_alias_of_a_function_needs_trust(tmp_path: Path) -> None:
    function = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "my>thing"}
    refused(tmp_path, sequential(layer("Dense", activation=function)), "builtins.relu")


def test_the_outermost_object_counts_too(tmp_path: Path) -> None:
    refused(tmp_path, layer("Model", "my_package", "my_package>Model"), "my_package.Model")


def test_a_document_is_read_as_keras_reads_it(tmp_path: Path) -> None:
    """Of two entries with one key the last counts, for Keras and for us."""
    good, evil = json.dumps(sequential()), json.dumps(sequential(BAD[0][0]))
    text = '{"module": "keras", "class_name": "Sequential", "registered_name": null, "config": %s, "config": %s}'
    for first, second, safety in ((good, evil, "pickle"), (evil, good, "program")):
        inner = [json.dumps(json.loads(item)["config"]) for item in (first, second)]
        assert describe(put(tmp_path, archive({"config.json": (text % tuple(inner)).encode()}))).safety == safety


def test_weights_as_npz_need_trust(tmp_path: Path) -> None:
    found = describe(put(tmp_path, archive({"model.weights.h5": None, "model.weights.npz": b"PK"})))
    assert found.safety == "pickle"
    assert "model.weights.npz" in found.metadata["needs_trust"][0]


@pytest.mark.parametrize("name", ["net.h5", "net.hdf5", "net.keras", "net"])
def test_hdf5_always_needs_trust(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, loader.HDF5_SIGNATURE + bytes(1 << 20) + b"model_config\0", name)
    found = describe(path)
    assert (found.format, found.safety) == ("keras_h5", "pickle")
    with pytest.raises(UnsafeError):
        import_model(path)
    with pytest.raises(loader.UnsafeModelError, match="no safe mode"):
        loader.load(path)


def test_a_text_over_the_edge_of_two_pieces_is_found(tmp_path: Path) -> None:
    for edge in range(1, 14):
        assert loader._mentions(put(tmp_path, bytes((1 << 20) - edge) + b"model_config"), b"model_config")
    assert not loader._mentions(put(tmp_path, bytes(1 << 21)), b"model_config")


def test_what_is_not_ours(tmp_path: Path) -> None:
    framework = KerasFramework()
    assert framework.detect(source_files(put(tmp_path, loader.HDF5_SIGNATURE + b"weights", "w.h5"))) is None
    assert framework.detect(source_files(put(tmp_path, archive({"config.json": None}), "some.zip"))) is None
    assert framework.detect(source_files(put(tmp_path, b"PK\x03\x04 and so on", "some.zip"))) is None
    folder = tmp_path / "bert"
    folder.mkdir()
    put(folder, archive())
    assert framework.detect(source_files(folder)) is not None
    put(folder, b"{}", "config.json")
    assert framework.detect(source_files(folder)) is None


def test_a_file_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only from a file named \.keras") as caught:
        describe(put(tmp_path, archive(), "net.zip"))
    assert caught.value.hint == "rename it to net.keras"


def test_several_files(tmp_path: Path) -> None:
    put(tmp_path, archive(), "a.keras")
    put(tmp_path, archive(), "b.keras")
    with pytest.raises(UsageError, match="several Keras models"):
        describe(tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "assets/../../evil", "C:evil", "a\\..\\evil", "./../evil", "\\\\host\\share", "a/.."]
)
def test_members_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a file inside the archive"):
        describe(put(tmp_path, archive({name: b"x"})))


def symlink() -> bytes:
    buffer = io.BytesIO(archive())
    with zipfile.ZipFile(buffer, "a") as target:
        entry = zipfile.ZipInfo("assets/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO(archive())
    with zipfile.ZipFile(buffer, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr("config.json", json.dumps(sequential()))
    return buffer.getvalue()


def large_directory() -> bytes:
    content = bytearray(archive())
    at = content.rfind(b"PK\x05\x06") + 12
    content[at : at + 4] = (len(content) + 1).to_bytes(4, "little")
    return bytes(content)


def test_damaged_and_hostile_archives(tmp_path: Path) -> None:
    good = archive()
    many = {f"assets/{number}": b"" for number in range(loader.MAX_MEMBERS)}
    for content, expected in (
        (b"", "no archive of Keras 3"),
        (b"text", "no archive of Keras 3"),
        (good[:-30], "has no directory"),
        (large_directory(), "claims a directory"),
        (symlink(), "not a file inside"),
        (twice(), "members of the same name"),
        (archive(many), "more than 10000 members"),
        (archive({"config.json": b"[" * 200_000}), "is not JSON"),
        (archive({"config.json": b"\xff\xfe"}), "is not JSON"),
        (archive({"config.json": []}), "not a JSON object"),
        (archive({"config.json": {}}), "describes no model"),
        (archive({"config.json": None}), "no archive of Keras 3"),
        (archive({"model.weights.h5": None}), "has no model.weights.h5"),
        (
            archive(compression=zipfile.ZIP_DEFLATED).replace(
                b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
            ),
            "encrypt",
        ),
    ):
        with pytest.raises(UsageError, match=expected) as caught:
            describe(put(tmp_path, content))
        assert caught.value.message.startswith("net.keras is not a valid Keras file: ")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive({"model.weights.h5": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert describe(put(tmp_path, bomb)).safety == "program"
    monkeypatch.setattr(loader, "MAX_UNPACKED", 1 << 19)
    with pytest.raises(UsageError, match="would unpack to"):
        describe(put(tmp_path, bomb))
    monkeypatch.setattr(loader, "MAX_CONFIG", 300)
    with pytest.raises(UsageError, match=r"config\.json is larger than 300 bytes"):
        describe(put(tmp_path, archive()))
    monkeypatch.undo()
    monkeypatch.setattr(loader, "MAX_CONTAINERS", 10)
    with pytest.raises(UsageError, match="more than 10 objects"):
        describe(put(tmp_path, archive()))


def test_odd_descriptions_are_described(tmp_path: Path) -> None:
    for config in (
        {"layers": 3},
        {"layers": [3, {"class_name": 4, "config": {"name": []}}]},
        {"layers": [ENTRY], "output_layers": {"a": [["inputlayer", 0, 0]]}},
        {"layers": [layer("InputLayer", batch_shape=["x", True, -1], dtype=5)]},
        {"layers": [], "output_layers": None},
    ):
        describe(put(tmp_path, archive(config=layer("Sequential", "keras", **config))))


def test_options_of_bentoml_are_refused_with_a_hint(tmp_path: Path) -> None:
    for name, hint in (("include_optimizer", "not compiled"), ("tf_signatures", "bentotool.tensorflow"), ("x", None)):
        with pytest.raises(UsageError, match=f"takes no option {name}") as caught:
            KerasFramework().save(object(), tmp_path, **{name: True})
        assert (hint or "") in (caught.value.hint or "")


def test_a_file_is_rewritten_without_times_and_addresses(tmp_path: Path) -> None:
    contents = []
    for number in (7, 8):
        shared = {**layer("Dense"), "shared_object_id": number * 1000}
        members = {"metadata.json": {"keras_version": "3", "date_saved": str(number)}, "model.weights.h5": b"w" * 3}
        path = put(tmp_path, archive(members, sequential(shared, shared)))
        rewrite(path)
        contents.append(path.read_bytes())
        assert [item.name for item in tmp_path.iterdir()] == ["net.keras"]
    assert contents[0] == contents[1]
    found = loader.inspect(path)
    assert found is not None
    assert found.metadata == {"keras_version": "3"}
    assert [item.get("shared_object_id") for item in found.config["config"]["layers"]] == [None, None, 1, 1]


SAMPLES = (archive(), archive(compression=zipfile.ZIP_DEFLATED), archive(config=sequential(BAD[0][0])))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sample=st.sampled_from(SAMPLES))
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any, sample: bytes) -> None:
    content = bytearray(sample)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content) * 2))
    try:
        describe(put(tmp_path, bytes(content[:cut])))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


NAMES = st.sampled_from(["class_name", "module", "config", "registered_name", "layers", "name", "vocabulary", "x"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["Dense", "keras.layers", "function"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=JSON)
def test_any_description(tmp_path: Path, config: Any) -> None:
    document = {"class_name": "Sequential", "module": "keras", "config": {"layers": config, "output_layers": config}}
    found = describe(put(tmp_path, archive(config=document)))
    json.dumps(dict(found.metadata), allow_nan=False)
