"""``bentotool push`` and ``bentotool model push``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.delivery import REGISTRY_VARIABLE, push_ref, show_pushed
from bentotool.cli.names import bento_names, model_names
from bentotool.cli.registries import talks_to_registry
from bentotool.cli.signing import legacy_tags, open_target, show_signed, sign_stored, signed_facts, signs
from bentotool.cli.state import State, current
from bentotool.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from bentotool.oci.refs import Ref

__all__ = ["push", "push_model"]

_Remote = Annotated[
    str | None,
    typer.Argument(
        metavar="[REMOTE]", help=f"HOST[:PORT]/REPOSITORY[:TAG]; without it ${REGISTRY_VARIABLE}/NAME:VERSION."
    ),
]

_Referrers = Annotated[
    bool, typer.Option("--referrers/--no-referrers", help="Send signatures, SBOMs and the like along.")
]
_Sign = Annotated[bool, typer.Option("--sign", help="Sign it first; the signatures go along.")]
_Legacy = Annotated[
    bool, typer.Option("--legacy-sig", help="With --sign: also tag sha256-….sig, for cosign 2 and older.")
]


@signs
@talks_to_registry
def push(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A Bento: NAME[:VERSION].", autocompletion=bento_names)
    ],
    remote: _Remote = None,
    referrers: _Referrers = True,
    sign: _Sign = False,
    legacy_sig: _Legacy = False,
) -> None:
    """Push a Bento and its models to a registry"""
    state = current()
    from bentotool.oci.refs import RefStore

    refs = RefStore(state.layout)
    try:
        ref = refs.get("bentos", reference)
    except NotFoundError as error:
        # The contract gives `push` both kinds; a Bento of that name comes first.
        try:
            ref = refs.get("models", reference)
        except NotFoundError:
            raise error from None
    _push(state, ref, remote, referrers=referrers, sign=sign, legacy_sig=legacy_sig)


@signs
@talks_to_registry
def push_model(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A model: NAME[:VERSION].", autocompletion=model_names)
    ],
    remote: _Remote = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="tar|raw", help="raw: each file as it is, for tools that do not unpack layers."
        ),
    ] = "tar",
    referrers: _Referrers = True,
    sign: _Sign = False,
    legacy_sig: _Legacy = False,
) -> None:
    """Push a model to a registry"""
    state = current()
    from bentotool.oci.refs import RefStore

    if form not in ("tar", "raw"):
        raise UsageError(f"--format {form!r} is neither tar nor raw")
    if sign and form == "raw":
        raise UsageError("--format raw is another manifest than the one --sign signs", hint="use --format tar")
    ref = RefStore(state.layout).get("models", reference)
    _push(state, ref, remote, raw=form == "raw", referrers=referrers, sign=sign, legacy_sig=legacy_sig)


def _push(
    state: State,
    ref: Ref,
    remote: str | None,
    *,
    raw: bool = False,
    referrers: bool = True,
    sign: bool = False,
    legacy_sig: bool = False,
) -> None:
    if sign and not referrers:
        raise UsageError("--sign without referrers would leave the signatures here", hint="drop --no-referrers")
    if legacy_sig and not sign:
        raise UsageError("--legacy-sig is for --sign", hint="give both, or: bentotool sign --legacy-sig REMOTE")
    signer, signed = sign_stored(state, ref) if sign else (None, [])
    done = push_ref(state, ref, remote, raw=raw, referrers=referrers)
    document, tags = done.to_dict("sent"), list[str]()
    if signer is not None:
        document |= signed_facts(signer, signed)
        if legacy_sig:
            with open_target(state, done.remote, writes=True) as target:
                document["legacy_tags"] = tags = legacy_tags(target, signer, {})

    def show() -> None:
        show_pushed(state, done)
        if signer is not None:
            show_signed(state, done.tag, signer.identity, signed, brief=True)
        for tag in tags:
            state.console.line(f"tagged {tag}")

    state.console.result(document, show)
