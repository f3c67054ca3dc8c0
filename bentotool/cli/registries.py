"""What the commands that talk to a registry share: their options, and the client made from them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.console import Progress
from bentotool.cli.state import State

if TYPE_CHECKING:
    from bentotool.oci.credentials import CredentialStore
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry
    from bentotool.transfer import ProgressMaker

__all__ = ["Jobs", "PlainHttp", "credential_store", "open_registry", "transfer_progress"]

Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Files moved at once.")]
PlainHttp = Annotated[
    bool | None,
    typer.Option(
        "--plain-http/--tls",
        help="Speak HTTP or HTTPS.  [default: HTTPS, but HTTP on this machine]",
        show_default=False,
    ),
]


def credential_store(state: State) -> CredentialStore:
    """Credentials from plugins first, then from Docker's and containers' files."""
    from bentotool.models.oci_source import credentials_of

    return credentials_of(state.plugins)


def open_registry(
    state: State, reference: RemoteReference, *, push: bool, jobs: int, plain_http: bool | None
) -> Registry:
    """The client for the registry that a reference names."""
    from bentotool.oci.registry import Registry

    return Registry(
        reference.registry,
        push=push,
        plain_http=plain_http,
        credentials=credential_store(state),
        connections=jobs + 2,
    )


def transfer_progress(state: State) -> ProgressMaker:
    """The console's progress, in the shape that transfers take."""

    def make(total: int, label: str) -> AbstractContextManager[Progress]:
        return state.console.progress(total, label)

    return make
