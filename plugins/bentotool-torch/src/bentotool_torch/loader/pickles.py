"""Reads the opcodes of pickles, running none."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from .records import InvalidModelError

MAX_GLOBALS = 1000
# The opcodes that torch's weights_only unpickler knows, and the number that follows each; see
# torch/_weights_only_unpickler.py. A file with another one is no state dict.
_NUMBERS = {
    **dict.fromkeys(b"\x81Rbaesu(t\x85\x86\x87N\x88\x89)]}\x8fQ.c", ""),
    **dict.fromkeys(b"Khq\x80", "<B"),
    **dict.fromkeys(b"jr", "<I"),
    ord("J"): "<i",
    ord("M"): "<H",
    ord("G"): ">d",
}
_COUNTED = {ord("X"): "<I", ord("U"): "<B", 0x8A: "<B"}  # as many bytes follow
_GLOBAL, _STOP = ord("c"), ord(".")

# Globals that make tensors and plain containers: the list of torch's weights_only unpickler, less what wraps or
# evaluates (_rebuild_from_type_v2, _rebuild_wrapper_subclass, _rebuild_device_tensor_from_numpy).
_SAFE_GLOBALS = frozenset(
    {
        *("collections OrderedDict", "collections Counter", "torch.nn.parameter Parameter", "torch Size"),
        *("torch.serialization _get_layout", "torch Tensor", "torch device", "_codecs encode"),
        *("builtins bytearray", "builtins set", "builtins complex", "__builtin__ set", "__builtin__ bytearray"),
        *("torch.storage UntypedStorage", "torch.storage TypedStorage"),
    }
)
_SAFE_REBUILDS = frozenset(
    {
        *("parameter", "parameter_with_state", "qtensor", "tensor", "tensor_v2", "tensor_v3", "sparse_tensor"),
        *("meta_tensor_no_storage", "nested_tensor", "device_tensor_from_cpu_tensor"),
    }
)
_TORCH_NAME = re.compile(r"\w*(Storage|Tensor)|float\w+|bfloat16|u?int\d+|complex\d+|bool|q?u?int\w+|per_\w+_affine\w*")


def scan_pickle(data: bytes, at: int = 0) -> tuple[list[str], int]:
    """Read a pickle's opcodes from ``at``, running none.

    Returns the globals and opcodes that no state dict needs, and where the pickle ends. Reading stops at the first
    opcode that torch's narrow unpickler does not know: what follows cannot be told apart from data.
    """
    reasons: dict[str, None] = {}
    for code, value, end in opcodes(data, at):
        at = end
        if code == _GLOBAL and not _is_safe(value):
            reasons[f"it uses {value.replace(' ', '.'):.80}"] = None
        elif value is None and code not in _NUMBERS:
            reasons[f"it uses the pickle opcode 0x{code:02x}"] = None
        if len(reasons) > MAX_GLOBALS:
            break
    return list(reasons), at


def opcodes(data: bytes, at: int = 0) -> Iterator[tuple[int, Any, int]]:
    """Opcodes with their arguments, and where each ends; the last one is STOP, or one that is not known.

    Raises InvalidModelError where neither comes before the end.
    """
    while at < len(data):
        code = data[at]
        value: Any = None
        known = code in _NUMBERS or code in _COUNTED
        at += 1
        if code == _GLOBAL:
            value, at = _global(data, at)
        elif form := _NUMBERS.get(code) or _COUNTED.get(code):
            if at + struct.calcsize(form) > len(data):
                break
            value = struct.unpack_from(form, data, at)[0]
            at += struct.calcsize(form)
            if code in _COUNTED:
                value, at = data[at : at + value], at + value
        yield code, value, at
        if code == _STOP or not known:
            return
    raise InvalidModelError("its pickle is cut short")


def _global(data: bytes, at: int) -> tuple[str, int]:
    parts = []
    for _ in range(2):
        end = data.find(b"\n", at, at + 1000)
        if end < 0:
            raise InvalidModelError("its pickle is damaged: a global without an end")
        parts.append(data[at:end].decode("utf-8", "backslashreplace"))
        at = end + 1
    return " ".join(parts), at


def _is_safe(name: str) -> bool:
    module, _, rest = name.partition(" ")
    if name in _SAFE_GLOBALS:
        return True
    if module == "torch._utils":
        return rest.startswith("_rebuild_") and rest[len("_rebuild_") :] in _SAFE_REBUILDS
    return module in ("torch", "torch.cuda") and _TORCH_NAME.fullmatch(rest) is not None
