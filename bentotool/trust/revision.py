"""The revision of a project's sources, as its git repository states it. Nothing that it names is fetched or run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess  # git has no other interface; always an argument list
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Revision", "public_url", "revision_of"]

_TIMEOUT_S = 20
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_SCP = re.compile(r"(?:[^/@:]+@)?([A-Za-z0-9.-]{2,}):(?!//)/?([^:]+)", re.ASCII)
_URL = re.compile(r"[!-~]{1,2000}", re.ASCII)
_SAFE = ("--no-optional-locks", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
_LFS = frozenset(
    {
        "filter.lfs.clean git-lfs clean -- %f",
        "filter.lfs.smudge git-lfs smudge -- %f",
        "filter.lfs.smudge git-lfs smudge --skip -- %f",
        "filter.lfs.process git-lfs filter-process",
        "filter.lfs.process git-lfs filter-process --skip",
        "filter.lfs.required true",
    }
)
_LOCK = ":(exclude)bento.lock"
"""A build writes it, and the provenance has its digest."""


@dataclass(frozen=True)
class Revision:
    """A commit.

    Args:
        commit: its full digest, hexadecimal.
        url: of the repository, without credentials; empty where it has none that others could reach.
        folder: the project's folder in the repository; empty for its root.
        dirty: whether files of the project differ from the commit or are not in it; None where git does not say.
    """

    commit: str
    url: str = ""
    folder: str = ""
    dirty: bool | None = None


def revision_of(project: Path) -> Revision | None:
    """The revision that a folder is at; None where it is in no repository, or git is not there or does not answer."""
    program = shutil.which("git")
    if program is None:
        return None
    # HEAD:./ is the folder's tree: a folder that the repository does not have is not told by its commit
    said = _git(program, project, "rev-parse", "HEAD", "HEAD:./", "--show-prefix")
    lines = (said or "").split("\n")
    if len(lines) < 3 or not _COMMIT.fullmatch(lines[0]) or not _COMMIT.fullmatch(lines[1]):
        return None
    url = _git(program, project, "config", "--get", "remote.origin.url") or ""
    return Revision(lines[0], public_url(url.strip()), lines[2].strip("/"), _dirty(program, project))


def _dirty(program: str, project: Path) -> bool | None:
    """Whether the folder differs from the commit; None where git would have to run what the repository names."""
    filters = _git(program, project, "config", "--show-scope", "--includes", "--get-regexp", r"^filter\.", none_found=1)
    if filters is None or any(_foreign(line) for line in filters.splitlines()):
        return None
    asked = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty", "--", ".", _LOCK)
    changed = _git(program, project, "status", *asked)
    return None if changed is None else bool(changed)


def _foreign(line: str) -> bool:
    """Whether a line of git's configuration is a filter that the repository brings, and not git-lfs as it sets up."""
    scope, _, setting = line.partition("\t")
    return scope not in ("system", "global", "command") and setting not in _LFS


def public_url(url: str) -> str:
    """The address of a repository without user, password, query and fragment; empty for a place on this machine."""
    scp = _SCP.fullmatch(url)
    if "://" not in url:
        return f"ssh://{scp[1]}/{scp[2]}" if scp and _URL.fullmatch(url) and "@" not in scp[2] else ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("https", "http", "ssh", "git") or not parts.hostname or not _URL.fullmatch(url):
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _git(program: str, folder: Path, *arguments: str, none_found: int = 0) -> str | None:
    """What git says; None where it fails with another status than ``none_found``."""
    variables: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if name not in _ELSEWHERE},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            [program, *_SAFE, *arguments],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode in (0, none_found) else None
