"""Images as other tools read them: a folder with an OCI layout, or one tar file.

The file is an OCI archive and a Docker archive at once, as ``docker save`` writes it: ``skopeo`` and podman read it as
either, ``docker load`` of every release takes it. Layers of models are written out; every blob is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from bentotool.errors import BentotoolError, UsageError, VerificationError
from bentotool.imagespec import BuiltImage
from bentotool.models.store import ModelStore
from bentotool.oci.archive import LAYOUT_FILE, REF_NAME
from bentotool.oci.descriptor import INDEX, Descriptor, Index, Manifest, canonical_json
from bentotool.oci.digest import CHUNK, sha256_bytes
from bentotool.oci.layout import DiskFullError, Layout, storage_error
from bentotool.oci.partial import draft_of
from bentotool.oci.reference import RemoteReference
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, tar_header
from bentotool.paths import make_folder, write_atomic

__all__ = ["Images", "archive_pieces", "check_output", "stream_archive", "write_archive", "write_folder"]

Advance = Callable[[int], None]
_CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Images:
    """Images of one Bento that are written together.

    Args:
        layout: the store.
        built: one for each platform.
        models: ``(name, digest)`` of the Bento's models, whose files stand for layers.
        names: references that the images get; the first one counts where there is room for one.
    """

    layout: Layout
    built: Sequence[BuiltImage]
    models: Sequence[tuple[str, str]]
    names: Sequence[str]

    @cached_property
    def top(self) -> tuple[Descriptor, bytes]:
        """What a reference means: the one image, or an index of several."""
        if len(self.built) == 1:
            found = self.built[0].descriptor
            return found, self.layout.read(found.digest)
        data = Index(tuple(image.descriptor for image in self.built)).to_bytes()
        return Descriptor(INDEX, sha256_bytes(data), len(data)), data

    @cached_property
    def parts(self) -> dict[str, Descriptor]:
        """All blobs by digest; layers of models as their files make them."""
        store = ModelStore(self.layout)
        known = {
            layer.digest: layer
            for name, digest in self.models
            for layer in store.by_digest(name, digest).manifest.layers
        }
        found: dict[str, Descriptor] = {}
        for image in self.built:
            manifest = Manifest.from_bytes(self.layout.read(image.digest))
            for part in (image.descriptor, manifest.config, *manifest.layers):
                found[part.digest] = known.get(part.digest, part)
        return found

    @property
    def ids(self) -> tuple[str, str]:
        """What engines call the first image: by its config, or with containerd by what a reference means."""
        return Manifest.from_bytes(self.layout.read(self.built[0].digest)).config.digest, self.top[0].digest

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(part.size for part in self.parts.values())

    @cached_property
    def layers(self) -> list[tuple[str, str]]:
        """``(diff_id, digest)`` of each layer, those of one image from the bottom up."""
        found = []
        for image in self.built:
            manifest = Manifest.from_bytes(self.layout.read(image.digest))
            config = json.loads(self.layout.read(manifest.config.digest))
            plain = config["rootfs"]["diff_ids"]
            found += list(zip(map(str, plain), (layer.digest for layer in manifest.layers), strict=True))
        return found

    def blobs_of(self, plain: Collection[str]) -> frozenset[str]:
        """The blobs that are needed for none but layers of these ``diff_ids``."""
        needed = {digest for diff_id, digest in self.layers if diff_id not in plain}
        return frozenset(digest for diff_id, digest in self.layers if diff_id in plain and digest not in needed)

    def roots(self) -> list[Descriptor]:
        """Entries of ``index.json``: one for each name."""
        top, _ = self.top
        return [
            Descriptor(top.media_type, top.digest, top.size, notes, platform=top.platform)
            for notes in map(_notes, self.names)
        ]

    def docker_manifest(self) -> bytes:
        """``manifest.json`` of a Docker archive; of several platforms it has the first."""
        manifest = Manifest.from_bytes(self.layout.read(self.built[0].digest))
        entry = {
            "Config": _blob(manifest.config.digest),
            "RepoTags": [familiar(name) for name in self.names],
            "Layers": [_blob(layer.digest) for layer in manifest.layers],
        }
        return canonical_json([entry])


def familiar(name: str) -> str:
    """A reference as Docker shows it: nothing of Docker Hub's own name, and always a tag."""
    reference = RemoteReference.parse(name)
    whole = str(reference.with_tag(reference.tag or "latest"))
    return whole.removeprefix("docker.io/").removeprefix("library/")


def _notes(name: str) -> dict[str, str]:
    reference = RemoteReference.parse(name)
    return {REF_NAME: reference.tag or "latest", _CONTAINERD_NAME: str(reference.with_tag(reference.tag or "latest"))}


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def check_output(text: str) -> tuple[str, Path]:
    """What ``--output`` means: ``("folder", path)`` or ``("file", path)``.

    Raises:
        UsageError: neither, or a path where it cannot be written.
    """
    if text.startswith("oci:"):
        path = Path(text[4:])
        if not text[4:] or (path.exists() and not path.is_dir()):
            raise UsageError(f"--output {text}: {str(path)!r} is not a folder", hint="--output oci:FOLDER")
        if path.is_dir() and any(path.iterdir()) and not (path / "oci-layout").is_file():
            raise UsageError(f"--output {text}: the folder holds something else", hint="name a new folder")
        return "folder", path
    path, named = Path(text), text[:200]
    if path.suffix != ".tar":
        plain = path.name.partition(".")[0] or "image"
        packed = (
            f"; to compress it afterwards: gzip {plain}.tar" if ".tar." in path.name or path.suffix == ".tgz" else ""
        )
        raise UsageError(
            f"--output {named} is of neither form, FILE.tar or oci:FOLDER",
            hint=f"--output {plain}.tar for docker load, --output oci:{plain} for an OCI layout{packed}",
        )
    if path.is_dir():
        raise UsageError(
            f"--output {named} is a folder", hint="name a file in it, FILE.tar, or oci:FOLDER for a layout"
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--output {named}: there is no folder {path.parent}", hint="make it first, or name FILE.tar")
    return "file", path


def write_folder(images: Images, folder: Path, advance: Advance = lambda amount: None) -> None:
    """Write images into an OCI layout; what it has under other tags stays.

    Other tools find an image in a layout by its tag alone (``org.opencontainers.image.ref.name``), so one of a tag
    takes the place of what had it, of whatever repository.

    Raises:
        VerificationError: a blob is damaged; no name leads to a half then.
        BentotoolError: the disk refuses.
    """
    try:
        blobs = make_folder(folder / "blobs" / "sha256")
        for part in images.parts.values():
            _write_blob(images.layout, part, blobs / part.digest[7:], advance)
        top, data = images.top
        write_atomic(blobs / top.digest[7:], data)
        write_atomic(folder / "oci-layout", LAYOUT_FILE)
        taken = {_tag(root.to_dict()) for root in images.roots()}
        kept = [each for each in _listed(folder) if _tag(each) not in taken]
        document = json.loads(Index(tuple(images.roots())).to_bytes())
        document["manifests"] = [*kept, *document["manifests"]]
        write_atomic(folder / "index.json", canonical_json(document))
    except OSError as error:
        raise _refused(error, folder) from None


def _refused(error: OSError, where: Path) -> BentotoolError:
    found = storage_error(error, where)
    found.hint = "free some space, or name another place: --output" if isinstance(found, DiskFullError) else None
    return found


def _tag(entry: Mapping[str, Any]) -> Any:
    notes = entry.get("annotations")
    return notes.get(REF_NAME) if isinstance(notes, dict) else None


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder / "index.json").read_bytes())["manifests"]
        return [dict(each) for each in entries]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError):
        raise VerificationError(f"{folder} has an index.json that is damaged", hint="name a new folder") from None


def _write_blob(layout: Layout, part: Descriptor, target: Path, advance: Advance) -> None:
    with contextlib.suppress(OSError):
        if target.is_file() and target.stat().st_size == part.size:
            advance(part.size)
            return
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with draft.open("xb", buffering=0) as file:
            _copy(layout, part, file.write, advance)
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _copy(layout: Layout, part: Descriptor, write: Callable[[Any], int], advance: Advance) -> None:
    for data in _checked(layout, part):
        left = memoryview(data)
        while left:
            left = left[write(left) :]
        advance(len(data))


def _checked(layout: Layout, part: Descriptor) -> Iterator[bytes]:
    """The bytes of a blob; it fails after the last one if they are not what they should be."""
    found, size = hashlib.sha256(), 0
    with layout.open_layer(part) as stream:
        while data := stream.read(CHUNK):
            found.update(data)
            size += len(data)
            yield data
    if f"sha256:{found.hexdigest()}" != part.digest or size != part.size:
        raise VerificationError(f"blob {part.digest} in the store is damaged", hint="see: bentotool store verify")


def write_archive(images: Images, target: Path, advance: Advance = lambda amount: None) -> int:
    """Write images to a file, which appears or is replaced when it is whole; equal images give equal bytes.

    Returns:
        its size in bytes.

    Raises:
        VerificationError: a blob is damaged.
        BentotoolError: the disk refuses.
    """
    try:
        with draft_of(target, buffering=1 << 16) as file:
            stream_archive(images, file, advance)
            return file.tell()
    except OSError as error:
        raise _refused(error, target) from None


def stream_archive(images: Images, file: IO[bytes], advance: Advance = lambda amount: None) -> None:
    """Write the same bytes to an open file or pipe.

    Raises:
        VerificationError: a blob is damaged.
        OSError: the file refuses.
    """
    for piece in archive_pieces(images, advance):
        file.write(piece)


def archive_pieces(
    images: Images, advance: Advance = lambda amount: None, present: Collection[str] = ()
) -> Iterator[bytes]:
    """The same bytes, piece by piece.

    Args:
        advance: told the bytes of blobs that were given.
        present: digests of uncompressed layers (``diff_ids``) whose blobs are left out: for a reader that looks a
            layer up before it opens its file, as Docker's own image store does.

    Raises:
        VerificationError: a blob is damaged.
    """
    top, data = images.top
    small = {
        "oci-layout": LAYOUT_FILE,
        "index.json": Index(tuple(images.roots())).to_bytes(),
        "manifest.json": images.docker_manifest(),
    }
    if top.digest not in images.parts:
        small[_blob(top.digest)] = data
    for name, content in small.items():
        yield tar_header(TarEntry(name, len(content))) + content + bytes(-len(content) % BLOCK)
    left_out = images.blobs_of(present) if present else frozenset()
    for digest, part in sorted(images.parts.items()):
        if digest in left_out:
            continue
        yield tar_header(TarEntry(_blob(digest), part.size))
        for piece in _checked(images.layout, part):
            yield piece
            advance(len(piece))
        yield bytes(-part.size % BLOCK)
    yield TRAILER
