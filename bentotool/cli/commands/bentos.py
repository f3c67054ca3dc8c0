"""``bentotool list``, ``show``, ``path``, ``tag``, ``delete`` and ``prune``: the Bentos in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.formats import human_size, human_time
from bentotool.cli.names import BentoReference, bento_names
from bentotool.cli.registries import talks_to_registry
from bentotool.cli.remote import check_listed, is_remote, list_remote, show_remote
from bentotool.cli.state import current

if TYPE_CHECKING:
    from bentotool.build.bentos import BentoStore


def _bentos() -> BentoStore:
    from bentotool.build.bentos import BentoStore

    return BentoStore(current().layout)


@talks_to_registry
def list_bentos(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Only this Bento's versions; or HOST/REPOSITORY, for its tags.",
            autocompletion=bento_names,
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="label=K=V, label=K, service=… or python=… (repeatable)."),
    ] = None,
) -> None:
    """List the Bentos in the store, or the tags of a repository"""
    from bentotool.cli.filters import bento_filter
    from bentotool.oci.refs import RefStore

    state = current()
    if name is not None and is_remote(name):
        list_remote(state, name, filters)
        return
    check_listed(name)
    wanted = bento_filter(filters or ())
    store = RefStore(state.layout)  # the references say it all: no Bento is opened
    refs = [ref for ref in store.list("bentos", name) if wanted(ref)]
    document = [
        {
            "name": ref.name,
            "version": ref.tag,
            "tag": ref.ref,
            "digest": ref.digest,
            "size": ref.size,
            "created": ref.created,
        }
        for ref in refs
    ]
    for path in store.damaged:
        state.console.note(f"warning: {path} is damaged and left out")

    def human() -> None:
        if not refs and filters:
            state.console.note("no Bento fits the filter")
            return
        if not refs and name is not None:
            state.console.note(f"no Bento {name}; see what there is with: bentotool list")
            return
        if not refs:
            state.console.note("no Bentos yet; build one with: bentotool build")
            return
        short = state.console.digest
        rows = [(ref.ref, human_size(ref.size), human_time(ref.created), short(ref.digest)) for ref in refs]
        state.console.table(("tag", "size", "created", "digest"), rows)

    state.console.result(document, human)


@talks_to_registry
def show_bento(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="name[:version] in the store; or HOST/REPOSITORY[:TAG], without a pull.",
            autocompletion=bento_names,
        ),
    ],
    files: Annotated[bool, typer.Option("--files", help="List its files too.")] = False,
    deps: Annotated[bool, typer.Option("--deps", help="List the packages of its lock too.")] = False,
) -> None:
    """Show one Bento, or one artifact of a registry"""
    state = current()
    if is_remote(reference):
        show_remote(state, reference)
        return
    from bentotool.build.contents import contents_of
    from bentotool.oci.attached import indexes, notes_of

    store = _bentos()
    bento = store.get(reference)
    contents = contents_of(store, bento)
    parts = (*(model.digest for model in bento.models), *(each.digest for each in indexes(state.layout, bento.digest)))
    attached = notes_of(state.layout, [bento.digest, *parts])

    def human() -> None:
        from bentotool.cli.showing import show_contents

        show_contents(state, bento, contents, attached, files=files, packages=deps)

    document = {**bento.to_dict(), "arguments": bento.arguments, **contents.to_dict(), "referrers": attached}
    state.console.result(document, human)


def path_bento(reference: BentoReference) -> None:
    """Print a folder with the Bento's files"""
    state = current()
    store = _bentos()
    bento = store.get(reference)
    path = store.materialise(bento)
    state.console.result({**_brief(bento), "path": str(path)}, str(path))


def tag_bento(
    reference: BentoReference,
    new: Annotated[str, typer.Argument(metavar="TAG", help="The new version, or name:version.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace other content under that tag.")] = False,
) -> None:
    """Give a Bento another tag"""
    bento = _bentos().tag(reference, new, replace=replace)
    current().console.result(_brief(bento), f"{bento.tag} is {bento.digest}")


def delete_bento(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="A bare name stands for all its versions.", autocompletion=bento_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete Bentos from the store"""
    from bentotool.cli.deleting import delete_references

    delete_references(current(), references, _bentos().refs, "bentos", yes=yes)


def prune_bentos(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only Bentos of these names.")] = None,
    keep: Annotated[int, typer.Option(metavar="N", min=0, help="The newest that stay, of each name.")] = 3,
    older_than: Annotated[str, typer.Option(metavar="DURATION", help="Only Bentos that are older: 12h, 30d.")] = "0s",
    filters: Annotated[
        list[str] | None, typer.Option("--filter", metavar="KEY=VALUE", help="Only those that fit, as in list.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete old Bentos from the store; further tagged ones stay"""
    from bentotool.build.prune import prunable
    from bentotool.cli.deleting import delete_found
    from bentotool.cli.durations import parse_duration
    from bentotool.cli.filters import bento_filter
    from bentotool.oci.refs import RefStore

    state = current()
    age, accept = parse_duration(older_than, "--older-than"), bento_filter(filters or ())
    refs = RefStore(state.layout)
    known = [ref for ref in refs.list("bentos") if not names or ref.name in names]
    for name in names or ():
        if all(ref.name != name for ref in known):
            refs.get("bentos", name)  # which says what there is
    doomed = prunable(known, keep=keep, older_than=age, accept=accept)
    delete_found(state, doomed, refs, "bentos", yes=yes, dry_run=dry_run)


def _brief(bento: Any) -> dict[str, Any]:
    return {key: getattr(bento, key) for key in ("name", "version", "tag", "digest", "size")}
