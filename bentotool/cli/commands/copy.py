"""``bentotool copy``."""

from __future__ import annotations

from typing import Annotated

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.registries import note_left_out, open_registry, talks_to_registry, transfer_progress
from bentotool.cli.state import current
from bentotool.errors import RemoteError

__all__ = ["copy"]


@talks_to_registry
def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="HOST[:PORT]/REPOSITORY[:TAG][@DIGEST].")],
    target: Annotated[str, typer.Argument(metavar="DST", help="HOST[:PORT]/REPOSITORY[:TAG].")],
    referrers: Annotated[
        bool, typer.Option("--referrers/--no-referrers", help="Take signatures, SBOMs and the like along.")
    ] = True,
    from_plain_http: Annotated[
        bool | None, typer.Option("--from-plain-http/--from-tls", help="Speak HTTP or HTTPS with SRC alone.")
    ] = None,
    to_plain_http: Annotated[
        bool | None, typer.Option("--to-plain-http/--to-tls", help="Speak HTTP or HTTPS with DST alone.")
    ] = None,
) -> None:
    """Copy an artifact between registries, by mount or stream"""
    state = current()
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.copy import copy as copy_artifact

    reading, writing = RemoteReference.parse(source), RemoteReference.parse(target)
    try:
        with (
            open_registry(state, reading.registry, plain_http=from_plain_http) as source_registry,
            open_registry(state, writing.registry, push=True, plain_http=to_plain_http) as target_registry,
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
    except RemoteError as error:
        if reading.registry != writing.registry:
            error.hint = _of_one_side(error.hint)
        raise

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


def _of_one_side(hint: str | None) -> str | None:
    """A hint at an option for both sides, which would break the other one, made one at those for each."""
    for option in ("tls", "plain-http"):
        if hint and f" --{option}" in hint:
            return hint.replace(f"--{option}", f"--from-{option} or --to-{option}")
    return hint
