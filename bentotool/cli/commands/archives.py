"""``bentotool model export``, ``model import-archive``, ``export`` and ``import``: artifacts as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.refs import Ref

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="name, name:version, name@sha256:…, or a version's prefix.")
]
Target = Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="An archive written by export.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite FILE.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace other content of the same version.")]


def export_model(reference: Reference, file: Target, force: Force = False) -> None:
    """Write a model to an OCI archive"""
    state = current()
    _export(state, state.models.refs.get("models", reference), [], file, force)


def export_bento(reference: Reference, file: Target, force: Force = False) -> None:
    """Write a Bento and its models to an OCI archive"""
    from bentotool.build.bentos import BentoStore
    from bentotool.oci.archive import archive_root

    state = current()
    store = BentoStore(state.layout)
    bento = store.get(reference)
    models = {model.digest: state.models.by_digest(model.name, model.digest) for model in bento.models}
    named = [archive_root(model.descriptor, "model", f"{model.name}:{model.version}") for model in models.values()]
    _export(state, store.refs.get("bentos", bento.tag), named, file, force)


def _export(state: State, ref: Ref, others: list[Descriptor], file: Path, force: bool) -> None:
    from bentotool.errors import ConflictError, NotFoundError
    from bentotool.oci.archive import archive_root, archive_size, write_archive

    if file.exists() and not force:
        raise ConflictError(f"{file} exists", hint="choose another name, or give --force")
    if not file.absolute().parent.is_dir():
        raise NotFoundError(f"folder {file.parent} does not exist", hint="create it first")
    kind = "model" if ref.kind == "models" else "bento"
    roots = [archive_root(ref.descriptor, kind, ref.ref), *others]
    with state.console.progress(archive_size(state.layout, roots), f"export {ref.ref}") as progress:
        archive, size = write_archive(state.layout, roots, file.absolute(), progress.advance)
    document = {
        "name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size,
        "path": str(file), "archive_digest": archive, "archive_size": size,
    }  # fmt: skip
    state.console.result(document, f"wrote {file} ({human_size(size)}): {ref.ref}\n{archive}")


def import_model_archive(
    file: Source,
    name: Annotated[str | None, typer.Option(help="Name in the store; default: the archive's.")] = None,
    replace: Replace = False,
) -> None:
    """Import a model's archive"""
    state = current()
    (root, _), *_ = _read(state, file, "model")
    model = _adopt_model(state, root, name, replace)
    state.console.result(model.to_dict(), f"imported {model.tag} ({human_size(model.size)})\n{model.digest}")


def import_bento_archive(file: Source, replace: Replace = False) -> None:
    """Import a Bento's archive"""
    from bentotool.build.bentos import BentoStore

    state = current()
    roots = _read(state, file, "bento")
    for root, kind in roots[1:]:
        if kind == "model":
            _adopt_model(state, root, None, replace)
    name, version = _split(roots[0][0])
    bento = BentoStore(state.layout).adopt(name, version, roots[0][0].digest, replace=replace)
    state.console.result(bento.to_dict(), f"imported {bento.tag} ({human_size(bento.size)})\n{bento.digest}")


def _read(state: State, file: Path, kind: str) -> list[tuple[Descriptor, str]]:
    from bentotool.errors import VerificationError
    from bentotool.oci.archive import KIND_NAME, read_archive

    total = file.stat().st_size if file.is_file() else None
    with state.console.progress(total, f"import {file.name}") as progress:
        roots = [
            (root, root.annotations.get(KIND_NAME, "")) for root in read_archive(state.layout, file, progress.advance)
        ]
    found = roots[0][1]
    if found != kind:
        other = {"model": "bentotool model import-archive", "bento": "bentotool import"}.get(found)
        raise VerificationError(
            f"{file} holds a {found or 'thing of unknown kind'}, not a {kind}",
            hint=f"use: {other} {file}" if other else None,
        )
    return roots


def _split(root: Descriptor) -> tuple[str, str]:
    from bentotool.errors import VerificationError
    from bentotool.oci.archive import REF_NAME
    from bentotool.oci.refs import split_reference

    name, version, digest = split_reference(root.annotations.get(REF_NAME, ""))
    if not version or digest:
        raise VerificationError(f"the archive gives {root.digest} no name and version")
    return name, version


def _adopt_model(state: State, root: Descriptor, rename: str | None, replace: bool) -> Any:
    name, version = _split(root)
    return state.models.adopt(name if rename is None else rename, version, root.digest, replace=replace)
