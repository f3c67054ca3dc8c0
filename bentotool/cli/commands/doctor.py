"""``bentotool doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from bentotool.cli.state import State, current

__all__ = ["doctor"]


class Finding(NamedTuple):
    """One thing looked at.

    Args:
        state: ``ok``; ``optional`` (absent, and only some commands need it); ``broken`` (the exit status is 1).
    """

    check: str
    state: str
    detail: str


def doctor() -> None:
    """Check this machine and say what is missing"""
    state = current()
    findings = list(_findings(state))
    broken = [finding for finding in findings if finding.state == "broken"]
    document = {"ok": not broken, "checks": [finding._asdict() for finding in findings]}
    state.console.result(document, lambda: state.console.table(Finding._fields, findings))
    if broken:
        raise typer.Exit(1)


def _findings(state: State) -> Iterator[Finding]:
    from bentotool import __version__

    yield Finding("bentotool", "ok", f"{__version__} in {Path(__file__).parents[2]}")
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable} on {platform.platform()}")
    yield _store(state.store)
    yield _uv()
    yield _program("docker", "deploys and images built with BuildKit need it")
    for plugin in state.plugins.states():
        broken = plugin.problem is not None
        detail = f"{plugin.version}{': ' + str(plugin.problem) if broken else ''}"
        yield Finding(f"plugin {plugin.name}", "broken" if broken else "ok", detail)


def _store(store: Path) -> Finding:
    """Whether the store can be written to, or made; nothing is made."""
    existing = next(folder for folder in (store, *store.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("store", "broken", f"{store}: {existing} is not a folder that can be written to")
    free_gib = shutil.disk_usage(existing).free / (1 << 30)
    return Finding("store", "ok", f"{store}, {free_gib:.1f} GiB free")


def _uv() -> Finding:
    """A dependency of ours; it lies beside the interpreter even where its folder is not on PATH."""
    found = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")
    return Finding("uv", "ok", found) if found else Finding("uv", "broken", "not found: pip install uv")


def _program(name: str, purpose: str) -> Finding:
    found = shutil.which(name)
    return Finding(name, "ok" if found else "optional", found or f"not found; {purpose}")
