"""Reads an archive that ``torch.save`` wrote as data, without an unpickler.

The pickle in such an archive builds containers, and names tensors whose numbers lie beside it. It is read here by a
stack machine that knows plain values only: no name in it is looked up or called, and every tensor is checked to lie
within its numbers. What holds anything else is refused. See torch/serialization.py for the layout of the archive, and
pickletools for the opcodes.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, cast

from .pickles import opcodes
from .records import InvalidModelError, Storage, TensorRecord

_MAX_SIZE = 1 << 48  # elements on an axis
_MAX_AXES = 64

# By the class that a pickle names: torch's dtype, and bytes of an element.
_STORAGES = {
    "BFloat16Storage": ("bfloat16", 2),
    "BoolStorage": ("bool", 1),
    "ByteStorage": ("uint8", 1),
    "CharStorage": ("int8", 1),
    "ComplexDoubleStorage": ("complex128", 16),
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
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"


class NotPlainError(Exception):
    """More than tensors and plain containers."""


def read_state(path: Path, device: Any = "cpu") -> Any:
    """Tensors in plain containers, on ``device``; those that shared memory when they were saved share it again.

    Raises NotPlainError for what holds more, InvalidModelError for a damaged file.
    """
    import torch

    numbers: dict[Storage, Any] = {}

    def make(record: TensorRecord) -> Any:
        storage = record.storage
        if storage not in numbers:
            numbers[storage] = _read_numbers(archive, storage).to(device)
        return torch.as_strided(numbers[storage], record.shape, record.stride, record.offset)

    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return StateReader(archive, archive.read(f"{root}/data.pkl"), make).read()


def _read_numbers(archive: zipfile.ZipFile, storage: Storage) -> Any:
    """Past zipfile, which would copy twice and compute a checksum: four times as fast."""
    import torch

    dtype, info = getattr(torch, storage.dtype), archive.getinfo(storage.member)
    file, content = archive.fp, bytearray(info.file_size)
    if file is None or not content:
        return torch.empty(0, dtype=dtype)
    file.seek(info.header_offset)
    head = file.read(30)  # of the member: its signature, and last the lengths of its name and of what is extra
    if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
        raise InvalidModelError(f"{storage.member!r:.80} is not where the archive says")
    file.seek(sum(struct.unpack_from("<HH", head, 26)), io.SEEK_CUR)
    if cast("io.BufferedReader", file).readinto(content) != len(content):
        raise InvalidModelError(f"{storage.member!r:.80} is cut short")
    return torch.frombuffer(content, dtype=dtype)


class StateReader:
    """The stack machine.

    Args:
        archive: what lies beside the pickle.
        program: the pickle.
        make: called once for each tensor, and gives what stands for it.
    """

    def __init__(self, archive: zipfile.ZipFile, program: bytes, make: Callable[[TensorRecord], Any]) -> None:
        infos = archive.infolist()
        self._root = infos[0].filename.partition("/")[0] + "/"
        # stored, and no two members over the same bytes: what is read is never more than the file
        if archive.fp is None or sum(info.file_size for info in infos) > archive.fp.seek(0, io.SEEK_END):
            raise NotPlainError("its members claim more bytes than the file has")
        self._sizes = {info.filename: info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED}
        order = self._root + "byteorder"
        if order in archive.NameToInfo and archive.read(order) != b"little":
            raise NotPlainError("its numbers are big-endian")
        self._program = program
        self._make = make
        self._tensors: tuple[type, ...] = ()  # what ``make`` gives
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """What the pickle makes.

        Raises NotPlainError for more than tensors and plain containers, InvalidModelError for a damaged pickle.
        """
        try:
            for code, value, _ in opcodes(self._program):
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
            raise NotPlainError(f"it uses the pickle opcode 0x{ord(code):02x}")
        items = self._stack[start:]
        del self._stack[start:]
        if code == "t" or code in _TUPLES:
            self._stack.append(tuple(items))
        elif code in "ea":
            _expect(self._stack[-1], list).extend(items)
        else:
            keys = items[::2]
            if len(items) % 2 or not all(isinstance(key, str | int) for key in keys):
                raise NotPlainError("a dictionary has keys other than text and numbers")
            _expect(self._stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def _ignore_state(self) -> None:
        """Of a dictionary: the versions of the modules, which ``load_state_dict`` can do without."""
        self._stack.pop()
        _expect(self._stack[-1], dict)

    def _made(self, name: object, arguments: object) -> Any:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise NotPlainError("it calls what is no name")
        if name == _DICT and not arguments:
            return {}
        if name == _TENSOR and isinstance(arguments[0], Storage):
            # then: whether it is trained, hooks, and in newer files what changes how the numbers are read
            storage, offset, shape, stride, _, _, *views = arguments
            if any(views):
                raise NotPlainError("a tensor is a view that conjugates or negates")
            return self._tensor(storage, offset, shape, stride)
        if name == _PARAMETER and arguments and isinstance(arguments[0], self._tensors):
            return arguments[0]
        raise NotPlainError(f"it uses {name.replace(' ', '.'):.80}")

    def _storage(self, identity: object) -> Storage:
        kind, name, key, _, count = _expect(identity, tuple)
        module, _, cls = _expect(name, _Name).partition(" ")
        if kind != "storage" or module != "torch" or cls not in _STORAGES:
            raise NotPlainError(f"it keeps its numbers in a {module}.{cls}"[:120])
        dtype, width = _STORAGES[cls]
        member = f"{self._root}data/{_expect(key, str)}"
        if not _is_size(count) or self._sizes.get(member) != count * width:
            raise InvalidModelError(f"{member!r:.80} is not there, is compressed, or is not {count!r:.20} numbers long")
        return Storage(member, dtype, count)

    def _tensor(self, storage: Storage, offset: Any, shape: Any, stride: Any) -> Any:
        if not _is_size(offset) or not _are_sizes(shape) or not _are_sizes(stride) or len(shape) != len(stride):
            raise InvalidModelError("a tensor has no valid shape")
        count = prod(shape)
        last = offset + sum((axis - 1) * step for axis, step in zip(shape, stride, strict=True)) if count else 0
        if last >= max(storage.numbers, 1):
            raise InvalidModelError(f"a tensor of {count} reaches beyond the {storage.numbers} numbers of its storage")
        if count > storage.numbers:  # the same numbers over and over: a few bytes would become any amount of memory
            raise NotPlainError(f"a tensor of {count} is made from {storage.numbers} numbers")
        made = self._make(TensorRecord(storage, offset if count else 0, tuple(shape), tuple(stride)))
        self._tensors = (type(made),)
        return made


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise NotPlainError(f"it holds a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SIZE


def _are_sizes(values: object) -> bool:
    return isinstance(values, tuple | list) and len(values) <= _MAX_AXES and all(_is_size(value) for value in values)
