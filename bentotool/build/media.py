"""Media types of a Bento and its layers, the kind of its references, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping

from bentotool.oci.descriptor import canonical_json

__all__ = ["API", "ARTIFACT_TYPE", "CODE", "CONFIG", "KIND", "LOCK", "WHEEL", "brief"]

KIND = "bentos"
ARTIFACT_TYPE = "application/vnd.bentotool.bento.v1"
CONFIG = "application/vnd.bentotool.bento.config.v1+json"
CODE = "application/vnd.bentotool.bento.code.v1.tar"
LOCK = "application/vnd.bentotool.bento.lock.v1+txt"
WHEEL = "application/vnd.bentotool.bento.wheel.v1+zip"
TITLE = "org.opencontainers.image.title"
"""Annotation of a layer that is one file: its name. Wheels of packages that the Bento carries have it, the embedded
runtime's wheel does not."""
WHEELS = "wheels/"
"""What such a title starts with."""
API = "application/vnd.bentotool.bento.api.v1+json"


def brief(service: str, python: str, labels: Mapping[str, str]) -> dict[str, str]:
    """What is copied beside a Bento's reference, so that listing and filtering Bentos read no manifest."""
    found = {"io.bentotool.python": python, "io.bentotool.service": service}
    return {**found, "io.bentotool.labels": canonical_json(dict(labels)).decode()} if labels else found
