"""Detects, describes and saves Hugging Face models; imports none of their libraries to look at a file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import NotFoundError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_huggingface.folders import read_folder, tensor_facts
from bentotool_huggingface.gguf import read_gguf
from bentotool_huggingface.loader import TASK_FILE, InvalidModelError, weight_map
from bentotool_huggingface.safetensors import FormatError, starts_as_safetensors

NAME = "huggingface"
_TENSORS = ".safetensors"
_INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_DAMAGED = "was it cut short while it was copied, or is it another format?"


class HuggingFaceFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        try:
            folder = read_folder(files)
            if folder is not None:
                return Match(NAME, folder.kind, 0.95)
            if main := _gguf_file(files):
                read_gguf(main.path)
                return Match(NAME, "gguf", 1.0, main.name)
            if main := _tensor_file(files):
                _tensor_facts(main, files)
                # a framework that knows whose tensors these are knows better
                return Match(NAME, "safetensors", 0.5, main.name)
        except (InvalidModelError, FormatError) as error:
            raise _invalid(files, error) from None
        return None

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        match = self.detect(files)
        if match is None:
            raise UsageError("there is no Hugging Face model among the files")
        if match.format == "gguf":
            return _describe_gguf(files, match)
        if match.format == "safetensors":
            facts = _tensor_facts(_named(files, match.main_file), files)
            needs = ("numpy", "safetensors")
            return ModelInfo(NAME, "safetensors", metadata=facts, requirements=needs, main_file=match.main_file)
        folder = read_folder(files)
        if folder is None:
            raise UsageError("there is no Hugging Face model among the files")
        metadata = dict(folder.facts)
        if folder.needs_trust:
            metadata["needs_trust"] = list(folder.needs_trust)
        return ModelInfo(
            framework=NAME,
            format=folder.kind,
            inputs=folder.inputs,
            outputs=folder.outputs,
            metadata=metadata,
            requirements=folder.requirements,
            safety="pickle" if folder.needs_trust else "data",
        )

    def save(self, obj: object, directory: Path, *, tokenizer: object = None, **options: object) -> None:
        """Write what ``save_pretrained`` of a model, pipeline, adapter or tokenizer writes; or copy a folder or file.

        Args:
            obj: one of these, or a tuple of a model and what belongs to it.
            tokenizer: a tokenizer or processor to write beside a model.
        """
        if options:
            raise UsageError(f"huggingface takes no option {', '.join(sorted(options))} when saving")
        if isinstance(obj, str | Path):
            _copy(Path(obj), Path(directory))
            return
        parts = obj if isinstance(obj, tuple) else (obj,)
        for part in (*parts, tokenizer):
            if part is not None:
                _save_pretrained(part, Path(directory))


def _save_pretrained(obj: object, directory: Path) -> None:
    save = getattr(obj, "save_pretrained", None)
    if isinstance(obj, type) or not callable(save):
        raise UsageError(
            f"{kind_of(obj)} has no save_pretrained", hint="give a model, a pipeline, a tokenizer or a path"
        )
    # tokenizers and processors, which write no weights, take no such argument or warn of it
    options = {} if any(word in type(obj).__name__ for word in ("okeniz", "rocessor")) else {"safe_serialization": True}
    save(str(directory), **options)
    task = getattr(obj, "task", None)  # of a transformers pipeline
    if isinstance(task, str) and hasattr(obj, "model"):
        (directory / TASK_FILE).write_text(json.dumps({"task": task}), encoding="utf-8")


def _copy(source: Path, directory: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, directory, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copyfile(source, directory / source.name)
    else:
        raise NotFoundError(f"there is no file or folder {source}")


def _describe_gguf(files: Sequence[SourceFile], match: Match) -> ModelInfo:
    main = _named(files, match.main_file)
    try:
        model = read_gguf(main.path)
        shards = _shards(main, files, model.shards)
        for shard in shards[1:]:
            read_gguf_shard(shard)
    except FormatError as error:
        raise _invalid(files, error) from None
    facts: dict[str, JSON] = dict(model.facts)
    if len(shards) > 1:
        facts["shards"] = len(shards)
    return ModelInfo(NAME, "gguf", metadata=facts, requirements=("xllamacpp>=2026.10",), main_file=main.name)


def read_gguf_shard(shard: SourceFile) -> None:
    """Check a further file of a model, which need not state the architecture."""
    try:
        read_gguf(shard.path, shard=True)
    except FormatError as error:
        raise FormatError(f"{shard.name}: {error}") from None


def _shards(main: SourceFile, files: Sequence[SourceFile], count: int) -> list[SourceFile]:
    """All files of the model that ``main`` is the first of."""
    if count == 1:
        return [main]
    by_name = {file.name: file for file in files}
    found = _SHARD.search(main.name)
    if found is None or int(found[2]) != count or count > len(files):
        raise FormatError(f"it is one of {count} files, and the others are not beside it")
    names = [_SHARD.sub(f"-{number:05}-of-{found[2]}.gguf", main.name) for number in range(1, count + 1)]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise FormatError(f"{missing[0]} is missing")
    return [by_name[name] for name in names]


def _gguf_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one GGUF file, or the first of the files that are one model."""
    found = main_files(files, lambda file: first_bytes(file, 4) == b"GGUF", (".gguf",))
    first = []
    for file in found:
        shard = _SHARD.search(file.name)
        if shard is None or int(shard[1]) == 1:
            first.append(file)
    if len(first) > 1:
        names = ", ".join(sorted(file.name for file in first))
        raise UsageError(f"there are several GGUF models: {names}", hint="import one file")
    return first[0] if first else None


def _tensor_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one safetensors file, or the index of several."""
    indexes = [file for file in files if file.name.endswith(_INDEX)]
    if len(indexes) == 1 and any(file.name.endswith(_TENSORS) for file in files):
        weight_map(indexes[0].path)
        return indexes[0]
    tensors = main_files(files, lambda file: starts_as_safetensors(file.path), (_TENSORS,))
    if len(tensors) > 1:
        names = ", ".join(sorted(file.name for file in tensors)[:5])
        raise UsageError(f"there are several safetensors files and no index: {names}", hint="import one file")
    return tensors[0] if tensors else None


def _tensor_facts(main: SourceFile, files: Sequence[SourceFile]) -> dict[str, JSON]:
    """Of all safetensors files; of the one that there is, when it is not called one."""
    by_name = {file.name: file.path for file in files}
    return tensor_facts(by_name if main.name.endswith((_TENSORS, _INDEX)) else {main.name + _TENSORS: main.path})


def _named(files: Sequence[SourceFile], name: str) -> SourceFile:
    return next(file for file in files if file.name == name)


def _invalid(files: Sequence[SourceFile], error: Exception) -> UsageError:
    text = str(error).replace("\n", " ")
    if isinstance(error, FormatError) and len(files) == 1:
        kind = "safetensors" if files[0].name.endswith(".safetensors") else "GGUF"
        return UsageError(f"{files[0].path.name} is not a valid {kind} file: {text}", hint=_DAMAGED)
    if isinstance(error, FormatError):
        text = f"this is not a valid GGUF model: {text}"
    return UsageError(text, hint=_DAMAGED)
