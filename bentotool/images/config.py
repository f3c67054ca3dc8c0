"""The config of an image (image-spec 1.1, config.md), made from its plan and its base.

``Healthcheck`` is Docker's addition, which other engines pass over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from bentotool.images.baseimage import BaseImage
from bentotool.imagespec import ImagePlan

__all__ = ["image_config", "variables"]

_SECOND = 1_000_000_000  # nanoseconds, Docker's unit
_OCI = "org.opencontainers.image."


def image_config(plan: ImagePlan, base: BaseImage, layers: Sequence[tuple[str, str]], created: int) -> dict[str, Any]:
    """The config document.

    What the base says of its own start, user, volumes and triggers is left out; its variables and labels stay, but for
    those labels that say what the base is.

    Args:
        layers: kind and diff id of those above the base, from the bottom.
        created: seconds since the epoch.
    """
    moment = datetime.fromtimestamp(created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    system, architecture = plan.platform.split("/")
    labels = {key: value for key, value in _texts(base.settings.get("Labels")).items() if not key.startswith(_OCI)}
    settings = {
        "User": plan.user,
        "Env": [f"{name}={value}" for name, value in variables(plan, base.env).items()],
        "Entrypoint": list(plan.entrypoint),
        "WorkingDir": plan.workdir,
        "ExposedPorts": {f"{plan.port}/tcp": {}},
        "StopSignal": plan.stop_signal,
        "Labels": {**labels, **plan.labels},
        "Healthcheck": {
            "Test": ["CMD", *plan.healthcheck],
            "Interval": 10 * _SECOND,
            "Timeout": 5 * _SECOND,
            "StartPeriod": 60 * _SECOND,
            "Retries": 3,
        },
    }
    variant = {"variant": base.config["variant"]} if isinstance(base.config.get("variant"), str) else {}
    return {
        "created": moment,
        "architecture": architecture,
        **variant,
        "os": system,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [*base.diff_ids, *(diff_id for _, diff_id in layers)]},
        "history": [
            *_history(base),
            *({"created": moment, "created_by": f"bentotool containerize: {kind}"} for kind, _ in layers),
        ],
    }


def variables(plan: ImagePlan, inherited: Mapping[str, str]) -> dict[str, str]:
    """The image's variables: those of the base, over them the plan's, and the environment's programs first in PATH."""
    found = {**inherited, **plan.env}
    path = found.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": f"{plan.prefix}/bin:{path}", **{name: v for name, v in found.items() if name != "PATH"}}


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def _history(base: BaseImage) -> list[dict[str, Any]]:
    """The base's history where it tells of each of its layers, as engines count on."""
    found = base.config.get("history")
    entries = [dict(each) for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    if sum(not entry.get("empty_layer") for entry in entries) == len(base.layers):
        return entries
    return [{"created_by": f"base {base.digest}"} for _ in base.layers]
