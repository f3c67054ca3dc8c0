"""Options that targets have in common, so that one word means one thing whatever the target.

A target whose machines pull the image from a registry declares :data:`IMAGE_OPTIONS`, plans with :func:`planned_image`
and applies with :func:`published_image`. It records the outcome's ``reference`` as the fact ``image``: a rollback then
deploys that very image, and makes none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from bentotool.deployspec import PublishedImage
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, OptionSpec

__all__ = [
    "DEPENDS_VARIABLE",
    "IMAGE_OPTIONS",
    "REGISTRY_VARIABLE",
    "depends_addresses",
    "depends_variable",
    "planned_image",
    "published_image",
]

DEPENDS_VARIABLE = "BENTOTOOL_DEPENDS"
"""Where a server finds the Services and deployments that it calls: ``NAME=URL``, joined by commas."""

REGISTRY_VARIABLE = "BENTOTOOL_REGISTRY"
"""The registry where none is named, as for ``bentotool push``."""

IMAGE_OPTIONS = (
    OptionSpec("registry", "text", f"Registry, and path in it, to push the image to; default: ${REGISTRY_VARIABLE}",
               metavar="HOST[/PATH]"),
    OptionSpec("image", "text", "Image to run in place of the Bento's own; nothing is pushed", metavar="REF"),
    OptionSpec("platform", "text", "Platform of the machines it runs on; default: the Bento's", repeated=True,
               metavar="OS/ARCH"),
)  # fmt: skip

_ADDRESS = re.compile(r"https?://[^\s,/]+(?:/[^\s,]*)?")
_IMAGE = re.compile(r"(?P<name>[^\s@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?", re.ASCII)


def depends_addresses(text: str) -> dict[str, str]:
    """What a user's :data:`DEPENDS_VARIABLE` says.

    Raises:
        UsageError: a server could not read it.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = entry.partition("=")
        if not name or not _ADDRESS.fullmatch(url):
            raise UsageError(
                f"--env {DEPENDS_VARIABLE}: {entry[:80]!r} is not NAME=http://HOST:PORT",
                hint=f"--env {DEPENDS_VARIABLE}=Ranker=http://ranker:3000,Other=http://…",
            )
        found[name] = url
    return found


def depends_variable(own: Mapping[str, str], env: Mapping[str, str]) -> str:
    """The variable for a server whose target knows some of the addresses, and whose user may name others.

    Args:
        own: addresses that the target gives, by Service.
        env: what the user set.

    Raises:
        UsageError: both name one.
    """
    given = depends_addresses(env.get(DEPENDS_VARIABLE, ""))
    if twice := sorted(own.keys() & given.keys()):
        raise UsageError(
            f"--env {DEPENDS_VARIABLE} names {twice[0]}, which is deployed here and found by itself",
            hint=f"leave {twice[0]} out of it",
        )
    return ",".join(f"{name}={url}" for name, url in [*sorted(own.items()), *given.items()])


def planned_image(bento: DeployBento, values: Mapping[str, Any], *, lean: bool = False) -> tuple[PublishedImage, str]:
    """What will be deployed, without asking anybody, and what a person should know of it: empty where nothing.

    Args:
        values: of the target's options.
        lean: without models, which are mounted.

    Raises:
        UsageError: a value that cannot be.
    """
    if values.get("image"):
        return _given(bento, str(values["image"])), ""
    where = _registry(values)
    if not where:
        return PublishedImage(bento.name, bento.version, volumes=_volumes(bento)), (
            f"no registry is named: the image stands as {bento.tag} (--registry HOST/PATH, or {REGISTRY_VARIABLE})"
        )
    if bento.registry is None:  # a Bento that is not built yet
        return PublishedImage(f"{where.rstrip('/')}/{bento.name}", bento.version, volumes=_volumes(bento)), ""
    image = bento.registry.planned(where, tuple(values.get("platform") or ()), lean=lean)
    return image, "" if image.digest else "the image is still to be made; its digest stands in place of the tag then"


def published_image(bento: DeployBento, values: Mapping[str, Any], *, lean: bool = False) -> PublishedImage:
    """The image in its registry: made and pushed where it has to be, and named by its digest.

    Raises:
        UsageError: there is no registry to push to, or no Bento in the store to make it of.
        BentotoolError: it cannot be made, or the registry does not take it.
    """
    if values.get("image"):
        return _given(bento, str(values["image"]))
    where = _registry(values)
    if not where:
        raise UsageError(
            "no registry to push the image to", hint=f"--registry HOST[:PORT][/PATH], or set {REGISTRY_VARIABLE}"
        )
    if bento.registry is None:
        raise UsageError(f"{bento.tag} is not in the store", hint="build or pull it again, or name an image: --image")
    return bento.registry.publish(where, tuple(values.get("platform") or ()), lean=lean)


def _registry(values: Mapping[str, Any]) -> str:
    where = str(values.get("registry") or os.environ.get(REGISTRY_VARIABLE, "")).strip()
    if "@" in where:
        raise UsageError(
            f"{_masked(where)!r} is no place in a registry: it has credentials in it",
            hint=f"bentotool login {where.rpartition('@')[2].partition('/')[0]}, and --registry HOST[:PORT][/PATH]",
        )
    return where


def _given(bento: DeployBento, text: str) -> PublishedImage:
    if bento.anew:
        raise UsageError(
            f"--image {text[:80]} runs as it is: --base and --builder say how the Bento's own is made",
            hint="leave --image out, or --base and --builder",
        )
    found = _IMAGE.fullmatch(text)
    if found is None:
        raise UsageError(f"{_masked(text)!r} is no image", hint="--image HOST/REPOSITORY:TAG, or …@sha256:DIGEST")
    tag = found["tag"] or ("" if found["digest"] else "latest")
    return PublishedImage(found["name"], tag, found["digest"] or "", volumes=_volumes(bento))


def _masked(text: str) -> str:
    """What stands before ``@`` in a host's name may be a password: it is not repeated."""
    return re.sub(r"^[^/]*@", "***@", text)[:80]


def _volumes(bento: DeployBento) -> dict[str, str]:
    return {model.digest: model.volume for model in bento.models if model.volume}
