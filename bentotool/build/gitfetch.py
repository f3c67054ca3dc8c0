"""Fetching one commit of a git repository. Nothing in it is run: no hook, no filter, no submodule, no local path."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess  # git has no other interface; always an argument list
from pathlib import Path

from bentotool.build.contain import open_inside
from bentotool.build.localsource import LocalSource
from bentotool.build.requirement_line import shown_url
from bentotool.errors import BuildError, NotFoundError, RemoteError, UnsafeError

__all__ = ["fetch_commit", "find_commit"]

_TIMEOUT_S = 600
_LIMIT = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false", "-c", "core.autocrlf=false")


def find_commit(source: LocalSource) -> str:
    """The commit that a branch or tag stands for now; a full commit is its own.

    Raises:
        NotFoundError: the repository has no such branch or tag.
        BuildError, RemoteError: git is absent, or the repository does not answer.
    """
    if _COMMIT.fullmatch(source.ref):
        return source.ref
    names = [f"refs/tags/{source.ref}^{{}}", f"refs/tags/{source.ref}", f"refs/heads/{source.ref}", source.ref]
    wanted = names if source.ref else ["HEAD"]
    listed = _git(Path.cwd(), "ls-remote", "--", source.place).decode("utf-8", "replace")
    pairs = (line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
    found = {name: commit for commit, name in pairs}
    for name in wanted:
        if _COMMIT.fullmatch(found.get(name, "")):
            return found[name]
    raise NotFoundError(
        f"{shown_url(source.place)} has no branch or tag {source.ref!r}",
        hint="name a branch, a tag or a whole commit of 40 digits",
    )


def fetch_commit(source: LocalSource, commit: str, folder: Path) -> Path:
    """Put the files of a commit into a folder that does not exist yet, and give that of the package.

    Raises:
        NotFoundError: the repository has no such commit, or the commit no such folder.
        BuildError, RemoteError: git is absent, or the repository does not answer.
    """
    folder.mkdir()
    _git(folder, "init", "--quiet")
    try:
        _git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", source.place, commit)
    except RemoteError:
        # A server may give whole branches only, and a plain web server nothing shallow.
        _git(folder, "fetch", "--quiet", "--", source.place, "+refs/heads/*:refs/fetched/*", "+refs/tags/*:refs/tags/*")
    try:
        _git(folder, "checkout", "--quiet", "--detach", commit)
    except RemoteError:
        raise NotFoundError(f"{shown_url(source.place)} has no commit {commit[:12]}", hint="name another") from None
    package = folder / source.subdirectory
    if not package.is_dir():
        raise NotFoundError(f"{shown_url(source.shown)} has no folder {source.subdirectory!r}")
    if (folder / ".git" / "shallow").is_file() and _version_of_git(package):
        _git(folder, "fetch", "--quiet", "--unshallow", "--tags", "--", source.place)
    return package


def _version_of_git(package: Path) -> bool:
    """Whether a package seems to take its version from the repository's tags."""
    for file in ("pyproject.toml", "setup.py", "setup.cfg"):
        with contextlib.suppress(NotFoundError, UnsafeError), open_inside(package, file) as stream:
            if re.search(rb"(?i)[-_]scm\b|[-_]vcs\b|versioning|versioneer|\bdunamai|\bpbr\b", stream.read(_LIMIT)):
                return True
    return False


def _git(folder: Path, *arguments: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise BuildError("git is not installed, and a dependency comes from a git repository", hint="install git")
    ours = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }
    inherited = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(
            [program, *_SAFE, *arguments],
            cwd=folder,
            env={**inherited, **ours},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"git {arguments[0]} failed: {type(error).__name__}") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        said = shown_url(lines[-1].removeprefix("fatal: ") if lines else "it said nothing")
        raise RemoteError(
            f"git {arguments[0]}: {said}", hint="credentials come from git's own helpers, ~/.netrc or an ssh agent"
        )
    return done.stdout
