"""Which files of a project go into a Bento, and their digests.

A file is taken when it matches ``include`` and neither ``exclude`` nor a ``.bentoignore`` (patterns as in .gitignore,
relative to the folder the file lies in) nor the built-in list. Modes, times and owners are not recorded: every file is
stored as 0644, because Windows has no executable bit and one folder must give one digest everywhere.

A link to a file inside the project is stored as that file's content. A link that leaves the project, and any link to a
folder, is refused when the patterns select it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bentotool.build.contain import note_folder, open_inside
from bentotool.build.journal import Journal, hash_inside
from bentotool.build.schema import check_text
from bentotool.build.stamps import stamp_of
from bentotool.errors import BuildError, ConfigError, UnsafeError
from bentotool.oci.digest import CHUNK
from bentotool.oci.tar import check_entry_names

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["CodeFile", "collect", "read_unchanged", "secrets_by_name"]

_NEVER = (".git/", ".git", ".venv/", "venv/", "__pycache__/", ".DS_Store", "*.py[co]", "/bento.lock")
_IGNORE_FILE = ".bentoignore"
_SECRET = re.compile(
    r"\.env(?:\.(?!example$|sample$|template$|dist$)[\w.-]+)?|\.netrc|\.pypirc|\.git-credentials|id_(?:rsa|dsa|ecdsa|ed25519)"
)
_IGNORE_LIMIT = 1 << 20


@dataclass(frozen=True)
class CodeFile:
    """A file of the project.

    Args:
        name: its name in the Bento: relative, POSIX, Unicode NFC.
        source: its name on disk, relative, POSIX; macOS may store another Unicode form.
        size: bytes.
        digest: sha256 of its content.
    """

    name: str
    source: str
    size: int
    digest: str


def collect(
    project: Path,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    *,
    where: str = "bentofile.yaml",
    store: Path | None = None,
    before: Journal | None = None,
    journal: Journal | None = None,
) -> tuple[CodeFile, ...]:
    """Find and hash the files of a project, sorted by the bytes of their names.

    Args:
        where: the configuration file, for messages.
        store: the store's folder, left out when it lies in the project.
        before: the journal of an earlier build; a file that stands in it unchanged is not read.
        journal: an empty one, filled with what is seen; without one, what is seen is noted as an input of the plan.

    Raises:
        UnsafeError: a link out of the project, a link to a folder, something that is no file, or a name that is not
            portable.
        ConfigError: a pattern is not valid.
    """
    included = _spec(include, (where, "include"))
    never = (*_NEVER, *_store_pattern(project, store))
    rules = [("", _spec(never, ("built in",))), ("", _spec(exclude, (where, "exclude")))]
    main, journal = journal is not None, journal or Journal()
    found: list[CodeFile] = []
    for source, entry in _walk(project, "", rules, included, journal.folders):
        digest, size = _digest(project, source, entry, before, journal)
        found.append(CodeFile(unicodedata.normalize("NFC", source), source, size, digest))
    if not main:
        for folder in journal.folders:
            note_folder(project / folder)
    found.sort(key=lambda item: item.name.encode("utf-8", "surrogatepass"))
    check_entry_names(item.name for item in found)
    return tuple(found)


def _digest(
    project: Path, source: str, entry: os.DirEntry[str], before: Journal | None, journal: Journal
) -> tuple[str, int]:
    """Digest and size of a file: those of an earlier build while its stamp stands."""
    target = ""
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
    if before is not None and source in before.files:
        with contextlib.suppress(OSError):
            stamp = stamp_of(entry.stat())
            known = before.known(source, stamp, target)
            if known is not None:
                journal.files[source] = stamp, known, target
                journal.hits += 1
                return known, stamp[0]
    digest, size, stamp = hash_inside(project, source)
    journal.files[source] = stamp, digest, target
    journal.misses += 1
    return digest, size


def secrets_by_name(files: Sequence[CodeFile], meant: Sequence[str]) -> tuple[str, ...]:
    """Files that hold secrets more often than not, by their names; those that are meant by their name are left out.

    Args:
        meant: patterns of ``include``.
    """
    named = {pattern.lstrip("/") for pattern in meant}
    return tuple(
        file.name
        for file in files
        if _SECRET.fullmatch(base := file.name.rpartition("/")[2]) and not {file.name, base} & named
    )


def read_unchanged(project: Path, file: CodeFile) -> Iterator[bytes]:
    """The content of a collected file in pieces.

    Raises:
        BuildError: at the end, when it is no longer what was collected.
    """
    digest, size = hashlib.sha256(), 0
    with open_inside(project, file.source) as stream:
        for piece in _pieces(stream):
            size += len(piece)
            if size > file.size:
                break
            digest.update(piece)
            yield piece
    if size != file.size or f"sha256:{digest.hexdigest()}" != file.digest:
        raise BuildError(f"{file.name} changed during the build", hint="build again")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def _store_pattern(project: Path, store: Path | None) -> tuple[str, ...]:
    """A store that someone keeps in the project is not part of the code."""
    base = os.path.realpath(project)
    inside = os.path.realpath(store) if store is not None else base
    if inside == base or not Path(inside).is_relative_to(base):
        return ()
    relative = Path(inside).relative_to(base).as_posix()
    return ("/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", relative) + "/",)


def _spec(patterns: Sequence[str], where: tuple[str, ...]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    for index, pattern in enumerate(patterns):
        place = (*where, str(index))
        check_text(pattern, place)
        if ".." in pattern.replace("\\", "/").split("/"):
            raise UnsafeError(f"{' → '.join(place)}: pattern {pattern[:120]!r} leads outside the project")
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise ConfigError(f"not a valid pattern: {' '.join(str(error).split())[:200]}", path=where) from None


def _matches(rules: Sequence[tuple[str, GitIgnoreSpec]], path: str) -> bool:
    return any(spec.match_file(path[len(base) :]) for base, spec in rules)


def _walk(
    project: Path,
    folder: str,
    rules: list[tuple[str, GitIgnoreSpec]],
    included: GitIgnoreSpec,
    folders: dict[str, list[str]],
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(project / folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise BuildError(f"folder {folder or '.'!r} cannot be read: {error.strerror}") from None
    folders[folder] = sorted(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name for e in entries)
    if any(entry.name == _IGNORE_FILE for entry in entries):
        rules = [*rules, (folder, _read_ignore(project, folder + _IGNORE_FILE))]
    for entry in entries:
        path = folder + entry.name
        if entry.is_dir(follow_symlinks=False):
            # A pattern such as `!data/keep.csv` can bring back what lies below an excluded folder, so such folders are
            # still walked; the common case is not.
            if not _matches(rules, path + "/") or (_has_exceptions(rules) and not _matches(rules[:1], path + "/")):
                yield from _walk(project, path + "/", rules, included, folders)
        elif included.match_file(path) and not _matches(rules, path):
            if entry.is_symlink() and os.path.isdir(entry.path):
                raise UnsafeError(
                    f"{path!r} is a link to a folder", hint="exclude it, or copy the folder into the project"
                )
            yield path, entry


def _has_exceptions(rules: Sequence[tuple[str, GitIgnoreSpec]]) -> bool:
    return any(pattern.include is False for _, spec in rules for pattern in spec.patterns)


def _read_ignore(project: Path, name: str) -> GitIgnoreSpec:
    with open_inside(project, name) as file:
        content = file.read(_IGNORE_LIMIT + 1)
    if len(content) > _IGNORE_LIMIT:
        raise ConfigError(f"{name} is larger than {_IGNORE_LIMIT} bytes")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8 text") from None
    return _spec(lines, (name,))
