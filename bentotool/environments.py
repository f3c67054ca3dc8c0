"""Which Python runs a Bento: this one when it has what the lock names, else one made from the lock by uv."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bentotool.errors import BentotoolError, MissingDependencyError
from bentotool.paths import make_private_directory

__all__ = ["locked_environment", "missing_packages", "with_wheels"]

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==", re.ASCII | re.MULTILINE)
_TIMEOUT_S = 1800
_NO_PYTHON = re.compile(r"no interpreter found|failed to (download|fetch|inspect python)|error sending request", re.I)


def missing_packages(lock: str) -> list[str]:
    """Names that a lock (requirements format) pins and that are not installed beside the running interpreter."""
    missing = []
    for name in _PINNED.findall(lock):
        if name == "uvloop" and sys.platform == "win32":  # the lock is for Linux; the runtime does without it elsewhere
            continue
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def _interpreter(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _make(python: str, draft: Path) -> None:
    """An empty environment; uv fetches the Python where it may."""
    try:
        _uv(["venv", "--quiet", "--relocatable", "--python", python, str(draft)], f"make a Python {python} environment")
    except BentotoolError as error:
        if _NO_PYTHON.search(f"{error.message} {error.hint or ''}"):
            raise BentotoolError(
                f"python {python} is not installed",
                hint="install it or set python.version in bentofile.yaml and build again",
            ) from error
        raise


def _uv(arguments: list[str], purpose: str) -> None:
    try:
        from uv import find_uv_bin
    except ImportError:
        raise MissingDependencyError("uv", purpose=purpose) from None
    try:
        # The arguments are ours: paths of the store and a version that the build checked.
        done = subprocess.run(
            [find_uv_bin(), *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BentotoolError(f"uv could not {purpose}: {error}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise BentotoolError(
            f"uv could not {purpose}: {lines[0].removeprefix('error: ')}", hint="\n".join(lines[1:4]) or None
        )


def with_wheels(lock: str, wheels: Path) -> str:
    """The lock with each package that has its wheel in a folder as that file, so that no index is asked for it."""
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(wheels.glob("*.whl"))}
    lines, left = lock.splitlines(), set(found)
    for number, line in enumerate(lines[1:], 1):
        digest = line.strip().removesuffix("\\").strip().removeprefix("--hash=sha256:")
        pin = re.fullmatch(r"([A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?)==\S+(.*)", lines[number - 1])
        if digest in found and pin:
            lines[number - 1] = f"{pin[1]} @ {found[digest].absolute().as_uri()}{pin[2]}"
            left.discard(digest)
    if left:
        raise BentotoolError(
            f"{found[min(left)].name} is not what the lock names", hint="build or pull the Bento again"
        )
    return "".join(f"{line}\n" for line in lines)


def locked_environment(folder: Path, lock: str, python: str, wheels: Path | None = None) -> Path:
    """The interpreter of an environment that holds exactly what a lock names, each file checked against its hash.

    The environment is made once for a lock and Python, under another name, and renamed when it is whole.

    Args:
        folder: where environments are kept.
        lock: requirements format, with hashes.
        python: ``X.Y``.
        wheels: a folder of wheels that the Bento carries, if there is one.

    Raises:
        BentotoolError: when uv cannot make it, with uv's reason.
    """
    key = hashlib.sha256(f"{python} {sys.platform}\n{lock}".encode()).hexdigest()[:24]
    environment = folder / key
    if _interpreter(environment).exists():
        return _interpreter(environment)
    draft = make_private_directory(folder) / f".{secrets.token_hex(8)}"
    try:
        _make(python, draft)
        listing = draft / "bento.lock"
        known = with_wheels(lock, wheels) if wheels is not None and wheels.is_dir() else lock
        listing.write_text(known, encoding="utf-8", newline="\n")
        interpreter = str(_interpreter(draft))
        _uv(
            ["pip", "sync", "--quiet", "--require-hashes", "--python", interpreter, str(listing)],
            "install what the lock names",
        )
        draft.rename(environment)
    except OSError:
        if not _interpreter(environment).exists():  # another process may have made the same one first
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _interpreter(environment)
