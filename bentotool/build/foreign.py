"""Bentos of other tools: unpacked by a plugin, and built into one of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.errors import NotFoundError, PluginError, UnsafeError
from bentotool.interfaces import ArchiveDecl, SourceRequest
from bentotool.models.sources import Fetched, import_fetched
from bentotool.models.store import ModelStore
from bentotool.models.web import part_key
from bentotool.oci.partial import claim_folder
from bentotool.protocols import ArchivedBento

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout
    from bentotool.plugins import Plugins

__all__ = ["find_archive", "import_foreign"]

_OURS = (".tar", ".tar.zst", ".tzst", ".zst", "-")
_CONFIG = "bentofile.yaml"


def find_archive(text: str, plugins: Plugins) -> tuple[ArchiveDecl, Path] | None:
    """Who unpacks a file, and its path; None for an archive of our own.

    Args:
        text: a path, or ``NAME:PATH`` with the name of a declaration.
    """
    if text.endswith(_OURS) and ":" not in text:  # the usual case needs no plugin
        return None
    declared = plugins.archives()
    name, colon, rest = text.partition(":")
    for decl in declared.values():
        if colon and name == decl.name and not Path(text).exists():
            return decl, Path(rest).expanduser()
    suffix = next((suffix for suffix in declared if text.lower().endswith(suffix)), None)
    return (declared[suffix], Path(text)) if suffix else None


def import_foreign(
    decl: ArchiveDecl,
    path: Path,
    *,
    layout: Layout,
    plugins: Plugins,
    trust: bool,
    max_bytes: int,
    replace: bool = False,
    show_output: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
    note: Callable[[str], None] = lambda text: None,
) -> StoredBento:
    """Unpack a Bento of another tool, import its models and build one of ours from its code.

    Args:
        trust: the build may import its code, and take models that run code when they are loaded.
        max_bytes: the most that it may unpack to.
        replace: replace other content of the same version.
        show_output: let what the service prints appear on stderr.
        advance: told the bytes of each piece unpacked.

    Raises:
        UnsafeError: without ``trust``; for links, and names that lead elsewhere.
        NotFoundError: no such file.
        BentotoolError: as the plugin, the import of a model and the build say.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} does not exist", hint="name a file that the other tool exported")
    if not trust:
        raise UnsafeError(
            f"{path.name} holds code, which a build imports", hint="give --trust if you trust where it comes from"
        )
    from bentotool.build.api import BuildOptions, build_bento

    with claim_folder(layout.temporary(), f"import-{part_key(str(path.absolute()))}") as folder:
        try:
            request = SourceRequest(str(path), folder, max_bytes, None, advance)
            archived = plugins.archive(decl).unpack(request)
            if not isinstance(archived, ArchivedBento) or not _below(archived.project, folder):
                raise PluginError(f"{decl.target} answers with no ArchivedBento in the request's folder")
            store = ModelStore(layout)
            for tag, model in sorted(archived.models.items()):
                name, _, version = tag.partition(":")
                import_fetched(
                    store, Fetched(model, owned=all(_below(file.path, folder) for file in model.files)),
                    plugins=plugins, name=name, version=version or None, trust=trust, replace=replace,
                )  # fmt: skip
            config = json.dumps(archived.config, ensure_ascii=True, indent=1, sort_keys=True)
            (archived.project / _CONFIG).write_text(config + "\n", encoding="utf-8", newline="\n")
            options = BuildOptions(file=_CONFIG, replace=replace, fresh=True, show_output=show_output)
            built = build_bento(archived.project, layout=layout, plugins=plugins, options=options, note=note)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return BentoStore(layout).get(built.tag)


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
