"""The image of a deployment: in a registry that Cloud Run pulls from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool import targetoptions
from bentotool.deployspec import PublishedImage
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento

__all__ = ["check_registry", "planned_image", "published_image"]

_PLATFORM = "linux/amd64"  # the one that Cloud Run has
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "mirror.gcr.io")


def check_registry(reference: str) -> None:
    """Refuse a registry that Cloud Run does not pull from.

    Raises:
        UsageError: it is none of Google's, nor Docker Hub.
    """
    host, slash, _ = reference.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host = "docker.io"
    if not (host in _HUB or host == "gcr.io" or host.endswith((".gcr.io", "-docker.pkg.dev"))):
        raise UsageError(
            f"Cloud Run pulls from Artifact Registry and Docker Hub, and {reference[:120]} is in neither",
            hint="--registry europe-west1-docker.pkg.dev/PROJECT/REPOSITORY",
        )


def planned_image(bento: DeployBento, values: Mapping[str, Any]) -> tuple[str, str]:
    """What will run, as far as that is known before anything is pushed, and what a person should know of it.

    Raises:
        UsageError: a place that Cloud Run cannot reach.
    """
    image, note = targetoptions.planned_image(bento, _for_cloud_run(values))
    return _checked(image), note


def published_image(bento: DeployBento, values: Mapping[str, Any]) -> str:
    """What is to run, by digest; pushed where it is the Bento's own.

    Raises:
        BentotoolError: the image cannot be made, or the registry refuses.
    """
    return _checked(targetoptions.published_image(bento, _for_cloud_run(values)))


def _for_cloud_run(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "platform": (_PLATFORM,)}


def _checked(image: PublishedImage) -> str:
    """The one image of Cloud Run's platform, rather than the index with the Bento and its models beside it."""
    check_registry(image.repository)
    digest = image.images.get(_PLATFORM)
    return f"{image.repository}@{digest}" if digest else image.reference
