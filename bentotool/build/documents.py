"""Which documents a build attaches, and whether a Bento lacks some: asked by builds that do nothing else.

They are made in :mod:`bentotool.trust`, which such a build does not import.
"""

from __future__ import annotations

from bentotool.oci.attached import referrers
from bentotool.oci.layout import Layout

__all__ = ["FORMATS", "LIBRARIES", "PROVENANCE", "lacks_documents"]

FORMATS = {"cyclonedx": "application/vnd.cyclonedx+json", "spdx": "application/spdx+json"}
"""Artifact type of a bill of materials, by format."""
PROVENANCE = "application/vnd.in-toto+json"
"""Artifact type of a statement."""
LIBRARIES = ("cyclonedx", "packageurl", "spdx_tools")
"""Packages that bills of materials are made with."""


def lacks_documents(layout: Layout, digest: str, *, sbom: bool, provenance: bool) -> bool:
    """Whether a build could attach something: an earlier one left it out, or was ended before it came to that."""
    attached = {referrer.descriptor.artifact_type for referrer in referrers(layout, digest)}
    if provenance and PROVENANCE not in attached:
        return True
    if not sbom or attached.issuperset(FORMATS.values()):
        return False
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in LIBRARIES)
