"""What kind of Hugging Face folder some files are, and what its configuration tells. Reads JSON and headers only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.interfaces import JSON, SourceFile, TensorSpec
from bentotool_huggingface.loader import (
    InvalidModelError,
    code_reasons,
    is_adapter,
    pickled_weights,
    read_json,
    saved_task,
    weight_map,
)
from bentotool_huggingface.safetensors import FormatError, read_safetensors

TRANSFORMERS, SENTENCES, DIFFUSERS = "transformers", "sentence-transformers", "diffusers"
ADAPTER, TOKENIZER = "peft", "tokenizer"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_TOKENIZER_FILES = (".json", ".txt", ".model", ".jinja", ".md", ".tiktoken", ".bpe", "license", ".gitattributes")
_INDEX = ".safetensors.index.json"
_MAX_LENGTH = 1 << 40
_REQUIREMENTS = {
    TRANSFORMERS: ("safetensors", "torch", "transformers>=4.49"),
    SENTENCES: ("sentence-transformers>=3.3",),
    DIFFUSERS: ("diffusers>=0.30", "safetensors", "torch", "transformers>=4.49"),
    ADAPTER: ("peft>=0.14", "safetensors", "torch", "transformers>=4.49"),
    TOKENIZER: ("transformers>=4.49",),
}
_WORD = re.compile(r"[\w.+-]{1,200}")


@dataclass(frozen=True)
class Folder:
    """A folder that is a model.

    Args:
        kind: the library whose layout it has.
        needs_trust: why loading it runs code; empty for a model that is data.
    """

    kind: str
    requirements: tuple[str, ...]
    needs_trust: tuple[str, ...]
    facts: Mapping[str, JSON] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


def read_folder(files: Sequence[SourceFile]) -> Folder | None:
    """The folder, checked; None where the files are no such folder.

    Raises InvalidModelError where it is one and damaged.
    """
    by_name = {file.name: file.path for file in files}
    kind = _kind(by_name)
    if kind is None:
        return None
    facts = tensor_facts(by_name)
    pickles = pickled_weights(by_name)
    needs_trust = (*code_reasons(by_name), *(f"{name} is a pickle" for name in pickles))
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    if kind == SENTENCES:
        width = _width(by_name)
        inputs = (TensorSpec("sentences", "str", (None,)),)
        outputs = (TensorSpec("embeddings", "float32", (None, width)),)
        if width:
            facts["dimension"] = width
    facts |= _configured(by_name, kind)
    return Folder(kind, _REQUIREMENTS[kind], needs_trust, facts, inputs, outputs)


def tensor_facts(by_name: Mapping[str, Path]) -> dict[str, JSON]:
    """Check every safetensors file and index; gives the number of tensors and parameters, and the dtypes."""
    names: dict[str, set[str]] = {}
    tensors = parameters = 0
    dtypes = set()
    for name, path in sorted(by_name.items()):
        if not name.endswith(".safetensors"):
            continue
        try:
            header = read_safetensors(path)
        except FormatError as error:
            raise InvalidModelError(f"{name} is not a valid safetensors file: {error}") from None
        names[name] = {spec.name for spec in header.tensors}
        tensors += len(header.tensors)
        parameters += sum(_elements(spec) for spec in header.tensors)
        dtypes |= {spec.dtype for spec in header.tensors}
    for name, path in by_name.items():
        if name.endswith(_INDEX):
            _check_index(name, path, names)
    if not names:
        return {}
    return {"tensors": tensors, "parameters": parameters, "dtypes": sorted(dtypes)}


def _elements(spec: TensorSpec) -> int:
    count = 1
    for axis in spec.shape:
        count *= axis if isinstance(axis, int) else 1
    return count


def _check_index(name: str, path: Path, names: Mapping[str, set[str]]) -> None:
    folder = name.rpartition("/")[0]
    for tensor, shard in weight_map(path).items():
        full = f"{folder}/{shard}" if folder else shard
        if full not in names:
            raise InvalidModelError(f"{name} names the shard {shard!r:.80}, which is not there")
        if tensor not in names[full]:
            raise InvalidModelError(f"{name} looks for {tensor!r:.80} in {shard}, which does not have it")


def _kind(by_name: Mapping[str, Path]) -> str | None:
    if not any(name.endswith(_WEIGHTS) for name in by_name):
        return TOKENIZER if _is_tokenizer(by_name) else None
    if is_adapter(by_name):
        return ADAPTER if isinstance(read_json(by_name["adapter_config.json"]), dict) else None
    if "model_index.json" in by_name:
        index = read_json(by_name["model_index.json"])
        if isinstance(index, dict) and "_class_name" in index:
            return DIFFUSERS
    if "modules.json" in by_name:
        modules = read_json(by_name["modules.json"])
        if isinstance(modules, list) and modules and all(isinstance(item, dict) and "type" in item for item in modules):
            return SENTENCES
    if "config.json" in by_name:
        config = read_json(by_name["config.json"])
        named = isinstance(config, dict) and ("model_type" in config or "architectures" in config)
        if named and any("/" not in name and name.endswith(_WEIGHTS) for name in by_name):
            return TRANSFORMERS
    return None


def _is_tokenizer(by_name: Mapping[str, Path]) -> bool:
    """A tokenizer or processor on its own, as ``save_pretrained`` writes it."""
    if not all(name.lower().endswith(_TOKENIZER_FILES) for name in by_name):
        return False
    config = {**_table(by_name, "tokenizer_config.json"), **_table(by_name, "preprocessor_config.json")}
    keys = ("tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type")
    return "config.json" not in by_name and any(_is_word(config.get(key)) for key in keys)


def _configured(by_name: Mapping[str, Path], kind: str) -> dict[str, JSON]:
    facts: dict[str, JSON] = {"library": kind}
    config = _table(by_name, "config.json")
    if _is_word(config.get("model_type")):
        facts["model_type"] = config["model_type"]
    architectures = config.get("architectures")
    if isinstance(architectures, list) and all(_is_word(name) for name in architectures):
        facts["architectures"] = architectures
    if _is_length(config.get("max_position_embeddings")):
        facts["context_length"] = config["max_position_embeddings"]
    if kind == SENTENCES and _is_length(length := _table(by_name, "sentence_bert_config.json").get("max_seq_length")):
        facts["max_seq_length"] = length
    if kind == ADAPTER:
        facts |= _adapter_facts(_table(by_name, "adapter_config.json"))
    if task := saved_task(by_name):
        facts["task"] = task
    if kind == DIFFUSERS:
        index = _table(by_name, "model_index.json")
        facts["pipeline"] = index["_class_name"] if _is_word(index.get("_class_name")) else "custom"
        facts["components"] = sorted(name for name, part in index.items() if isinstance(part, list) and _is_word(name))
    tokenizer = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt"} & by_name.keys()
    if tokenizer:
        facts["tokenizer"] = True
    # a template is a program in Jinja's language: told, never rendered
    if "chat_template.jinja" in by_name or "chat_template" in _table(by_name, "tokenizer_config.json"):
        facts["chat_template"] = True
    return facts


def _adapter_facts(config: Mapping[str, Any]) -> dict[str, JSON]:
    facts: dict[str, JSON] = {}
    for key, fact in (("peft_type", "adapter"), ("task_type", "task")):
        if _is_word(config.get(key)):
            facts[fact] = config[key]
    base = config.get("base_model_name_or_path")
    if isinstance(base, str) and base.isprintable():
        facts["base_model"] = base[:200]
    if _is_length(config.get("r")):
        facts["rank"] = config["r"]
    return facts


def _width(by_name: Mapping[str, Path]) -> int | None:
    """Of the embeddings: that of the last module that states one."""
    width = None
    for module in read_json(by_name["modules.json"]):
        config = _table(by_name, f"{module.get('path') or ''}/config.json".lstrip("/"))
        for key in ("out_features", "word_embedding_dimension", "embedding_dimension"):
            if _is_length(config.get(key)):
                width = int(config[key])
                break
    return width


def _table(by_name: Mapping[str, Path], name: str) -> dict[str, Any]:
    document = read_json(by_name[name]) if name in by_name else {}
    return document if isinstance(document, dict) else {}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_LENGTH
