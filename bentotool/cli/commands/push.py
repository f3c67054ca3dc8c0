"""``bentotool push`` and ``bentotool model push``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.delivery import REGISTRY_VARIABLE, push_ref, show_pushed
from bentotool.cli.names import bento_names, model_names
from bentotool.cli.registries import talks_to_registry
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


@talks_to_registry
def push(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A Bento: NAME[:VERSION].", autocompletion=bento_names)
    ],
    remote: _Remote = None,
    referrers: _Referrers = True,
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
    _push(state, ref, remote, referrers=referrers)


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
) -> None:
    """Push a model to a registry"""
    state = current()
    from bentotool.oci.refs import RefStore

    if form not in ("tar", "raw"):
        raise UsageError(f"--format {form!r} is neither tar nor raw")
    _push(state, RefStore(state.layout).get("models", reference), remote, raw=form == "raw", referrers=referrers)


def _push(state: State, ref: Ref, remote: str | None, *, raw: bool = False, referrers: bool = True) -> None:
    done = push_ref(state, ref, remote, raw=raw, referrers=referrers)
    state.console.result(done.to_dict("sent"), lambda: show_pushed(state, done))
