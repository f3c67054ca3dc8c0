"""``bentotool sign`` and ``bentotool attest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.modelsig import check_one_model, write_model_signature
from bentotool.cli.names import bento_names
from bentotool.cli.registries import asks_registry
from bentotool.cli.signing import (
    Target,
    annotations_of,
    legacy_tags,
    open_target,
    show_signed,
    signed_facts,
    signer_of,
    signs,
)
from bentotool.cli.state import State, current
from bentotool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bentotool.trust.signers import StatementSigner
    from bentotool.trust.signing import Signed

__all__ = ["attest", "sign"]

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A Bento or model of the store: NAME[:VERSION]; or HOST/REPOSITORY[:TAG], without a pull.",
        autocompletion=bento_names,
    ),
]
Model = Annotated[bool, typer.Option("--model", help="REF is a model, where a Bento has that name too.")]


@signs
@asks_registry
def sign(
    reference: Reference,
    model: Model = False,
    annotation: Annotated[
        list[str] | None,
        typer.Option("-a", "--annotation", metavar="KEY=VALUE", help="Say this of what is signed (repeatable)."),
    ] = None,
    documents: Annotated[
        bool | None,
        typer.Option(
            "--documents/--no-documents",
            help="Sign attached SBOMs and provenance too.  [default: those that were made in this store]",
        ),
    ] = None,
    legacy_sig: Annotated[
        bool, typer.Option("--legacy-sig", help="Also tag sha256-….sig, for cosign 2 and older admission controllers.")
    ] = False,
    model_sig: Annotated[
        Path | None, typer.Option("--model-sig", metavar="FILE", help="Write the signature of the model's files there.")
    ] = None,
) -> None:
    """Sign a Bento or model: index, Bento, images and models"""
    state = current()
    from bentotool.trust.signing import ClaimOptions, claims_of, sign_claims

    options = ClaimOptions(annotations_of(annotation), "own" if documents is None else "all" if documents else "none")
    with open_target(state, reference, model=model, writes=True) as target:
        if legacy_sig and target.registry is None:
            raise UsageError(
                "--legacy-sig is a tag, which a store does not have", hint="bentotool sign HOST/REPOSITORY:TAG"
            )
        check_one_model(target, model_sig)
        signer = signer_of(state, target)
        signed = list(sign_claims(target.place, list(claims_of(target.place, target.objects, options)), signer))
        tags = legacy_tags(target, signer, options.annotations) if legacy_sig else []
        if model_sig is not None:
            write_model_signature(target, signed, model_sig)
        _result(state, target, signer, signed, tags)


@signs
@asks_registry
def attest(
    reference: Reference,
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Predicate type: a URI, or cyclonedx, spdx, slsaprovenance, …")
    ] = "",
    predicate: Annotated[
        Path | None, typer.Option("--predicate", metavar="FILE", help="The predicate: one JSON object.")
    ] = None,
    model: Model = False,
) -> None:
    """Sign a statement about a Bento or model, and attach it"""
    state = current()
    from bentotool.trust.predicatetypes import predicate_type, read_predicate
    from bentotool.trust.signing import attestation, sign_claims

    if not kind or predicate is None:
        raise UsageError("attest needs --type and --predicate", hint="--type vuln --predicate scan.json")
    found, content = predicate_type(kind), read_predicate(predicate)
    with open_target(state, reference, model=model, writes=True) as target:
        claim = attestation(target.objects, found, content)
        signer = signer_of(state, target)
        _result(state, target, signer, list(sign_claims(target.place, [claim], signer)), [])


def _result(
    state: State, target: Target, signer: StatementSigner, signed: Sequence[Signed], tags: Sequence[str]
) -> None:
    document = {**target.facts, **signed_facts(signer, signed)}
    if tags:
        document["legacy_tags"] = list(tags)

    def show() -> None:
        show_signed(state, target.title, signer.identity, signed)
        for tag in tags:
            state.console.line(f"tagged {tag}")

    state.console.result(document, show)
