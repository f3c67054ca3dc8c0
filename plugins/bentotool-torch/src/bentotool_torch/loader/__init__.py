"""Loads PyTorch models; what would run code of the file only with ``trust=True``.

These files travel in a Bento: standard library, torch and safetensors only. The checks are here, and not in the
plugin, because they are made again before a file is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .archive import LEGACY, inspect
from .records import EXPORTED, SCRIPT, STATE_DICT, Inspection, InvalidModelError, UnsafeModelError
from .state import read_state

__all__ = ["InvalidModelError", "UnsafeModelError", "load"]


def load(path: str | Path, *, trust: bool = False, device: Any = "cpu", **options: Any) -> Any:
    """A state dict, a ``ScriptModule``, an ``ExportedProgram``, or with ``trust`` whatever was pickled.

    Args:
        path: the file.
        trust: loads what runs code of the file's choice.
        device: where the tensors go (``map_location``).
        options: for the function of torch or safetensors that loads.

    Raises UnsafeModelError for what needs trust, InvalidModelError for a damaged file.
    """
    path = Path(path)
    if _is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(str(path), device=str(device), **options)
    found = inspect(path)
    if found is None:
        raise InvalidModelError(f"{path.name} is not a file of PyTorch")
    if found.reasons and trust is not True:
        # for tensors only, too: that torch's narrow unpickler holds is not for us to promise (CVE-2025-32434)
        raise UnsafeModelError(f"{path.name} runs code when it is loaded: {_listed(found)}; trust=True loads it")
    if found.format == STATE_DICT and not found.reasons:
        return read_state(path, device, **options)
    import torch

    if found.format == SCRIPT:
        return torch.jit.load(str(path), map_location=device, **options)
    if found.format == EXPORTED:
        return torch.export.load(str(path), **options)
    # tensors need no more than torch's own narrow unpickler, also with trust
    weights_only = found.format == STATE_DICT
    return torch.load(str(path), map_location=device, weights_only=weights_only, **options)


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, a length and then JSON; by its name where it is neither that nor PyTorch's own."""
    with path.open("rb") as file:
        head = file.read(9)
    own = head.startswith((b"PK", LEGACY[:8]))
    return (head[8:] == b"{" and not own) or (path.name.lower().endswith(".safetensors") and not own)


def _listed(found: Inspection) -> str:
    more = f" and {len(found.reasons) - 5} more" if len(found.reasons) > 5 else ""
    return "; ".join(found.reasons[:5]) + more
