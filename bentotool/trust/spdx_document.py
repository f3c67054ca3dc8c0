"""A Bento's bill of materials as SPDX 2.3 JSON.

SPDX demands a time of making. It is ``SOURCE_DATE_EPOCH``, or else the epoch itself: a Bento has one document.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from bentotool import __version__
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import sha256_bytes
from bentotool.trust.contents import Contents, ModelPart, Package
from bentotool.trust.moments import source_date

__all__ = ["spdx_json"]

_NAMESPACE = "https://github.com/bentotool/bentotool/spdx"
_ROOT, _RUNTIME = "SPDXRef-Bento", "SPDXRef-Runtime"
_DOCUMENT = "SPDXRef-DOCUMENT"


def spdx_json(contents: Contents) -> bytes:
    """The document, canonical JSON.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is not a number.
    """
    from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
    from spdx_tools.spdx.model import Actor, ActorType, CreationInfo, Document, Relationship, RelationshipType

    moment = source_date() or datetime.fromtimestamp(0, timezone.utc)
    parts = [*map(_package, contents.packages), *map(_model, contents.models)]
    creation = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id=_DOCUMENT,
        name=f"{contents.name}-{contents.version}",
        document_namespace=f"{_NAMESPACE}/{contents.name}/{contents.digest[7:]}",
        creators=[Actor(ActorType.TOOL, f"bentotool-{__version__}")],
        created=moment.replace(tzinfo=None),  # the library writes it as UTC, and takes no zone
    )
    relations = [
        Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _ROOT),
        Relationship(_ROOT, RelationshipType.CONTAINS, _RUNTIME),
        *(Relationship(_ROOT, RelationshipType.DEPENDS_ON, part.spdx_id) for part in parts),
    ]
    document = Document(creation, packages=[_root(contents), _runtime(contents), *parts], relationships=relations)
    return canonical_json(DocumentConverter().convert(document))


def _root(contents: Contents) -> Any:
    labels = "".join(f"; label {name}={value}" for name, value in sorted(contents.labels.items()))
    return _part(
        _ROOT,
        contents.name,
        contents.version,
        (contents.digest,),
        contents.purl,
        "APPLICATION",
        description=contents.description or None,
        comment=f"Bento; service {contents.service}; Python {contents.python}; {contents.platform}{labels}",
    )


def _runtime(contents: Contents) -> Any:
    return _part(
        _RUNTIME,
        "bentotool-runtime",
        contents.runtime_version,
        (contents.runtime_digest,),
        contents.runtime_purl,
        "FRAMEWORK",
        comment="embedded in the Bento as a wheel",
    )


def _package(package: Package) -> Any:
    return _part(
        _identifier("Package", package.name, package.version, package.purl),
        package.name,
        package.version,
        package.hashes,
        package.purl,
        "LIBRARY",
        download_location=package.url or None,
        file_name=package.file or None,
        source_info=f"built from git commit {package.commit}" if package.commit else None,
    )


def _model(model: ModelPart) -> Any:
    facts = {"framework": model.framework, "format": model.format, "safety class": model.safety}
    facts |= {f"label {name}": value for name, value in sorted(model.labels.items())}
    said = "".join(f"; {name} {value}" for name, value in facts.items() if value)
    files = "".join(f"\n{file.sha256} {file.path}" for file in model.files)
    return _part(
        _identifier("Model", model.name, model.version, model.purl),
        model.name,
        model.version,
        (model.digest,),
        model.purl,
        "OTHER",
        comment=f"machine learning model{said}{files}",
    )


def _identifier(kind: str, name: str, version: str, purl: str) -> str:
    """An SPDX identifier: letters, digits, dots and hyphens; the digits at the end keep two apart."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{name}-{version}")
    return f"SPDXRef-{kind}-{plain}-{sha256_bytes(purl.encode())[7:15]}"


def _part(
    identifier: str, name: str, version: str, digests: tuple[str, ...], purl: str, purpose: str, **more: Any
) -> Any:
    from spdx_tools.spdx.model import (
        Checksum,
        ChecksumAlgorithm,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        Package,
        PackagePurpose,
        SpdxNoAssertion,
    )

    return Package(
        spdx_id=identifier,
        name=name,
        version=version or None,
        download_location=more.pop("download_location", None) or SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, digest.removeprefix("sha256:")) for digest in digests],
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)],
        primary_package_purpose=PackagePurpose[purpose],
        **more,
    )
