"""Bytecode of an image's packages, in a layer of its own, so that not every start compiles them anew.

It is compiled by an interpreter of the target's version on this machine; the sources are only compiled, never run. Its
bytes depend on the sources and on that interpreter's release (3.12.1 or 3.12.4), and on nothing else: the files are
compiled in one order, by one process, with hashes that are not random, and tell no time. It belongs to these sources,
so it is not checked against them (PEP 552, unchecked).
"""

from __future__ import annotations

import io
import os
import subprocess  # another interpreter is another process; always an argument list
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bentotool.build.bentos import StoredBento
from bentotool.build.media import WHEEL
from bentotool.build.room import Room
from bentotool.build.uvrun import run_uv
from bentotool.build.wheel import open_wheel
from bentotool.errors import BentotoolError, BuildError
from bentotool.images.environment import PythonLayer, kept_layer, note_layer, room_below
from bentotool.images.installed import site_packages
from bentotool.images.layer import LayerEntry, WrittenLayer, write_layer
from bentotool.imagespec import ImagePlan
from bentotool.oci.digest import CHUNK
from bentotool.oci.gzip import Gunzipped
from bentotool.oci.layout import Layout
from bentotool.oci.tar import check_entry_name

__all__ = ["bytecode_layer"]

_FORMAT = 1
_TIMEOUT_S = 900.0
_WHEEL_LIMIT = 256 << 20
_WORKER = """
import os, py_compile, sys
root, prefix = sys.argv[1:3]
names = sorted(os.path.relpath(os.path.join(place, name), root) for place, _, files in os.walk(root) for name in files)
for name in names:
    folder, file = os.path.split(name)
    target = os.path.join(root, folder, "__pycache__", file[:-3] + "." + sys.implementation.cache_tag + ".pyc")
    shown = prefix + "/" + name.replace(os.sep, "/")
    try:
        py_compile.compile(os.path.join(root, name), target, shown, doraise=True, quiet=2,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except (py_compile.PyCompileError, ValueError):
        pass  # a template, or of another version: Python compiles it when it is asked for, and says so then
"""


def bytecode_layer(
    layout: Layout, bento: StoredBento, plan: ImagePlan, packages: WrittenLayer, *, compress: bool = True
) -> PythonLayer:
    """The layer with the bytecode of packages and runtime, from the store where it was made before.

    Args:
        packages: the layer that has the packages.

    Raises:
        BuildError: there is no interpreter of that version here, or it fails.
        BentotoolError: the store refuses, or the layer is damaged.
    """
    room, wheel = Room(layout.root), bento.layer(WHEEL).digest
    with room_below(layout) as folder:
        program, release = _interpreter(folder, plan.python)
        name = room.key("image-bytecode", _FORMAT, packages.diff_id, wheel, plan.python, release, plan.prefix, compress)
        if (kept := kept_layer(layout, room, name, compress=compress)) is not None:
            return PythonLayer(kept, cached=True)
        sources, site = folder / "sources", site_packages(plan.prefix, plan.python)
        for path, content in _sources(layout, packages, f"{site}/"):
            _write(sources, path, content)
        for path, content in open_wheel(layout.read(wheel, _WHEEL_LIMIT)):
            if path.endswith(".py"):
                _write(sources, path, content)
        _compile(program, sources, f"/{site}")
        entries = [
            LayerEntry(f"{site}/{path.relative_to(sources).as_posix()}", path) for path in sources.rglob("*.pyc")
        ]
        layer = write_layer(layout, entries, compress=compress)
    note_layer(room, name, layer)
    return PythonLayer(layer, cached=False)


def _interpreter(folder: Path, python: str) -> tuple[str, str]:
    """An interpreter of a version, and its release."""
    program = sys.executable
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        try:
            found = run_uv(folder, ["python", "find", "--no-project", python], purpose="looking for an interpreter")
        except BentotoolError:
            raise BuildError(
                f"there is no Python {python} here to compile bytecode with",
                hint=f"leave out --bytecode, or install it, as with: uv python install {python}",
            ) from None
        program = found.decode().strip()
    return program, _run([program, "-I", "-c", "import sys; print(sys.version)"]).strip()


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"bytecode cannot be compiled: {error}"[:300], hint="leave out --bytecode") from None
    return done.stdout.decode("utf-8", "replace")


def _compile(program: str, sources: Path, shown: str) -> None:
    # -S and no user's settings: what is installed beside that interpreter has no part in it. Not -I, which would make
    # it ignore the variable that keeps hashes, and with them the order of sets, the same.
    variables = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", "PYTHONSTARTUP": ""}
    _run([program, "-S", "-s", "-X", "utf8", "-c", _WORKER, str(sources), shown], variables)


def _sources(layout: Layout, packages: WrittenLayer, below: str) -> Iterator[tuple[str, bytes]]:
    with layout.open_layer(packages.descriptor) as stream:
        plain = stream
        if packages.descriptor.media_type.endswith("+gzip"):
            plain = io.BufferedReader(Gunzipped(stream, "the layer of packages", packages.unpacked), CHUNK)
        with tarfile.open(fileobj=plain, mode="r|", bufsize=CHUNK) as archive:
            for member in archive:
                if member.isreg() and member.name.startswith(below) and member.name.endswith(".py"):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name.removeprefix(below), file.read()


def _write(folder: Path, name: str, content: bytes) -> None:
    try:
        path = folder / check_entry_name(name)
    except BentotoolError:  # a name that not every system has: Python compiles that file itself
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
