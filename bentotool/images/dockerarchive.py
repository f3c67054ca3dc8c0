"""An archive of Docker's own format (Docker before 25, ``podman save``) read as if it were an OCI layout.

``manifest.json`` lists images, each with ``RepoTags``, and ``Config`` and ``Layers``, which are names of files in the
archive. Its layers are not compressed, so that the digest of each is its diff ID, which the config tells; whoever
fetches one checks that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, canonical_json, parse_json_object
from bentotool.oci.digest import check_digest, sha256_bytes

__all__ = ["DockerArchive"]

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGES = 1000


class _Files(Protocol):
    """Files of an archive by name; FileNotFoundError where there is none."""

    def __call__(self, name: str) -> BinaryIO: ...

    def size(self, name: str) -> int: ...

    def close(self) -> None: ...


class DockerArchive:
    """Files of an OCI layout by name, as the archive holds them or would.

    Args:
        files: of the archive.
        what: the archive, for people.

    Raises:
        VerificationError: it contradicts itself.
    """

    def __init__(self, files: _Files, what: str) -> None:
        self._files, self._what = files, what
        self._found: dict[str, Callable[[], BinaryIO]] = {}
        try:
            images = json.loads(self._small("manifest.json"))
            entries = [each for image in images[:_IMAGES] for each in self._entries(image)]
        except FileNotFoundError as error:
            raise VerificationError(f"{what} lacks {error}, which its manifest.json names") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise VerificationError(f"{what} has no sound manifest.json") from None
        index = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        self._found["index.json"] = lambda: io.BytesIO(index)

    def __call__(self, name: str) -> BinaryIO:
        if name not in self._found:
            raise FileNotFoundError(name)
        return self._found[name]()

    def close(self) -> None:
        self._files.close()

    def _entries(self, image: Mapping[str, Any]) -> list[dict[str, Any]]:
        """An image as an index lists it, once for each of its tags."""
        config = self._small(image["Config"])
        ids = parse_json_object(config, f"the config of {self._what}")["rootfs"]["diff_ids"]
        if len(ids) != len(image["Layers"]):
            raise VerificationError(f"{self._what} is no image: its config does not list its layers")
        layers = [
            {**self._keep(check_digest(digest), name), "mediaType": _LAYER}
            for digest, name in zip(ids, image["Layers"], strict=True)
        ]
        top = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}
        top["config"] = {**self._keep(sha256_bytes(config), image["Config"]), "mediaType": _CONFIG}
        manifest = canonical_json(top)
        digest = sha256_bytes(manifest)
        self._found[_blob(digest)] = lambda: io.BytesIO(manifest)
        entry = {"mediaType": MANIFEST, "digest": digest, "size": len(manifest)}
        tags = [str(name).rpartition(":")[2] for name in image.get("RepoTags") or ()]
        return [{**entry, "annotations": {_REF_NAME: tag}} for tag in tags] or [entry]

    def _keep(self, digest: str, name: str) -> dict[str, Any]:
        self._found[_blob(digest)] = lambda: self._files(name)
        return {"digest": digest, "size": self._files.size(name)}

    def _small(self, name: str) -> bytes:
        with self._files(name) as file:
            data = file.read(MANIFEST_LIMIT + 1)
        if len(data) > MANIFEST_LIMIT:
            raise VerificationError(f"{name} of {self._what} has more than {MANIFEST_LIMIT} bytes")
        return data


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"
