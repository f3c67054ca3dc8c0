"""``bentotool pull`` and ``bentotool model pull``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.registries import (
    Exclude,
    Include,
    choice_of,
    note_left_out,
    open_registry,
    talks_to_registry,
    transfer_progress,
)
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.models.choice import Choice
    from bentotool.transfer import Transferred

__all__ = ["pull", "pull_model"]

_Remote = Annotated[str, typer.Argument(metavar="REMOTE", help="HOST[:PORT]/REPOSITORY[:TAG][@DIGEST].")]
_As = Annotated[str | None, typer.Option("--as", metavar="NAME[:VERSION]", help="Keep it under another name.")]
_Referrers = Annotated[
    bool, typer.Option("--referrers/--no-referrers", help="Take signatures, SBOMs and the like along.")
]
_Platform = Annotated[
    list[str] | None,
    typer.Option(
        "--platform", metavar="OS/ARCH", help="Of its images, take only those for this; none for none (repeatable)."
    ),
]
_Trust = Annotated[bool, typer.Option("--trust", help="Take models that run code when they are loaded.")]


@talks_to_registry
def pull(
    remote: _Remote,
    rename: _As = None,
    trust: _Trust = False,
    include: Include = None,
    exclude: Exclude = None,
    platform: _Platform = None,
    referrers: _Referrers = True,
) -> None:
    """Pull a Bento and its models from a registry"""
    _pull(remote, rename, None, trust, choice_of(include, exclude), referrers, platform or ())


@talks_to_registry
def pull_model(
    remote: _Remote,
    rename: _As = None,
    trust: _Trust = False,
    include: Include = None,
    exclude: Exclude = None,
    referrers: _Referrers = True,
) -> None:
    """Pull a model from a registry"""
    _pull(remote, rename, "model", trust, choice_of(include, exclude), referrers)


def _pull(
    remote: str,
    rename: str | None,
    expect: str | None,
    trust: bool,
    choice: Choice,
    referrers: bool,
    platforms: Sequence[str] = (),
) -> None:
    state = current()
    from bentotool import transfer
    from bentotool.oci.reference import RemoteReference

    source = RemoteReference.parse(remote)
    with open_registry(state, source.registry) as registry:
        done = transfer.pull(
            state.layout,
            source,
            registry,
            rename=rename,
            expect=expect,
            trust=trust,
            plugins=state.plugins,
            choice=choice,
            platforms=platforms,
            referrers=referrers,
            jobs=state.options.registry.jobs,
            progress=transfer_progress(state),
        )
    if done.source_digest:
        why = "is packed in another form" if choice.everything else "was taken in part"
        state.console.note(
            f"{done.remote} {why}: the files were imported, so the digest here differs from {done.source_digest} there"
        )
    note_left_out(state, done.notes)
    state.console.result(done.to_dict("fetched"), lambda: _show(state, done))


def _show(state: State, done: Transferred) -> None:
    models = f" with {', '.join(done.models)}" if done.models else ""
    state.console.line(f"pulled {done.tag}{models} from {done.remote}")
    state.console.fields(
        {
            "digest": done.digest,
            "index": done.index,
            "size": human_size(done.size),
            "fetched": human_size(done.moved),
            "images": ", ".join(done.images),
            "referrers": str(done.referrers) if done.referrers else "",
        }
    )
