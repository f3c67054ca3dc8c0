"""Deleting by reference: the same question and the same answer for models and Bentos."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import suppress

from bentotool.cli.state import State
from bentotool.errors import BentotoolError, UsageError
from bentotool.oci.refs import Ref, RefStore

__all__ = ["delete_found", "delete_references"]

_NAMED = 5


def delete_references(state: State, references: Sequence[str], refs: RefStore, kind: str, *, yes: bool) -> None:
    """Resolve everything first, so that a mistyped name deletes nothing; ask on a terminal; then delete and report.

    Raises:
        NotFoundError: when one of the references is not in the store.
        UsageError: when nobody can be asked and ``yes`` is False.
    """
    doomed = {ref.ref: ref for reference in references for ref in refs.matching(kind, reference)}
    delete_found(state, tuple(doomed.values()), refs, kind, yes=yes)


def delete_found(
    state: State, doomed: Sequence[Ref], refs: RefStore, kind: str, *, yes: bool, dry_run: bool = False
) -> None:
    """Ask on a terminal, then delete these references and report.

    Args:
        dry_run: only report what would go.

    Raises:
        UsageError: when nobody can be asked and ``yes`` is False.
    """
    if doomed and not yes and not dry_run and not _agreed(state, [ref.ref for ref in doomed]):
        state.console.note("nothing deleted")
        return
    for ref in doomed if not dry_run else ():
        refs.delete(kind, ref.name, ref.tag)
    document = [
        {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size} for ref in doomed
    ]
    verb = "would delete" if dry_run else "deleted"
    state.console.result(document, "\n".join(f"{verb} {ref.ref}" for ref in doomed) or "nothing to delete")
    if dry_run:
        return
    if kind == "models" and (users := _users(state, {ref.digest for ref in doomed})):
        state.console.note(f"still used, and kept for them, by: {', '.join(users)}")
    if doomed and not state.json:
        state.console.note("free the space with: bentotool store gc")


def _agreed(state: State, names: Sequence[str]) -> bool:
    if state.json or not sys.stdin.isatty():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        named = ", ".join(names[:_NAMED]) + more
        raise UsageError(f"this deletes {named}, and nobody can be asked here", hint="say so with --yes")
    state.console.note(f"delete {', '.join(names)}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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
