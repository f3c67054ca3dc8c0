"""The image of a deployment: as named, as the engine has it, or made from the Bento and loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors

from bentotool.errors import BentotoolError, NotFoundError
from bentotool.targetspec import DeployBento
from bentotool_docker.engine import explained

__all__ = ["Image", "ensure_image", "find_image"]

DIGEST = "io.bentotool.bento.digest"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image that the engine has.

    Args:
        reference: as it was asked for.
        entrypoint: what it starts; the first word is its Python.
        user: ``uid[:gid]``, empty for root.
    """

    reference: str
    id: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    labels: dict[str, str]

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
    )


def ensure_image(
    client: docker.DockerClient, bento: DeployBento, given: str | None, pull: str, note: Callable[[str], None]
) -> Image:
    """The image to run.

    Args:
        given: an image in place of the Bento's own.
        pull: ``missing`` or ``never``, for a given one.

    Raises:
        NotFoundError: there is none, or no registry has it.
        BentotoolError: it cannot be made or loaded.
    """
    if given:
        found = find_image(client, given)
        if found is None and pull == "missing":
            note(f"pull {given}")
            with explained(f"pull {given}"):
                client.images.pull(given)
            found = find_image(client, given)
        if found is None:
            raise NotFoundError(
                f"the engine has no image {given}", hint=f"docker pull {given}, or leave --pull never out"
            )
        return found
    found = find_image(client, bento.tag)
    if found is not None and found.labels.get(DIGEST) == bento.digest:
        return found
    return _make(client, bento, note)


def _make(client: docker.DockerClient, bento: DeployBento, note: Callable[[str], None]) -> Image:
    if bento.make_image is None:
        raise NotFoundError(
            f"the engine has no image of {bento.tag}", hint=f"bentotool containerize {bento.tag} --output image.tar"
        )
    with explained("ask the engine for its platform"):
        architecture = str(client.version().get("Arch", "amd64"))
    platform = f"linux/{_ARCHITECTURES.get(architecture, architecture)}"
    note(f"make the image of {bento.tag} for {platform}")
    with tempfile.TemporaryDirectory(prefix="bentotool-docker-", ignore_cleanup_errors=True) as folder:
        archive = bento.make_image(platform, Path(folder))
        note("load it into the engine")
        with explained(f"load the image of {bento.tag}"), archive.open("rb") as stream:
            client.images.load(stream)
    found = find_image(client, bento.tag)
    if found is None:
        raise BentotoolError(f"the engine took the image of {bento.tag} and does not have it", hint="docker image ls")
    return found
