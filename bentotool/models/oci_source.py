"""Models from registries and image layouts: ``oci://HOST/REPOSITORY[:TAG][@DIGEST]`` and ``oci:FOLDER[:NAME]``.

Whatever family of manifest it is (see :mod:`bentotool.models.foreign`), its files are brought to this disk, each layer
verified, and then imported like any others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Protocol

from bentotool.errors import NotFoundError, UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.models.foreign import ForeignLayer, ForeignModel, family_of, read_foreign
from bentotool.oci.blobs import storage_error
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, Descriptor, Index, Manifest
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import check_version
from bentotool.oci.unpack import FileSink, TarSink, Unpacker
from bentotool.oci.workers import run_all

if TYPE_CHECKING:
    from bentotool.interfaces import JSON
    from bentotool.oci.credentials import Credentials, CredentialStore
    from bentotool.oci.registry import Registry
    from bentotool.plugins import Plugins

__all__ = ["Found", "OciSource", "RegistryContent", "credentials_of", "find_model", "take_model"]

_KIND = "io.bentotool.kind"
_MAX_CANDIDATES = 16
_JOBS = 4
_SLACK = 1 << 20  # bytes of headers and padding around one file in a tar
Advance = Callable[[int], None]


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Checked:
    """Passes bytes on while hashing them."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()

    def resume(self) -> int:
        """No bytes of an earlier process are gone on from."""
        return 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._sink.write(data)

    def check(self, descriptor: Descriptor) -> None:
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != descriptor.digest:
            raise VerificationError(f"layer {descriptor.digest} has other bytes: {actual}")


class Content(Protocol):
    """Where manifests and blobs are read from; ``stop`` ends what is under way."""

    stop: Event

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]: ...

    def read(self, descriptor: Descriptor) -> bytes: ...

    def receive(self, descriptor: Descriptor, sink: _Checked, advance: Advance) -> None: ...


class RegistryContent:
    """A repository of a registry."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry, self._repository = registry, repository
        self.stop = registry.stop

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        fetched = self._registry.get_manifest(self._repository, reference)
        return fetched.descriptor, fetched.data

    def read(self, descriptor: Descriptor) -> bytes:
        return self._registry.read_blob(self._repository, descriptor)

    def receive(self, descriptor: Descriptor, sink: _Checked, advance: Advance) -> None:
        self._registry.download_blob(self._repository, descriptor, sink, advance=advance)


class _LayoutContent:
    """A folder in image layout, of any tool; layers of our own stores may be virtual."""

    def __init__(self, folder: Path) -> None:
        self._layout = Layout(folder)
        self.stop = Event()
        if not (folder / "oci-layout").is_file():
            raise UsageError(f"{folder} is not an OCI image layout", hint="give a folder that holds oci-layout")

    def names(self) -> Iterator[tuple[str, Descriptor]]:
        try:
            with (self._layout.root / "index.json").open("rb") as file:
                document = json.loads(file.read(64 << 20))
            entries = [Descriptor.from_dict(each) for each in document["manifests"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise VerificationError(f"index.json of {self._layout.root} cannot be read") from None
        for entry in entries:
            yield entry.annotations.get("org.opencontainers.image.ref.name", ""), entry

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        if not reference.startswith("sha256:"):
            listed = [(name, each) for name, each in self.names() if not reference or name == reference]
            digests = {each.digest for _, each in listed}
            if len(digests) != 1:
                names = ", ".join(sorted({name for name, _ in self.names() if name})[:10])
                what = f"{reference or 'no name given, and'} {len(digests)} manifests fit in {self._layout.root}"
                raise NotFoundError(what, hint=f"say which, as oci:FOLDER:NAME; it has {names or 'no names'}")
            reference = digests.pop()
        data = self._layout.read(reference)
        media_type = INDEX if b'"manifests"' in data and b'"layers"' not in data else MANIFEST
        return Descriptor(media_type, reference, len(data)), data

    def read(self, descriptor: Descriptor) -> bytes:
        return self._layout.read(descriptor.digest)

    def receive(self, descriptor: Descriptor, sink: _Checked, advance: Advance) -> None:
        left = descriptor.size
        try:
            with self._layout.open_layer(descriptor) as stream:
                while data := stream.read(min(CHUNK, left + 1)):
                    left -= len(data)
                    if left < 0:
                        break
                    sink.write(data)
                    advance(len(data))
        except OSError as error:
            raise UsageError(f"{self._layout.root} cannot be read: {error.strerror}") from None
        if left:
            raise VerificationError(f"blob {descriptor.digest} does not have its {descriptor.size} bytes")


@dataclass(frozen=True)
class Found:
    """The manifest of a model that we can read."""

    descriptor: Descriptor
    manifest: Manifest


def find_model(content: Content, reference: str, what: str) -> Found:
    """The manifest under a tag or digest, or the only model of an index there.

    Raises:
        UsageError: when it is no model, or an index of several.
    """
    descriptor, data = content.manifest(reference)
    if descriptor.media_type != INDEX:
        manifest = Manifest.from_bytes(data)
        if family_of(manifest) is None:
            kind = (manifest.artifact_type or manifest.config.media_type)[:100]
            raise UsageError(f"{what} is not a model but {kind!r}", hint="a Bento is brought by: bentotool pull")
        return Found(descriptor, manifest)
    entries = Index.from_bytes(data).manifests
    if any(each.annotations.get(_KIND) == "bento" for each in entries):
        raise UsageError(f"{what} is a Bento", hint="bring it, with its models, by: bentotool pull")
    if len(entries) > _MAX_CANDIDATES:
        raise UsageError(f"{what} is an index of {len(entries)} manifests", hint="give one by its @sha256: digest")
    found = []
    for each in entries:
        if each.media_type == MANIFEST:
            one, text = content.manifest(each.digest)
            manifest = Manifest.from_bytes(text)
            found += [Found(one, manifest)] if family_of(manifest) else []
    if len(found) != 1:
        digests = " or ".join(each.descriptor.digest for each in found[:4])
        raise UsageError(
            f"{what} is an index of {len(found)} models", hint=f"give one by its digest: {digests}" if found else None
        )
    return found[0]


class _Taking:
    """Files of a model on their way into a folder."""

    def __init__(self, content: Content, folder: Path, max_bytes: int, advance: Advance) -> None:
        self._content, self._folder, self._max_bytes = content, folder, max_bytes
        self.unpacker = Unpacker(folder / "files", max_bytes=max_bytes)
        self._advance, self._lock = advance, Lock()

    def _moved(self, count: int) -> None:
        with self._lock:
            self._advance(count)

    def take(self, layer: ForeignLayer) -> None:
        size = layer.file_size if layer.compression else layer.descriptor.size
        sink: FileSink | TarSink
        if layer.packed == "raw":
            sink = FileSink(self.unpacker, layer.path, size)
        else:
            sink = TarSink(self.unpacker, layer.place)
        with contextlib.closing(sink):
            if layer.compression:
                self._take_compressed(layer, sink)
            else:
                self._receive(layer.descriptor, sink)
            sink.finish()

    def _receive(self, descriptor: Descriptor, sink: _Sink) -> None:
        checked = _Checked(sink)
        self._content.receive(descriptor, checked, self._moved)
        checked.check(descriptor)

    def _take_compressed(self, layer: ForeignLayer, sink: _Sink) -> None:
        """Bring what is compressed whole and verify it first: decompressors are the largest piece of foreign code."""
        from bentotool.oci.gzip import Gunzipped
        from bentotool.oci.zstd import Decompressed

        reader = Gunzipped if layer.compression == "gzip" else Decompressed
        limit = self._max_bytes + _SLACK if layer.file_size is None else layer.file_size + _SLACK
        packed = self._folder / f"packed-{secrets.token_hex(8)}"
        try:
            with packed.open("xb") as target:
                self._receive(layer.descriptor, target)
            with packed.open("rb") as file, reader(file, f"layer {layer.descriptor.digest[:19]}…", limit) as stream:
                while data := stream.read(CHUNK):
                    if self._content.stop.is_set():
                        return
                    sink.write(data)
        except OSError as error:
            raise storage_error(error, self._folder) from None
        finally:
            packed.unlink(missing_ok=True)


def take_model(
    content: Content,
    found: Found,
    folder: Path,
    *,
    name: str,
    tag: str | None,
    source: str,
    max_bytes: int,
    advance: Advance,
    jobs: int = _JOBS,
) -> SourceModel:
    """Bring the files of a model, and what its manifest says, into a folder.

    Args:
        folder: an existing folder on the store's disk; nothing of ours is left in it after a failure.
        name: what to call a model that does not name itself.
        tag: the tag it was asked for by, which is its version when it states none.
        source: where it is from, kept as a fact; empty to keep none.
        jobs: layers fetched at once.

    Raises:
        VerificationError: when a byte is not what its digest says, or an archive is damaged.
        UnsafeError: when an entry is no plain file below the folder, or all of it is too large.
        MissingDependencyError: for a layer in zstd, where no library for it is installed.
    """
    model = read_foreign(found.manifest, content.read(_small(found.manifest.config)))
    total = sum(layer.descriptor.size for layer in model.layers)
    if total > max_bytes:
        raise UnsafeError(
            f"the model has {total} bytes, more than {max_bytes}",
            hint="raise the limit with --max-size if that is right",
        )
    scratch = folder / f"model-{secrets.token_hex(8)}"
    try:
        scratch.mkdir(mode=0o700)
        taking = _Taking(content, scratch, max_bytes, advance)
        # The largest first: the last one to end decides how long all take.
        ordered = sorted(model.layers, key=lambda layer: -layer.descriptor.size)
        run_all([partial(taking.take, layer) for layer in ordered], jobs, content.stop)
    except OSError as error:
        raise storage_error(error, folder) from None
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    files = tuple(SourceFile(taking.unpacker.folder / each, each) for each in taking.unpacker.names)
    return _described(model, found, files, name, tag, source)


def _small(config: Descriptor) -> Descriptor:
    if config.size > MANIFEST_LIMIT:
        raise VerificationError(f"the config of the model has {config.size} bytes, more than {MANIFEST_LIMIT}")
    return config


def _described(
    model: ForeignModel, found: Found, files: Sequence[SourceFile], name: str, tag: str | None, source: str
) -> SourceModel:
    origin: dict[str, JSON] = {}
    if "io.bentotool.name" not in found.manifest.annotations:  # one of ours needs no such trace: it is the same model
        origin = {"source_digest": found.descriptor.digest, "source_format": model.family}
        origin |= {"source": source} if source else {}
    version = next((each for each in (model.version, tag or "") if _is_version(each)), None)
    return SourceModel(
        tuple(files),
        name=model.name or name,
        version=version,
        labels=model.labels,
        metadata={**model.metadata, **origin},
    )


def _is_version(text: str) -> bool:
    try:
        return bool(text and check_version(text))
    except UsageError:
        return False


def credentials_of(plugins: Plugins) -> CredentialStore:
    """Credentials from plugins first, then from Docker's and containers' files."""
    from bentotool.oci.credentials import Credentials, CredentialStore

    def ask_plugins(registry: str, repository: str, actions: tuple[str, ...]) -> Credentials | None:
        found = plugins.credentials(registry, repository, actions)
        return None if found is None else Credentials(found.username, found.password, found.identity_token)

    return CredentialStore(ask_plugins)


class OciSource:
    """The source behind ``oci:``.

    Args:
        plain_http: True for HTTP, False for HTTPS, None for HTTP on this machine's own addresses alone.
    """

    def __init__(self, plugins: Plugins, plain_http: bool | None = None) -> None:
        self._plugins, self._plain_http = plugins, plain_http

    def fetch(self, request: SourceRequest) -> SourceModel:
        if not request.uri.startswith("oci://"):
            folder, name = _split_layout(request.uri.partition(":")[2])
            return self._take(_LayoutContent(folder), request, name, folder.resolve().name, None, "")
        from bentotool.oci.registry import Registry

        remote = RemoteReference.parse(request.uri)
        with Registry(
            remote.registry,
            plain_http=self._plain_http,
            credentials=credentials_of(self._plugins),
            connections=_JOBS + 2,
        ) as registry:
            content = RegistryContent(registry, remote.repository)
            reference = remote.digest or remote.tag or "latest"
            name = remote.repository.rpartition("/")[2]
            return self._take(content, request, reference, name, remote.tag, f"oci://{remote}")

    def _take(
        self, content: Content, request: SourceRequest, reference: str, name: str, tag: str | None, source: str
    ) -> SourceModel:
        found = find_model(content, reference, request.uri)
        if request.checksum not in (None, found.descriptor.digest):
            raise VerificationError(f"{request.uri} is {found.descriptor.digest}, not {request.checksum}")
        return take_model(
            content,
            found,
            request.folder,
            name=name,
            tag=tag,
            source=source,
            max_bytes=request.max_bytes,
            advance=request.advance,
        )


def _split_layout(text: str) -> tuple[Path, str]:
    """``FOLDER[:NAME][@DIGEST]``; a name may have colons, and so may a folder."""
    path, at, digest = text.rpartition("@sha256:")
    if at and Path(path).is_dir():
        return Path(path), f"sha256:{digest}"
    if Path(text).is_dir():
        return Path(text), ""
    for position in (index for index, char in enumerate(text) if char == ":"):
        if Path(text[:position]).is_dir() and position:
            return Path(text[:position]), text[position + 1 :]
    raise NotFoundError(
        f"oci:{text} names no folder of this disk", hint="write oci:FOLDER:NAME or oci://HOST/REPOSITORY"
    )
