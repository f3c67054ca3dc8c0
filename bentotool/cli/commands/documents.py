"""``bentotool sbom`` and ``bentotool provenance``: what is in a Bento, and how it was built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.names import bento_names
from bentotool.cli.registries import open_registry, talks_to_registry
from bentotool.cli.remote import is_remote
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.trust.attached import Document

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="name[:version] in the store; or HOST/REPOSITORY[:TAG], without a pull.",
        autocompletion=bento_names,
    ),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there, as it is, byte for byte.")
]


@talks_to_registry
def sbom(
    reference: Reference,
    form: Annotated[str, typer.Option("--format", metavar="cyclonedx|spdx", help="CycloneDX 1.6 or SPDX 2.3.")] = (
        "cyclonedx"
    ),
    output: Output = None,
) -> None:
    """Print the bill of materials (SBOM) of a Bento"""
    from bentotool.trust.attached import artifact_type_of, sbom_of

    state, kind = current(), artifact_type_of(form)
    if is_remote(reference):
        facts, document = _remote(state, reference, kind, f"{form} SBOM")
    else:
        bento = _bento(state, reference)
        facts, document = _facts(bento), sbom_of(state.layout, bento, form)
    _result(state, {**facts, "format": form}, document, output)


@talks_to_registry
def provenance(reference: Reference, output: Output = None) -> None:
    """Print how and from what a Bento was built (SLSA provenance)"""
    from bentotool.trust.attached import PROVENANCE, provenance_of

    state = current()
    if is_remote(reference):
        facts, document = _remote(state, reference, PROVENANCE, "provenance")
    else:
        bento = _bento(state, reference)
        facts, document = _facts(bento), provenance_of(state.layout, bento)
    _result(state, facts, document, output)


def _bento(state: State, reference: str) -> StoredBento:
    from bentotool.build.bentos import BentoStore

    return BentoStore(state.layout).get(reference)


def _facts(bento: StoredBento) -> dict[str, Any]:
    return {key: getattr(bento, key) for key in ("name", "version", "tag", "digest", "size")}


def _remote(state: State, text: str, kind: str, what: str) -> tuple[dict[str, Any], Document]:
    from bentotool.oci.reference import RemoteReference
    from bentotool.trust.remote import remote_document

    remote = RemoteReference.parse(text)
    with open_registry(state, remote.registry) as registry:
        bento, document = remote_document(registry, remote, kind, what)
    return {"reference": str(remote), "digest": bento.digest, "size": bento.size}, document


def _result(state: State, facts: dict[str, Any], document: Document, output: Path | None) -> None:
    """Print a document: as it is with ``--output``, else for the eye, which no program reads any worse."""
    known = {**facts, "media_type": document.media_type, "referrer": document.digest or None}
    if output is None:
        text = json.dumps(document.content, indent=2)
        state.console.result({**known, "document": document.content}, text)
        return
    from bentotool.errors import UsageError
    from bentotool.paths import write_atomic

    try:
        write_atomic(output, document.data)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", hint="name another --output") from None
    state.console.result({**known, "path": str(output)}, f"{output}: {len(document.data)} bytes")
