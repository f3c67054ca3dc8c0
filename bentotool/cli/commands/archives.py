"""``bentotool model export``, ``model import-archive``, ``export`` and ``import``: artifacts as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from bentotool.cli.delivery import COMPRESSED, archive_file, bento_roots
from bentotool.cli.formats import human_size, parse_size
from bentotool.cli.names import BentoReference, ModelReference
from bentotool.cli.registries import note_left_out
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.interfaces import ArchiveDecl
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.refs import Ref

_STANDARD = "-"

Target = Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write; - for the standard output.")]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="An archive written by export; - for the standard input.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite FILE.")]
Zstd = Annotated[bool, typer.Option("--zstd", help="Compress it; by default when FILE ends in .zst.")]
Form = Annotated[
    str,
    typer.Option("--format", metavar="tar|raw", help="tar: to be imported again; raw: the files, for oras and others."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace other content of the same version.")]
Trust = Annotated[bool, typer.Option("--trust", help="Take models that run code when they are loaded.")]
TrustCode = Annotated[
    bool, typer.Option("--trust", help="Take models that run code when loaded, and a foreign Bento's code.")
]
BentoSource = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="An archive written by export; - for the standard input; or another tool's, by a plugin."
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option("--max-size", metavar="SIZE", help="Most that a compressed FILE may unpack to; default 200 GiB."),
]


def export_model(
    reference: ModelReference, file: Target, force: Force = False, zstd: Zstd = False, form: Form = "tar"
) -> None:
    """Write a model to an OCI archive"""
    from bentotool.errors import UsageError
    from bentotool.oci.archive import archive_root
    from bentotool.oci.fileview import FileViews

    state = current()
    ref = state.models.refs.get("models", reference)
    if form == "tar":
        roots = [archive_root(ref.descriptor, "model", ref.ref)]
    elif form == "raw":
        view = FileViews(state.layout).of(ref.digest)
        if view is None:
            raise UsageError(f"{ref.ref} has too many files for an archive of raw files", hint="use --format tar")
        roots = [archive_root(view, "files", f"{ref.name}/{ref.tag}")]
    else:
        raise UsageError(f"--format {form!r} is neither tar nor raw")
    _export(state, ref, roots, file, force=force, compress=zstd)


def export_bento(reference: BentoReference, file: Target, force: Force = False, zstd: Zstd = False) -> None:
    """Write a Bento and its models to an OCI archive"""
    state = current()
    ref, roots = bento_roots(state, reference)
    _export(state, ref, roots, file, force=force, compress=zstd)


def _export(state: State, ref: Ref, roots: list[Descriptor], file: Path, *, force: bool, compress: bool) -> None:
    target = _output(state) if str(file) == _STANDARD else _free(file, ref, force)
    compress = compress or file.name.endswith(COMPRESSED)
    archive, size = archive_file(state, ref, roots, target, compress=compress)
    if not isinstance(target, Path):
        target.flush()
        state.console.note(f"wrote {human_size(size)}: {ref.ref}\n{archive}")
        return
    document = {
        "name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size,
        "path": str(file), "archive_digest": archive, "archive_size": size,
    }  # fmt: skip
    state.console.result(document, f"wrote {file} ({human_size(size)}): {ref.ref}\n{archive}")


def _free(file: Path, ref: Ref, force: bool) -> Path:
    from bentotool.errors import ConflictError, NotFoundError, UsageError
    from bentotool.oci.archive import check_target

    if file.is_dir():
        raise UsageError(f"{file} is a folder", hint=f"name a file in it: {file / f'{ref.name}-{ref.tag}.tar'}")
    check_target(file)
    if file.exists() and not force:
        raise ConflictError(f"{file} exists", hint="choose another name, or give --force")
    if not file.absolute().parent.is_dir():
        raise NotFoundError(f"folder {file.parent} does not exist", hint="create it first")
    return file.absolute()


def _output(state: State) -> BinaryIO:
    from bentotool.errors import UsageError

    if state.json:
        raise UsageError("--json and - would both write to the standard output", hint="name a file, or drop --json")
    if sys.stdout.isatty():
        raise UsageError("an archive is no text for a terminal", hint="name a file, or send the output into a program")
    return sys.stdout.buffer


def import_model_archive(
    file: Source,
    name: Annotated[str | None, typer.Option(help="Name in the store; default: the archive's.")] = None,
    replace: Replace = False,
    trust: Trust = False,
    max_size: MaxSize = None,
) -> None:
    """Import a model's archive"""
    from bentotool.models.archives import adopt_archived
    from bentotool.oci.refs import check_name

    state = current()
    if name is not None:
        check_name(name)
    roots, notes = _read(state, file, "model", trust=trust, max_size=max_size)
    model = adopt_archived(state.models, roots[0][0], name=name, replace=replace)
    note_left_out(state, notes)
    document = {**model.to_dict(), "notes": notes} if notes else model.to_dict()
    state.console.result(document, f"imported {model.tag} ({human_size(model.size)})\n{model.digest}")


def import_bento_archive(
    file: BentoSource, replace: Replace = False, trust: TrustCode = False, max_size: MaxSize = None
) -> None:
    """Import a Bento's archive"""
    from bentotool.build.bentos import BentoStore
    from bentotool.build.foreign import find_archive
    from bentotool.models.archives import adopt_archived, archived_name

    state = current()
    if (foreign := find_archive(str(file), state.plugins)) is not None:
        _import_foreign(state, *foreign, replace=replace, trust=trust, max_size=max_size)
        return
    roots, notes = _read(state, file, "bento", trust=trust, max_size=max_size)
    for root, kind in roots[1:]:
        if kind == "model":
            adopt_archived(state.models, root, replace=replace)
    name, version = archived_name(roots[0][0])
    bento = BentoStore(state.layout).adopt(name, version, roots[0][0].digest, replace=replace)
    note_left_out(state, notes)
    document = {**bento.to_dict(), "notes": notes} if notes else bento.to_dict()
    state.console.result(document, f"imported {bento.tag} ({human_size(bento.size)})\n{bento.digest}")


def _import_foreign(
    state: State, decl: ArchiveDecl, path: Path, *, replace: bool, trust: bool, max_size: str | None
) -> None:
    from bentotool.build.foreign import import_foreign
    from bentotool.models.sources import DEFAULT_MAX_BYTES

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        state.console.note(text)

    with state.console.progress(None, f"unpack {path.name}") as progress:
        bento = import_foreign(
            decl,
            path,
            layout=state.layout,
            plugins=state.plugins,
            trust=trust,
            max_bytes=DEFAULT_MAX_BYTES if max_size is None else parse_size(max_size, "--max-size"),
            replace=replace,
            show_output=state.verbose > 0,
            advance=progress.advance,
            note=note,
        )
    document = {**bento.to_dict(), "notes": notes} if notes else bento.to_dict()
    state.console.result(document, f"imported {bento.tag} ({human_size(bento.size)})\n{bento.digest}")


def _read(
    state: State, file: Path, kind: str, *, trust: bool, max_size: str | None
) -> tuple[list[tuple[Descriptor, str]], list[str]]:
    """What an archive holds, and what to tell the user of it."""
    from bentotool.models.archives import check_attached, check_kind, check_taken, check_trust, keep_attached
    from bentotool.oci.archive import KIND_NAME
    from bentotool.oci.unarchive import MAX_UNPACKED, open_archive

    limit = MAX_UNPACKED if max_size is None else parse_size(max_size, "--max-size")
    source = sys.stdin.buffer if str(file) == _STANDARD else file
    total = file.stat().st_size if file.is_file() else None
    with (
        state.console.progress(total, f"check {file.name}") as checked,
        open_archive(source, state.layout, limit=limit, scanned=checked.advance) as archive,
    ):
        check_kind(archive, kind)
        check_trust(archive, trust)
        check_attached(archive)
        with state.console.progress(archive.size, f"import {file.name}") as progress:
            archive.take(state.layout, progress.advance)
        notes = check_taken(archive, state.models, trust)
        keep_attached(archive, state.layout)
        return [(root, root.annotations.get(KIND_NAME, "")) for root in archive.roots], notes
