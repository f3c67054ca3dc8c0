"""Models from registries and image layouts: ``oci://HOST/REPOSITORY[:TAG][@DIGEST]`` and ``oci:PATH[:NAME]``.

Whatever family of manifest it is (see :mod:`bentotool.models.foreign`), its files are brought to this disk, each layer
verified, and then imported like any others.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from bentotool.errors import UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.models.foreign import ForeignLayer, ForeignModel, family_of, read_foreign
from bentotool.models.oci_content import BlobSink, CheckedSink, Content, RegistryContent, open_layout, split_layout
from bentotool.oci.blobs import storage_error
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, Descriptor, Index, Manifest
from bentotool.oci.digest import CHUNK
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import check_version
from bentotool.oci.unpack import FileSink, TarSink, Unpacker
from bentotool.oci.workers import run_all

if TYPE_CHECKING:
    from bentotool.interfaces import JSON
    from bentotool.oci.credentials import Credentials, CredentialStore
    from bentotool.oci.registry import Registry
    from bentotool.oci.tls import Tls
    from bentotool.plugins import Plugins

__all__ = ["Found", "OciSource", "RegistryMaker", "credentials_of", "find_model", "registry_maker", "take_model"]

_KIND = "io.bentotool.kind"
_MAX_CANDIDATES = 16
_JOBS = 4
_SLACK = 1 << 20  # bytes of headers and padding around one file in a tar
Advance = Callable[[int], None]
RegistryMaker = Callable[[str], "Registry"]


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
    if not found:
        raise VerificationError(f"{what} is neither a model nor a Bento but an index without one")
    if len(found) != 1:
        digests = " or ".join(each.descriptor.digest for each in found[:4])
        raise UsageError(f"{what} is an index of {len(found)} models", hint=f"give one by its digest: {digests}")
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

    def _receive(self, descriptor: Descriptor, sink: BlobSink) -> None:
        checked = CheckedSink(sink)
        self._content.receive(descriptor, checked, self._moved)
        checked.check(descriptor)

    def _take_compressed(self, layer: ForeignLayer, sink: BlobSink) -> None:
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
    expect: Advance = lambda total: None,
    jobs: int = _JOBS,
    wanted: Callable[[str], bool] = lambda name: True,
) -> SourceModel:
    """Bring the files of a model, and what its manifest says, into a folder.

    Args:
        folder: an existing folder on the store's disk; nothing of ours is left in it after a failure.
        name: what to call a model that does not name itself.
        tag: the tag it was asked for by, which is its version when it states none.
        source: where it is from, kept as a fact; empty to keep none.
        expect: told how many bytes there are to fetch.
        jobs: layers fetched at once.
        wanted: tells which files are; a layer known to hold none of them is not fetched.

    Raises:
        VerificationError: when a byte is not what its digest says, or an archive is damaged.
        UnsafeError: when an entry is no plain file below the folder, or all of it is too large.
        MissingDependencyError: for a layer in zstd, where no library for it is installed.
    """
    model = read_foreign(found.manifest, content.read(_small(found.manifest.config)))
    layers = [layer for layer in model.layers if any(map(wanted, layer.names or ("",)))]
    total = sum(layer.descriptor.size for layer in layers)
    if total > max_bytes:
        raise UnsafeError(
            f"the model has {total} bytes, more than {max_bytes}",
            hint="raise the limit with --max-size if that is right",
        )
    expect(total)
    scratch = folder / f"model-{secrets.token_hex(8)}"
    try:
        scratch.mkdir(mode=0o700)
        taking = _Taking(content, scratch, max_bytes, advance)
        # The largest first: the last one to end decides how long all take.
        ordered = sorted(layers, key=lambda layer: -layer.descriptor.size)
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


def registry_maker(
    plugins: Plugins, *, tls: Tls | None = None, plain_http: bool | None = None, jobs: int = _JOBS
) -> RegistryMaker:
    """Makes clients with the credentials of plugins and files.

    Args:
        plain_http: None speaks HTTP to this machine and HTTPS to others.
        jobs: layers fetched at once.
    """

    def make(host: str) -> Registry:
        from bentotool.oci.registry import Registry

        return Registry(host, credentials=credentials_of(plugins), tls=tls, plain_http=plain_http, connections=jobs + 2)

    return make


class OciSource:
    """The source behind ``oci:``.

    Args:
        open_registry: makes the client for a registry; by default one with the credentials of plugins and files.
        jobs: layers fetched at once.
    """

    def __init__(self, plugins: Plugins, open_registry: RegistryMaker | None = None, jobs: int = _JOBS) -> None:
        self._open = open_registry or registry_maker(plugins, jobs=jobs)
        self._jobs = jobs

    def fetch(self, request: SourceRequest) -> SourceModel:
        for left in request.folder.glob("*-*"):  # by a process that was killed; it cannot be gone on from
            shutil.rmtree(left, ignore_errors=True)
        try:
            return self._fetch(request)
        except (UnsafeError, VerificationError) as error:  # what refuses a layer knows its digest, or its files, alone
            if request.uri not in error.message:
                error.message = f"{request.uri}: {error.message}"
                error.args = (error.message,)
            raise

    def _fetch(self, request: SourceRequest) -> SourceModel:
        if not request.uri.startswith("oci://"):
            path, name = split_layout(request.uri.partition(":")[2])
            own = path.resolve()
            with open_layout(path, request.folder, request.max_bytes) as layout:
                return self._take(layout, request, name, own.name if own.is_dir() else own.stem, None, "")
        remote = RemoteReference.parse(request.uri)
        with self._open(remote.registry) as registry:
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
            expect=request.expect,
            jobs=self._jobs,
            wanted=request.wanted,
        )
