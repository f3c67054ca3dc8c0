"""Base images: found in a registry, an OCI layout or an archive, pinned by digest, and brought into the store once.

A base of Docker's own format (image manifest version 2, schema 2) is read as the OCI image that it is but for the names
of its media types. Its layers are kept as they are, compressed or not, and never unpacked or compressed again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bentotool.build.room import Room
from bentotool.errors import BentotoolError, NotFoundError, RemoteError, VerificationError
from bentotool.images.baseplaces import DOCKER_INDEX, DOCKER_MANIFEST, Place, is_local, place_of
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Manifest, canonical_json, parse_json_object
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.renewal import Renewal
from bentotool.oci.workers import run_all
from bentotool.transfer.places import KnownPlaces

__all__ = ["BaseImage", "find_base"]

_DEPTH = 3
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYERS = {
    **{f"{_LAYER}{ending}": f"{_LAYER}{ending}" for ending in ("", "+gzip", "+zstd")},
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{_LAYER}+zstd",
}


@dataclass(frozen=True)
class BaseImage:
    """A base image for one platform, in the store.

    Args:
        reference: as it was asked for.
        digest: of its manifest.
        config: its whole config document.
        layers: with OCI's media types.
        diff_ids: of the layers, in order.
    """

    reference: str
    digest: str
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def public_name(self) -> str:
        """Its reference in a registry; empty for a folder or file of this machine, which says nothing elsewhere."""
        return "" if is_local(self.reference) else str(RemoteReference.parse(self.reference))

    @property
    def env(self) -> dict[str, str]:
        """Its variables."""
        listed = self.settings.get("Env")
        pairs = (str(item).partition("=") for item in (listed if isinstance(listed, list) else ()))
        return {name: value for name, equals, value in pairs if equals and name}


def find_base(
    text: str,
    platform: str,
    layout: Layout,
    open_registry: Callable[[str], Any],
    *,
    offline: bool = False,
    jobs: int = 4,
    progress: Callable[[int, str], AbstractContextManager[Any]],
) -> BaseImage:
    """Find a base image and bring what the store lacks of it.

    Args:
        text: ``HOST/REPOSITORY[:TAG][@DIGEST]``, ``oci:FOLDER[:TAG]`` or ``oci-archive:FILE[:TAG]``.
        platform: ``os/architecture[/variant]``.
        offline: ask no registry: what a tag pointed to when it was last asked for is taken from the store.

    Raises:
        NotFoundError: there is none, or none for the platform.
        UsageError: no such reference.
        VerificationError: it is damaged, or no image.
        RemoteError, AuthenticationError: the registry refuses or does not answer.
    """
    room = Room(layout.root)
    name = room.key("image-base", text, platform)
    reference = _reference(text)
    if reference and (offline or reference.digest):
        base = _remembered(room.read(name), text, platform, layout)
        if base is not None:
            return base
        if offline:
            with _told_of_path(text):
                raise NotFoundError(
                    f"base image {text} is not in the store for {platform}",
                    hint="run it once without --offline, or name a folder: --base oci:FOLDER",
                )
    with contextlib.closing(place_of(text, open_registry)) as place, _told_of_path(text):
        data = _for_platform(place, text, platform)
        base = _read(place, data, text, platform, layout)
        _bring(place, base, layout, jobs, progress)
        room.write(name, {"manifest": layout.put(data, MANIFEST).digest})
        if reference:
            KnownPlaces(layout).remember(reference.registry, reference.repository, base.digest)
    return base


def _reference(text: str) -> RemoteReference | None:
    """What is asked of a registry; None for a folder or file."""
    if is_local(text):
        return None
    with _told_of_path(text):
        if _is_path(text) and not os.path.exists(text):
            raise NotFoundError(
                f"no file or folder {text[:200]!r} with a base image", hint="look at the path: FILE.tar, or oci:FOLDER"
            )
        return RemoteReference.parse(text)


def _is_path(text: str) -> bool:
    """Whether only a file or folder can be meant: the name of an image does not start so, and a registry that is not
    named has no image called as a file.
    """
    if text.startswith((".", "/", "~", "\\")):
        return True
    host = text.partition("/")[0] if "/" in text else ""
    return text.endswith(".tar") and not any(each in host for each in ".:") and host != "localhost"


@contextlib.contextmanager
def _told_of_path(text: str) -> Iterator[None]:
    """Say of a failure what it is a failure of; and where there is a folder or file that is called as the image, how
    that is named.
    """
    try:
        yield
    except BentotoolError as error:
        if isinstance(error, RemoteError):
            error.message = f"base image {text} cannot be fetched: {error.message}"
            error.args = (error.message,)
            error.hint = "; or ".join(filter(None, (error.hint, "name another one, a folder or a file: --base")))
        kind = None if is_local(text) else "oci" if os.path.isdir(text) else "oci-archive"
        if kind and os.path.exists(text):
            error.hint = f"the {'folder' if kind == 'oci' else 'file'} of that name is: --base {kind}:{text}"
        raise


def _for_platform(place: Place, text: str, platform: str) -> bytes:
    """The manifest for a platform, followed from what the reference names."""
    data, media_type = place.top()
    for _ in range(_DEPTH):
        if media_type not in (INDEX, DOCKER_INDEX):
            return data
        entries = parse_json_object(data, f"the index of {text}").get("manifests")
        entry = _choose(entries if isinstance(entries, list) else [], text, platform)
        data, media_type = place.manifest(entry)
    raise VerificationError(f"{text} is an index of indexes of indexes")


def _choose(entries: list[Any], text: str, platform: str) -> Descriptor:
    found: dict[str, Descriptor] = {}
    for item in entries:
        entry = Descriptor.from_dict(item)
        about = entry.platform or {}
        key = "/".join(part for part in (about.get(k, "") for k in ("os", "architecture", "variant")) if part)
        if entry.media_type in (MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX) and "unknown" not in key:
            found.setdefault(key, entry)
    # arm64 has one variant, which is as often left out as written
    for key in (platform, f"{platform}/v8", ""):
        if key in found:
            return found[key]
    there = ", ".join(sorted(filter(None, found))) or "none"
    raise NotFoundError(
        f"base image {text} has no image for {platform}", hint=f"it has: {there}; name another with --base"
    )


def _read(place: Place | None, data: bytes, text: str, platform: str, layout: Layout) -> BaseImage:
    manifest = _as_oci(data, text)
    config_bytes = place.read(manifest.config) if place else layout.read(manifest.config.digest)
    if sha256_bytes(config_bytes) != manifest.config.digest:
        raise VerificationError(f"the config of base image {text} is damaged")
    config = parse_json_object(config_bytes, f"the config of base image {text}")
    rootfs, settings = config.get("rootfs"), config.get("config")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or len(ids) != len(manifest.layers):
        raise VerificationError(f"base image {text} is no image: its config does not list its layers")
    is_for = f"{config.get('os')}/{config.get('architecture')}"
    if is_for != "/".join(platform.split("/")[:2]):
        raise NotFoundError(
            f"base image {text} is for {is_for[:60]}, not for {platform}", hint="name one for it with --base"
        )
    layout.put(config_bytes, manifest.config.media_type)
    return BaseImage(
        reference=text,
        digest=sha256_bytes(data),
        config=config,
        layers=manifest.layers,
        diff_ids=tuple(map(check_digest, ids)),
        settings=settings if isinstance(settings, dict) else {},
    )


def _as_oci(data: bytes, text: str) -> Manifest:
    body = parse_json_object(data, f"the manifest of {text}")
    if body.get("mediaType", MANIFEST) == DOCKER_MANIFEST:
        body["mediaType"] = MANIFEST
    manifest = Manifest.from_bytes(canonical_json(body))
    layers = []
    for layer in manifest.layers:
        if layer.media_type not in _LAYERS:
            raise VerificationError(f"base image {text} has a layer of type {layer.media_type[:100]!r}")
        layers.append(Descriptor(_LAYERS[layer.media_type], layer.digest, layer.size))
    if not layers:
        raise VerificationError(f"base image {text} has no layers")
    return Manifest(manifest.config, tuple(layers))


def _bring(
    place: Place,
    base: BaseImage,
    layout: Layout,
    jobs: int,
    progress: Callable[[int, str], AbstractContextManager[Any]],
) -> None:
    """Fetch the layers that are not in the store, each checked against its digest."""
    renewal = Renewal(layout)
    missing = [
        layer
        for layer in {layer.digest: layer for layer in base.layers}.values()
        if not (layout.has_sized(layer.digest, layer.size) and layout.renew(layer.digest))
    ]
    if not missing:
        return
    with progress(sum(layer.size for layer in missing), f"base {base.reference}") as shown:

        def fetch(layer: Descriptor) -> None:
            with shown.part(layer.digest[7:19], layer.size) as moved, layout.layer_sink(layer, renewal) as sink:
                place.fetch(layer, sink, moved.advance)
                sink.commit()

        run_all([partial(fetch, layer) for layer in missing], jobs, place.stop)


def _remembered(document: Mapping[str, Any] | None, text: str, platform: str, layout: Layout) -> BaseImage | None:
    """The base as it was when it was last asked for, where nothing of it is missing."""
    with contextlib.suppress(BentotoolError):
        data = layout.read(check_digest((document or {}).get("manifest")))
        base = _read(None, data, text, platform, layout)
        if all(layout.has_sized(layer.digest, layer.size) and layout.renew(layer.digest) for layer in base.layers):
            return base
    return None
