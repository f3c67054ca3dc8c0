"""The image of a deployment: as named, as the engine has it, or made from the Bento and loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import docker
import docker.errors

from bentotool.errors import BentotoolError, NotFoundError
from bentotool.targetspec import DeployBento, ImageArchive
from bentotool_docker.engine import BROKEN, NoSpaceError, explained

__all__ = ["Image", "ensure_image", "find_image", "image_of", "remove_image", "unused_images"]

DIGEST = "io.bentotool.bento.digest"
_LOOKED_AT = 100
_OF_CONTAINERD = "driver-type"  # stands in DriverStatus where the engine keeps images with containerd
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image that the engine has.

    Args:
        reference: as it was asked for.
        entrypoint: what it starts; the first word is its Python.
        user: ``uid[:gid]``, empty for root.
        made: whether it was made and loaded just now.
        architecture: what it is for, as ``amd64``; empty where the engine does not say.
    """

    reference: str
    id: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    labels: dict[str, str]
    made: bool = False
    architecture: str = ""

    @property
    def python(self) -> str:
        """The interpreter that runs its service."""
        words = (*self.entrypoint, *self.command)
        return next((word for word in words if Path(word).name.startswith("python")), "python3")


def find_image(client: docker.DockerClient, reference: str) -> Image | None:
    """An image by its reference, if the engine has it."""
    with explained(f"look for image {reference}"):
        try:
            found = client.images.get(reference)
        except (docker.errors.ImageNotFound, docker.errors.NotFound):
            return None
    config: dict[str, Any] = found.attrs.get("Config") or {}
    return Image(
        reference,
        str(found.id),
        tuple(config.get("Entrypoint") or ()),
        tuple(config.get("Cmd") or ()),
        str(config.get("User") or ""),
        dict(config.get("Labels") or {}),
        architecture=str(found.attrs.get("Architecture") or ""),
    )


def ensure_image(
    client: docker.DockerClient, bento: DeployBento, given: str | None, pull: str, note: Callable[[str], None],
    making: Callable[[Sequence[str]], None] = lambda ids: None,
) -> Image:  # fmt: skip
    """The image to run.

    Args:
        given: an image in place of the Bento's own.
        pull: ``missing`` or ``never``, for a given one.
        making: told what ids an image may have before it is loaded.

    Raises:
        NotFoundError: there is none, or no registry has it.
        BentotoolError: it cannot be made or loaded.
    """
    if given:
        found = find_image(client, given)
        if found is None and pull == "missing":
            note(f"pull {given}")
            _pull(client, given)
            found = find_image(client, given)
        if found is None:
            raise NotFoundError(
                f"the engine has no image {given}", hint=f"docker pull {given}, or leave --pull never out"
            )
        return found
    there = None if bento.anew else image_of(client, bento)
    return there or _make(client, bento, note, making)


def _pull(client: docker.DockerClient, reference: str) -> None:
    try:
        with explained(f"pull {reference}"):
            client.images.pull(reference)
    except BentotoolError as error:
        if error.hint is None:  # the engine's own words do not say what can be done
            error.hint = (
                f"look at the name, and whether the engine reaches its registry: docker pull {reference};"
                " or leave --image out for the Bento's own"
            )
        raise


def image_of(client: docker.DockerClient, bento: DeployBento) -> Image | None:
    """The image of a very Bento for the engine itself: under its tag, or without one, where another took that."""
    ours = _architecture(client)
    found = find_image(client, bento.tag)
    if found is not None and found.labels.get(DIGEST) == bento.digest and found.architecture in ("", ours):
        return found
    with explained(f"look for an image of {bento.tag}"):
        others = client.images.list(filters={"label": f"{DIGEST}={bento.digest}"}) if bento.digest else []
    there = (find_image(client, str(each.id)) for each in others)
    return next((each for each in there if each is not None and each.architecture in ("", ours)), None)


def _architecture(client: docker.DockerClient) -> str:
    with explained("ask the engine for its platform"):
        named = str(client.version().get("Arch", "amd64"))
    return _ARCHITECTURES.get(named, named)


def unused_images(client: docker.DockerClient, candidates: Mapping[str, str]) -> dict[str, str]:
    """Which of some images no container uses, running or not, and nobody gave a name of their own.

    Args:
        candidates: tag of the Bento, by the image's id.

    Returns:
        What to call each when it is removed, by id: its one name, so that one given just now keeps the image.
    """
    with explained("list what uses images"):
        used = {str(each.get("ImageID")) for each in client.api.containers(all=True)}
        there = {str(each.id): list(each.tags) for each in client.images.list()}
    found: dict[str, str] = {}
    for identity, tag in candidates.items():
        if identity in there and identity not in used and set(there[identity]) <= {tag}:
            found[identity] = tag if there[identity] else identity
    return found


def remove_image(client: docker.DockerClient, name: str) -> bool:
    """Take away an image, or one name of it; False where it is gone, or somebody has come to use it."""
    with explained(f"remove image {name}"):
        try:
            client.api.remove_image(name)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise
            return False
    return True


def _make(
    client: docker.DockerClient,
    bento: DeployBento,
    note: Callable[[str], None],
    making: Callable[[Sequence[str]], None],
) -> Image:
    if bento.make_image is None:
        if bento.anew:
            raise NotFoundError(
                f"the store has no Bento {bento.tag} to make the image of",
                hint="pull the Bento, or leave --base and --builder out for the image that the engine has",
            )
        raise NotFoundError(
            f"neither the engine has an image of {bento.tag} nor the store the Bento",
            hint="pull the Bento, or build it again",
        )
    platform = f"linux/{_architecture(client)}"
    note(f"make the image of {bento.tag} for {platform}")
    archive = bento.make_image(platform)
    there = _same(client, bento, archive)
    if there is not None:
        return there
    making(archive.ids)
    note("load it into the engine")
    _load(client, bento.tag, archive)
    found = find_image(client, bento.tag)
    if found is None:
        raise BentotoolError(f"the engine took the image of {bento.tag} and does not have it", hint="docker image ls")
    if found.id not in archive.ids:
        making((found.id,))
    return replace(found, made=True)


def _same(client: docker.DockerClient, bento: DeployBento, archive: ImageArchive) -> Image | None:
    """The very image of an archive, where the engine has it: under the Bento's tag, or without one."""
    for name in (bento.tag, *archive.ids):
        found = find_image(client, name)
        if found is not None and found.id in archive.ids:
            return found
    return None


def _load(client: docker.DockerClient, tag: str, archive: ImageArchive) -> None:
    """Send an image to the engine, without the layers that it has: after an edit of the code that is all but one."""
    present = _present(client, archive.layers)
    if present:
        try:
            _send(client, tag, archive, present)
            return
        except NoSpaceError:
            raise
        except BentotoolError:  # it wants them all the same, or one has gone just now
            if not _answers(client):
                raise
    _send(client, tag, archive, ())


def _send(client: docker.DockerClient, tag: str, archive: ImageArchive, present: Sequence[str]) -> None:
    with explained(f"load the image of {tag}"), contextlib.closing(archive.pieces(present)) as pieces:
        client.images.load(pieces)


def _present(client: docker.DockerClient, layers: Sequence[str]) -> Sequence[str]:
    """Which layers from the bottom up the engine has in some image, where it looks a layer up before it reads one.

    Docker's own image store does (``tarexport.Load`` of moby); that of containerd wants each blob.
    """
    with explained("ask the engine for its image store"):
        status = client.info().get("DriverStatus") or []
        if any(pair[:1] == [_OF_CONTAINERD] for pair in status):
            return ()
        ours = client.api.images(filters={"label": DIGEST})
        others = client.api.images()
    longest = 0
    for identity in dict.fromkeys(str(each["Id"]) for each in (*ours, *others[:_LOOKED_AT])):
        with contextlib.suppress(NotFoundError), explained("look at an image"):
            there = (client.api.inspect_image(identity).get("RootFS") or {}).get("Layers") or []
            same = takewhile(lambda pair: pair[0] == pair[1], zip(layers, there, strict=False))
            longest = max(longest, sum(1 for _ in same))
    return layers[:longest]


def _answers(client: docker.DockerClient) -> bool:
    try:
        return bool(client.ping())
    except BROKEN:
        return False
