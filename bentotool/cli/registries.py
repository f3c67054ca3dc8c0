"""What the commands that talk to a registry share: their options, and the client made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bentotool.cli.console import Progress
from bentotool.cli.options import registry_params
from bentotool.cli.state import State

if TYPE_CHECKING:
    from bentotool.models.choice import Choice
    from bentotool.oci.credentials import CredentialStore
    from bentotool.oci.registry import Registry
    from bentotool.oci.tls import Tls
    from bentotool.transfer import ProgressMaker

__all__ = [
    "Exclude",
    "Include",
    "asks_registry",
    "choice_of",
    "credential_store",
    "note_left_out",
    "open_registry",
    "talks_to_registry",
    "tls_for",
    "transfer_progress",
]

Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Take only the model's files that match (repeatable)."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Leave out the model's files that match (repeatable)."),
]
_NOTES = 5
_Function = TypeVar("_Function", bound=Callable[..., Any])


def choice_of(include: list[str] | None, exclude: list[str] | None) -> Choice:
    """The files that ``--include`` and ``--exclude`` leave."""
    from bentotool.models.choice import Choice

    return Choice(tuple(include or ()), tuple(exclude or ()))


def talks_to_registry(function: _Function) -> _Function:
    """Give a command the options that :func:`open_registry` goes by."""
    function.more_params = registry_params  # type: ignore[attr-defined]
    return function


def asks_registry(function: _Function) -> _Function:
    """Those options for a command that moves no files."""
    function.more_params = partial(registry_params, moves=False)  # type: ignore[attr-defined]
    return function


def credential_store(state: State) -> CredentialStore:
    """Credentials from plugins first, then from Docker's and containers' files."""
    from bentotool.models.oci_source import credentials_of

    return credentials_of(state.plugins)


def tls_for(state: State, host: str) -> Tls:
    """How the user's options judge the certificate of a host; warns when they do not check it."""
    from bentotool.oci.tls import Tls

    options = state.options.registry
    if options.insecure:
        state.console.note(f"warning: the certificate of {host} is not checked: anybody on the line can take part")
    return Tls(not options.insecure, options.ca_file, options.client_cert, options.client_key)


def open_registry(
    state: State,
    registry: str,
    *,
    push: bool = False,
    credentials: CredentialStore | None = None,
    plain_http: bool | None = None,
) -> Registry:
    """The client for a registry, made as the user's options say.

    Args:
        plain_http: for this registry, whatever ``--plain-http`` and ``--tls`` say; None goes by them.
        credentials: in place of those that plugins and files give.
    """
    from bentotool.oci.registry import Registry

    options = state.options.registry
    return Registry(
        registry,
        push=push,
        plain_http=options.plain_http if plain_http is None else plain_http,
        credentials=credentials or credential_store(state),
        tls=tls_for(state, registry),
        connections=options.jobs + 2,
    )


def transfer_progress(state: State) -> ProgressMaker:
    """The console's progress, in the shape that transfers take."""

    @contextmanager
    def make(total: int, label: str) -> Iterator[Progress]:
        state.interrupt_hint = "the same command goes on with what is not there yet"
        with state.console.progress(total, label) as shown:
            yield shown
        state.interrupt_hint = None

    return make


def note_left_out(state: State, notes: Sequence[str]) -> None:
    """Say what was left out, or is not as it was said to be; a hostile registry can give reasons by the hundred."""
    for note in notes[:_NOTES]:
        state.console.note(f"warning: {note}")
    if len(notes) > _NOTES:
        state.console.note(f"warning: and {len(notes) - _NOTES} more of this kind")
