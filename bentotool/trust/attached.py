"""The documents of a Bento in the store: made and attached at a build, found again, or made afresh."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.documents import FORMATS, LIBRARIES, PROVENANCE
from bentotool.errors import BentotoolError, MissingDependencyError, NotFoundError, UsageError, VerificationError
from bentotool.oci.attached import MADE_HERE, Attachment, attach, referrers
from bentotool.oci.layout import Layout
from bentotool.trust.contents import Contents, contents_of

if TYPE_CHECKING:
    from bentotool.build.result import BuildOptions, BuildResult

__all__ = [
    "FORMATS",
    "KIND",
    "LIMIT",
    "PROVENANCE",
    "Document",
    "artifact_type_of",
    "attach_documents",
    "is_document",
    "provenance_of",
    "sbom_of",
]

KIND = "io.bentotool.kind"
"""Annotation of a referrer that this tool made."""
LIMIT = 64 << 20
"""Bytes of the largest document that is read."""
_INSTALL = "'bentotool[sbom]'"
_LIBRARIES = LIBRARIES


@dataclass(frozen=True)
class Document:
    """A document of a Bento.

    Args:
        digest: of the referrer that has it; empty for one that was made just now.
    """

    data: bytes
    media_type: str
    digest: str = ""

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data)
        return found


def artifact_type_of(form: str) -> str:
    """The artifact type of bills of materials in a format.

    Raises:
        UsageError: an unknown format.
    """
    if form not in FORMATS:
        raise UsageError(f"unknown format {form[:40]!r}", hint=f"one of {', '.join(FORMATS)}")
    return FORMATS[form]


def is_document(artifact_type: str, bento: str, data: bytes) -> bool:
    """Whether bytes are what their artifact type says: a bill of materials, or provenance of this Bento.

    Args:
        bento: its digest.
    """
    from bentotool.trust.provenance import PREDICATE_TYPE

    try:
        content = json.loads(data)
        if artifact_type == FORMATS["cyclonedx"]:
            return bool(content["bomFormat"] == "CycloneDX")
        if artifact_type == FORMATS["spdx"]:
            return str(content["spdxVersion"]).startswith("SPDX-")
        subjects = [each["digest"]["sha256"] for each in content["subject"]]
        return content["predicateType"] == PREDICATE_TYPE and bento[7:] in subjects
    except (ValueError, TypeError, KeyError, RecursionError):  # another's, and damaged
        return False


def sbom_of(layout: Layout, bento: StoredBento, form: str = "cyclonedx") -> Document:
    """The bill of materials that is attached to a Bento; where there is none, a new one.

    Args:
        form: a key of :data:`FORMATS`.

    Raises:
        UsageError: an unknown format.
        MissingDependencyError: when it would have to be made, and the libraries are not installed.
        NotFoundError, VerificationError: the Bento is not whole.
    """
    found = _attached(layout, bento.digest, artifact_type_of(form))
    if found is not None:
        return found
    if absent := _absent():
        raise MissingDependencyError(absent, install=_INSTALL, purpose=f"no SBOM is attached to {bento.tag}")
    return Document(_made(form, contents_of(BentoStore(layout), bento)), FORMATS[form])


def provenance_of(layout: Layout, bento: StoredBento) -> Document:
    """The provenance that is attached to a Bento. It cannot be made later.

    Raises:
        NotFoundError: when there is none.
    """
    found = _attached(layout, bento.digest, PROVENANCE)
    if found is None:
        raise NotFoundError(
            f"no provenance is attached to {bento.tag}",
            hint="only the build can state it: bentotool build --no-cache in the project",
        )
    return found


def attach_documents(
    layout: Layout,
    result: BuildResult,
    folder: Path,
    options: BuildOptions,
    started: datetime,
    *,
    sbom: bool = True,
    provenance: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> list[dict[str, str]]:
    """Attach what is missing to a Bento that was just built.

    A Bento has one bill of materials in each format, and one provenance: that of the build which first made it here.

    Args:
        folder: of the project.
        options: of the build.
        started: when it began.
        note: told where the libraries for bills of materials are absent.

    Returns:
        artifact type and digest of what was attached.

    Raises:
        BentotoolError: the store refuses.
        UsageError: ``SOURCE_DATE_EPOCH`` is not a number.
    """
    store, digest = BentoStore(layout), result.digest
    forms = [form for form, kind in FORMATS.items() if sbom and _attached(layout, digest, kind) is None]
    if forms and _absent():
        note(f"no SBOM was made; for the next: pip install {_INSTALL}")
        forms = []
    provenance = provenance and _attached(layout, digest, PROVENANCE) is None
    if not forms and not provenance:
        return []
    contents = contents_of(store, store.get(f"{result.name}@{digest}"))
    made = [("sbom", FORMATS[form], _made(form, contents)) for form in forms]
    if provenance:
        made.append(("provenance", PROVENANCE, _provenance(contents, folder, options, started)))
    attached = []
    for name, kind, data in made:
        # Another build may have stated its own while this one was made; a bill is the same whoever makes it.
        if kind != PROVENANCE or _attached(layout, digest, kind) is None:
            referrer = attach(layout, digest, kind, [Attachment(data, kind)], {KIND: name}).digest
            layout.remark(referrer, MADE_HERE)
            attached.append({"artifact_type": kind, "digest": referrer})
    return attached


def _cyclonedx(contents: Contents) -> bytes:
    from bentotool.trust.cyclonedx_bom import cyclonedx_json

    return cyclonedx_json(contents)


def _spdx(contents: Contents) -> bytes:
    from bentotool.trust.spdx_document import spdx_json

    return spdx_json(contents)


_MAKERS: Mapping[str, Callable[[Contents], bytes]] = {"cyclonedx": _cyclonedx, "spdx": _spdx}


def _made(form: str, contents: Contents) -> bytes:
    try:
        return _MAKERS[form](contents)
    except BentotoolError:
        raise
    except Exception as error:  # a Bento from elsewhere may say of itself what the format does not admit
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise VerificationError(f"no {form} SBOM can be made of {contents.name}@{contents.digest}: {said}") from error


def _provenance(contents: Contents, folder: Path, options: BuildOptions, started: datetime) -> bytes:
    from bentotool.build.configfile import load_config
    from bentotool.trust.ci import run_of
    from bentotool.trust.provenance import Circumstances, arguments_of, provenance_json
    from bentotool.trust.revision import revision_of

    build = Circumstances(
        started,
        datetime.now(timezone.utc),
        load_config(folder, options.file).origin,
        arguments_of(options),
        revision_of(folder),
        run_of(os.environ),
    )
    return provenance_json(contents, build)


def _absent() -> str:
    """A library for bills of materials that is not installed; empty where all are."""
    return next((name for name in _LIBRARIES if importlib.util.find_spec(name) is None), "")


def _attached(layout: Layout, digest: str, artifact_type: str) -> Document | None:
    """The document of a type that is attached to a Bento: ours before another's."""
    found = referrers(layout, digest, artifact_type)
    for referrer in sorted(found, key=lambda each: KIND not in each.manifest.annotations):
        for layer in referrer.manifest.layers:
            try:
                data = layout.read(layer.digest, LIMIT)
            except BentotoolError:
                continue
            if is_document(artifact_type, digest, data):
                return Document(data, artifact_type, referrer.digest)
    return None
