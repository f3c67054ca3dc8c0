"""Labels of an image: OCI's own names, and what tells which Bento it is made from."""

from __future__ import annotations

import re

from bentotool.build.bentos import StoredBento
from bentotool.errors import BentotoolError
from bentotool.oci.layout import Layout

__all__ = ["labels_of"]

_OCI = "org.opencontainers.image."
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


def labels_of(layout: Layout, bento: StoredBento) -> dict[str, str]:
    """Labels of the image of a Bento: its own, and over these the ones that say what the image is."""
    found = {key: value for key, value in bento.labels.items() if key.isprintable() and key}
    found |= {
        f"{_OCI}title": bento.name,
        f"{_OCI}version": bento.version,
        "io.bentotool.bento": bento.tag,
        "io.bentotool.bento.digest": bento.digest,
        "io.bentotool.service": bento.service,
    }
    found |= {f"{_OCI}description": bento.description} if bento.description else {}
    return {**found, **_source(layout, bento)}


def _source(layout: Layout, bento: StoredBento) -> dict[str, str]:
    """Repository and commit, as far as the provenance that is attached to the Bento states them."""
    from bentotool.trust.attached import provenance_of

    try:
        content = provenance_of(layout, bento).content
        materials = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        source = next(each for each in materials if each.get("name") == "source")
        commit = str(source["digest"]["gitCommit"])
        url = str(source.get("uri", "")).removeprefix("git+").removesuffix(f"@{commit}")
    except (BentotoolError, KeyError, TypeError, AttributeError, StopIteration, ValueError):
        return {}  # there is none, or another's, in another form
    found = {f"{_OCI}revision": commit} if _COMMIT.fullmatch(commit) else {}
    return {**found, **({f"{_OCI}source": url} if url and url.isprintable() and len(url) < 1000 else {})}
