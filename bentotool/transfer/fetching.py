"""Fetching the content of manifests from a registry into a layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bentotool.errors import VerificationError
from bentotool.models.recheck import recheck_safety, require_stated_trust
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest
from bentotool.oci.layout import FILES_ANNOTATION, Layout, layer_files
from bentotool.oci.reference import RemoteReference
from bentotool.oci.renewal import Renewal
from bentotool.oci.workers import run_all
from bentotool.plugins import load_plugins
from bentotool.transfer.formats import BENTO_TYPE, MODEL_TYPE, identity, title_of
from bentotool.transfer.images import check_image, image_parts
from bentotool.transfer.referrers import PulledReferrers, pull_referrers
from bentotool.transfer.result import Progress, ProgressMaker

if TYPE_CHECKING:
    # It costs a quarter of a second, which only its maker pays.
    from bentotool.oci.registry import Registry
    from bentotool.plugins import Plugins

__all__ = ["Fetching", "RemoteManifest", "damaged_there"]

_KINDS = {MODEL_TYPE: "model", BENTO_TYPE: "bento"}


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest in the registry: its exact bytes, what they say, and what to fetch for it."""

    descriptor: Descriptor
    data: bytes
    manifest: Manifest
    described: tuple[Descriptor, ...] = ()

    @property
    def parts(self) -> tuple[Descriptor, ...]:
        return self.described or (*self.manifest.layers, self.manifest.config)


def damaged_there(error: VerificationError, remote: RemoteReference, what: str = "") -> VerificationError:
    """What came is not what it should be: say where it came from, and which part it is, where that is known."""
    part = f"{what} of " if what else ""
    message = f"{part}{remote.registry}/{remote.repository}: {error.message}"
    hint = error.hint or "it is damaged there, or on its way; no name was given to what came"
    return VerificationError(message, hint=hint)


class Fetching:
    """One pull under way."""

    def __init__(
        self,
        layout: Layout,
        remote: RemoteReference,
        registry: Registry,
        jobs: int,
        progress: ProgressMaker,
        trust: bool,
        plugins: Plugins | None,
        referrers: bool,
    ) -> None:
        self.layout = layout
        self.remote = remote
        self.registry = registry
        self._jobs = jobs
        self._progress = progress
        self._trust = trust
        self._plugins = plugins
        self._referrers = referrers
        self._renewal = Renewal(layout)
        self.fetched = 0
        self.notes: list[str] = []

    def manifest(self, digest: str, kind: str) -> RemoteManifest:
        fetched = self.registry.get_manifest(self.remote.repository, digest)
        found = RemoteManifest(fetched.descriptor, fetched.data, Manifest.from_bytes(fetched.data))
        if _KINDS.get(found.manifest.artifact_type or "") != kind:
            raise VerificationError(f"{self.remote.repository}@{digest} is not a {kind}")
        return found

    def fetch(self, manifests: Iterable[RemoteManifest], label: str) -> None:
        """Bring the content of manifests, then the manifests, into the layout."""
        wanted = list(manifests)
        for each in wanted:
            if each.manifest.artifact_type == MODEL_TYPE:
                title = ":".join(identity(each.manifest, (self.remote.repository, each.descriptor.digest)))
                require_stated_trust(each.manifest, title, trust=self._trust)
        # One digest may be listed twice, as the tar of a model's files and as an ordinary blob: two ways to store it.
        missing = {
            (part.digest, FILES_ANNOTATION in part.annotations): part
            for each in wanted
            for part in each.parts
            if not self._has(part)
        }
        ordered = sorted(missing.values(), key=lambda part: part.size, reverse=True)
        with self._progress(sum(part.size for part in ordered), label) as shown:
            run_all([partial(self._fetch_one, part, shown) for part in ordered], self._jobs, self.registry.stop)
        self.fetched += sum(part.size for part in ordered)
        for each in wanted:
            self.layout.put(each.data, MANIFEST)

    def images(self, entries: Sequence[Descriptor], models: Iterable[RemoteManifest]) -> list[RemoteManifest]:
        """Images that an index lists; the layers that a model has too are kept as the model's files."""
        listed = {layer.digest: layer for model in models for layer in model.manifest.layers}
        found = []
        for entry in entries:
            fetched = self.registry.get_manifest(self.remote.repository, entry.digest)
            manifest = Manifest.from_bytes(fetched.data)
            check_image(manifest, entry.digest)
            found.append(RemoteManifest(fetched.descriptor, fetched.data, manifest, image_parts(manifest, listed)))
        return found

    def attached(self, subjects: Sequence[str], label: str) -> PulledReferrers:
        """Bring the referrers of manifests that are here now, unless they are not wanted."""
        if not self._referrers:
            return PulledReferrers()
        done = pull_referrers(
            self.layout,
            self.registry,
            self.remote.repository,
            subjects,
            jobs=self._jobs,
            progress=self._progress,
            label=label,
        )
        self.fetched += done.moved
        return done

    def recheck(self, manifest: Manifest, title: str, digest: str) -> None:
        """Hold what a model says of its safety against the content fetched."""
        self._plugins = self._plugins or load_plugins()
        note = recheck_safety(self.layout, manifest, title, trust=self._trust, plugins=self._plugins, digest=digest)
        if note:
            self.notes.append(note)

    def _has(self, part: Descriptor) -> bool:
        if not self.layout.has_layer(part):
            return False
        for digest in [file.sha256 for file in layer_files(part) or ()] or [part.digest]:
            self._renewal.finished(digest)
        return True

    def _fetch_one(self, part: Descriptor, shown: Progress) -> None:
        with (
            shown.part(title_of(part), part.size) as moved,
            self.layout.layer_sink(part, self._renewal) as sink,
        ):
            try:
                self.registry.download_blob(self.remote.repository, part, sink, advance=moved.advance)
                sink.commit()
            except VerificationError as error:
                raise damaged_there(error, self.remote, title_of(part)) from None
