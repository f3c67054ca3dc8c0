"""Detects, describes and saves PyTorch models; torch is imported to save, and not to look at a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from bentotool_huggingface.safetensors import FormatError, read_safetensors, starts_as_safetensors

from bentotool.errors import MissingDependencyError, NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import JSON, Match, ModelInfo, Safety, SourceFile
from bentotool.models.main_files import first_bytes, main_files
from bentotool.sdk.wording import kind_of
from bentotool_torch.loader.archive import LEGACY, inspect
from bentotool_torch.loader.records import (
    EXPORTED,
    SAFETENSORS,
    SCRIPT,
    STATE_DICT,
    Inspection,
    InvalidModelError,
)

NAME = "torch"
_TENSORS = (".safetensors",)
_PICKLED = (".pt", ".pth", ".pt2")
_DAMAGED = "was it cut short while it was copied, or is it another format?"
_FOREIGN = ("config.json", "modules.json", "model_index.json")
_PROGRAMS = (SCRIPT, EXPORTED)


class TorchFramework:
    """See :class:`bentotool.protocols.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None:
            return None
        if _is_safetensors(main):
            _tensors(main)
            return Match(NAME, SAFETENSORS, 0.9, main.name)
        found = _inspect(main)
        return Match(NAME, found.format, 0.9, main.name) if found else None

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        if main is not None and _is_safetensors(main):
            return ModelInfo(
                NAME, SAFETENSORS, metadata=_tensors(main), requirements=("safetensors", "torch"), main_file=main.name
            )
        found = _inspect(main) if main else None
        if main is None or found is None:
            raise UsageError("there is no PyTorch model among the files")
        metadata: dict[str, JSON] = {}
        if found.format == STATE_DICT and not found.reasons:
            metadata = _state_facts(found)
        elif found.reasons:
            metadata["needs_trust"] = list(found.reasons[:20])
            if found.format == STATE_DICT:
                call = f"torch.load({main.path.name!r:.80}, weights_only=True)"
                metadata["instead"] = f"bentotool.torch.save_model(NAME, {call}) in Python keeps it as safetensors"
        return ModelInfo(
            framework=NAME,
            format=found.format,
            metadata=metadata,
            requirements=("torch",),
            safety=_safety(found),
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, *, part: str | None = None, **options: object) -> None:
        """Write a state dict or a module's as safetensors, a ``ScriptModule`` as TorchScript, a program as pt2.

        Args:
            obj: one of these; or the path of a state dict that torch.save wrote, which is read without an unpickler.
            part: of a checkpoint, the key under which its state dict lies, e.g. ``"state_dict"``.
        """
        if options:
            raise UsageError(f"torch takes no option {', '.join(sorted(options))} when saving")
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError("torch", purpose="to save PyTorch models") from error
        folder = Path(directory)
        if isinstance(obj, str | Path):
            obj = _read(Path(obj))
        if part is not None:
            obj = _part(obj, part)
        if isinstance(obj, torch.jit.ScriptModule):
            # not torch.jit.save, which warns that it is deprecated and then does this
            obj.save(str(folder / "model.pt"))
        elif isinstance(obj, torch.export.ExportedProgram):
            torch.export.save(obj, str(folder / "model.pt2"))
        elif isinstance(obj, torch.nn.Module):
            _save_tensors(obj.state_dict(), folder / "model.safetensors")
        elif isinstance(obj, Mapping):
            _save_tensors(obj, folder / "model.safetensors")
        else:
            raise UsageError(
                f"{kind_of(obj)} is not a PyTorch model",
                hint="give a state dict or its path, an nn.Module, a ScriptModule or an ExportedProgram",
            )


def _read(path: Path) -> object:
    from bentotool_torch.loader.state import NotPlainError, read_state

    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="give a model, or the path of a state dict")
    hint = "read it yourself, e.g. torch.load(path, weights_only=True), and save what that gives"
    try:
        found = inspect(path)
        if found is None:
            raise UsageError(f"{path.name} is not a file of PyTorch", hint=_DAMAGED)
        if found.format != STATE_DICT or found.reasons:
            why = "; ".join(found.reasons[:3]) or "it is no state dict"
            raise UnsafeError(f"{path.name} is not read without an unpickler: {why}", hint=hint)
        return read_state(path)
    except (InvalidModelError, NotPlainError) as error:
        raise UsageError(f"{path.name} is not a valid PyTorch file: {error}", hint=_DAMAGED) from None


def _state_facts(found: Inspection) -> dict[str, JSON]:
    sizes = [prod(tensor.shape) for tensor in found.tensors]
    dtypes = sorted({tensor.storage.dtype for tensor in found.tensors})
    return {"tensors": len(sizes), "parameters": sum(sizes), "dtypes": list(dtypes)}


def _part(obj: object, key: str) -> object:
    if not isinstance(obj, Mapping) or key not in obj:
        known = ", ".join(str(name)[:40] for name in list(obj)[:10]) if isinstance(obj, Mapping) else "no keys"
        raise UsageError(f"the checkpoint has no part {key!r}", hint=f"it has: {known}")
    return obj[key]


def _save_tensors(state: Mapping[Any, Any], path: Path) -> None:
    import torch

    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingDependencyError("safetensors", purpose="to save PyTorch models") from error
    tensors, storages = {}, set()
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            parts = [key for key, inner in state.items() if isinstance(inner, Mapping)]
            raise UsageError(
                f"{name!r:.80} of the state dict is {kind_of(value)}, not a tensor",
                hint="save the model's part of a checkpoint, e.g. "
                + (f"part={parts[0]!r:.80}" if parts else "checkpoint['state_dict']"),
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            raise UsageError(
                f"{name!r:.80} is a sparse, quantized or meta tensor, which safetensors cannot hold",
                hint="make it dense, e.g. with to_dense() or dequantize()",
            )
        tensor = value.detach()
        storage = (tensor.device, tensor.untyped_storage().data_ptr())
        # safetensors keeps no tensors that share memory: tied weights are written twice
        tensors[name] = tensor.clone().contiguous() if storage in storages else tensor.contiguous()
        storages.add(storage)
    if not tensors:
        raise UsageError("the state dict is empty")
    try:
        save_file(tensors, str(path), metadata={"format": "pt"})
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:  # a dtype that the format lacks
        raise UsageError(f"safetensors cannot hold these tensors: {str(error).splitlines()[0]:.200}") from error


def _safety(found: Inspection) -> Safety:
    if found.reasons:
        return "pickle"
    return "program" if found.format in _PROGRAMS else "data"


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one safetensors file, else the one that starts, or is called, as PyTorch's are, else a single file.

    A folder with a configuration or an index of Hugging Face's is not ours, whatever lies in it.
    """
    names = {file.name for file in files}
    if names.intersection(_FOREIGN) or any(name.endswith(".index.json") for name in names):
        return None
    tensors = main_files(files, lambda file: starts_as_safetensors(file.path), _TENSORS)
    saved = main_files(files, _starts_as_saved, _PICKLED, sure=False)
    for found in (tensors, saved):
        if len(found) > 1:
            listed = ", ".join(sorted(file.name for file in found)[:5])
            raise UsageError(f"there are several PyTorch models: {listed}", hint="import one file")
        if found:
            return found[0]
    return files[0] if len(files) == 1 else None


def _starts_as_saved(file: SourceFile) -> bool:
    """As the first pickle of old, or as an archive whose first member lies in a folder, which torch.save writes."""
    head = first_bytes(file, 4096)
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(LEGACY) or (head.startswith(b"PK\x03\x04") and b"/" in head[30 : 30 + length])


def _is_safetensors(main: SourceFile) -> bool:
    if starts_as_safetensors(main.path):
        return True
    return main.name.lower().endswith(_TENSORS) and not _starts_as_saved(main)


def _tensors(main: SourceFile) -> dict[str, JSON]:
    try:
        header = read_safetensors(main.path)
    except FormatError as error:
        raise UsageError(f"{main.path.name} is not a valid safetensors file: {error}", hint=_DAMAGED) from None
    sizes = [prod(axis for axis in spec.shape if isinstance(axis, int)) for spec in header.tensors]
    dtypes = sorted({spec.dtype for spec in header.tensors})
    return {"tensors": len(sizes), "parameters": sum(sizes), "dtypes": dtypes}


def _inspect(main: SourceFile) -> Inspection | None:
    named = main.name.lower().endswith(_PICKLED)
    try:
        found = inspect(main.path)
    except InvalidModelError as error:
        if not named:  # a zip archive of something else
            return None
        raise UsageError(f"{main.path.name} is not a valid PyTorch file: {error}", hint=_DAMAGED) from None
    if found is None and named:
        raise UsageError(f"{main.path.name} is not a valid PyTorch file: it is no archive of torch.save", hint=_DAMAGED)
    return found
