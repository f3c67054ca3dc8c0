"""Media types of a Bento and its layers, and the kind of its references."""

from __future__ import annotations

__all__ = ["API", "ARTIFACT_TYPE", "CODE", "CONFIG", "KIND", "LOCK", "WHEEL"]

KIND = "bentos"
ARTIFACT_TYPE = "application/vnd.bentotool.bento.v1"
CONFIG = "application/vnd.bentotool.bento.config.v1+json"
CODE = "application/vnd.bentotool.bento.code.v1.tar"
LOCK = "application/vnd.bentotool.bento.lock.v1+txt"
WHEEL = "application/vnd.bentotool.bento.wheel.v1+zip"
API = "application/vnd.bentotool.bento.api.v1+json"
