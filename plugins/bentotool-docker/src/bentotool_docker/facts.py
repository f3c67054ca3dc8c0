"""What is recorded of a deployment on an engine, read back."""

from __future__ import annotations

import os

from bentotool.errors import ConflictError
from bentotool.targetspec import Deployment, DeployOptions
from bentotool_docker.engine import engine_url
from bentotool_docker.images import Image

__all__ = ["check_engine", "engine_of", "image_ids", "made_before", "on_engine"]


def check_engine(options: DeployOptions, engine: str) -> None:
    """Leave nothing behind on another engine.

    Raises:
        ConflictError: the deployment is one on another engine.
    """
    recorded = options.previous.facts.get("engine") if options.previous is not None else None
    if isinstance(recorded, str) and _same_engine(recorded) != _same_engine(engine):
        raise ConflictError(
            f"{options.name} is deployed on the engine at {recorded}, and {engine} is meant now",
            hint=f"--engine {recorded} updates it there; another --name makes one here",
        )


def _same_engine(url: str) -> str:
    scheme, _, path = url.partition("://")
    return f"{scheme}://{os.path.realpath(path)}" if scheme == "unix" else url


def on_engine(deployment: Deployment, url: str | None) -> bool:
    """Whether a deployment is on the engine at an address; no address is any."""
    return not url or _same_engine(engine_of(deployment)) == _same_engine(url)


def made_before(options: DeployOptions, engine: str, image: Image) -> bool:
    """Whether the image was made for the deployment that was, or by any attempt, whatever came of that."""
    before = (*([options.previous] if options.previous is not None else []), *options.left)
    return any(
        each.facts.get("image_made") is True
        and image.id in image_ids(each)
        and _same_engine(engine_of(each)) == _same_engine(engine)
        for each in before
    )


def image_ids(deployment: Deployment) -> tuple[str, ...]:
    """Ids of the image of a revision, or those that an image has that an attempt made."""
    facts = deployment.facts
    several = facts.get("image_ids")
    found = several if isinstance(several, list) else [facts.get("image_id")]
    return tuple(each for each in found if isinstance(each, str))


def engine_of(deployment: Deployment) -> str:
    """The engine that it is on; the one that is meant now, where that is not recorded."""
    recorded = deployment.facts.get("engine")
    return recorded if isinstance(recorded, str) and recorded else engine_url(None)
