"""OCI descriptors, image manifests and image indexes as values (image-spec 1.1).

Bytes are made by :func:`canonical_json` alone, so equal values have equal digests; bytes that came from elsewhere are
kept as they are and never made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import VerificationError
from bentotool.oci.digest import check_digest

__all__ = [
    "EMPTY",
    "EMPTY_JSON",
    "INDEX",
    "MANIFEST",
    "MANIFEST_LIMIT",
    "Descriptor",
    "Index",
    "Manifest",
    "canonical_json",
    "parse_json_object",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_JSON = b"{}"
MANIFEST_LIMIT = 4 << 20
"""Largest manifest, index or config accepted, in bytes (distribution-spec: registries need accept no more)."""
_MAX_ENTRIES = 1000


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: one value, one byte string, on every platform and Python."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json_object(data: bytes, what: str) -> dict[str, Any]:
    """Decode one JSON object.

    Raises:
        VerificationError: when it is too large, not JSON, or not an object.
    """
    if len(data) > MANIFEST_LIMIT:
        raise VerificationError(f"{what} has {len(data)} bytes, more than the {MANIFEST_LIMIT} allowed")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise VerificationError(f"{what} is not a JSON object")
    return value


def _string_map(value: object, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise VerificationError(f"{what} must map strings to strings")
    return dict(value)


@dataclass(frozen=True)
class Descriptor:
    """What a digest points to: its kind, its identity and its exact size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    platform: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.platform:
            document["platform"] = dict(self.platform)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    @classmethod
    def from_dict(cls, data: object) -> Descriptor:
        """Read a descriptor from a manifest.

        Raises:
            VerificationError: when a field is missing or of the wrong type.
        """
        if not isinstance(data, dict):
            raise VerificationError("a descriptor must be a JSON object")
        media_type, size = data.get("mediaType"), data.get("size")
        if not isinstance(media_type, str) or not media_type.isprintable():
            raise VerificationError("a descriptor needs a mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise VerificationError(f"descriptor size {size!r} is not a number of bytes")
        artifact_type, platform = data.get("artifactType"), data.get("platform")
        return cls(
            media_type=media_type,
            digest=check_digest(data.get("digest")),
            size=size,
            annotations=_string_map(data.get("annotations"), "annotations"),
            artifact_type=artifact_type if isinstance(artifact_type, str) else None,
            platform={k: v for k, v in platform.items() if isinstance(v, str)} if isinstance(platform, dict) else None,
        )


def _descriptors(value: object, what: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise VerificationError(f"{what} must be a list")
    if len(value) > _MAX_ENTRIES:
        raise VerificationError(f"{what} has {len(value)} entries, more than the {_MAX_ENTRIES} allowed")
    return tuple(Descriptor.from_dict(item) for item in value)


def _open(data: bytes, media_type: str, what: str, foreign: str) -> dict[str, Any]:
    document = parse_json_object(data, what)
    # Old KitOps manifests carry no mediaType; a body that contradicts itself is refused (CVE-2021-41190).
    if document.get("mediaType", media_type) != media_type:
        raise VerificationError(f"{what} says it is {str(document['mediaType'])[:100]!r}, not {media_type}")
    if foreign in document:
        raise VerificationError(f"{what} has both 'layers' and 'manifests'")
    return document


@dataclass(frozen=True, kw_only=True)
class _Document:
    """What a manifest and an index have in common."""

    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    def _encode(self, media_type: str, **content: Any) -> bytes:
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type, **content}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.subject:
            document["subject"] = self.subject.to_dict()
        return canonical_json(document)

    @staticmethod
    def _common(document: dict[str, Any], what: str) -> dict[str, Any]:
        artifact_type = document.get("artifactType")
        return {
            "artifact_type": artifact_type if isinstance(artifact_type, str) else None,
            "annotations": _string_map(document.get("annotations"), f"annotations of {what}"),
            "subject": Descriptor.from_dict(document["subject"]) if document.get("subject") else None,
        }


@dataclass(frozen=True)
class Manifest(_Document):
    """An OCI image manifest, of an image or of an artifact."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        layers = [layer.to_dict() for layer in self.layers]
        return self._encode(MANIFEST, config=self.config.to_dict(), layers=layers)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            VerificationError: when it breaks the image-spec or its limits.
        """
        document = _open(data, MANIFEST, "the manifest", "manifests")
        config = Descriptor.from_dict(document.get("config"))
        layers = _descriptors(document.get("layers"), "'layers' of the manifest")
        return cls(config, layers, **cls._common(document, "the manifest"))


@dataclass(frozen=True)
class Index(_Document):
    """An OCI image index."""

    manifests: tuple[Descriptor, ...]

    def to_bytes(self) -> bytes:
        return self._encode(INDEX, manifests=[manifest.to_dict() for manifest in self.manifests])

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Read an index.

        Raises:
            VerificationError: when it breaks the image-spec or its limits.
        """
        document = _open(data, INDEX, "the index", "layers")
        return cls(
            _descriptors(document.get("manifests"), "'manifests' of the index"), **cls._common(document, "the index")
        )
