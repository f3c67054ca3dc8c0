"""A Bento's bill of materials as CycloneDX 1.6 JSON, an ML-BOM where it has models.

The document is a function of the Bento (and of ``SOURCE_DATE_EPOCH``, where that is set): its serial number is a UUIDv5
of the Bento's digest, and it states no time of its own. The library knows no model cards (specification 1.6, *Component
→ Model Card*); they are put into what it writes, and so are the files of models.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bentotool import __version__
from bentotool.oci.descriptor import canonical_json
from bentotool.trust.contents import Contents, ModelPart, Package
from bentotool.trust.moments import source_date, stated

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.component import Component

__all__ = ["cyclonedx_json"]


def cyclonedx_json(contents: Contents) -> bytes:
    """The document, canonical JSON.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is not a number.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    root = _root(contents)
    parts = [_runtime(contents), *map(_package, contents.packages), *map(_model, contents.models)]
    tool = Component(name="bentotool", version=__version__, type=ComponentType.APPLICATION, bom_ref="bentotool")
    bom = Bom(
        components=parts,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{contents.purl}#cyclonedx"),
        metadata=BomMetaData(component=root, tools=ToolRepository(components=[tool])),
    )
    bom.register_dependency(root, parts)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    moment = source_date()
    if moment is None:
        document["metadata"].pop("timestamp", None)
    else:
        document["metadata"]["timestamp"] = stated(moment)
    more = {model.purl: {"modelCard": _card(model), **_files(model)} for model in contents.models}
    for component in document["components"]:
        component.update(more.get(component["bom-ref"], {}))
    return canonical_json(document)


def _root(contents: Contents) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    facts = {"service": contents.service, "python": contents.python, "platform": contents.platform}
    return Component(
        name=contents.name,
        version=contents.version,
        type=ComponentType.APPLICATION,
        bom_ref=contents.purl,
        purl=PackageURL.from_string(contents.purl),
        description=contents.description or None,
        hashes=[_sha256(contents.digest)],
        properties=_properties(facts, contents.labels),
    )


def _runtime(contents: Contents) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name="bentotool-runtime",
        version=contents.runtime_version or None,
        type=ComponentType.FRAMEWORK,
        bom_ref=contents.runtime_purl,
        purl=PackageURL.from_string(contents.runtime_purl),
        hashes=[_sha256(contents.runtime_digest)],
        properties=_properties({"embedded": "true"}, {}),
    )


def _package(package: Package) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    origin = [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(package.url))] if package.url else []
    return Component(
        name=package.name,
        version=package.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=package.purl,
        purl=PackageURL.from_string(package.purl),
        hashes=[_sha256(each) for each in package.hashes],
        external_references=origin,
        properties=_properties({"commit": package.commit, "wheel": package.file}, {}),
    )


def _model(model: ModelPart) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    facts = {"framework": model.framework, "format": model.format, "safety": model.safety}
    return Component(
        name=model.name,
        version=model.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=model.purl,
        purl=PackageURL.from_string(model.purl),
        hashes=[_sha256(model.digest)],
        properties=_properties(facts, model.labels),
    )


def _card(model: ModelPart) -> dict[str, Any]:
    """The model card: inputs and outputs, and what it takes to load it."""
    signature = {side: list(_tensors(model.signature.get(side))) for side in ("inputs", "outputs")}
    facts = {"framework": model.framework, "format": model.format, "safety": model.safety}
    return {
        "bom-ref": f"{model.purl}#card",
        **({"modelParameters": given} if (given := {side: each for side, each in signature.items() if each}) else {}),
        "properties": [{"name": f"bentotool:{key}", "value": value} for key, value in sorted(facts.items()) if value],
    }


def _files(model: ModelPart) -> dict[str, Any]:
    """The files of a model. The library takes seconds for the 10,000 that a model may have."""
    parts = [
        {
            "bom-ref": f"{model.purl}#{file.path}",
            "type": "file",
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256.removeprefix("sha256:")}],
            "properties": [{"name": "bentotool:size", "value": str(file.size)}],
        }
        for file in model.files
    ]
    return {"components": parts} if parts else {}


def _tensors(side: object) -> Iterator[dict[str, str]]:
    """Inputs or outputs; the specification has one text for each, here ``NAME: DTYPE[SHAPE]``."""
    for tensor in side if isinstance(side, list) else ():
        if isinstance(tensor, Mapping):
            shape = tensor.get("shape")
            sizes = ", ".join("?" if size is None else str(size) for size in shape) if isinstance(shape, list) else ""
            kind = f"{tensor.get('dtype') or 'any'}{f'[{sizes}]' if isinstance(shape, list) else ''}"
            yield {"format": f"{tensor['name']}: {kind}" if tensor.get("name") else kind}


def _sha256(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))


def _properties(facts: Mapping[str, str], labels: Mapping[str, str]) -> list[Property]:
    from cyclonedx.model import Property

    named = {**facts, **{f"label:{name}": value for name, value in labels.items()}}
    return [Property(name=f"bentotool:{name}", value=value) for name, value in named.items() if value]
