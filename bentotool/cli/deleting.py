"""Deleting by reference: the same question and the same answer for models and Bentos."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import suppress

from bentotool.cli.state import State
from bentotool.errors import BentotoolError, UsageError
from bentotool.oci.refs import RefStore

__all__ = ["delete_references"]


def delete_references(state: State, references: Sequence[str], refs: RefStore, kind: str, *, yes: bool) -> None:
    """Resolve everything first, so that a mistyped name deletes nothing; ask on a terminal; then delete and report.

    Raises:
        NotFoundError: when one of the references is not in the store.
        UsageError: when nobody can be asked and ``yes`` is False.
    """
    doomed = {ref.ref: ref for reference in references for ref in refs.matching(kind, reference)}
    names = ", ".join(doomed)
    if not yes:
        if state.json or not sys.stdin.isatty():
            raise UsageError(f"this would delete {names}", hint="say so with --yes")
        state.console.note(f"delete {names}? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            state.console.note("nothing deleted")
            return
    for ref in doomed.values():
        refs.delete(kind, ref.name, ref.tag)
    document = [
        {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size}
        for ref in doomed.values()
    ]
    state.console.result(document, "\n".join(f"deleted {name}" for name in doomed))
    if kind == "models" and (users := _users(state, {ref.digest for ref in doomed.values()})):
        state.console.note(f"still used, and kept for them, by: {', '.join(users)}")
    if doomed and not state.json:
        state.console.note("free the space with: bentotool store gc")


def _users(state: State, digests: Collection[str]) -> list[str]:
    """The Bentos in the store that name one of the models; a damaged Bento is passed over."""
    from bentotool.build.bentos import BentoStore

    bentos = BentoStore(state.layout)
    users = []
    for ref in bentos.list():
        with suppress(BentotoolError):
            if any(model.digest in digests for model in bentos.get(ref.ref).models):
                users.append(ref.ref)
    return users
