"""Carrying out a plan: what ``deploy`` and ``deployment rollback`` have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bentotool.cli.state import State
from bentotool.cli.targets import ShownProgress, show_differences, show_plan

if TYPE_CHECKING:
    from pathlib import Path

    from bentotool.deploy.records import Record
    from bentotool.targetspec import Plan

__all__ = ["carry_out", "write_out"]


def carry_out(
    state: State, plan: Plan, *, dry_run: bool, diff: bool, wait: bool, reason: str = "", unbuilt: bool = False
) -> None:
    """Show a plan, or what it changes, or apply it and show what came of it.

    Args:
        unbuilt: as for :func:`bentotool.deploy.api.check_policies`.
    """
    from bentotool.deploy.api import apply_plan, check_policies

    if diff or dry_run:
        check_policies(state.layout, state.plugins, _telling(state, plan), unbuilt=unbuilt)
    if diff:
        show_differences(state, plan)
        return
    for note in (*((plan.blind,) if plan.blind and dry_run else ()), *plan.notes):
        state.console.note(note)
    if dry_run:
        state.console.result(plan.to_dict(), lambda: show_plan(state, plan))
        return
    with ShownProgress(state) as shown:
        told = replace(plan, options=replace(plan.options, note=shown.note, progress=shown.tell))
        record = apply_plan(state.layout, state.plugins, told, wait=wait, reason=reason)
    document = {**record.deployment.to_dict(), "revision": record.current.number}
    state.console.result(document, lambda: _show(state, record))


def _telling(state: State, plan: Plan) -> Plan:
    """A plan whose notes are seen."""
    return replace(plan, options=replace(plan.options, note=state.console.note))


def write_out(state: State, plan: Plan, form: str, folder: Path, *, publish: bool, unbuilt: bool = False) -> None:
    """Write a plan as files in place of applying it."""
    from bentotool.deploy.written import write_plan

    for note in plan.notes:
        state.console.note(note)
    told = _telling(state, plan)
    files = write_plan(state.layout, state.plugins, told, form, folder, publish=publish, unbuilt=unbuilt)
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    document = {
        "name": plan.name, "target": plan.target, "status": "written", "url": plan.url, "tag": plan.bento.tag,
        "digest": plan.bento.digest, "form": form, "path": str(folder), "files": list(files),
    }  # fmt: skip
    state.console.result(document, lambda: state.console.line(f"wrote {folder}: {form}, {count}"))


def _show(state: State, record: Record) -> None:
    done = record.deployment
    state.console.line(f"Deployed {done.name} to {done.target}: {done.tag} is {done.status}")
    state.console.line(done.url)
    state.console.note(f"Next: bentotool deployment logs {done.name}")
