"""The plan of an image: decided from a Bento alone, before anything is fetched or made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.media import CODE, LOCK, WHEEL
from bentotool.build.target import PLATFORMS
from bentotool.errors import BuildError, UsageError, VerificationError
from bentotool.images.labels import labels_of
from bentotool.imagespec import ImagePlan, PlannedLayer
from bentotool.models.store import ModelStore
from bentotool.oci.layers import layer_files
from bentotool.oci.layout import Layout

__all__ = ["BASE_VARIABLE", "PREFIX", "check_platforms", "default_base", "plan_image"]

BASE_VARIABLE = "BENTOTOOL_BASE_IMAGE"
"""Base image of every Bento that names none; ``{python}`` in it stands for ``X.Y``."""
PREFIX = "opt/bentotool/env"
"""Where the Python environment lies in an image."""
_USER = "65532:65532"  # "nonroot" of distroless images; no base has an account of that number
_PORT = 3000
_SOURCE = re.compile(r"^# source: ([a-z0-9-]+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)+", re.ASCII)
_READY = "/readyz"


def default_base(python: str) -> str:
    """The base image where nobody names one."""
    return f"docker.io/library/python:{python}-slim"


def check_platforms(platforms: Sequence[str], locked_for: str) -> tuple[str, ...]:
    """The platforms to build for, each once; without any that of the lock.

    Args:
        platforms: as the user gives them; several may stand in one, separated by commas.

    Raises:
        UsageError: one for which nothing is built.
    """
    given = [part.strip() for text in platforms for part in text.split(",")]
    wanted = [
        {"linux/arm64/v8": "linux/arm64", "amd64": "linux/amd64", "arm64": "linux/arm64"}.get(p, p) for p in given
    ]
    for each in wanted:
        if each not in PLATFORMS:
            raise UsageError(f"no image can be built for {each[:80]!r}", hint=f"one of {', '.join(PLATFORMS)}")
    return tuple(dict.fromkeys(wanted)) or (locked_for,)


def plan_image(layout: Layout, bento: StoredBento, platform: str, *, base: str | None = None) -> ImagePlan:
    """Plan the image of a Bento for one platform. Nothing is fetched, and nothing written.

    Args:
        layout: the store that has the Bento.
        platform: ``linux/amd64`` or ``linux/arm64``.
        base: what the user asks for as base image, before what the environment and the Bento say.

    Raises:
        NotFoundError: a model of the Bento is not in the store.
        VerificationError: the Bento is damaged.
        BuildError: it holds models that no image can hold together.
    """
    image = bento.config.get("image", {})
    if not isinstance(image, Mapping):
        raise VerificationError(f"what Bento {bento.tag} says of its image is not in the expected form")
    lock = BentoStore(layout).requirements(bento)
    chosen, chosen_by = _base(base, image, bento.python)
    return ImagePlan(
        name=bento.name,
        version=bento.version,
        digest=bento.digest,
        service=bento.service,
        platform=platform,
        python=bento.python,
        locked_for=bento.platform,
        base=chosen,
        base_from=chosen_by,
        prefix=f"/{PREFIX}",
        env=_env(image, bento),
        user=_USER,
        workdir="/home/bento/app",
        entrypoint=(f"/{PREFIX}/bin/python", "-m", "bentotool.runtime", "/home/bento"),
        healthcheck=(f"/{PREFIX}/bin/python", "-m", "bentotool.runtime.healthcheck", *_asked(bento)),
        port=_PORT,
        labels=labels_of(layout, bento),
        layers=_layers(layout, bento),
        steps=_steps(image, "steps"),
        post_steps=_steps(image, "post_steps"),
        build_include=tuple(map(str, image.get("build_include", ()))),
        conda=dict(image.get("conda", {})),
        distro=str(image.get("distro", "")),
        cuda_version=str(image.get("cuda_version", "")),
        from_source=tuple(_SOURCE.findall(lock)),
        build_env=_build_env(bento, ("all", "build")),
        build_only=tuple(_build_env(bento, ("build",))),
    )


def _asked(bento: StoredBento) -> tuple[str, ...]:
    """What the health check asks, where that is not the path it knows: it lies below the prefix of the service."""
    for service in bento.config.get("services", ()):
        if isinstance(service, Mapping) and service.get("target") == bento.service:
            path = (service.get("probes") or {}).get("readyz")
            if path != _READY and isinstance(path, str) and _PATH.fullmatch(path):
                return (path,)
    return ()


def _base(given: str | None, image: Mapping[str, Any], python: str) -> tuple[str, str]:
    for text, by in (
        (given, "option"),
        (image.get("base_image"), "bento"),
        (os.environ.get(BASE_VARIABLE), "environment"),
    ):
        if text:
            found = str(text).replace("{python}", python)
            if not found.isprintable() or found.strip() != found:
                raise UsageError(f"{found[:120]!r} is no base image", hint="HOST/REPOSITORY:TAG or oci:FOLDER")
            # A file can only be meant as such: no registry is asked for its name.
            return (f"oci-archive:{found}" if found.endswith(".tar") and os.path.isfile(found) else found), by
    return default_base(python), "default"


def _env(image: Mapping[str, Any], bento: StoredBento) -> dict[str, str]:
    """Variables of the image. What the Bento sets for its service the runtime reads from the Bento itself."""
    env = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the file system may be read-only, and is not the user's
        "PYTHONNOUSERSITE": "1",
        "PORT": str(_PORT),
        "BENTOTOOL_HOST": "0.0.0.0",  # noqa: S104  # a container's own address; publishing it is up to whoever runs it
        "HOME": "/tmp",  # noqa: S108  # there is no account for the user, and libraries keep caches below it
        "USER": "bento",
        # Python takes the first of these that it can write to: a read-only container has no /tmp, but memory.
        "TMPDIR": "/tmp",  # noqa: S108
        "TEMP": "/dev/shm",  # noqa: S108
    }
    declared = image.get("env", {})
    for name, value in declared.items() if isinstance(declared, Mapping) else ():
        if not _NAME.fullmatch(str(name)) or "\0" in str(value):
            raise VerificationError(f"Bento {bento.tag} sets a variable {str(name)[:60]!r} that no process can have")
        env[str(name)] = str(value)
    return env


def _build_env(bento: StoredBento, stages: Sequence[str]) -> dict[str, str]:
    """``envs`` of some stages; one without a value has it from the environment in which the image is made."""
    found = {}
    for each in bento.config.get("envs", ()):
        name, value = str(each.get("name", "")), str(each.get("value") or "")
        if each.get("stage", "all") in stages:
            if not _NAME.fullmatch(name) or "\0" in value:
                raise VerificationError(f"Bento {bento.tag} sets a variable {name[:60]!r} that no step can have")
            found[name] = value
    return found


def _steps(image: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], ...]:
    steps = image.get(name, ())
    if not isinstance(steps, (list, tuple)) or not all(isinstance(step, Mapping) for step in steps):
        raise VerificationError(f"{name!r} of the Bento's image are not in the expected form")
    return tuple(dict(step) for step in steps)


def _layers(layout: Layout, bento: StoredBento) -> tuple[PlannedLayer, ...]:
    lock, code = bento.layer(LOCK), bento.layer(CODE)
    layers = [
        PlannedLayer("python", "python environment", lock.digest),
        PlannedLayer("runtime", "bentotool runtime", bento.layer(WHEEL).digest),
    ]
    models, seen = ModelStore(layout), set[str]()
    for model in bento.models:
        for layer in models.by_digest(model.name, model.digest).manifest.layers:
            files = layer_files(layer) or ()
            if not all(file.path.startswith(f"{model.path}/") for file in files):
                raise BuildError(
                    f"model {model.name} does not lie at {model.path} in its layers",
                    hint="import it again under the name that the service uses, and build again",
                )
            if layer.digest not in seen:
                seen.add(layer.digest)
                layers.append(PlannedLayer("model", f"model {model.name}:{model.version}", layer.digest, layer.size))
    return (*layers, PlannedLayer("code", f"code of {bento.tag}", code.digest, code.size))
