"""Tells what a file of PyTorch is, by its structure."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .pickles import scan_pickle
from .program import pickled_payloads, program_reasons, read_json
from .records import EXPORTED, PICKLE, SCRIPT, STATE_DICT, Inspection, InvalidModelError, TensorRecord, first_line
from .state import NotPlainError, StateReader

MAX_MEMBERS = 200_000
MAX_DIRECTORY = 64 * 1024 * 1024  # bytes of a zip archive's directory, which zipfile reads at once
MAX_READ = 64 * 1024 * 1024  # bytes of a pickle or a JSON document; tensors lie beside them
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys


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
        raise InvalidModelError(f"the archive is damaged: {type(error).__name__}: {first_line(error)}") from None


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
    if reasons:
        return Inspection(PICKLE, tuple(reasons))
    return Inspection(STATE_DICT, ("it was saved in the format before PyTorch 1.6, which takes an unpickler",))


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
    program = _read(archive, root + "data.pkl")
    reasons, _ = scan_pickle(program)
    return Inspection(PICKLE, tuple(reasons)) if reasons else _state(archive, program)


def _state(archive: zipfile.ZipFile, program: bytes) -> Inspection:
    tensors: list[TensorRecord] = []

    def keep(record: TensorRecord) -> TensorRecord:
        tensors.append(record)
        return record

    try:
        StateReader(archive, program, keep).read()
    except NotPlainError as error:
        return Inspection(STATE_DICT, (f"it takes an unpickler: {error}",))
    return Inspection(STATE_DICT, tensors=tuple(tensors))


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
            yield from (f"{name}: {reason}" for reason in program_reasons(_json(archive, root + name)))
        elif name.endswith("_config.json"):
            yield from pickled_payloads(_json(archive, root + name), name)
        elif name.startswith(("data/aotinductor/", "executorch/")) or base.endswith((".so", ".py", ".pyd", ".dll")):
            yield f"{name} is code"
        elif base.startswith(("custom_obj", "opaque_obj")):
            yield f"{name} is a pickle"
        elif name.startswith("data/") and base.endswith((".pt", ".pkl")):
            yield from (f"{name}: {reason}" for reason in _nested(_read(archive, root + name)))


def _nested(data: bytes) -> list[str]:
    """What a file that torch.save wrote into an archive asks for."""
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
    return read_json(_read(archive, name), name)
