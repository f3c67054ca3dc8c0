from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bentotool_huggingface import loader
from bentotool_huggingface.framework import HuggingFaceFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import Match, ModelInfo
from bentotool.models.api import import_model
from bentotool.testing import check_framework, check_plugin, check_served, source_files


class Canary:
    """What a hostile pickle does: runs a program of the author's choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def tensors(header: object = None, data: bytes = bytes(24)) -> bytes:
    """A safetensors file; two tensors of 16 and 8 bytes by default."""
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
        }
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(
    keys: tuple[bytes, ...] | None = None,
    infos: tuple[bytes, ...] | None = None,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: bytes = bytes(64 + 36),
) -> bytes:
    """A GGUF file with an F32 and a Q8_0 tensor by default."""
    if keys is None:
        keys = (
            string("general.architecture") + struct.pack("<I", 8) + string("llama"),
            string("general.name") + struct.pack("<I", 8) + string("tiny"),
            string("general.file_type") + struct.pack("<II", 4, 7),
            string("llama.context_length") + struct.pack("<II", 4, 2048),
            string("tokenizer.chat_template") + struct.pack("<I", 8) + string("{{ ''.__class__.__mro__ }}" * 400),
            string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b"),
            string("tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.0, 1.0),
        )
    if infos is None:
        infos = (info("a", (16,), 0, 0), info("b", (32,), 8, 64))
    start = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(infos), len(keys))))
    head = start + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "safety_checker": [None, None],
}


def folder(path: Path, **files: object) -> Path:
    """A folder; dots in names are written ``__``, slashes ``___``."""
    for name, content in files.items():
        target = path / name.replace("___", "/").replace("__", ".")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def describe(path: Path) -> ModelInfo:
    framework = HuggingFaceFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    return folder(tmp_path / "bert", config__json=CONFIG, model__safetensors=tensors(), tokenizer__json={})


def test_plugin() -> None:
    check_plugin("huggingface")


def test_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors.numpy")
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "torch")  # it takes precedence for tensors on their own
    path = folder(tmp_path, tiny__safetensors=tensors(), scratch___note=b"") / "tiny.safetensors"
    infos = check_framework("huggingface", [path], scratch=tmp_path / "scratch")
    assert infos[0].metadata == {"tensors": 2, "parameters": 6, "dtypes": ["float32"]}


def test_a_transformers_folder(transformer: Path) -> None:
    found = describe(transformer)
    assert (found.format, found.safety, found.main_file) == ("transformers", "data", "")
    assert found.metadata == {
        "library": "transformers",
        "model_type": "bert",
        "architectures": ["BertModel"],
        "context_length": 512,
        "tensors": 2,
        "parameters": 6,
        "dtypes": ["float32"],
        "tokenizer": True,
    }


def test_a_diffusers_folder(tmp_path: Path) -> None:
    path = folder(tmp_path, model_index__json=PIPELINE, unet___model__safetensors=tensors(), unet___config__json={})
    found = describe(path)
    assert (found.format, found.safety) == ("diffusers", "data")
    assert found.metadata["components"] == ["safety_checker", "unet"]
    assert found.metadata["pipeline"] == "StableDiffusionPipeline"


def test_shards_with_an_index(tmp_path: Path) -> None:
    one = tensors({"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}})
    two = tensors({"b": {"dtype": "BF16", "shape": [12], "data_offsets": [0, 24]}})
    path = folder(tmp_path, m_1__safetensors=one, m_2__safetensors=two)
    with pytest.raises(UsageError, match="several safetensors files and no index"):
        describe(path)
    folder(path, m__safetensors__index__json={"weight_map": {"a": "m_1.safetensors", "b": "m_2.safetensors"}})
    found = describe(path)
    assert found.main_file == "m.safetensors.index.json"
    assert found.metadata == {"tensors": 2, "parameters": 18, "dtypes": ["bfloat16", "float32"]}
    for table, expected in (
        ({"a": "../m_1.safetensors"}, "no shard beside it"),
        ({"a": "C:m_1.safetensors"}, "no shard beside it"),
        ({"a": "m_3.safetensors"}, "is not there"),
        ({"c": "m_1.safetensors"}, "does not have it"),
        ({"a": 1}, "no shard beside it"),
        ([], "no weight_map"),
    ):
        folder(path, m__safetensors__index__json={"weight_map": table})
        with pytest.raises(UsageError, match=expected):
            describe(path)


def test_tensors_load_as_arrays(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    pytest.importorskip("safetensors.numpy")
    one = tensors({"a": ENTRY}, numpy.arange(6, dtype="<f4").tobytes())
    path = folder(tmp_path, m_1__safetensors=one, m__safetensors__index__json={"weight_map": {"a": "m_1.safetensors"}})
    for name in ("m.safetensors.index.json", "m_1.safetensors"):
        assert loader.load(path / name)["a"].tolist() == [0, 1, 2, 3, 4, 5]


ENTRY = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "fewer than a header's length"),
        (struct.pack("<Q", 100_000_001), "is the most"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "is the most"),
        (struct.pack("<Q", 1000) + b"{}", "claims a header of 1000 bytes and has 2"),
        (tensors(b"[]"), "not a JSON object"),
        (tensors(b"{" * 100_000), "not JSON"),
        (tensors(b'{"a":' * 100_000), "not JSON"),
        (tensors(b"{\xff}"), "not JSON"),
        (tensors(b"{" + b"[]," * 1_000_000), "more than 1000000 objects and lists"),
        (tensors(b'{"a":{},"a":{}}'), "names a tensor twice"),
        (tensors({"a": 3}), "not described by an object"),
        (tensors({"a": {**ENTRY, "dtype": "F33"}}), "unknown dtype"),
        (tensors({"a": {**ENTRY, "shape": [-6]}}), "no valid shape"),
        (tensors({"a": {**ENTRY, "shape": [2**62] * 40}}), "no valid shape"),
        (tensors({"a": {**ENTRY, "shape": [True, 6]}}), "no valid shape"),
        (tensors({"a": {**ENTRY, "data_offsets": [0]}}), "no valid offsets"),
        (tensors({"a": {**ENTRY, "data_offsets": [0, 20]}}), "needs 24 bytes and is given 20"),
        (tensors({"a": {**ENTRY, "data_offsets": [24, 0]}}), "needs 24 bytes and is given -24"),
        (tensors({"a": {**ENTRY, "data_offsets": [4, 28]}}), "leaves a gap"),
        (tensors({"a": ENTRY, "b": ENTRY}), "overlaps"),
        (tensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [23, 47]}}, bytes(47)), "overlaps"),
        (tensors({"a": ENTRY, "b": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}}), "overlaps"),
        (tensors({"a": {**ENTRY, "data_offsets": [2**62, 2**62 + 24]}}), "leaves a gap"),
        (tensors({"a": {**ENTRY, "data_offsets": [2**64, 2**64 + 24]}}), "no valid offsets"),
        (tensors({"a": {**ENTRY, "data_offsets": [-24, 0]}}), "no valid offsets"),
        (tensors({"a": {**ENTRY, "data_offsets": [0.0, 24.0]}}), "no valid offsets"),
        (tensors({"a": {**ENTRY, "shape": [2**47, 2**47], "data_offsets": [0, 24]}}), "is given 24"),
        (tensors({"a": {**ENTRY, "shape": [0, 2**47], "data_offsets": [0, 24]}}), "is given 24"),
        (tensors(b'{"a":{"dtype":"F32","dtype":"U8","shape":[6],"data_offsets":[0,24]}}'), "names a tensor twice"),
        (tensors(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,24]}}'), "no valid shape"),
        (tensors(b'{"a":' + b"9" * 5000 + b"}"), "not JSON|not described"),
        (struct.pack("<Q", 100_000_000) + b"{", "claims a header of 100000000 bytes and has 1"),
        (struct.pack("<Q", 2**63) + b"{}", "is the most"),
        (tensors({"a": ENTRY}, bytes(20)), "take 24 bytes and it has 20"),
        (tensors({"a": ENTRY}, bytes(28)), "take 24 bytes and it has 28"),
        (tensors({"a": ENTRY, "__metadata__": {"a": 1}}), "not a mapping of text"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes, expected: str) -> None:
    path = folder(tmp_path, m__safetensors=content) / "m.safetensors"
    with pytest.raises(UsageError, match=expected) as caught:
        describe(path)
    assert caught.value.message.startswith("m.safetensors is not a valid safetensors file: ")
    assert "\n" not in caught.value.message


def test_a_gguf_file(tmp_path: Path) -> None:
    path = folder(tmp_path, tiny__gguf=gguf()) / "tiny.gguf"
    found = describe(path)
    assert (found.safety, found.main_file) == ("data", "tiny.gguf")
    assert found.metadata == {
        "architecture": "llama",
        "gguf_version": 3,
        "name": "tiny",
        "context_length": 2048,
        "quantization": "Q8_0",
        "tensors": 2,
        "parameters": 48,
        "chat_template": True,
    }
    assert HuggingFaceFramework().detect(source_files(path.rename(tmp_path / "weights"))) == Match(
        "huggingface", "gguf", 1.0, "weights"
    )


ARCHITECTURE = string("general.architecture") + struct.pack("<I", 8) + string("llama")


def key(rest: bytes) -> bytes:
    return gguf((ARCHITECTURE, string("x") + rest), ())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"GGUF", "truncated at byte 4"),
        (gguf(version=1), "states version 1"),
        (gguf(version=3 << 24), "states version"),
        (gguf(counts=(2, 2**40)), "keys, more than fit"),
        (gguf(counts=(2**63, 1)), "tensors, more than fit"),
        (gguf(()), "states no architecture"),
        (gguf((ARCHITECTURE, ARCHITECTURE)), "twice"),
        (gguf((struct.pack("<Q", 2**63),)), "a name of 9223372036854775808 bytes"),
        (key(struct.pack("<I", 99)), "value type 99"),
        (key(struct.pack("<IQ", 8, 2**62)), "truncated"),
        (key(struct.pack("<IIQ", 9, 0, 2**62)), "truncated"),
        (key(struct.pack("<IIQ", 9, 8, 2**62)), "more than fit"),
        (key(struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 6), "nested more than"),
        (gguf((ARCHITECTURE, string("general.alignment") + struct.pack("<II", 4, 0))), "states the alignment 0"),
        (gguf(infos=(info("a", (16,) * 9, 0, 0),)), "has 9 axes"),
        (gguf(infos=(info("a", (16,), 0, 8),)), "multiple of 32"),
        (gguf(infos=(info("a", (33,), 8, 0),)), "whole blocks of 32"),
        (gguf(infos=(info("a", (2**60, 16), 0, 0),)), "ends at byte"),
        (gguf(infos=(info("a", (16,), 99, 2**40),)), "ends at byte"),
        (gguf(infos=(info("a", (16,), 0, 0), info("b", (16,), 0, 32))), "overlaps"),
        (gguf(infos=(info("a", (16,), 0, 0), info("b", (16,), 0, 0))), "overlaps"),
        (gguf(infos=(info("a", (16,), 0, 0), info("a", (16,), 0, 64)), data=bytes(128)), "'a' twice"),
        (gguf(infos=(info("a", (2**32, 2**32), 0, 0),)), "ends at byte"),
        (gguf(infos=(info("a", (2**63, 2**63, 2**63, 2**63), 0, 0),)), "ends at byte"),
        (gguf(infos=(info("a", (16,), 0, 2**64 - 32),)), "ends at byte"),
        (gguf(infos=(info("a", (16,), 2**31, 0),)), "of an unknown type"),
        (gguf(counts=(2**64 - 1, 2**64 - 1)), "more than fit"),
        (key(struct.pack("<IIQ", 9, 12, 2**61)), "truncated"),
        (key(struct.pack("<IIQ", 9, 9, 2**64 - 1)), "more than fit"),
    ],
)
def test_damaged_gguf(tmp_path: Path, content: bytes, expected: str) -> None:
    path = folder(tmp_path, m__gguf=content) / "m.gguf"
    with pytest.raises(UsageError, match=expected) as caught:
        describe(path)
    assert caught.value.message.startswith("m.gguf is not a valid GGUF file: ")


def test_a_gguf_model_of_several_files(tmp_path: Path) -> None:
    count = string("split.count") + struct.pack("<IH", 2, 2)
    path = folder(tmp_path, **{"m-00001-of-00002__gguf": gguf((ARCHITECTURE, count))})
    with pytest.raises(UsageError, match=r"m-00002-of-00002\.gguf|others are not beside it"):
        describe(path)
    folder(path, **{"m-00002-of-00002__gguf": gguf((count,))})
    found = describe(path)
    assert (found.main_file, found.metadata["shards"]) == ("m-00001-of-00002.gguf", 2)
    folder(path, **{"m-00002-of-00002__gguf": gguf()[:-10]})
    with pytest.raises(UsageError, match=r"m-00002-of-00002\.gguf: tensor 'b' ends at byte"):
        describe(path)
    folder(path, other__gguf=gguf())
    with pytest.raises(UsageError, match="several GGUF models"):
        describe(path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config__json": {**CONFIG, "auto_map": {"AutoModel": "evil.Model"}}}, "config.json sets auto_map"),
        ({"config__json": {**CONFIG, "text_config": [{"auto_map": {"A": "b.C"}}]}}, "config.json sets auto_map"),
        ({"config__json": {**CONFIG, "vision": {"trust_remote_code": True}}}, "config.json sets trust_remote_code"),
        ({"config__json": {**CONFIG, "_attn_implementation_internal": "a/b"}}, "_attn_implementation_internal"),
        ({"config__json": {**CONFIG, "attn_implementation": {"text": "someone/kernel"}}}, "sets attn_implementation"),
        ({"tokenizer_config__json": {"auto_map": {"AutoTokenizer": ["evil.T", None]}}}, "tokenizer_config.json sets"),
        ({"sub___preprocessor_config__json": {"auto_map": {"A": "b.C"}}}, "sub/preprocessor_config.json sets"),
        (
            {"config__json": {**CONFIG, "sub": {"a": [{"_attn_implementation_internal": "a/b"}]}}},
            "_attn_implementation_",
        ),
        ({"generation_config__json": {"trust_remote_code": True}}, "generation_config.json sets trust_remote_code"),
        (
            {"processor_config__json": {"image_processor": {"auto_map": {"A": "b.C"}}}},
            "processor_config.json sets auto_map",
        ),
        ({"adapter_config__json": {"base_model_name_or_path": "../other"}}, "makes transformers load another model"),
        ({"vocab__pkl": b""}, "vocab.pkl is a pickle"),
        ({"modules__json": MODULES, "2___m__safetensors": tensors(), "2___pytorch_model__bin": b""}, "is a pickle"),
        ({"custom_generate___generate__py": b"raise SystemExit"}, "replaces generate()"),
        ({"modules__json": [{"type": "os.path.Path", "path": ""}]}, "modules.json imports os.path.Path"),
        (
            {"modules__json": MODULES, "2_Dense___config__json": {"activation_function": "os.system"}},
            "2_Dense/config.json imports os.system",
        ),
        ({"router_config__json": {"types": {"query_0": "os.path"}}}, "router_config.json imports os.path"),
        ({"modules__json": MODULES, "2_Dense___pytorch_model__bin": b""}, "2_Dense/pytorch_model.bin is a pickle"),
        ({"model_index__json": {**PIPELINE, "evil": ["antigravity", "X"]}}, "imports 'antigravity' for 'evil'"),
        ({"model_index__json": {**PIPELINE, "_class_name": ["pipeline", "X"]}}, "a module of its own"),
        ({"model_index__json": PIPELINE, "unet___my__py": b""}, "unet/my.py is code"),
        (
            {"model_index__json": PIPELINE, "in___model_index__json": {**PIPELINE, "evil": ["antigravity", "X"]}},
            "in/model_index.json imports 'antigravity' for 'evil'",
        ),
    ],
)
def test_what_runs_code_needs_trust(transformer: Path, files: dict[str, object], reason: str) -> None:
    assert describe(transformer).safety == "data"
    folder(transformer, **files)
    found = describe(transformer)
    assert found.safety == "pickle"
    assert any(reason in text for text in found.metadata["needs_trust"])
    with pytest.raises(UnsafeError) as caught:
        import_model(transformer)
    assert caught.value.exit_status == 6
    with pytest.raises(loader.UnsafeModelError, match="runs code when it is loaded"):
        loader.load(transformer)
    import_model(transformer, "evil", trust=True)
    with pytest.raises(UnsafeError):
        namespace("huggingface").load_model("evil")


ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "base_model_name_or_path": "someone/base"}


def test_an_adapter(tmp_path: Path) -> None:
    path = folder(tmp_path, adapter_config__json=ADAPTER, adapter_model__safetensors=tensors(), tokenizer__json={})
    found = describe(path)
    assert (found.format, found.safety) == ("peft", "data")
    facts = ("adapter", "task", "base_model", "rank", "tokenizer", "tensors")
    assert [found.metadata[key] for key in facts] == ["LORA", "CAUSAL_LM", "someone/base", 8, True, 2]
    with pytest.raises(loader.InvalidModelError, match="an adapter for someone/base: pass base="):
        loader.load(path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"adapter_config__json": {**ADAPTER, "megatron_config": {"a": 1}}}, "imports a megatron core"),
        ({"adapter_config__json": {**ADAPTER, "megatron_core": "antigravity"}}, "imports a megatron core"),
        ({"adapter_config__json": {**ADAPTER, "peft_type": "XLORA", "adapters": {"a": "/b"}}}, "further adapters"),
        ({"adapter_config__json": {**ADAPTER, "corda_config": {"cache_file": "/x.pt"}}}, "reads cache_file"),
        ({"adapter_config__json": {**ADAPTER, "prompt_tuning_init_state_dict_path": "/x.pt"}}, "reads prompt_tuning"),
        ({"adapter_config__json": {**ADAPTER, "tokenizer_kwargs": {"trust_remote_code": True}}}, "trust_remote_code"),
        ({"adapter_config__json": {**ADAPTER, "auto_map": {"A": "b.C"}}}, "sets auto_map"),
    ],
)
def test_an_adapter_that_runs_code_needs_trust(tmp_path: Path, files: dict[str, object], reason: str) -> None:
    path = folder(tmp_path, adapter_config__json=ADAPTER, adapter_model__safetensors=tensors())
    assert describe(path).safety == "data"
    found = describe(folder(path, **files))
    assert found.safety == "pickle"
    assert any(reason in text for text in found.metadata["needs_trust"])
    with pytest.raises(loader.UnsafeModelError):
        loader.load(path, base=path)


def test_a_pickled_adapter_needs_trust(tmp_path: Path) -> None:
    path = folder(tmp_path, adapter_config__json=ADAPTER, adapter_model__bin=b"", model__safetensors=tensors())
    assert describe(path).metadata["needs_trust"] == ["adapter_model.bin is a pickle"]
    assert describe(folder(path, adapter_model__safetensors=tensors())).safety == "data"


@pytest.mark.parametrize("task", ["../../x", "Text", "", 3, ["a"], "a" * 100])
def test_a_task_is_a_word(transformer: Path, task: object) -> None:
    found = describe(folder(transformer, pipeline_task__json={"task": task}))
    assert "task" not in found.metadata
    assert describe(folder(transformer, pipeline_task__json={"task": "fill-mask"})).metadata["task"] == "fill-mask"


def test_a_tokenizer_alone(tmp_path: Path) -> None:
    path = folder(tmp_path, tokenizer_config__json={"tokenizer_class": "BertTokenizer"}, tokenizer__json={})
    assert (describe(path).format, describe(path).safety) == ("tokenizer", "data")
    folder(path, tokenizer_config__json={"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["evil.T", None]}})
    assert describe(path).safety == "pickle"
    folder(path, model__joblib=b"")
    assert HuggingFaceFramework().detect(source_files(path)) is None


def test_pickled_weights_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = folder(tmp_path / "bert", config__json=CONFIG, pytorch_model__bin=pickle.dumps(Canary()))
    with pytest.raises(UnsafeError, match="is a pickle"):
        import_model(path)
    with pytest.raises(loader.UnsafeModelError, match=r"pytorch_model\.bin is a pickle"):
        loader.load(path)
    folder(path, model__safetensors=tensors())  # now the pickle is never loaded
    assert describe(path).safety == "data"
    assert not (tmp_path / "canary").exists()


def test_code_in_the_folder_is_not_run_when_transformers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    evil = b"import os; os.mkdir('canary')"
    config = {**CONFIG, "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    path = folder(tmp_path / "bert", config__json=config, model__safetensors=tensors(), evil__py=evil)
    for options in ({}, {"trust_remote_code": True}, {"task": "fill-mask"}):
        with pytest.raises(loader.UnsafeModelError):
            loader.load(path, **options)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config__json": b"{"}, "config.json is not JSON"),
        ({"config__json": b"[" * 200_000}, "config.json is not JSON"),
        ({"config__json": b" " * (loader.MAX_JSON + 1)}, "config.json is larger than"),
        ({"model__safetensors": tensors()[:-1]}, "model.safetensors is not a valid safetensors file: "),
        ({"modules__json": [{"type": MODULES[0]["type"], "path": "../x"}]}, "outside the model"),
        ({"modules__json": [{"type": MODULES[0]["type"], "path": "/etc"}]}, "outside the model"),
    ],
)
def test_damaged_folders(transformer: Path, files: dict[str, object], expected: str) -> None:
    folder(transformer, **files)
    with pytest.raises(UsageError, match=expected):
        describe(transformer)


def test_other_folders_are_not_ours(tmp_path: Path) -> None:
    framework = HuggingFaceFramework()
    for name, files in {
        "no weights": {"config__json": CONFIG},
        "another configuration": {"config__json": {"a": 1}, "x__bin": b""},
        "a list": {"config__json": [1], "x__bin": b""},
    }.items():
        assert framework.detect(source_files(folder(tmp_path / name, **files))) is None, name


def test_a_folder_with_an_export_to_onnx_stays_ours(transformer: Path) -> None:
    folder(transformer, onnx___model__onnx=b"not read")
    assert import_model(transformer).info["framework"] == "huggingface"


def _fuzz(content: bytes) -> Callable[..., Any]:
    positions = st.integers(0, len(content) - 1)
    strategy = given(
        cut=st.integers(0, len(content)),
        changes=st.lists(st.tuples(positions, st.integers(0, 255)), max_size=8),
    )
    limits = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    return lambda test: limits(strategy(test))


def _mutate(path: Path, content: bytes, cut: int, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position] = value
    path.write_bytes(damaged if cut % 4 else damaged[:cut])
    framework = HuggingFaceFramework()
    try:
        if framework.detect(source_files(path)):
            framework.describe(source_files(path))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


@_fuzz(tensors())
def test_mutated_safetensors(tmp_path: Path, cut: int, changes: list[tuple[int, int]]) -> None:
    _mutate(tmp_path / "m.safetensors", tensors(), cut, changes)


@_fuzz(gguf())
def test_mutated_gguf(tmp_path: Path, cut: int, changes: list[tuple[int, int]]) -> None:
    _mutate(tmp_path / "m.gguf", gguf(), cut, changes)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *("type", "path", "auto_map", "_class_name", "model_type", "weight_map", "architectures"),
                        *("peft_type", "r", "task", "cache_file", "tokenizer_class", "megatron_core"),
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    ),
    name=st.sampled_from(
        [
            *("config.json", "modules.json", "model_index.json", "m.safetensors.index.json", "adapter_config.json"),
            *("pipeline_task.json", "tokenizer_config.json", "in/model_index.json"),
        ]
    ),
    adapter=st.booleans(),
)
def test_any_json_ends_in_an_answer_or_an_error(transformer: Path, document: object, name: str, adapter: bool) -> None:
    path = transformer / name
    path.parent.mkdir(exist_ok=True)
    weights = transformer / "adapter_model.safetensors"
    weights.unlink(missing_ok=True)
    if adapter:
        weights.write_bytes(tensors())
    before = path.read_bytes() if path.exists() else None
    path.write_text(json.dumps(document), encoding="utf-8")
    framework = HuggingFaceFramework()
    try:
        if framework.detect(source_files(transformer)):
            json.dumps(dict(framework.describe(source_files(transformer)).metadata))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - some raise, some do not
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def test_looking_at_a_model_imports_no_library(transformer: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins())
assert not {"torch", "numpy", "transformers", "safetensors", "jinja2", "pickle"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(transformer)], check=True, timeout=60)


def test_a_chat_model_wants_a_service(tmp_path: Path) -> None:
    (tmp_path / "chat.gguf").write_bytes(gguf())
    import_model(tmp_path / "chat.gguf", "chat", version="1")
    with pytest.raises(UsageError, match="^chat:1 cannot be served without code: the plugin of huggingface"):
        check_served("chat", {})
