"""Models made, loaded and run by TensorFlow and Keras themselves."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bentotool_tensorflow import keras_loader, loader
from bentotool_tensorflow.framework import TensorflowFramework

from bentotool.errors import UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import check_framework, source_files

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def _needs(require_package: Callable[[str], None]) -> None:
    require_package("tensorflow")


@pytest.fixture
def tf() -> Any:
    import tensorflow

    return tensorflow


@pytest.fixture
def keras() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras


@pytest.fixture
def x() -> Any:
    import numpy

    return numpy.arange(8, dtype="float32").reshape(2, 4)


def linear(tf: Any, function: Callable[..., Any] | None = None) -> Any:
    class Linear(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable([[1.0], [2.0], [3.0], [4.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])  # type: ignore[untyped-decorator]
        def predict(self, x: Any) -> Any:
            return {"y": (function or (lambda value: value))(x) @ self.weight}

    return Linear()


def digits(keras: Any) -> Any:
    """A model with operations between layers, several initialisers and a training state."""
    entry = keras.Input((4,), name="x")
    left = keras.layers.Dense(3, activation="relu", kernel_regularizer="l2")(entry)
    right = keras.layers.Dense(3, kernel_initializer=keras.initializers.HeNormal(), activation=keras.ops.tanh)(entry)
    model = keras.Model(entry, keras.layers.Dense(2, name="y")((left + right * 2.0)[:, :2]))
    metrics = [keras.metrics.MeanMetricWrapper(keras.losses.log_cosh), "mae"]
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)), "mse", metrics=metrics)
    return model


def lite(tf: Any, module: Any) -> bytes:
    concrete = module.predict.get_concrete_function()
    content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()
    return content


def test_contract(tf: Any, keras: Any, tmp_path: Path) -> None:
    for name in ("saved", "scratch", "exported"):
        (tmp_path / name).mkdir()
    TensorflowFramework().save(linear(tf), tmp_path / "saved")
    TensorflowFramework().save(digits(keras), tmp_path / "exported")
    (tmp_path / "net.tflite").write_bytes(lite(tf, linear(tf)))
    samples = [tmp_path / name for name in ("saved", "exported", "net.tflite")]
    infos = check_framework("tensorflow", samples, scratch=tmp_path / "scratch")
    assert [info.safety for info in infos] == ["program", "program", "data"]
    assert infos[0].inputs == (TensorSpec("x", "float32", (None, 4)),)
    assert infos[0].outputs == (TensorSpec("y", "float32", (None, 1)),)


def test_contract_of_keras(keras: Any, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    digits(keras).save(tmp_path / "net.keras")
    (info,) = check_framework("keras", [tmp_path / "net.keras"], scratch=tmp_path / "scratch")
    assert (info.safety, info.metadata["keras_version"]) == ("program", keras.__version__)
    assert info.inputs == (TensorSpec("x", "float32", (None, 4)),)
    assert info.outputs == (TensorSpec("y", "float32", (None, 2)),)


def test_a_module_is_saved_loaded_and_run(tf: Any, x: Any) -> None:
    module = linear(tf)
    stored = namespace("tensorflow").save_model("net", module, tf_signatures={"go": module.predict})
    assert (stored.info["safety"], stored.info["metadata"]["default_signature"]) == ("program", "go")
    loaded = namespace("tensorflow").load_model("net:latest", device_name="/device:CPU:0")
    expected = x @ [[1], [2], [3], [4]]
    assert (loaded.signatures["go"](tf.constant(x))["y"].numpy() == expected).all()
    assert (loaded.predict(x)["y"].numpy() == expected).all()


def test_a_keras_model_is_exported_and_run(tf: Any, keras: Any, x: Any) -> None:
    model = digits(keras)
    namespace("tensorflow").save_model("net", model)
    loaded = namespace("tensorflow").load_model("net:latest")
    assert abs(loaded.serve(tf.constant(x)).numpy() - model.predict(x, verbose=0)).max() < 1e-6


def test_a_lite_model_is_saved_loaded_and_run(tf: Any, x: Any) -> None:
    stored = namespace("tensorflow").save_model("small", lite(tf, linear(tf)))
    assert stored.info["safety"] == "data"
    interpreter = namespace("tensorflow").load_model("small:latest", num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, [2, 4])
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert (answer == x @ [[1], [2], [3], [4]]).all()


def test_a_keras_model_is_saved_loaded_and_run(keras: Any, x: Any) -> None:
    model = digits(keras)
    model.fit(x, x[:, :2], verbose=0)
    stored = namespace("keras").save_model("net", model)
    assert (stored.info["safety"], stored.info["main_file"]) == ("program", "model.keras")
    assert namespace("keras").save_model("net", model).tag == stored.tag, "the same model, another version"
    for options in ({}, {"compile": False}, {"device_name": "/device:CPU:0"}):
        loaded = namespace("keras").load_model("net:latest", **options)
        assert (loaded.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
        assert loaded.compiled is options.get("compile", True)


def test_layers_of_many_kinds_are_on_the_list(tf: Any, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=6, standardize="lower")
    words.adapt(["a b c", "d e a"])
    model = keras.Sequential(
        [
            *(keras.Input((1,), dtype="string"), words, layers.Embedding(20, 8), layers.SpatialDropout1D(0.1)),
            *(layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.Conv1D(4, 2), layers.PReLU()),
            *(
                layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(3)], return_sequences=True),
                layers.UnitNormalization(),
            ),
            *(layers.TimeDistributed(layers.Dense(2, kernel_constraint="max_norm")), layers.LayerNormalization()),
            *(layers.GlobalAveragePooling1D(), layers.Rescaling(0.5), layers.Dense(2, dtype="mixed_float16")),
        ]
    )
    losses = [keras.losses.Huber(), keras.losses.CategoricalCrossentropy()]
    for loss in losses:
        model.compile(keras.optimizers.AdamW(), loss, metrics=[keras.metrics.AUC(), keras.metrics.R2Score()])
        path = tmp_path / "net.keras"
        model.save(path)
        stored = import_model(path, "many")
        assert stored.info["safety"] == "program", stored.info["metadata"]
        assert len(stored.info["metadata"]["assets"]) == 2
    text = tf.constant([["a b z"]])
    loaded = namespace("keras").load_model("many")
    assert (loaded.predict(text, verbose=0) == model.predict(text, verbose=0)).all()


def test_the_list_holds_nothing_but_classes_of_keras(keras: Any) -> None:
    from keras.src import api_export

    for module, names in keras_loader.CLASSES.items():
        for name in names:  # one that the installed release does not have yet, or any more, is None
            assert isinstance(api_export.get_symbol_from_name(f"{module}.{name}"), type | None), f"{module}.{name}"
    missing = [name for name in keras_loader.CLASSES["keras.layers"] if not hasattr(keras.layers, name)]
    assert len(missing) < 10, missing


def test_a_lambda_is_refused_and_not_run(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layer = keras.layers.Lambda(lambda value: (__import__("os").makedirs("canary", exist_ok=True), value)[1])
    inner = keras.Sequential([keras.Input((4,)), layer])
    outer = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2)])
    outer.save(tmp_path / "net.keras")
    os.rmdir("canary")
    path = tmp_path / "net.keras"
    with pytest.raises(UnsafeError) as caught:
        import_model(path)
    assert caught.value.exit_status == 6
    with pytest.raises(keras_loader.UnsafeModelError, match=r"keras\.layers\.Lambda"):
        keras_loader.load(path)
    import_model(path, "evil", trust=True)  # importing runs nothing either
    with pytest.raises(UnsafeError):
        namespace("keras").load_model("evil")
    with pytest.raises(UnsafeError):
        namespace("keras").save_model("evil", outer)
    assert not (tmp_path / "canary").exists()
    namespace("keras").load_model("evil", trust=True)
    assert (tmp_path / "canary").exists()


def test_a_layer_of_ones_own_needs_trust(keras: Any, tmp_path: Path, x: Any) -> None:
    class Twice(keras.layers.Layer):  # type: ignore[misc]
        def call(self, value: Any) -> Any:
            return value * 2

    model = keras.Sequential([keras.Input((4,)), Twice()])
    with pytest.raises(UnsafeError):
        namespace("keras").save_model("own", model)
    stored = namespace("keras").save_model("own", model, trust=True)
    assert stored.info["safety"] == "pickle"
    loaded = namespace("keras").load_model("own", trust=True, custom_objects={"Twice": Twice})
    assert (loaded.predict(x, verbose=0) == x * 2).all()


def test_a_legacy_file_needs_trust(keras: Any, tmp_path: Path, x: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "net.h5")
    with pytest.raises(UnsafeError):
        import_model(tmp_path / "net.h5")
    import_model(tmp_path / "net.h5", "old", trust=True)
    loaded = namespace("keras").load_model("old", trust=True)
    assert (loaded.predict(x, verbose=0) == model.predict(x, verbose=0)).all()


def with_weights(
    keras: Any, tmp_path: Path, change: Callable[[Any, Any], None], compression: int = zipfile.ZIP_STORED
) -> Path:
    """A file of Keras's whose weights were changed after it was saved."""
    import h5py

    digits(keras).save(tmp_path / "good.keras")
    with (
        zipfile.ZipFile(tmp_path / "good.keras") as old,
        zipfile.ZipFile(tmp_path / "net.keras", "w", compression) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name == keras_loader.WEIGHTS:
                buffer = io.BytesIO(content)
                with h5py.File(buffer, "r+") as file:
                    change(file, h5py)
                content = buffer.getvalue()
            new.writestr(name, content)
    return tmp_path / "net.keras"


def bias(file: Any) -> Any:
    return next(group for group in file["layers"].values() if "vars" in group and "1" in group["vars"])["vars"]


def external(file: Any, h5py: Any) -> None:
    group = bias(file)
    shape = group["1"].shape
    del group["1"]
    group.create_dataset("1", shape, "float32", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def link(file: Any, h5py: Any) -> None:
    group = bias(file)
    del group["1"]
    group["1"] = h5py.ExternalLink("/somewhere/else.h5", "/x")


def soft(file: Any, h5py: Any) -> None:
    file["again"] = h5py.SoftLink("/layers")


def huge(file: Any, h5py: Any) -> None:
    file.create_dataset("huge", (1 << 40,), "float32", chunks=(1 << 20,))


def virtual(file: Any, h5py: Any) -> None:
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource("/somewhere/else.h5", "x", (3,))
    file.create_virtual_dataset("virtual", layout)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *((external, "in another file"), (link, "to another place"), (soft, "to another place")),
        *((huge, "would unpack to"), (virtual, "in another file")),
    ],
)
def test_weights_that_lead_out_of_their_file(
    keras: Any, tmp_path: Path, change: Callable[[Any, Any], None], expected: str, compression: int
) -> None:
    with pytest.raises(ValueError, match=expected):
        keras_loader.load(with_weights(keras, tmp_path, change, compression))


def test_damaged_weights(keras: Any, tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        path = with_weights(keras, tmp_path, lambda file, h5py: None, compression)
        keras_loader.load(path)
    content = path.read_bytes()
    at = content.find(keras_loader.HDF5_SIGNATURE)
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(keras_loader.WEIGHTS).file_size
    assert size > 100
    path.write_bytes(content[: at + 8] + b"\xff" * 60 + content[at + 68 :])
    with pytest.raises(keras_loader.InvalidModelError, match="is damaged"):
        keras_loader.load(path)


def test_a_graph_that_writes_a_file_is_refused_and_not_run(
    tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Evil(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # type: ignore[untyped-decorator]
        def predict(self, content: Any) -> Any:
            tf.io.write_file("canary", content)
            tf.print(content, output_stream="file://canary")
            return tf.numpy_function(lambda value: value, [content], tf.string)

    tf.saved_model.save(Evil(), str(tmp_path / "evil"))
    with pytest.raises(UnsafeError):
        import_model(tmp_path / "evil")
    with pytest.raises(loader.UnsafeModelError) as caught:
        loader.load(tmp_path / "evil" / "saved_model.pb")
    assert all(name in str(caught.value) for name in ("WriteFile", "PrintV2", "PyFunc"))
    import_model(tmp_path / "evil", "evil", trust=True)
    loaded = namespace("tensorflow").load_model("evil", trust=True)
    assert not (tmp_path / "canary").exists()
    loaded.predict("x")
    assert (tmp_path / "canary").exists()


def test_a_vocabulary_is_an_asset(tf: Any, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n", encoding="utf-8")

    class Lookup(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            source = tf.lookup.TextFileInitializer(str(words), tf.string, whole, tf.int64, number)
            self.table = tf.lookup.StaticHashTable(source, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def predict(self, text: Any) -> Any:
            return self.table.lookup(text)

    stored = namespace("tensorflow").save_model("lookup", Lookup())
    words.unlink()
    facts = stored.info["metadata"]
    assert (facts["assets"], facts["reads_files"]) == (["words.txt"], ["InitializeTableFromTextFileV2"])
    loaded = namespace("tensorflow").load_model("lookup")
    assert loaded.predict(tf.constant(["b", "z"])).numpy().tolist() == [1, -1]


def test_operations_of_tensorflow_in_a_lite_model(tf: Any, tmp_path: Path) -> None:
    class Flex(tf.Module):  # type: ignore[misc]
        def __init__(self, write: bool) -> None:
            super().__init__()
            self.write = write

        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32)])  # type: ignore[untyped-decorator]
        def predict(self, x: Any) -> Any:
            if self.write:
                tf.io.write_file("canary", tf.strings.as_string(x[0]))
            return tf.raw_ops.Bincount(arr=tf.cast(x, tf.int32), size=3, weights=x)

    for write, safety in ((False, "program"), (True, "pickle")):
        module = Flex(write)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.predict.get_concrete_function()], module)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        path = tmp_path / "flex.tflite"
        path.write_bytes(converter.convert())
        info = TensorflowFramework().describe(source_files(path))
        assert (info.safety, "FlexBincount" in info.metadata["tensorflow_operators"]) == (safety, True)
    with pytest.raises(loader.UnsafeModelError, match="WriteFile"):
        loader.load(path)


@pytest.mark.parametrize("thing", ["text", 3, {}, object()])
@pytest.mark.parametrize("framework", ["tensorflow", "keras"])
def test_only_models_are_saved(framework: str, thing: object) -> None:
    with pytest.raises(UsageError):
        namespace(framework).save_model("thing", thing)
    with pytest.raises(UsageError, match="takes no option colour"):
        namespace(framework).save_model("thing", b"", colour="red")


def test_wrong_options_are_refused(tf: Any, tmp_path: Path) -> None:
    TensorflowFramework().save(linear(tf), tmp_path)
    with pytest.raises(TypeError, match="num_threads"):
        loader.load(tmp_path / "saved_model.pb", num_threads=2)
    (tmp_path / "net.tflite").write_bytes(lite(tf, linear(tf)))
    with pytest.raises(TypeError, match="tags"):
        loader.load(tmp_path / "net.tflite", tags=["serve"])
    with pytest.raises(loader.InvalidModelError):
        loader.load(tmp_path / "variables" / "variables.index")


def test_what_keras_writes_agrees_with_what_is_read(keras: Any, tmp_path: Path) -> None:
    digits(keras).save(tmp_path / "net.keras")
    found = keras_loader.inspect(tmp_path / "net.keras")
    assert found is not None
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        assert found.config == json.loads(archive.read("config.json"))
