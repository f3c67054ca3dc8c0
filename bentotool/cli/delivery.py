"""Sending artifacts on: to a registry, or into one file; for ``push``, ``export`` and ``build``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bentotool.cli.formats import human_size
from bentotool.cli.registries import open_registry, transfer_progress
from bentotool.errors import BentotoolError, UsageError

if TYPE_CHECKING:
    from bentotool.cli.state import State
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.refs import Ref
    from bentotool.transfer import Transferred

__all__ = [
    "COMPRESSED",
    "REGISTRY_VARIABLE",
    "archive_file",
    "bento_roots",
    "check_delivery",
    "deliver",
    "push_ref",
    "show_pushed",
]

REGISTRY_VARIABLE = "BENTOTOOL_REGISTRY"
COMPRESSED = (".zst", ".tzst")


@dataclass(frozen=True)
class _Artifact:
    """What the push hooks are told of a stored Bento or model; ``tag`` is ``name:version``, ``size`` is in bytes."""

    name: str
    version: str
    tag: str
    digest: str
    size: int


def push_ref(
    state: State,
    ref: Ref,
    remote: str | None,
    *,
    raw: bool = False,
    referrers: bool = True,
    index: str | None = None,
    volumes: bool = False,
) -> Transferred:
    """Push a stored Bento or model.

    Args:
        raw: a model's files as they are.
        referrers: whether what is attached to it goes out too.
        index: of a Bento, the digest of the index with the images that go with it; None: those that the store has.
        volumes: of a Bento, whether its models stand beside it as volume views too.
        remote: ``HOST[:PORT]/REPOSITORY[:TAG]``; None: below the registry that the environment names.

    Raises:
        UsageError: no registry is named.
        RemoteError: the registry refuses or does not answer.
    """
    target = _target(ref, remote)
    from bentotool import transfer

    of_bento = ref.kind == "bentos"
    move = (
        partial(transfer.push_bento, index=index, volumes=volumes)
        if of_bento
        else partial(transfer.push_model, raw=raw)
    )
    artifact = _Artifact(ref.name, ref.tag, ref.ref, ref.digest, ref.size)
    state.plugins.call("bentotool_before_push", artifact=artifact)
    with open_registry(state, target.registry, push=True) as registry:
        jobs = state.options.registry.jobs
        progress = transfer_progress(state)
        done = move(state.layout, ref, target, registry, referrers=referrers, jobs=jobs, progress=progress)
    state.plugins.call("bentotool_after_push", artifact=artifact, digest=done.digest)
    return done


def _target(ref: Ref, remote: str | None) -> RemoteReference:
    from bentotool.oci.reference import RemoteReference

    if remote is None:
        base = os.environ.get(REGISTRY_VARIABLE, "").rstrip("/")
        if not base:
            raise UsageError(
                "no registry to push to",
                hint=f"bentotool push {ref.ref} HOST[:PORT]/REPOSITORY:TAG, or set {REGISTRY_VARIABLE}",
            )
        remote = f"{base}/{ref.name}:{ref.tag}"
    return RemoteReference.parse(remote)


def show_pushed(state: State, done: Transferred) -> None:
    """Tell a person of a push."""
    models = f" with {', '.join(done.models)}" if done.models else ""
    state.console.line(f"pushed {done.tag}{models} to {done.remote}")
    state.console.fields(
        {
            "digest": done.digest,
            "index": done.index,
            "size": human_size(done.size),
            "sent": human_size(done.moved),
            "images": ", ".join(done.images),
            "referrers": str(done.referrers) if done.referrers else "",
        }
    )


def bento_roots(state: State, reference: str) -> tuple[Ref, list[Descriptor]]:
    """A Bento, and the roots of the archive that holds it and its models."""
    from bentotool.build.bentos import BentoStore
    from bentotool.oci.archive import archive_root

    store = BentoStore(state.layout)
    bento = store.get(reference)
    models = {model.digest: state.models.by_digest(model.name, model.digest) for model in bento.models}
    named = [archive_root(model.descriptor, "model", f"{model.name}:{model.version}") for model in models.values()]
    ref = store.refs.get("bentos", bento.tag)
    return ref, [archive_root(ref.descriptor, "bento", ref.ref), *named]


def archive_file(
    state: State, ref: Ref, roots: list[Descriptor], target: Path | BinaryIO, *, compress: bool
) -> tuple[str, int]:
    """Write an archive of what the roots lead to and what is attached to it; its digest and size in bytes."""
    from bentotool.oci.archive import archive_size, with_attached, write_archive

    roots = with_attached(state.layout, roots)
    with state.console.progress(archive_size(state.layout, roots), f"export {ref.ref}") as progress:
        return write_archive(state.layout, roots, target, progress.advance, compress=compress)


def check_delivery(push: str | None, output: Path | None, *, builds: bool, sign: bool = False) -> None:
    """Refuse before a build what would fail after it.

    Raises:
        UsageError: no registry reference, a folder, or nothing will be built.
        NotFoundError: the file's folder is not there.
    """
    from bentotool.errors import NotFoundError
    from bentotool.oci.reference import RemoteReference

    if (push is not None or output is not None) and not builds:
        raise UsageError("nothing is built that --push or --output could send on", hint="drop --dry-run and --check")
    if sign and not builds:
        raise UsageError("nothing is built that --sign could sign", hint="drop --dry-run and --check")
    if push is not None:
        RemoteReference.parse(push)
    if output is not None and (output.is_dir() or str(output) == "-"):
        raise UsageError(f"--output {output} is no file", hint="--output bento.tar")
    if output is not None and not output.absolute().parent.is_dir():
        raise NotFoundError(f"folder {output.parent} does not exist", hint="create it first")


def deliver(
    state: State, document: dict[str, Any], show: Callable[[], None], push: str | None, output: Path | None
) -> None:
    """Print the result of a build, after sending the Bento on as :func:`check_delivery` allowed.

    Args:
        document: of the build; gets ``archive`` and ``push``.
        show: tells a person of the build.

    Raises:
        BentotoolError: it could not be sent; its details say which Bento was built.
    """
    if push is None and output is None:
        state.console.result(document, show)
        return
    if not state.json:  # what is built is worth telling, whatever becomes of the rest
        show()
    done = None
    try:
        ref, roots = bento_roots(state, f"{document['name']}@{document['digest']}")
        if output is not None:
            digest, size = archive_file(state, ref, roots, output.absolute(), compress=output.name.endswith(COMPRESSED))
            document["archive"] = {"path": str(output), "archive_digest": digest, "archive_size": size}
            state.console.line(f"wrote {output} ({human_size(size)})\n{digest}")
        if push is not None:
            done = push_ref(state, ref, push)
            document["push"] = done.to_dict("sent")
    except BentotoolError as error:
        built = {key: document[key] for key in ("name", "version", "tag", "digest", "size")}
        error.details.setdefault("built", built)
        raise
    pushed = done
    state.console.result(document, lambda: show_pushed(state, pushed) if pushed else None)
