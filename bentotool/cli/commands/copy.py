"""``bentotool copy``."""

from __future__ import annotations

from typing import Annotated

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.registries import note_left_out, open_registry, talks_to_registry, transfer_progress
from bentotool.cli.state import current

__all__ = ["copy"]


@talks_to_registry
def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="HOST[:PORT]/REPOSITORY[:TAG][@DIGEST].")],
    target: Annotated[str, typer.Argument(metavar="DST", help="HOST[:PORT]/REPOSITORY[:TAG].")],
    referrers: Annotated[
        bool, typer.Option("--referrers/--no-referrers", help="Take signatures, SBOMs and the like along.")
    ] = True,
) -> None:
    """Copy an artifact between registries, by mount or stream"""
    state = current()
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.copy import copy as copy_artifact

    reading, writing = RemoteReference.parse(source), RemoteReference.parse(target)
    with (
        open_registry(state, reading.registry) as source_registry,
        open_registry(state, writing.registry, push=True) as target_registry,
    ):
        done = copy_artifact(
            reading,
            source_registry,
            writing,
            target_registry,
            referrers=referrers,
            jobs=state.options.registry.jobs,
            progress=transfer_progress(state),
        )

    note_left_out(state, done.notes)

    def human() -> None:
        state.console.line(f"copied {done.source} to {done.remote}")
        state.console.fields(
            {
                "digest": done.digest,
                "size": human_size(done.size),
                "sent": human_size(done.sent),
                "referrers": str(done.referrers) if done.referrers else "",
            }
        )

    state.console.result(done.to_dict(), human)
