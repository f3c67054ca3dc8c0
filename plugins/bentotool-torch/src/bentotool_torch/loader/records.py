"""What the parts of the loader speak in."""

from __future__ import annotations

from typing import NamedTuple

STATE_DICT, SCRIPT, EXPORTED, PICKLE, SAFETENSORS = "state_dict", "torchscript", "pt2", "pickle", "safetensors"


class InvalidModelError(ValueError):
    """The file is not a PyTorch model, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would run code that the file chooses."""

    unsafe = True


class Storage(NamedTuple):
    """Numbers in an archive, of one dtype of torch's; ``numbers`` is how many."""

    member: str
    dtype: str
    numbers: int


class TensorRecord(NamedTuple):
    """A tensor whose numbers are still in the archive; ``offset``, ``shape`` and ``stride`` count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inspection(NamedTuple):
    """What a file is.

    Args:
        format: one of the constants above.
        reasons: why loading it takes an unpickler, or runs code of the file's choice otherwise.
        tensors: of a state dict that is read without an unpickler.
    """

    format: str
    reasons: tuple[str, ...] = ()
    tensors: tuple[TensorRecord, ...] = ()


def first_line(error: BaseException) -> str:
    """Of an error's text, for an error of one line."""
    return str(error).replace("\n", " ")[:200]
