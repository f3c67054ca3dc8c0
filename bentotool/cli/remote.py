"""``list`` and ``show`` of what lies in a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.cli.formats import human_size
from bentotool.cli.registries import open_registry
from bentotool.cli.state import State

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.remote import RemoteArtifact

__all__ = ["is_remote", "list_remote", "show_remote"]


def is_remote(reference: str | None) -> bool:
    """Whether a reference is one of a registry: names in the store have no slash."""
    return reference is not None and "/" in reference


def list_remote(state: State, text: str) -> None:
    """The tags of a repository and what each points to."""
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.remote import list_remote as look

    remote = _whole(RemoteReference.parse(text), text)
    with open_registry(state, remote.registry) as registry:
        found = look(registry, remote.repository, jobs=state.options.registry.jobs)

    def human() -> None:
        if not found:
            state.console.note(f"{text} has no tags")
            return
        rows = [(each.reference, each.kind, human_size(each.size), state.console.digest(each.digest)) for each in found]
        state.console.table(("reference", "kind", "size", "digest"), rows)

    state.console.result([each.to_dict() for each in found], human)


def _whole(remote: RemoteReference, text: str) -> RemoteReference:
    from bentotool.errors import UsageError

    if remote.tag or remote.digest:
        raise UsageError(f"{text} names one artifact, not a repository", hint=f"bentotool show {text}")
    return remote


def show_remote(state: State, text: str) -> None:
    """One artifact of a registry."""
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.remote import inspect

    remote = RemoteReference.parse(text)
    with open_registry(state, remote.registry) as registry:
        found = inspect(registry, remote)
    state.console.result(found.to_dict(), lambda: _show(state, found))


def _show(state: State, found: RemoteArtifact) -> None:
    console, document = state.console, found.to_dict()
    keys = ("reference", "kind", "tag", "digest", "artifact_type", "framework", "safety")
    fields: dict[str, Any] = {key: str(document.get(key, "")) for key in keys}
    fields["size"] = human_size(found.size)
    fields["platforms"] = ", ".join(found.platforms)
    console.fields(fields)
    for title, rows in (
        (("model", "digest"), [(each["tag"], console.digest(each["digest"])) for each in found.models]),
        (
            ("file", "size", "digest"),
            [(each["path"], human_size(each["size"]), console.digest(each["digest"])) for each in found.files],
        ),
        (
            ("referrer", "of", "digest"),
            [
                (each["artifact_type"], console.digest(each["subject"]), console.digest(each["digest"]))
                for each in found.referrers
            ],
        ),
    ):
        if rows:
            console.line()
            console.table(title, rows)
