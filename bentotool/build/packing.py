"""Making wheels of the packages that a Bento carries itself: folders of the project and git repositories.

A wheel is built by the package's own backend in a copy of its sources, in a process of its own, once for each state of
the sources; the result is kept in a folder of the store and found again by the digest of what it was made from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bentotool.build.collect import collect, read_unchanged
from bentotool.build.contain import open_inside
from bentotool.build.gitfetch import fetch_commit, find_commit
from bentotool.build.localsource import IGNORED, LocalSource, tree_digest
from bentotool.build.requirement_line import shown_url
from bentotool.build.requirements import Requirements
from bentotool.build.uvrun import run_uv, write_settings
from bentotool.build.wheelfile import check_fits, normalise_wheel, wheel_identity
from bentotool.errors import BuildError, ConfigError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import hash_file, sha256_bytes
from bentotool.paths import make_folder

__all__ = ["PackedWheel", "Packer"]

_FORMAT = 1
_KEEP_S, _DRAFT_S = 60 * 86_400, 86_400
_EPOCH = "315532800"
"""1980-01-01, the earliest time that a zip can say; given to the backend as SOURCE_DATE_EPOCH."""


@dataclass(frozen=True)
class PackedWheel:
    """A wheel that the Bento carries.

    Args:
        name: normalised.
        file: its file name.
        digest: ``sha256:…`` of the file.
        size: bytes.
        path: where it lies now.
        extras: extras asked for.
        commit: of the git repository it was built from.
    """

    name: str
    version: str
    file: str
    digest: str
    size: int
    path: Path = field(compare=False)
    extras: tuple[str, ...] = ()
    commit: str = ""

    def brief(self) -> dict[str, str]:
        """What the Bento's config says of it."""
        facts = {"name": self.name, "version": self.version, "file": self.file, "digest": self.digest}
        return {**facts, "commit": self.commit} if self.commit else facts


@dataclass(frozen=True)
class Packer:
    """Makes the wheels of one project.

    Args:
        project: its folder.
        cache: where built wheels are kept.
        timeout: seconds for one.
    """

    project: Path
    cache: Path
    timeout: float = 600.0

    def pack(
        self,
        requirements: Requirements,
        python: str,
        platform: str,
        *,
        commits: Mapping[str, str],
        offline: bool = False,
    ) -> tuple[PackedWheel, ...]:
        """The wheels of all packages to be packed, sorted by name.

        Args:
            commits: known commits of git packages by name; the others are asked for.

        Raises:
            BuildError: a package does not build, or its wheel does not fit the target.
            NotFoundError, RemoteError: a git repository, or what it is asked for, is not there.
        """
        wheels: dict[str, PackedWheel] = {}
        named = {source.name for source in requirements.sources}
        unnamed = [source for source in requirements.sources if source.kind == "git" and not source.name]
        rest = [commit for name, commit in commits.items() if name not in named]
        if len(unnamed) > 1:
            raise ConfigError(f"{shown_url(unnamed[0].shown)} needs a name", hint="write NAME @ git+https://…")
        for source in requirements.sources:
            if source.kind == "wheel":
                wheel = self._given(source)
            else:
                commit = commits.get(source.name, "") if source.name else "".join(rest[:1])
                wheel = self._built(source, requirements, commit, offline)
            check_fits(wheel.file, python, platform)
            if source.name and source.name != wheel.name:
                raise BuildError(f"{shown_url(source.shown)} is {wheel.name}, not {source.name}")
            if wheels.setdefault(wheel.name, wheel) != wheel:
                raise BuildError(f"two packages to be packed are {wheel.name}: {wheels[wheel.name].file}, {wheel.file}")
        _tidy(self.cache)
        return tuple(wheels[name] for name in sorted(wheels))

    def _given(self, source: LocalSource) -> PackedWheel:
        """A wheel of the project, as it is."""
        file = PurePosixPath(source.place).name
        name, version = wheel_identity(file)
        folder = self.cache / _key(source.digest, file)
        if not (folder / file).is_file():  # a copy, so that what was hashed is what is packed
            with _Draft(folder) as draft, open_inside(self.project, source.place) as given:
                with (draft / file).open("wb") as copy:
                    shutil.copyfileobj(given, copy)
                if hash_file(draft / file)[0] != source.digest:
                    raise BuildError(f"{source.place} changed during the build", hint="build again")
        wheel = _wheel(folder / file, name, version, source)
        if wheel.digest != source.digest:
            raise BuildError(f"{wheel.path} is damaged", hint="delete that file and build again")
        return wheel

    def _built(self, source: LocalSource, requirements: Requirements, commit: str, offline: bool) -> PackedWheel:
        if source.kind == "git":
            commit = commit or find_commit(source)
        state = source.digest or f"{source.place}#{commit}#{source.subdirectory}"
        # The backend may come in another release later, unless the time it is taken from stands.
        folder = self.cache / _key(state, requirements.exclude_newer)
        found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
        if not found:
            with _Draft(folder) as draft, tempfile.TemporaryDirectory(prefix="bentotool-wheel-") as workspace:
                built = self._build(source, requirements, commit, offline, Path(workspace))
                normalise_wheel(built, draft / built.name)
            found = sorted(folder.glob("*.whl"))
        name, version = wheel_identity(found[0].name)
        return _wheel(found[0], name, version, source, commit)

    def _build(
        self, source: LocalSource, requirements: Requirements, commit: str, offline: bool, workspace: Path
    ) -> Path:
        folder = workspace / "source"
        if source.kind == "git":
            folder = fetch_commit(source, commit, folder)
        else:
            _copy_sources(Path(os.path.realpath(self.project / source.place)), folder, source)
        indexes = requirements.indexes
        write_settings(workspace, indexes, {})
        arguments = ["build", "--wheel", "--no-progress", "--color", "never", "--out-dir", "made"]
        for link in indexes.find_links:
            arguments += ["--find-links", link]
        arguments += ["--no-index"] if indexes.no_index else []
        arguments += ["--exclude-newer", requirements.exclude_newer] if requirements.exclude_newer else []
        arguments += ["--offline"] if offline else []
        try:
            run_uv(
                workspace,
                [*arguments, str(folder)],
                own_default=any(item.default for item in indexes.used()),
                offline=offline,
                timeout=self.timeout,
                purpose=f"building a wheel of {shown_url(source.shown)}",
                building=True,
                variables={"SOURCE_DATE_EPOCH": _EPOCH, "PYTHONHASHSEED": "0"},
            )
        except BuildError as error:
            raise BuildError(
                f"no wheel can be built of {shown_url(source.shown)}: {error.message}",
                hint=f"uv build --wheel {source.place if source.kind == 'path' else 'in a clone'} shows more",
            ) from None
        made = sorted((workspace / "made").glob("*.whl"))
        if len(made) != 1:
            raise BuildError(f"building {shown_url(source.shown)} made {len(made)} wheels, not one")
        return made[0]


def _key(*parts: str) -> str:
    """Name of a folder in the cache. Each user of a shared store has their own: nobody installs what another built."""
    user = os.geteuid() if sys.platform != "win32" else 0
    return sha256_bytes(canonical_json([_FORMAT, user, *parts])).removeprefix("sha256:")


def _check_own(path: Path) -> None:
    """Raise BuildError for a file that another user put where ours would be."""
    if sys.platform != "win32" and path.stat().st_uid != os.geteuid():
        raise BuildError(f"{path} belongs to another user", hint="remove its folder and build again")


class _Draft:
    """A folder that appears under its name when it is whole; another process may make the same one first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.draft = folder.with_name(f".{os.urandom(8).hex()}")

    def __enter__(self) -> Path:
        make_folder(self.draft.parent)
        make_folder(self.draft, private=True)
        return self.draft

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self.draft.rename(self.folder)
        except OSError:
            if not self.folder.is_dir():
                raise
        finally:
            shutil.rmtree(self.draft, ignore_errors=True)


def _tidy(cache: Path) -> None:
    """Remove what no build used for two months, and what a build left that was ended."""
    with contextlib.suppress(OSError):
        for folder in cache.iterdir():
            age = time.time() - folder.stat().st_mtime
            if age > (_DRAFT_S if folder.name.startswith(".") else _KEEP_S):
                shutil.rmtree(folder, ignore_errors=True)


def _wheel(path: Path, name: str, version: str, source: LocalSource, commit: str = "") -> PackedWheel:
    _check_own(path)
    digest, size = hash_file(path)
    with contextlib.suppress(OSError):
        os.utime(path.parent)
    return PackedWheel(name, version, path.name, digest, size, path, source.extras, commit)


def _copy_sources(package: Path, folder: Path, source: LocalSource) -> None:
    """Copy the files whose digest was taken, so that building leaves nothing in the project."""
    files = collect(package, ("*",), IGNORED, where=source.place)
    if tree_digest(files) != source.digest:
        raise BuildError(f"{source.place} changed during the build", hint="build again")
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            for piece in read_unchanged(package, file):
                copy.write(piece)
