"""What an installer left in a folder, as the files of a virtual environment in an image.

Folders are named as on the target, whatever this system calls them. Left out: bytecode, and what an installer notes of
itself and of where a package came from. Made anew: programs, whose first line names an interpreter, and the lists of
files (``RECORD``) in which they stand. So two machines make one layer.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bentotool.images.layer import LayerEntry
from bentotool.oci.digest import hash_file

__all__ = ["environment_entries", "site_packages"]

_NOTES = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})
_SITE = re.compile(r"(?:lib(?:64)?/python3(?:\.\d+)?/site-packages|Lib/site-packages)/(.+)", re.IGNORECASE)
_PROGRAM = re.compile(r"(?:bin|Scripts)/([^/]+)")
_LAUNCHER = re.compile(r"([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?", re.ASCII)
_NAME = re.compile(r"[\w.+-]+", re.ASCII)
_TRAMPOLINE = b"#!/bin/sh\n'''exec' "
_OWN = re.compile(r"bentotool(?:/|-[^/]+\.dist-info/)")
"""The distribution itself: in a Bento its runtime takes its place."""


def site_packages(prefix: str, python: str) -> str:
    """The folder of packages in an environment of the image, without the leading slash."""
    return f"{prefix.strip('/')}/lib/python{python}/site-packages"


def environment_entries(installed: Path, prefix: str, python: str) -> Iterator[LayerEntry]:
    """The files of the environment.

    Args:
        installed: where an installer put wheels, as into a virtual environment.
        prefix: of the environment in the image.
        python: ``X.Y``.
    """
    site, root = site_packages(prefix, python), prefix.strip("/")
    packages: dict[str, Path] = {}
    programs: dict[str, Path] = {}
    for path, name in _files(installed):
        if found := _SITE.fullmatch(name):
            if not _OWN.match(found[1]):
                packages[found[1]] = path
        elif found := _PROGRAM.fullmatch(name):
            if not found[1].lower().endswith(".exe"):
                programs[found[1].removesuffix("-script.py")] = path
        else:
            yield LayerEntry(f"{root}/{name}", path, _is_program(path))
    made = _programs(packages, programs, f"/{root}/bin/python")
    for name, content in made.items():
        yield LayerEntry(f"{root}/bin/{name}", content, program=True)
    for name, path in packages.items():
        if name.endswith(".dist-info/RECORD") and name.count("/") == 1:
            yield LayerEntry(f"{site}/{name}", _record(path, made))
        elif not (PurePosixPath(name).name in _NOTES and ".dist-info/" in name):
            yield LayerEntry(f"{site}/{name}", path, _is_program(path))


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != "__pycache__")
        for name in sorted(names):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if not name.endswith((".pyc", ".pyo")) and relative != ".lock":
                yield path, relative


def _is_program(path: Path) -> bool:
    """By content, as not every system knows which files may be executed: ELF, or a script."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"\x7fELF", b"#!"))


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _programs(packages: dict[str, Path], found: dict[str, Path], interpreter: str) -> dict[str, bytes | Path]:
    """Programs by name: made anew, or the file itself where it is no script, which may be large."""
    made: dict[str, bytes | Path] = {}
    for name in sorted(packages):
        if name.endswith(".dist-info/entry_points.txt") and name.count("/") == 1:
            made |= _launchers(packages[name], interpreter)
    for name, path in found.items():
        if name not in made and _NAME.fullmatch(name):
            made[name] = _script(path.read_bytes(), interpreter) if _is_script(path) else path
    return made


def _launchers(path: Path, interpreter: str) -> dict[str, bytes]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of programs keep their case
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError):
        return {}
    made = {}
    for section in ("console_scripts", "gui_scripts"):
        for name, target in parser.items(section) if parser.has_section(section) else ():
            if (found := _LAUNCHER.fullmatch(target.strip())) and _NAME.fullmatch(name):
                module, called = found[1], found[2]
                text = f"#!{interpreter}\nimport sys\nfrom {module} import {called.partition('.')[0]}\n"
                made[name] = f'{text}if __name__ == "__main__":\n    sys.exit({called}())\n'.encode()
    return made


def _script(content: bytes, interpreter: str) -> bytes:
    """A program with the interpreter of the image in its first line, where it is one of Python."""
    if content.startswith(_TRAMPOLINE):  # for a path too long for a first line: three lines in its place
        return f"#!{interpreter}\n".encode() + content.split(b"\n", 3)[-1]
    first, newline, rest = content.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first and newline:
        return f"#!{interpreter}\n".encode() + rest
    return content


def _summed(content: bytes | Path) -> tuple[bytes, int]:
    """SHA-256 and size."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest(), len(content)
    digest, size = hash_file(content)
    return bytes.fromhex(digest.removeprefix("sha256:")), size


def _record(path: Path, made: dict[str, bytes | Path]) -> bytes:
    """The list of a distribution's files as they are in the image."""
    rows = []
    for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
        name = row[0].replace("\\", "/") if row else ""
        parts = PurePosixPath(name)
        if not name or parts.name in _NOTES or name.endswith((".pyc", ".exe")):
            continue
        if parts.parent.name in ("bin", "Scripts") and name.startswith("../"):
            if parts.name in made:
                found, size = _summed(made[parts.name])
                digest = base64.urlsafe_b64encode(found).rstrip(b"=").decode()
                rows.append([f"../../../bin/{parts.name}", f"sha256={digest}", str(size)])
            continue
        rows.append([name, *row[1:]])
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows(sorted(rows))
    return output.getvalue().encode()
