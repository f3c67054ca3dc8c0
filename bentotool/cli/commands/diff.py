"""``bentotool diff``: what changed between two Bentos, as a person wants to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.build.diff import BentoDiff, Change, FilePatch

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A Bento: name, name:version or name@sha256:…")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one.")],
    patch: Annotated[bool, typer.Option("--patch", "-p", help="Show the lines of changed text files too.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with status 1 when they differ.")] = False,
) -> None:
    """Show what changed between two Bentos"""
    from bentotool.build.bentos import BentoStore
    from bentotool.build.diff import diff_bentos, patch_files

    state = current()
    store = BentoStore(state.layout)
    left, right = store.get(old), store.get(new)
    found = diff_bentos(store, left, right)
    patches = patch_files(store, left, right, found.files) if patch else []
    sides = {"old": _brief(left), "new": _brief(right)}
    document = {**sides, "same": not found, **found.to_dict()}
    if patch:
        document["patches"] = {item.name: list(item.lines) for item in patches}
    state.console.result(document, lambda: _tell(state, left.tag, right.tag, found, patches))
    if exit_code and found:
        raise typer.Exit(1)


def _brief(bento: StoredBento) -> dict[str, Any]:
    return {key: getattr(bento, key) for key in ("name", "version", "tag", "digest", "size")}


def _tell(state: State, old: str, new: str, found: BentoDiff, patches: list[FilePatch]) -> None:
    from bentotool.build.diff import SECTIONS

    if not found:
        state.console.line(f"{old} and {new} hold the same")
        return
    for section in SECTIONS:
        changes: tuple[Change, ...] = getattr(found, section)
        if changes:
            state.console.line(f"{section}:")
            for change in changes:
                state.console.line(f"  {_MARKS[change.kind]} {change.name}{_values(change)}")
    for item in patches:
        state.console.line()
        for line in item.lines:
            state.console.line(line)


def _values(change: Change) -> str:
    if change.old is None or change.new is None:
        return f"  {change.new if change.old is None else change.old}"
    if change.old == change.new:
        return f"  ({', '.join(change.parts)})"
    return f"  {change.old} → {change.new}"
