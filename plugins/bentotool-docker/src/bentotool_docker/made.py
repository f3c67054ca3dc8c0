"""What an engine made, taken into the store once: a second build that gives the same image reads no archive."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bentotool.build.room import Room
from bentotool.errors import BuildError
from bentotool.images.baseimage import find_base
from bentotool.images.layer import GZIP_LAYER, PLAIN_LAYER, gzip_layer
from bentotool.imagespec import ImagePlan, ImageRequest
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool_docker.programs import BuildCall, Program
from bentotool_docker.report import explained_build

__all__ = ["Made", "compressed", "take_in"]

_FORMAT = 1
_LINKS = 8


@dataclass(frozen=True)
class Made:
    """The lower part of an image, in the store.

    Args:
        interpreter: path of the Python that its environment is of.
        cached: it was there already.
    """

    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    interpreter: str
    cached: bool = False


def take_in(request: ImageRequest, plan: ImagePlan, program: Program, call: BuildCall) -> Made:
    """Bring the outcome of a build into the store.

    Raises:
        BuildError: the engine does not give it out, or it has no Python environment.
        VerificationError: what it gave is damaged.
    """
    layout, room = request.layout, Room(request.layout.root)
    identity = (program.describe(call.tag) or {}).get("Id")
    name = room.key("image-buildkit", _FORMAT, identity, plan.platform)
    kept = _kept(layout, room.read(name)) if isinstance(identity, str) else None
    if kept is not None:
        room.used(name)
        return kept
    if not program.writes:
        done = program.run(program.save_command(call.tag, call.output))
        if done.returncode:
            raise explained_build(plan, done.stdout, call.tag)
    found = find_base(
        f"oci-archive:{call.output}", plan.platform, layout, request.open_registry, progress=request.progress
    )
    call.output.unlink()
    made = Made(found.config, found.layers, found.diff_ids, _interpreter(layout, found.layers, plan))
    document = {
        "config": dict(made.config),
        "layers": [layer.to_dict() for layer in made.layers],
        "diff_ids": list(made.diff_ids),
        "interpreter": made.interpreter,
    }
    if isinstance(identity, str):
        room.write(name, document)
    return made


def compressed(layout: Layout, layers: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The layers, with gzip where they are not compressed; each is compressed once."""
    return tuple(_compressed(layout, layer) if layer.media_type == PLAIN_LAYER else layer for layer in layers)


def _compressed(layout: Layout, layer: Descriptor) -> Descriptor:
    room = Room(layout.root)
    name = room.key("image-gzip", _FORMAT, layer.digest)
    document = room.read(name) or {}
    digest, size = document.get("digest"), document.get("size")
    if isinstance(digest, str) and isinstance(size, int) and layout.has_sized(digest, size) and layout.renew(digest):
        room.used(name)
        return Descriptor(GZIP_LAYER, digest, size)
    found = gzip_layer(layout, layer)
    room.write(name, {"digest": found.digest, "size": found.size})
    return found


def _kept(layout: Layout, document: Mapping[str, Any] | None) -> Made | None:
    if document is None:
        return None
    try:
        layers = tuple(Descriptor.from_dict(each) for each in document["layers"])
        made = Made(
            dict(document["config"]), layers, tuple(document["diff_ids"]), str(document["interpreter"]), cached=True
        )
    except (KeyError, TypeError, ValueError):
        return None
    there = all(layout.has_sized(layer.digest, layer.size) and layout.renew(layer.digest) for layer in layers)
    return made if there else None


def _interpreter(layout: Layout, layers: tuple[Descriptor, ...], plan: ImagePlan) -> str:
    """What the environment's ``bin/python`` leads to, from the topmost layer that has it."""
    start = f"{plan.prefix}/bin/python".lstrip("/")
    for layer in reversed(layers):
        links: dict[str, str] = {}
        with layout.open_layer(layer) as stream, tarfile.open(fileobj=stream, mode="r|*", bufsize=CHUNK) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
                name = member.name.removeprefix("./")
                if member.issym() and name.startswith(f"{plan.prefix}/bin/".lstrip("/")):
                    links[name] = member.linkname
        target = start
        for _ in range(_LINKS):
            if target not in links:
                break
            link = links[target]
            target = link.lstrip("/") if link.startswith("/") else posixpath.join(posixpath.dirname(target), link)
        if start in links:
            return f"/{posixpath.normpath(target)}"
    raise BuildError(f"the image of {plan.tag} has no Python environment at {plan.prefix}", hint="report this")
