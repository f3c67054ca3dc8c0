"""Deleting by reference: the same question and the same answer for models and Bentos."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bentotool.cli.state import State
from bentotool.errors import UsageError
from bentotool.oci.refs import Ref, RefStore, split_reference

__all__ = ["delete_references"]


def delete_references(
    state: State,
    references: Sequence[str],
    refs: RefStore,
    kind: str,
    delete: Callable[[str], Sequence[Ref]],
    *,
    yes: bool,
) -> None:
    """Resolve everything first, so that a mistyped name deletes nothing; ask on a terminal; then delete and report.

    Raises:
        NotFoundError: when one of the references is not in the store.
        UsageError: when nobody can be asked and ``yes`` is False.
    """
    doomed: dict[str, Ref] = {}
    for reference in references:
        name, version, digest = split_reference(reference)
        found = refs.get(kind, reference)
        for ref in [found] if version or digest else refs.list(kind, name):
            doomed[ref.ref] = ref
    names = ", ".join(doomed)
    if not yes:
        if state.json or not sys.stdin.isatty():
            raise UsageError(f"this would delete {names}", hint="say so with --yes")
        state.console.note(f"delete {names}? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            state.console.note("nothing deleted")
            return
    removed = [ref for reference in doomed for ref in delete(reference)]
    document = [
        {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size}
        for ref in removed
    ]
    state.console.result(document, "\n".join(f"deleted {ref.ref}" for ref in removed))
