"""Loads PyTorch models; what would run code of the file only with ``trust=True``.

This file travels in a Bento: standard library, torch and safetensors only. The checks are here, and not in the
plugin, because they are made again before a file is loaded.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAX_MEMBERS = 200_000
MAX_DIRECTORY = 64 * 1024 * 1024  # bytes of a zip archive's directory, which zipfile reads at once
MAX_READ = 64 * 1024 * 1024  # bytes of a pickle or a JSON document; tensors lie beside them
MAX_CONTAINERS = 5_000_000  # objects and lists in a JSON document
MAX_GLOBALS = 1000
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
STATE_DICT, SCRIPT, EXPORTED, PICKLE, SAFETENSORS = "state_dict", "torchscript", "pt2", "pickle", "safetensors"
_LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys

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
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized|quantized_decomposed)\.\w+(\.\w+)?"
    r"|torch\.(_?sym_\w+|_check\w*)|torch\._C\._set_grad_enabled|_operator\.(?!call|methodcaller|attrgetter|itemgetter)\w+|math\.\w+"
)
# sympy evaluates an expression as Python, with all of sympy in reach: symbols, numbers and these functions only, no
# attribute, and no power of more than one digit
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_EXPRESSION = re.compile(r"(?!.*\.\s*[A-Za-z_])(?!.*\*\*(?!\s*\d(?!\d|\s*\*\*)))[\w +\-*/%(),.<>=!&|~]{0,4096}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN_SYMBOL = re.compile(r"[a-z]{1,4}_?\d+|True|False|(int_)?oo")
_SPEC_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_FUNCTIONS = frozenset(
    {
        *("Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "Eq"),
        *("Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Abs", "floor", "ceiling", "Pow", "PowByNatural", "sqrt"),
        *("FloatPow", "ToFloat", "TruncToInt", "TruncToFloat", "FloorToInt", "CeilToInt", "RoundToInt", "Where"),
        *("Piecewise", "Identity", "ModularIndexing", "Integer", "LShift", "RShift", "RoundDecimal"),
    }
)


class InvalidModelError(ValueError):
    """The file is not a PyTorch model, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would run code that the file chooses."""

    unsafe = True


class Inspection(NamedTuple):
    """What a file is.

    Args:
        format: one of the constants above.
        reasons: why loading it runs code of the file's choice; empty for a state dict, which is a pickle all the same.
    """

    format: str
    reasons: tuple[str, ...] = ()


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
    if path.name.lower().endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(str(path), device=str(device), **options)
    found = inspect(path)
    if found is None:
        raise InvalidModelError(f"{path.name} is not a file of PyTorch")
    if (found.reasons or found.format == STATE_DICT) and trust is not True:
        # for tensors only, too: that torch's narrow unpickler holds is not for us to promise (CVE-2025-32434)
        why = _listed(found) if found.reasons else "it is a pickle, of tensors only"
        raise UnsafeModelError(f"{path.name} runs code when it is loaded: {why}; trust=True loads it")
    import torch

    if found.format == SCRIPT:
        return torch.jit.load(str(path), map_location=device, **options)
    if found.format == EXPORTED:
        return torch.export.load(str(path), **options)
    # also with trust: a state dict needs no more than torch's own narrow unpickler
    weights_only = found.format == STATE_DICT
    return torch.load(str(path), map_location=device, weights_only=weights_only, **options)


def _listed(found: Inspection) -> str:
    more = f" and {len(found.reasons) - 5} more" if len(found.reasons) > 5 else ""
    return "; ".join(found.reasons[:5]) + more


def inspect(path: Path) -> Inspection | None:
    """What a file is, by its structure; None where it is nothing of PyTorch's.

    Raises InvalidModelError where it is and is damaged.
    """
    with path.open("rb") as file:
        head = file.read(len(LEGACY))
    if head == LEGACY:
        return _legacy(path)
    if not head.startswith(b"PK\x03\x04"):
        return None
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _archive(archive)
    except InvalidModelError:
        raise
    except Exception as error:  # zipfile, zlib and the rest each have errors of their own
        raise InvalidModelError(f"the archive is damaged: {type(error).__name__}: {_line(error)}") from None


def _legacy(path: Path) -> Inspection:
    with path.open("rb") as file:
        data = file.read(MAX_READ)
    reasons: list[str] = []
    at = 0
    for _ in range(_LEGACY_PICKLES):
        found, at = scan_pickle(data, at)
        reasons += found
        if found:
            break
    return Inspection(PICKLE if reasons else STATE_DICT, tuple(reasons))


def _check_directory(path: Path) -> None:
    """Refuse an archive whose directory is larger than any model needs, before zipfile reads it into memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 66_000))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise InvalidModelError("the archive has no directory")
    length = struct.unpack_from("<I", tail, at + 12)[0]
    if length == 0xFFFF_FFFF:
        at = tail.rfind(b"PK\x06\x06")
        if at < 0 or len(tail) - at < 56:
            raise InvalidModelError("the archive has no directory")
        length = struct.unpack_from("<Q", tail, at + 40)[0]
    if length > min(MAX_DIRECTORY, size):
        raise InvalidModelError(f"the archive claims a directory of {length} bytes")


def _archive(archive: zipfile.ZipFile) -> Inspection | None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(names) > MAX_MEMBERS:
        raise InvalidModelError(f"the archive has more than {MAX_MEMBERS} members")
    root = names[0].partition("/")[0] + "/" if names else ""
    inside = {name[len(root) :] for name in names if name.startswith(root)}
    if not {"data.pkl", "archive_format"} & inside:
        return None
    # torch reads the archive with another library than we do: leave no room for two readings
    if len(set(names)) < len(names) or len(inside) < len(names):
        raise InvalidModelError("the archive has members of the same name, or in several folders")
    for info in infos:
        if info.flag_bits & 1 or info.file_size > 1 << 40:
            raise InvalidModelError(f"member {info.filename!r:.80} is encrypted or too large")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise InvalidModelError(f"member {info.filename!r:.80} has two sizes")
    if "archive_format" in inside:
        return Inspection(EXPORTED, tuple(dict.fromkeys(_exported_reasons(archive, root, inside))))
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return Inspection(SCRIPT)  # torch.jit reads its pickles with an unpickler that knows data only
    reasons, _ = scan_pickle(_read(archive, root + "data.pkl"))
    return Inspection(PICKLE if reasons else STATE_DICT, tuple(reasons))


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(MAX_READ + 1)
    if len(data) > MAX_READ:
        raise InvalidModelError(f"{name} is larger than {MAX_READ} bytes")
    return data


def _exported_reasons(archive: zipfile.ZipFile, root: str, inside: set[str]) -> Iterator[str]:
    """Why loading an exported program would run code other than torch's operators."""
    if _read(archive, root + "archive_format").strip() != b"pt2":
        raise InvalidModelError("the archive is of another format than pt2")
    programs = [name for name in inside if name.startswith("models/") and name.endswith(".json")]
    if not programs:
        yield "it holds compiled code and no program"
    for name in sorted(inside):
        base = name.rpartition("/")[2]
        if name in programs:
            yield from (f"{name}: {reason}" for reason in _program_reasons(_json(archive, root + name)))
        elif name.endswith("_config.json"):
            yield from _pickled_payloads(_json(archive, root + name), name)
        elif name.startswith(("data/aotinductor/", "executorch/")) or base.endswith((".so", ".py", ".pyd", ".dll")):
            yield f"{name} is code"
        elif base.startswith(("custom_obj", "opaque_obj")):
            yield f"{name} is a pickle"
        elif name.startswith("data/") and base.endswith((".pt", ".pkl")):
            yield from (f"{name}: {reason}" for reason in _nested(_read(archive, root + name)))


def _nested(data: bytes) -> list[str]:
    """What a file that torch.save wrote into an archive asks for."""
    import io

    if not data:
        return []
    if not data.startswith(b"PK"):
        return ["it is a pickle"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = _archive(archive)
    if found is None or found.format not in (STATE_DICT, PICKLE):
        return ["it is no state dict"]
    return list(found.reasons)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    text = _read(archive, name)
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidModelError(f"{name} has more than {MAX_CONTAINERS} objects and lists")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{name} is not JSON: {_line(error)}") from None


def _pickled_payloads(document: Any, name: str) -> Iterator[str]:
    for table in _tables(document):
        if table.get("use_pickle"):
            yield f"{name} keeps {str(table.get('path_name'))!r:.80} as a pickle"


def _program_reasons(document: Any) -> Iterator[str]:
    """Operators are looked up in torch by a dotted name, and expressions are evaluated."""
    for table in _tables(document):
        target = table.get("target")
        if isinstance(target, str) and "inputs" in table and not _OPERATOR.fullmatch(target):
            yield f"it calls {target:.80}"
        for key, value in table.items():
            if key == "expr_str" and not _is_arithmetic(str(value)):
                yield f"it evaluates {str(value)!r:.80}"
            elif key in ("in_spec", "out_spec") and isinstance(value, str):
                yield from (f"it imports {name:.80}" for name in _foreign_types(value))


def _is_arithmetic(text: str) -> bool:
    text = _SYMBOL.sub("s0", text)
    names = _NAME.findall(text)
    return _EXPRESSION.fullmatch(text) is not None and all(
        name in _FUNCTIONS or _PLAIN_SYMBOL.fullmatch(name) for name in names
    )


def _foreign_types(spec: str) -> list[str]:
    """Types, other than plain containers, that a description of nested arguments names."""
    try:
        document = json.loads(spec)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"a description of arguments is not JSON: {_line(error)}") from None
    types = [table.get("type") for table in _tables(document)]
    return sorted(str(name) for name in types if not isinstance(name, str | None) or name not in _SPEC_TYPES)


def _tables(document: Any) -> Iterator[dict[str, Any]]:
    level = [document]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                yield item
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner


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


def _line(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:200]
