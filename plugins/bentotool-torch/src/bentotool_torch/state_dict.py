"""Reads a state dict that ``torch.save`` wrote, without an unpickler.

The pickle in such an archive builds containers, and names tensors whose bytes lie beside it. It is read here by a
stack machine that knows plain values only: no name in it is looked up or called, and every tensor is checked to lie
within its bytes. What holds anything else is refused. See torch/serialization.py for the layout of the archive, and
pickletools for the opcodes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bentotool.errors import UnsafeError, UsageError
from bentotool_torch.loader import STATE_DICT, InvalidModelError, inspect, opcodes

if TYPE_CHECKING:
    import io

_MAX_SIZE = 1 << 48  # elements on an axis
_MAX_AXES = 64
_ONLY = "only a dictionary of tensors is read without an unpickler"

# By the class that a pickle names: torch's dtype, and bytes of an element.
_STORAGES = {
    "BFloat16Storage": ("bfloat16", 2),
    "BoolStorage": ("bool", 1),
    "ByteStorage": ("uint8", 1),
    "CharStorage": ("int8", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "IntStorage": ("int32", 4),
    "LongStorage": ("int64", 8),
    "ShortStorage": ("int16", 2),
}


class _Name(str):
    """Of a global: compared, never looked up."""


class _Storage(NamedTuple):
    member: str
    dtype: str
    numbers: int


# By opcode: the value to push.
_LITERALS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys("JKMG", lambda number: number),
    "X": lambda text: text.decode("utf-8"),
    "\x8a": lambda digits: int.from_bytes(digits, "little", signed=True),
    "c": _Name,
    "N": lambda _: None,
    "\x88": lambda _: True,
    "\x89": lambda _: False,
    ")": lambda _: (),
    "]": lambda _: [],
    "}": lambda _: {},
}
_TUPLES = {"\x85": 1, "\x86": 2, "\x87": 3}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)


def read_state_dict(path: Path) -> dict[str, Any]:
    """The dictionary in an archive: tensors, and plain values beside them.

    Tensors that shared memory when they were saved share it again.

    Raises:
        UnsafeError: what the file holds takes an unpickler.
        UsageError: the file is damaged, or nothing that torch.save wrote.
    """
    hint = "read it yourself, e.g. torch.load(path, weights_only=True), and save what that gives"
    try:
        found = inspect(path)
        if found is None or found.format != STATE_DICT or found.reasons:
            why = "; ".join(found.reasons[:3]) if found and found.reasons else "it is no state dict"
            raise UnsafeError(f"{path.name} is not converted: {why}", hint=_ONLY)
        if not zipfile.is_zipfile(path):
            raise UsageError(f"{path.name} is not converted: it was saved as PyTorch did before 1.6", hint=hint)
        with zipfile.ZipFile(path) as archive:
            state = _Reader(archive).read()
    except InvalidModelError as error:
        raise UsageError(f"{path.name} is not a valid PyTorch file: {error}", hint="save it again") from None
    except _NotPlainError as error:
        raise UnsafeError(f"{path.name} is not converted: {error}", hint=hint) from None
    if not isinstance(state, dict):
        raise UnsafeError(f"{path.name} is not converted: it holds a {type(state).__name__}", hint=_ONLY)
    return state


class _NotPlainError(Exception):
    """More than tensors and plain containers."""


class _Reader:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        self._root = infos[0].filename.partition("/")[0] + "/"
        # stored, and no two members over the same bytes: what is read is never more than the file
        if sum(info.file_size for info in infos) > Path(str(archive.filename)).stat().st_size:
            raise InvalidModelError("its members claim more bytes than the file has")
        self._sizes = {info.filename: info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED}
        if archive.NameToInfo.get(self._root + "byteorder") and archive.read(self._root + "byteorder") != b"little":
            raise _NotPlainError("its numbers are big-endian")
        self._bytes: dict[tuple[str, str], Any] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        try:
            for code, value, _ in opcodes(self._archive.read(self._root + "data.pkl")):
                if chr(code) == ".":
                    return self._stack.pop()
                self._step(chr(code), value)
        except (IndexError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, InvalidModelError):
                raise
            raise InvalidModelError(f"its pickle is damaged: {type(error).__name__}") from None
        raise InvalidModelError("its pickle is cut short")

    def _step(self, code: str, value: Any) -> None:
        stack = self._stack
        if code in _LITERALS:
            stack.append(_LITERALS[code](value))
        elif code == "(":
            self._marks.append(len(stack))
        elif code in "qr":
            self._memo[value] = stack[-1]
        elif code in "hj":
            stack.append(self._memo[value])
        elif code == "b":
            self._ignore_state()
        elif code == "Q":
            stack.append(self._storage(stack.pop()))
        elif code == "R":
            arguments = stack.pop()
            stack.append(self._made(stack.pop(), arguments))
        elif code != "\x80":
            self._gather(code)

    def _gather(self, code: str) -> None:
        """What takes several values off the stack: into a tuple, or into the container below them."""
        if code in _TUPLES or code in "sa":
            start = len(self._stack) - _TUPLES.get(code, 2 if code == "s" else 1)
            if start < 0:
                raise IndexError
        elif code in "tue":
            start = self._marks.pop()
        else:
            raise _NotPlainError(f"it uses the pickle opcode 0x{ord(code):02x}")
        items = self._stack[start:]
        del self._stack[start:]
        if code == "t" or code in _TUPLES:
            self._stack.append(tuple(items))
        elif code in "ea":
            _expect(self._stack[-1], list).extend(items)
        else:
            keys = items[::2]
            if len(items) % 2 or not all(isinstance(key, str | int) for key in keys):
                raise _NotPlainError("a dictionary has keys other than text and numbers")
            _expect(self._stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def _ignore_state(self) -> None:
        """Of a dictionary: the versions of the modules, which ``load_state_dict`` can do without."""
        self._stack.pop()
        _expect(self._stack[-1], dict)

    def _made(self, name: object, arguments: object) -> Any:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _NotPlainError("it calls what is no name")
        if name == _DICT and not arguments:
            return {}
        if name == _TENSOR and len(arguments) >= 4 and isinstance(arguments[0], _Storage):
            return self._tensor(*arguments[:4])
        if name == _PARAMETER and arguments:
            import torch

            return _expect(arguments[0], torch.Tensor)
        raise _NotPlainError(f"it uses {name.replace(' ', '.'):.80}")

    def _storage(self, identity: object) -> _Storage:
        kind, name, key, _, count = _expect(identity, tuple)
        module, _, cls = _expect(name, _Name).partition(" ")
        if kind != "storage" or module != "torch" or cls not in _STORAGES:
            raise _NotPlainError(f"it keeps its numbers in a {module}.{cls}"[:120])
        dtype, width = _STORAGES[cls]
        member = f"{self._root}data/{_expect(key, str)}"
        if not _is_size(count) or self._sizes.get(member) != count * width:
            raise InvalidModelError(f"{member!r:.80} is not there, is compressed, or is not {count!r:.20} numbers long")
        return _Storage(member, dtype, count)

    def _tensor(self, storage: _Storage, offset: Any, shape: Any, stride: Any) -> Any:
        import torch

        if not _is_size(offset) or not _are_sizes(shape) or not _are_sizes(stride) or len(shape) != len(stride):
            raise InvalidModelError("a tensor has no valid shape")
        elements = 1
        for axis in shape:
            elements *= axis
        last = offset + sum((axis - 1) * step for axis, step in zip(shape, stride, strict=True)) if elements else 0
        if last >= max(storage.numbers, 1) or elements > storage.numbers:
            raise InvalidModelError(
                f"a tensor of {elements} numbers reaches beyond the {storage.numbers} of its storage"
            )
        return torch.as_strided(self._numbers(storage), shape, stride, offset if elements else 0)

    def _numbers(self, storage: _Storage) -> Any:
        """All numbers of a storage; read once."""
        import torch

        key = storage.member, storage.dtype
        if key not in self._bytes:
            content = bytearray(self._sizes[storage.member])
            with self._archive.open(storage.member) as member:
                if cast("io.BufferedIOBase", member).readinto(content) != len(content):
                    raise InvalidModelError(f"{storage.member!r:.80} is cut short")
            dtype = getattr(torch, storage.dtype)
            self._bytes[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._bytes[key]


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _NotPlainError(f"it holds a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SIZE


def _are_sizes(values: object) -> bool:
    return isinstance(values, Sequence) and len(values) <= _MAX_AXES and all(_is_size(value) for value in values)
