"""What a base image has to have: a Python of the right version, and the C library that wheels are built for.

Its layers are looked through once; nothing is unpacked. The outcome is kept with the digest of the base.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from bentotool.build.room import Room
from bentotool.errors import BuildError, VerificationError
from bentotool.images.baseimage import BaseImage
from bentotool.oci import zstd
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.gzip import Gunzipped
from bentotool.oci.layout import Layout

__all__ = ["find_python"]

_FORMAT = 1
_UNPACKED_LIMIT = 256 << 30
_INTERPRETER = re.compile(r"(?:usr/local/|usr/|opt/[\w.-]+/|opt/|)bin/python3\.\d+")
_MUSL = re.compile(r"(?:usr/)?lib/ld-musl-[\w-]+\.so\.\d+")
_ORDER = ("usr/local/bin", "usr/bin", "bin")


@dataclass(frozen=True)
class _Found:
    interpreters: frozenset[str]
    musl: bool


def find_python(layout: Layout, base: BaseImage, python: str) -> str:
    """The path in the image of the interpreter that the Bento runs on.

    Args:
        python: ``X.Y``.

    Raises:
        BuildError: the base has no such Python, or the wrong C library.
        VerificationError: a layer is damaged.
    """
    found = _look(layout, base)
    if found.musl:
        raise BuildError(
            f"base image {base.reference} has the C library musl, and the lock is of wheels for glibc",
            hint=f"name one of Debian, such as python:{python}-slim, or build with --builder buildkit",
        )
    fitting = sorted(
        (name for name in found.interpreters if name.endswith(f"/python{python}")),
        key=lambda name: (_ORDER.index(name.rpartition("/")[0]) if name.rpartition("/")[0] in _ORDER else 9, name),
    )
    if not fitting:
        versions = sorted({name.rpartition("/python")[2] for name in found.interpreters})
        has = f"has Python {', '.join(versions)}" if versions else "has no Python"
        raise BuildError(
            f"base image {base.reference} {has}, and the Bento needs {python}",
            hint=f"name one that has it, such as --base docker.io/library/python:{python}-slim{_or(versions)}",
        )
    return f"/{fitting[0]}"


def _or(versions: list[str]) -> str:
    if len(versions) != 1:
        return ""
    return f"; or set python.version to {versions[0]} in bentofile.yaml, and build again"


def _look(layout: Layout, base: BaseImage) -> _Found:
    room = Room(layout.root)
    name = room.key("image-base-files", _FORMAT, list(base.diff_ids))
    kept = room.read(name)
    if kept is not None and isinstance(kept.get("interpreters"), list):
        room.used(name)
        return _Found(frozenset(map(str, kept["interpreters"])), kept.get("musl") is True)
    present: set[str] = set()
    musl = False
    for layer in base.layers:
        for entry in _names(layout, layer, base.reference):
            folder, _, last = entry.rpartition("/")
            if last == ".wh..wh..opq":
                present = {each for each in present if not each.startswith(f"{folder}/")}
            elif last.startswith(".wh."):
                gone = f"{folder}/{last[4:]}".strip("/")
                present = {each for each in present if each != gone and not each.startswith(f"{gone}/")}
            elif _INTERPRETER.fullmatch(entry):
                present.add(entry)
            musl = musl or _MUSL.fullmatch(entry) is not None
    room.write(name, {"interpreters": sorted(present), "musl": musl})
    return _Found(frozenset(present), musl)


def _names(layout: Layout, layer: Descriptor, what: str) -> Iterator[str]:
    """Names of the files and links of a layer."""
    with ExitStack() as stack:
        source = stack.enter_context(layout.open_layer(layer))
        stream = _plain(source, layer, what)
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
                    if not member.isdir():
                        yield member.name.removeprefix("./").lstrip("/")
        except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
            raise VerificationError(f"layer {layer.digest} of base image {what} is damaged: {error}") from None


def _plain(source: BinaryIO, layer: Descriptor, what: str) -> BinaryIO:
    name = f"layer {layer.digest[7:19]} of {what}"
    if layer.media_type.endswith("+gzip"):
        return io.BufferedReader(Gunzipped(source, name, _UNPACKED_LIMIT), CHUNK)
    if layer.media_type.endswith("+zstd"):
        return io.BufferedReader(zstd.Decompressed(source, name, _UNPACKED_LIMIT), CHUNK)
    return source
