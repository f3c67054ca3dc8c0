"""Where base images lie: a registry, a folder with an OCI layout, a file with one."""

from __future__ import annotations

import json
import posixpath
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from bentotool.errors import NotFoundError, UsageError, VerificationError
from bentotool.images.dockerarchive import DockerArchive
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, Descriptor
from bentotool.oci.digest import CHUNK, open_regular, sha256_bytes
from bentotool.oci.reference import RemoteReference

if TYPE_CHECKING:
    from bentotool.oci.layout import LayerSink
    from bentotool.oci.registry import Registry

__all__ = ["DOCKER_INDEX", "DOCKER_MANIFEST", "Place", "is_local", "place_of"]

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_TYPES = (INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
_REF_NAME = "org.opencontainers.image.ref.name"
_FOLDER, _FILE = "oci:", "oci-archive:"
_MEMBERS = 100_000


class Place(Protocol):
    """Where one image lies.

    Attributes:
        stop: set it to end all transfers.
    """

    stop: threading.Event

    def top(self) -> tuple[bytes, str]:
        """What the reference names: bytes and media type."""
        ...

    def manifest(self, entry: Descriptor) -> tuple[bytes, str]:
        """A manifest that an index lists, its digest checked."""
        ...

    def read(self, blob: Descriptor) -> bytes:
        """A small blob."""
        ...

    def fetch(self, blob: Descriptor, sink: LayerSink, advance: Callable[[int], None]) -> None:
        """Write a blob into a sink, which checks it."""
        ...

    def close(self) -> None: ...


def is_local(text: str) -> bool:
    """Whether a reference means a folder or file."""
    return text.startswith((_FOLDER, _FILE)) and not text.startswith("oci://")


def place_of(text: str, open_registry: Callable[[str], Registry]) -> Place:
    """The place that a reference means.

    Raises:
        UsageError: it is no reference.
        NotFoundError: there is no such folder or file.
    """
    if is_local(text):
        path, tag = _split(text[len(_FILE if text.startswith(_FILE) else _FOLDER) :])
        archive = text.startswith(_FILE) or path.is_file()
        return _Stored(text, tag, _archive_reader(path) if archive else _folder_reader(path))
    reference = RemoteReference.parse(text)
    return _Remote(reference, open_registry(reference.registry))


def _split(text: str) -> tuple[Path, str]:
    """Path and tag, as other tools write them; a drive of Windows is no path."""
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag or "\\" in tag or (len(path) == 1 and path.isalpha()):
        return Path(text), ""
    return (Path(text), "") if Path(text).exists() else (Path(path), tag)


class _Remote:
    """An image of a registry."""

    def __init__(self, reference: RemoteReference, registry: Registry) -> None:
        self._reference, self._client = reference, registry
        self.stop = registry.stop

    def top(self) -> tuple[bytes, str]:
        wanted = self._reference.digest or self._reference.tag or "latest"
        return self._get(wanted)

    def manifest(self, entry: Descriptor) -> tuple[bytes, str]:
        return self._get(entry.digest)

    def _get(self, wanted: str) -> tuple[bytes, str]:
        try:
            found = self._client.get_manifest(self._reference.repository, wanted, _TYPES)
        except NotFoundError as error:
            raise NotFoundError(f"no base image: {error.message}", hint="name another with --base") from None
        return found.data, found.descriptor.media_type

    def read(self, blob: Descriptor) -> bytes:
        return self._client.read_blob(self._reference.repository, blob)

    def fetch(self, blob: Descriptor, sink: LayerSink, advance: Callable[[int], None]) -> None:
        self._client.download_blob(self._reference.repository, blob, sink, advance=advance)

    def close(self) -> None:
        self._client.close()


def _folder_reader(folder: Path) -> Callable[[str], BinaryIO]:
    if not folder.is_dir():
        hint = "oci: takes an OCI image layout, or a file that docker save wrote"
        raise NotFoundError(f"no folder {str(folder)!r} with a base image", hint=hint)

    def opened(name: str) -> BinaryIO:
        return open_regular(folder / name, buffering=0, follow=True)

    return opened


def _archive_reader(path: Path) -> Callable[[str], BinaryIO]:
    files = _ArchiveReader(path)
    try:
        return files if "index.json" in files or "manifest.json" not in files else DockerArchive(files, str(path))
    except BaseException:
        files.close()
        raise


class _ArchiveReader:
    """The files in a tar archive; read in place, none is written anywhere."""

    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed with the place
            members = {member.name.removeprefix("./"): member for member in self._limited(path)}
        except FileNotFoundError:
            raise NotFoundError(f"no file {str(path)!r} with a base image", hint="oci-archive:FILE") from None
        except (tarfile.TarError, OSError) as error:
            hint = "a plain tar file, as docker save writes it; unpack one that is compressed"
            raise VerificationError(f"{path} is no archive of an image: {error}", hint=hint) from None
        self._members, self._lock = members, threading.Lock()

    def _limited(self, path: Path) -> list[tarfile.TarInfo]:
        found = []
        for member in self._tar:
            found.append(member)
            if len(found) > _MEMBERS:
                raise VerificationError(f"{path} has more than {_MEMBERS} files")
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._member(name).size

    def _member(self, name: str) -> tarfile.TarInfo:
        """The file of a name, or the one that it is a link to: layers that are equal may be written so."""
        member = self._members.get(name)
        if member is not None and member.issym():
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            member = self._members.get(target)
        if member is None or not member.isfile():
            raise FileNotFoundError(name)
        return member

    def __call__(self, name: str) -> BinaryIO:
        file = self._tar.extractfile(self._member(name))
        if file is None:
            raise FileNotFoundError(name)
        return file  # type: ignore[return-value]

    def close(self) -> None:
        self._tar.close()


class _Stored:
    """An image in an OCI layout: a folder, or a file with one."""

    def __init__(self, text: str, tag: str, reader: Callable[[str], BinaryIO]) -> None:
        self._text, self._tag, self._reader = text, tag, reader
        self.stop = threading.Event()
        self._lock = threading.Lock()  # an archive has one position for all its files

    def top(self) -> tuple[bytes, str]:
        try:
            body = json.loads(self._small("index.json"))
            listed = entries = [Descriptor.from_dict(each) for each in body["manifests"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise VerificationError(f"{self._text} has no sound index.json") from None
        if self._tag:
            entries = [each for each in entries if each.annotations.get(_REF_NAME) == self._tag]
        if len({each.digest for each in entries}) != 1:
            what = f"has {len(entries)} images" + (f" named {self._tag!r}" if self._tag else "")
            names = ", ".join(sorted({name for each in listed if (name := each.annotations.get(_REF_NAME, ""))})[:20])
            hint = f"add one of its tags, as in oci:FOLDER:TAG: {names or 'none'}"
            if self._tag and entries:  # another one of its tags would be another image
                hint = "the tag does not say which: write the one that is meant to a folder of its own"
            raise NotFoundError(f"{self._text} {what}, not one", hint=hint)
        return self.manifest(entries[0])

    def manifest(self, entry: Descriptor) -> tuple[bytes, str]:
        data = self.read(entry)
        if entry.media_type not in _TYPES:
            raise VerificationError(f"{self._text} lists a {entry.media_type[:80]!r}, not an image")
        return data, entry.media_type

    def read(self, blob: Descriptor) -> bytes:
        data = self._small(f"blobs/sha256/{blob.digest[7:]}")
        if sha256_bytes(data) != blob.digest:
            raise VerificationError(f"{blob.digest} of {self._text} is damaged")
        return data

    def _small(self, name: str) -> bytes:
        with self._lock, self._open(name) as file:
            data = file.read(MANIFEST_LIMIT + 1)
        if len(data) > MANIFEST_LIMIT:
            raise VerificationError(f"{name} of {self._text} has more than {MANIFEST_LIMIT} bytes")
        return data

    def _open(self, name: str) -> BinaryIO:
        try:
            return self._reader(name)
        except FileNotFoundError:
            raise NotFoundError(f"{self._text} has no {name}", hint="it has to be a whole OCI image layout") from None
        except (OSError, tarfile.TarError) as error:
            raise UsageError(f"{self._text}: {name} cannot be read: {error}") from None

    def fetch(self, blob: Descriptor, sink: LayerSink, advance: Callable[[int], None]) -> None:
        with self._lock, self._open(f"blobs/sha256/{blob.digest[7:]}") as file:
            while data := file.read(CHUNK):
                sink.write(data)
                advance(len(data))

    def close(self) -> None:
        closing: Any = getattr(self._reader, "close", None)
        if closing is not None:
            closing()
