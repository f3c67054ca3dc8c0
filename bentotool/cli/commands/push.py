"""``bentotool push`` and ``bentotool model push``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.names import bento_names, model_names
from bentotool.cli.registries import open_registry, talks_to_registry, transfer_progress
from bentotool.cli.state import State, current
from bentotool.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.refs import Ref
    from bentotool.transfer import Transferred

__all__ = ["push", "push_model"]

_DEFAULT = "BENTOTOOL_REGISTRY"
_Remote = Annotated[
    str | None,
    typer.Argument(metavar="[REMOTE]", help=f"HOST[:PORT]/REPOSITORY[:TAG]; without it ${_DEFAULT}/NAME:VERSION."),
]


@dataclass(frozen=True)
class _Artifact:
    """What the push hooks are told of a stored Bento or model; ``tag`` is ``name:version``, ``size`` is in bytes."""

    name: str
    version: str
    tag: str
    digest: str
    size: int


@talks_to_registry
def push(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A Bento: NAME[:VERSION].", autocompletion=bento_names)
    ],
    remote: _Remote = None,
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
    _push(state, ref, remote)


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
) -> None:
    """Push a model to a registry"""
    state = current()
    from bentotool.oci.refs import RefStore

    if form not in ("tar", "raw"):
        raise UsageError(f"--format {form!r} is neither tar nor raw")
    _push(state, RefStore(state.layout).get("models", reference), remote, raw=form == "raw")


def _push(state: State, ref: Ref, remote: str | None, *, raw: bool = False) -> None:
    target = _target(ref, remote)
    from bentotool import transfer

    move = transfer.push_bento if ref.kind == "bentos" else partial(transfer.push_model, raw=raw)
    artifact = _Artifact(ref.name, ref.tag, ref.ref, ref.digest, ref.size)
    state.plugins.call("bentotool_before_push", artifact=artifact)
    with open_registry(state, target.registry, push=True) as registry:
        jobs = state.options.registry.jobs
        done = move(state.layout, ref, target, registry, jobs=jobs, progress=transfer_progress(state))
    state.plugins.call("bentotool_after_push", artifact=artifact, digest=done.digest)
    state.console.result(done.to_dict("sent"), lambda: _show(state, done))


def _target(ref: Ref, remote: str | None) -> RemoteReference:
    from bentotool.oci.reference import RemoteReference

    if remote is None:
        base = os.environ.get(_DEFAULT, "").rstrip("/")
        if not base:
            raise UsageError(
                "no registry to push to", hint=f"bentotool push {ref.ref} HOST[:PORT]/REPOSITORY:TAG, or set {_DEFAULT}"
            )
        remote = f"{base}/{ref.name}:{ref.tag}"
    return RemoteReference.parse(remote)


def _show(state: State, done: Transferred) -> None:
    models = f" with {', '.join(done.models)}" if done.models else ""
    state.console.line(f"pushed {done.tag}{models} to {done.remote}")
    state.console.fields(
        {
            "digest": done.digest,
            "index": done.index,
            "size": human_size(done.size),
            "sent": human_size(done.moved),
            "images": ", ".join(done.images),
            "referrers": str(done.referrers) if done.referrers else "",
        }
    )
