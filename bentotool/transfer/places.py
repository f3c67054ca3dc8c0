"""Which repositories are known to hold which models, so that a push can mount their blobs instead of sending them.

A hint and nothing more: the registry decides, and a wrong entry costs one request.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.layout import Layout
from bentotool.paths import write_atomic

__all__ = ["KnownPlaces"]

_MAX_PLACES = 4
_MAX_DIGESTS = 2000
_LIMIT = 4 << 20


class KnownPlaces:
    """Remembers, per registry, the repositories in which a manifest was seen; newest first."""

    def __init__(self, layout: Layout) -> None:
        self._path: Path = layout.root / "places.json"

    def _read(self) -> dict[str, dict[str, list[str]]]:
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(_LIMIT))
            return {
                str(registry): {str(digest): [str(each) for each in places] for digest, places in digests.items()}
                for registry, digests in document.items()
            }
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def find(self, registry: str, digest: str) -> tuple[str, ...]:
        """Repositories of ``registry`` that may hold what the manifest ``digest`` lists."""
        return tuple(self._read().get(registry, {}).get(digest, ())[:_MAX_PLACES])

    def everywhere(self, digest: str) -> tuple[str, ...]:
        """``REGISTRY/REPOSITORY`` wherever the manifest was seen: pulled from there, or pushed."""
        found = self._read().items()
        return tuple(f"{registry}/{place}" for registry, known in found for place in known.get(digest, ()))

    def remember(self, registry: str, repository: str, *digests: str) -> None:
        """Note that ``repository`` holds the manifests ``digests`` and their blobs."""
        document = self._read()
        known = document.setdefault(registry, {})
        for digest in digests:
            places = [repository, *(each for each in known.pop(digest, ()) if each != repository)]
            known[digest] = places[:_MAX_PLACES]
        document[registry] = dict(list(known.items())[-_MAX_DIGESTS:])
        with contextlib.suppress(OSError, BentotoolError):
            write_atomic(self._path, canonical_json(document))
