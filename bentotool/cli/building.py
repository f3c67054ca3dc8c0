"""Building a project for a command, with the documents that a build attaches; for ``build`` and ``deploy``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from bentotool.build.result import BuildOptions, BuildResult
    from bentotool.cli.state import State

__all__ = ["build_project"]


def build_project(
    state: State, directory: Path, options: BuildOptions, *, sbom: bool = True, provenance: bool = True
) -> tuple[BuildResult, list[dict[str, str]] | None]:
    """Build a Bento and attach the documents that it lacks.

    Args:
        directory: of the project.
        sbom: whether bills of materials are wanted.
        provenance: whether provenance is.

    Returns:
        the result, and artifact type and digest of what was attached; ``None`` where the build had no cause to look.

    Raises:
        BentotoolError: the project cannot be built, or the store refuses.
        UsageError: ``SOURCE_DATE_EPOCH`` is not a number.
    """
    from bentotool.build.api import build_bento

    started = _start()
    result = build_bento(
        directory, layout=state.layout, plugins=state.plugins, options=options, note=state.console.note
    )
    if result.plan is None and _lacks(state, result, sbom=sbom, provenance=provenance):
        options = dataclasses.replace(options, fresh=True)
        result = build_bento(directory, layout=state.layout, plugins=state.plugins, options=options)
    if result.plan is None or options.dry_run:
        return result, None
    from bentotool.trust.attached import attach_documents

    attached = attach_documents(
        state.layout, result, directory, options, started,
        sbom=sbom, provenance=provenance, note=state.console.note,
    )  # fmt: skip
    return result, attached


def _start() -> datetime:
    """The time now. A set time that the documents could not state is refused before anything is built."""
    from datetime import datetime, timezone

    if os.environ.get("SOURCE_DATE_EPOCH"):
        from bentotool.trust.moments import source_date

        source_date()
    return datetime.now(timezone.utc)


def _lacks(state: State, built: BuildResult, *, sbom: bool, provenance: bool) -> bool:
    """Whether a Bento that was built before lacks a document; only a plan knows what stands in one."""
    from bentotool.build.documents import lacks_documents

    return lacks_documents(state.layout, built.digest, sbom=sbom, provenance=provenance)
