"""Push a model or a Bento: blobs first, the tag last."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bentotool.errors import NotFoundError, RemoteError, UsageError, VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.fileview import FileViews
from bentotool.oci.layout import Layout, layer_files
from bentotool.oci.limits import check_sizes
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref
from bentotool.oci.sessions import UploadJournal
from bentotool.oci.workers import run_all
from bentotool.transfer.formats import (
    BENTO_TYPE,
    MODEL_TYPE,
    BentoConfig,
    NeededModel,
    title_of,
    volume_view,
)
from bentotool.transfer.images import image_parts, tag_index
from bentotool.transfer.places import KnownPlaces
from bentotool.transfer.platforms import platform_of
from bentotool.transfer.referrers import push_referrers
from bentotool.transfer.result import ProgressMaker, Transferred, no_progress

if TYPE_CHECKING:
    # It costs a quarter of a second, which only its maker pays.
    from bentotool.oci.registry import Registry

__all__ = ["VOLUME", "push_bento", "push_model", "volume_tag"]

VOLUME = "-volume"
"""What is added to a model's tag for its view as a volume."""
_TAG_LENGTH = 128
_BASE_DIGEST = "org.opencontainers.image.base.digest"
"""Annotation of an image: the manifest whose layers it starts with."""
_BAD_REQUEST = 400  # the status for content that does not have its digest


@dataclass(frozen=True)
class _Blob:
    """Something to send: what it is, how to read it, and where it may be mounted from."""

    descriptor: Descriptor
    open: Callable[[], BinaryIO]
    mount_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stored:
    """A manifest of the store: its exact bytes and what they say."""

    descriptor: Descriptor
    data: bytes
    manifest: Manifest

    def blobs(self, layout: Layout, mount_from: tuple[str, ...] = ()) -> list[_Blob]:
        parts = [*self.manifest.layers, self.manifest.config]
        return [_Blob(part, partial(layout.open_layer, part), mount_from) for part in parts]


class _Push:
    """One push under way."""

    def __init__(
        self, layout: Layout, remote: RemoteReference, registry: Registry, jobs: int, progress: ProgressMaker
    ) -> None:
        if remote.digest:
            raise UsageError(
                f"{remote}: a push goes to a tag, not to a digest", hint="write HOST[:PORT]/REPOSITORY[:TAG]"
            )
        self.layout = layout
        self.remote = remote
        self.tag = remote.tag or "latest"
        self.registry = registry
        self._jobs = jobs
        self._journal = UploadJournal(layout.temporary)
        self._progress = progress
        self.sent = 0

    def load(self, digest: str, artifact_type: str, what: str) -> _Stored:
        data = self.layout.read(digest)
        manifest = Manifest.from_bytes(data)
        if manifest.artifact_type != artifact_type:
            raise VerificationError(f"{what} is of type {str(manifest.artifact_type)[:100]!r}, not {artifact_type}")
        for part in (*manifest.layers, manifest.config):
            if not self.layout.has_layer(part):
                raise NotFoundError(
                    f"{what} lacks the content {part.digest} in the store {self.layout.root}",
                    hint="import or pull it again",
                )
        return _Stored(Descriptor(MANIFEST, digest, len(data)), data, manifest)

    def load_image(self, entry: Descriptor, listed: Mapping[str, Descriptor]) -> _Stored:
        """An image in the store; ``listed`` are layers of models, which it may have too."""
        data = self.layout.read(entry.digest)
        manifest = Manifest.from_bytes(data)
        return _Stored(entry, data, replace(manifest, layers=image_parts(manifest, listed)[:-1]))

    def send_blobs(self, blobs: Sequence[_Blob], label: str) -> None:
        unique = {blob.descriptor.digest: blob for blob in reversed(blobs)}
        # The largest first: the last one to end decides how long all take.
        ordered = sorted(unique.values(), key=lambda blob: blob.descriptor.size, reverse=True)
        check_sizes(self.remote.registry, [blob.descriptor for blob in ordered])
        with self._progress(sum(blob.descriptor.size for blob in ordered), label) as shown:
            counts: list[int] = []

            def send(blob: _Blob) -> None:
                repository, part = self.remote.repository, blob.descriptor
                with shown.part(title_of(part), part.size) as moved:
                    try:
                        sent = self.registry.upload_blob(
                            repository,
                            part,
                            blob.open,
                            mount_from=blob.mount_from,
                            journal=self._journal,
                            advance=moved.advance,
                        )
                    except RemoteError as error:
                        if error.details.get("status") == _BAD_REQUEST:
                            self._check_stored(part)
                        raise
                    counts.append(sent)

            run_all([partial(send, blob) for blob in ordered], self._jobs, self.registry.stop)
        self.sent += sum(counts)

    def _check_stored(self, part: Descriptor) -> None:
        """A registry that refuses a blob may be right: the store's copy may not be what its digest says."""
        stored = layer_files(part)
        names = {file.sha256: file.path for file in stored} if stored else {part.digest: title_of(part)}
        for digest, name in names.items():
            if self.layout.has(digest) and not self.layout.verify_blob(digest):
                raise VerificationError(
                    f"{name} ({digest}) is damaged in the store {self.layout.root}, and cannot be pushed",
                    hint="run: bentotool store verify --repair, then import or pull it again",
                ) from None

    def put(self, reference: str, data: bytes, media_type: str = MANIFEST) -> None:
        self.registry.upload_manifest(self.remote.repository, reference, data, media_type)

    def put_referrers(self, digests: Iterable[str], label: str, *, wanted: bool) -> int:
        """Attach there what the store has attached to manifests that were put, if that is wanted."""
        if not wanted:
            return 0

        def send(parts: Sequence[Descriptor]) -> None:
            self.send_blobs([_Blob(part, partial(self.layout.open_layer, part)) for part in parts], label)

        return push_referrers(self.layout, self.registry, self.remote.repository, digests, send)


def push_model(
    layout: Layout,
    ref: Ref,
    remote: RemoteReference,
    registry: Registry,
    *,
    raw: bool = False,
    referrers: bool = True,
    jobs: int = 4,
    progress: ProgressMaker = no_progress,
) -> Transferred:
    """Push a model, and beside it under ``<tag>-volume`` its view as a plain image.

    Args:
        ref: the model in the store.
        remote: where to; without a tag, ``latest``.
        registry: a client made with ``push=True``.
        raw: send each file as it is instead of in tar layers, for tools that do not unpack; there is no volume view
            then. Whoever pulls it with bentotool gets the model's own digest.
        referrers: whether what is attached to it in the store goes out too.
        jobs: files sent at once.

    Raises:
        RemoteError, AuthenticationError: when the registry refuses or does not answer.
        NotFoundError: when the store lacks a part.
        VerificationError: when the registry refuses a part because it is damaged in the store.
    """
    work = _Push(layout, remote, registry, jobs, progress)
    if raw:
        return _push_files(work, ref)
    if len(work.tag) + len(VOLUME) > _TAG_LENGTH:
        raise UsageError(
            f"tag {work.tag!r} is too long", hint=f"use up to {_TAG_LENGTH - len(VOLUME)} characters for a model"
        )
    model = work.load(ref.digest, MODEL_TYPE, f"model {ref.ref}")
    view = volume_view(model.descriptor, model.manifest)
    places = KnownPlaces(layout)
    blobs = model.blobs(layout, places.find(remote.registry, ref.digest))
    work.send_blobs([*blobs, _Blob(view.config_descriptor, partial(io.BytesIO, view.config))], f"push {ref.ref}")
    work.put(ref.digest, model.data)
    attached = work.put_referrers([ref.digest], f"push {ref.ref}", wanted=referrers)
    work.put(work.tag + VOLUME, view.manifest)
    work.put(work.tag, model.data)
    places.remember(remote.registry, remote.repository, ref.digest)
    there = str(remote.with_tag(work.tag))
    return Transferred("model", ref.name, ref.tag, ref.digest, ref.size, there, work.sent, referrers=attached)


def _push_files(work: _Push, ref: Ref) -> Transferred:
    """The model's file view in place of the model: see :mod:`bentotool.oci.fileview`."""
    work.load(ref.digest, MODEL_TYPE, f"model {ref.ref}")
    view = FileViews(work.layout).of(ref.digest)
    if view is None:
        raise UsageError(f"model {ref.ref} has too many files for one layer each", hint="push it with --format tar")
    files = work.load(view.digest, MODEL_TYPE, f"the files of model {ref.ref}")
    work.send_blobs(files.blobs(work.layout), f"push {ref.ref}")
    work.put(view.digest, files.data)
    work.put(work.tag, files.data)
    remote = str(work.remote.with_tag(work.tag))
    return Transferred("model", ref.name, ref.tag, view.digest, ref.size, remote, work.sent, source_digest=ref.digest)


def push_bento(
    layout: Layout,
    ref: Ref,
    remote: RemoteReference,
    registry: Registry,
    *,
    index: str | None = None,
    volumes: bool = False,
    referrers: bool = True,
    jobs: int = 4,
    progress: ProgressMaker = no_progress,
) -> Transferred:
    """Push a Bento with the models it needs, under one tag that points to an index of them all.

    Where the store has an index that lists images of the Bento too, and all of these, that is the one pushed.

    Args:
        index: digest of the index in the store that is to be pushed, whatever others there are.
        volumes: whether the volume view of each model stands beside them, under the tag of :func:`volume_tag`.

    Other arguments and errors are those of :func:`push_model`.
    """
    work = _Push(layout, remote, registry, jobs, progress)
    bento = work.load(ref.digest, BENTO_TYPE, f"Bento {ref.ref}")
    config = BentoConfig.from_bytes(layout.read(bento.manifest.config.digest))
    places = KnownPlaces(layout)
    models: list[tuple[NeededModel, _Stored]] = []
    blobs: list[_Blob] = []
    for needed in config.needed:
        model = work.load(needed.digest, MODEL_TYPE, f"model {needed.tag} of Bento {ref.ref}")
        models.append((needed, model))
        blobs += model.blobs(layout, _sources(needed, remote, places))
    views = [(needed, volume_view(model.descriptor, model.manifest)) for needed, model in models if volumes]
    blobs += [_Blob(view.config_descriptor, partial(io.BytesIO, view.config)) for _, view in views]
    blobs += _placed(work, bento, places, ref.digest)
    listed = {layer.digest: layer for _, model in models for layer in model.manifest.layers}
    data, entries = tag_index(layout, ref.digest, index)
    images = [work.load_image(entry, listed) for entry in entries]
    for image in images:
        blobs += _placed(work, image, places, image.descriptor.digest, image.manifest.annotations.get(_BASE_DIGEST, ""))
    work.send_blobs(blobs, f"push {ref.ref}")
    for stored in (*(model for _, model in models), bento, *images):
        work.put(stored.descriptor.digest, stored.data)
    for needed, view in views:
        work.put(volume_tag(needed.name, needed.digest), view.manifest)
    top = sha256_bytes(data)
    work.put(top, data, INDEX)
    known = (ref.digest, *(model.descriptor.digest for _, model in models))
    pushed = (top, *known, *(image.descriptor.digest for image in images))
    attached = work.put_referrers(pushed, f"push {ref.ref}", wanted=referrers)
    work.put(work.tag, data, INDEX)
    seen = {part.digest for each in (bento, *images) for part in (*each.manifest.layers, each.descriptor)}
    places.remember(remote.registry, remote.repository, *known, *sorted(seen))
    return Transferred(
        kind="bento",
        name=ref.name,
        version=ref.tag,
        digest=ref.digest,
        size=ref.size,
        remote=str(remote.with_tag(work.tag)),
        moved=work.sent,
        index=top,
        models=tuple(needed.tag for needed, _ in models),
        images=tuple(filter(None, map(platform_of, entries))),
        referrers=attached,
    )


def volume_tag(name: str, digest: str) -> str:
    """The tag of a model's volume view in the repository of a Bento: it keeps the view from being collected there."""
    return f"{name.replace('/', '-')[:100]}-{digest.rpartition(':')[2][:12]}{VOLUME}"


def _placed(work: _Push, stored: _Stored, places: KnownPlaces, *wholes: str) -> list[_Blob]:
    """What a manifest lists: each part from where it, or one of the manifests ``wholes``, is known to be."""
    registry = work.remote.registry
    common = tuple(each for digest in wholes for each in places.find(registry, digest))
    return [
        replace(blob, mount_from=tuple(dict.fromkeys((*places.find(registry, blob.descriptor.digest), *common))))
        for blob in stored.blobs(work.layout)
    ]


def _sources(needed: NeededModel, remote: RemoteReference, places: KnownPlaces) -> tuple[str, ...]:
    """Repositories of the same registry that may have the model's blobs."""
    known = places.find(remote.registry, needed.digest)
    registry, _, repository = needed.repository.partition("/")
    return (repository, *known) if registry == remote.registry and repository else known
