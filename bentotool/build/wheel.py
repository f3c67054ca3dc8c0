"""The embedded runtime: a wheel of the runtime side alone, made from the installed package, the same bytes everywhere.

Format: PyPA binary distribution format 1.0. Entries are stored and never compressed (compressors differ between
versions), sorted, dated 1980-01-01 (the earliest a zip can say), mode 0644.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bentotool.build.requirements import RUNTIME_REQUIREMENTS
from bentotool.build.room import Room
from bentotool.build.stamps import settled, stamp_at
from bentotool.errors import BentotoolError, BuildError, VerificationError
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.tar import check_entry_names

__all__ = ["as_text", "cached_runtime_wheel", "make_wheel", "open_wheel", "runtime_files", "runtime_wheel"]

_MODULES = (
    "__init__.py",
    "errors.py",
    "exceptions.py",
    "frameworks.py",
    "images/__init__.py",
    "metrics.py",
    "models/__init__.py",
    "models/reader.py",
    "models/trust.py",
    "monitoring.py",
    "validators.py",
)
_PACKAGES = ("sdk", "runtime", "client")
_TEXT = {".py", ".pyi", ".json", ".html", ".css", ".js", ".svg", ".txt", ".md", ".typed"}
_DATE = (1980, 1, 1, 0, 0, 0)
_ENTRY_LIMIT = 10_000
_SIZE_LIMIT = 256 << 20


def runtime_wheel(requirements: Iterable[str] = RUNTIME_REQUIREMENTS) -> tuple[str, bytes]:
    """Version and bytes of the embedded runtime's wheel.

    Raises:
        BuildError: when the installed package lacks its runtime.
    """
    from bentotool import __version__

    files = {f"bentotool/{name}": content for name, content in runtime_files().items()}
    return __version__, make_wheel("bentotool_runtime", __version__, files, requirements)


def cached_runtime_wheel(
    room: Room, layout: Layout, requirements: Iterable[str] = RUNTIME_REQUIREMENTS
) -> tuple[str, bytes, bool]:
    """As :func:`runtime_wheel`; taken from the store while the installed package looks as it did then.

    Returns:
        version, bytes, and whether they were taken from there.
    """
    from bentotool import __version__

    lines, name = list(requirements), room.key("wheel", __version__)
    kept, now = room.read(name), time.time_ns()
    stamps = {str(path): stamp_at(path) for path in _runtime_paths().values()}
    made_from = [lines, {path: list(stamp or ()) for path, stamp in stamps.items()}]
    if kept is not None and kept.get("of") == made_from and layout.has(digest := str(kept.get("digest"))):
        with contextlib.suppress(BentotoolError):
            return __version__, layout.read(digest, _SIZE_LIMIT), True
    version, wheel = runtime_wheel(lines)
    if all(stamp is not None and settled(stamp, now) for stamp in stamps.values()):
        room.write(name, {"of": made_from, "digest": sha256_bytes(wheel)})
    return version, wheel, False


def runtime_files() -> dict[str, bytes]:
    """The files of the runtime side by their path below ``bentotool/``, with data files such as the Swagger page."""
    return {name: _content(path) for name, path in _runtime_paths().items()}


def _runtime_paths() -> dict[str, Path]:
    import bentotool

    root = Path(str(bentotool.__file__)).parent
    names = [name for name in _MODULES if (root / name).is_file()]
    for package in _PACKAGES:
        folder = root / package
        if not (folder / "__init__.py").is_file():
            raise BuildError(
                f"the installed bentotool has no {package} package", hint="pip install --force-reinstall bentotool"
            )
        names += [path.relative_to(root).as_posix() for path in _below(folder)]
    return {name: root / name for name in sorted(names)}


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".pyo", ".so", ".pyd"):
            yield path


def _content(path: Path) -> bytes:
    return as_text(path.read_bytes()) if path.suffix in _TEXT else path.read_bytes()


def as_text(content: bytes) -> bytes:
    """Text with ``\\n`` line ends: a checkout on Windows may have others, and the digest must not depend on it."""
    return content.replace(b"\r\n", b"\n")


def make_wheel(
    name: str, version: str, files: Mapping[str, bytes], requirements: Iterable[str] = (), *, python: str = ">=3.10"
) -> bytes:
    """A pure-Python wheel.

    Args:
        name: distribution name as it stands in file names, with underscores.
        files: content by path in the wheel.
        requirements: PEP 508 lines for ``Requires-Dist``.
    """
    info = f"{name}-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name.replace('_', '-')}",
        f"Version: {version}",
        f"Requires-Python: {python}",
    ]
    metadata += [f"Requires-Dist: {line}" for line in requirements]
    wheel = ["Wheel-Version: 1.0", "Generator: bentotool", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    entries = {path: files[path] for path in sorted(files)}
    entries[f"{info}/METADATA"] = "".join(f"{line}\n" for line in metadata).encode()
    entries[f"{info}/WHEEL"] = "".join(f"{line}\n" for line in wheel).encode()
    record = [f"{path},sha256={_record_hash(content)},{len(content)}\n" for path, content in entries.items()]
    entries[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, content in entries.items():
            entry = zipfile.ZipInfo(path, _DATE)
            entry.create_system = 3  # "Unix" on every system, or Windows would say otherwise
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def open_wheel(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a runtime wheel: name and content. Anything that :func:`make_wheel` would not write is refused.

    Raises:
        VerificationError: not such a zip.
        UnsafeError: a name that is not a plain relative path.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _ENTRY_LIMIT or sum(entry.file_size for entry in entries) > min(len(data), _SIZE_LIMIT):
                raise VerificationError("the runtime wheel holds more than its size allows")
            check_entry_names(entry.filename for entry in entries)
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.external_attr != 0o100644 << 16:
                    raise VerificationError(f"the runtime wheel's entry {entry.filename[:120]!r} is not a plain file")
                yield entry.filename, archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise VerificationError(f"the runtime wheel is damaged: {error}") from None
