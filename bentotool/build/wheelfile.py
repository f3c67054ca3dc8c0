"""Wheels that are packed into a Bento: their names, whether they fit the target, and one form for equal content.

Format: PyPA binary distribution format 1.0. What is built here is written again: entries sorted, stored and not
compressed (compressors differ between versions), dated 1980-01-01, mode 0644 or 0755, with a new record. The line
that names the building tool is replaced, so that two versions of it give one digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from bentotool.build.requirement_line import normal_name
from bentotool.build.target import target_tags
from bentotool.errors import BuildError, ConfigError
from bentotool.oci.tar import check_entry_names

__all__ = ["check_fits", "normalise_wheel", "wheel_identity"]

_DATE = (1980, 1, 1, 0, 0, 0)
_ENTRY_LIMIT = 100_000
_SIZE_LIMIT = 8 << 30
_PIECE = 1 << 20


def wheel_identity(file: str) -> tuple[str, str]:
    """Normalised name and version that a wheel's file name states.

    Raises:
        ConfigError: it is not the name of a wheel.
    """
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        raise ConfigError(
            f"{file[:120]!r} is not the name of a wheel", hint="name it NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        ) from None
    return normal_name(name), str(version)


def check_fits(file: str, python: str, platform: str) -> None:
    """Raise BuildError where a wheel does not install on the target."""
    from packaging.utils import parse_wheel_filename

    tags = parse_wheel_filename(file)[3]
    if not tags & target_tags(python, platform):
        raise BuildError(
            f"{file} does not fit {platform} with Python {python}",
            hint="give the wheel for that target, or build for another: --platform, python.version",
        )


def normalise_wheel(source: Path, target: Path) -> None:
    """Write a built wheel again in the one form for its content.

    Raises:
        BuildError: it is no wheel, or larger than 8 GiB.
        UnsafeError: an entry that is not a plain relative path.
    """
    try:
        with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as written:
            entries = sorted((item for item in read.infolist() if not item.is_dir()), key=lambda item: item.filename)
            if len(entries) > _ENTRY_LIMIT or sum(item.file_size for item in entries) > _SIZE_LIMIT:
                raise BuildError(f"{source.name} holds more than a wheel may")
            check_entry_names(item.filename for item in entries)
            info = next((item.filename[:-5] for item in entries if item.filename.endswith(".dist-info/WHEEL")), None)
            if info is None:
                raise BuildError(f"{source.name} is not a wheel: it has no WHEEL file")
            lines = [_copy(read, written, item, info) for item in entries if item.filename != f"{info}RECORD"]
            _write(written, f"{info}RECORD", "".join([*lines, f"{info}RECORD,,\n"]).encode())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BuildError(f"{source.name} is not a wheel: {' '.join(str(error).split())[:200]}") from None


def _copy(read: zipfile.ZipFile, written: zipfile.ZipFile, item: zipfile.ZipInfo, info: str) -> str:
    """Copy one entry and give its line of RECORD."""
    if item.filename == f"{info}WHEEL":
        content = re.sub(rb"(?mi)^Generator:.*\r?$", b"Generator: bentotool", read.read(item))
        _write(written, item.filename, content)
        return _record(item.filename, hashlib.sha256(content).digest(), len(content))
    digest, entry = hashlib.sha256(), _entry(item.filename, executable=bool(item.external_attr >> 16 & 0o111))
    entry.file_size = item.file_size
    with read.open(item) as source, written.open(entry, "w") as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            target.write(piece)
    return _record(item.filename, digest.digest(), item.file_size)


def _write(written: zipfile.ZipFile, name: str, content: bytes) -> None:
    written.writestr(_entry(name), content, zipfile.ZIP_STORED)


def _entry(name: str, *, executable: bool = False) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system = 3  # "Unix" on every system, or Windows would say otherwise
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    return entry


def _record(name: str, digest: bytes, size: int) -> str:
    quoted = f'"{name}"' if "," in name else name
    return f"{quoted},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{size}\n"
