"""``list`` and ``show`` of what lies in a registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bentotool.cli.formats import human_size
from bentotool.cli.registries import note_left_out, open_registry
from bentotool.cli.state import State

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.remote import RemoteArtifact

__all__ = ["check_listed", "is_remote", "list_remote", "show_referrers", "show_remote"]


def is_remote(reference: str | None) -> bool:
    """Whether a reference is one of a registry: names in the store have no slash."""
    return reference is not None and "/" in reference


def check_listed(name: str | None) -> None:
    """Refuse what names one version, or a registry without a repository.

    Raises:
        UsageError: saying what to write.
    """
    from bentotool.errors import UsageError

    if name is not None and ":" in name:
        raise UsageError(
            f"{name!r} is not a name", hint=f"one version: bentotool show {name}; tags of a registry: HOST/REPOSITORY"
        )


def list_remote(state: State, text: str, filters: Sequence[str] | None) -> None:
    """The tags of a repository and what each points to.

    Raises:
        UsageError: for filters, which go by what the store notes beside its names.
    """
    from bentotool.errors import UsageError
    from bentotool.oci.reference import RemoteReference
    from bentotool.transfer.remote import list_remote as look

    if filters:
        raise UsageError("--filter is for what lies in the store", hint=f"leave it out to list the tags of {text}")
    remote = _whole(RemoteReference.parse(text), text)
    with open_registry(state, remote.registry) as registry:
        found = look(registry, remote.repository, jobs=state.options.registry.jobs)
    note_left_out(
        state, [f"{each.reference}: {note}" for each in found if each.kind == "damaged" for note in each.notes]
    )

    def human() -> None:
        if not found:
            state.console.note(f"{text} has no tags")
            return
        short = state.console.digest
        rows = [
            (each.reference, each.kind, human_size(each.size), short(each.digest), _brief_types(each.referrers))
            for each in found
        ]
        columns = ("reference", "kind", "size", "digest", "referrers")
        attached = any(row[-1] for row in rows)
        state.console.table(columns if attached else columns[:-1], rows if attached else [row[:-1] for row in rows])

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
    note_left_out(state, found.notes)
    state.console.result(found.to_dict(), lambda: _show(state, found))


def _show(state: State, found: RemoteArtifact) -> None:
    console, document = state.console, found.to_dict()
    keys = ("reference", "kind", "tag", "digest", "artifact_type", "framework", "safety")
    fields: dict[str, Any] = {key: str(document.get(key, "")) for key in keys}
    fields["bento"] = next((each["digest"] for each in found.manifests if each["kind"] == "bento"), "")
    fields["size"] = human_size(found.size)
    fields["platforms"] = ", ".join(found.platforms)
    console.fields(fields)
    for title, rows in (
        (("model", "digest"), [(each["tag"], console.digest(each["digest"])) for each in found.models]),
        (
            ("file", "size", "digest"),
            [(each["path"], human_size(each["size"]), console.digest(each["digest"])) for each in found.files],
        ),
    ):
        if rows:
            console.line()
            console.table(title, rows)
    show_referrers(state, found.referrers)


def show_referrers(state: State, referrers: Sequence[Mapping[str, Any]]) -> None:
    """A table of signatures, SBOMs and the like, here or in a registry; nothing when there are none."""
    if referrers:
        short = state.console.digest
        rows = [(each["artifact_type"], short(each["subject"]), short(each["digest"])) for each in referrers]
        state.console.line()
        state.console.table(("referrer", "of", "digest"), rows)


def _brief_types(referrers: Sequence[Mapping[str, Any]]) -> str:
    """How many there are of each type, in a few words."""
    found = Counter(each["artifact_type"].removeprefix("application/").removeprefix("vnd.") for each in referrers)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
