"""Building a Bento: configuration, service, models, lock and files become a plan, and the plan a Bento."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.journal import Journal
from bentotool.build.result import BuildOptions, BuildResult, BuiltBento
from bentotool.build.room import Room
from bentotool.build.standing import Records
from bentotool.oci.layout import Layout

if TYPE_CHECKING:
    from bentotool.build.planning import Planned, Work
    from bentotool.oci.refs import Ref
    from bentotool.plugins import Plugins

__all__ = ["BuildOptions", "BuildResult", "build_bento"]


def build_bento(
    project: Path,
    *,
    layout: Layout,
    plugins: Plugins,
    options: BuildOptions | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> BuildResult:
    """Build the project in a folder into a Bento in the store.

    Where nothing changed since an earlier build, its answer is given again, and nothing is planned or written.

    Args:
        note: told of what a person should know beside the result.

    Raises:
        ConfigError, UsageError: the configuration or an option is wrong.
        NotFoundError: the service's file, or a model.
        ServiceLoadError: the service does not import.
        UnsafeError: a path leads out of the project.
        BuildError, RemoteError: the requirements cannot be locked.
        ConflictError: the version stands for other content.
    """
    folder, options, started_ns = Path(project), options or BuildOptions(), time.time_ns()
    room = Room(layout.root, writing=not options.dry_run)
    records = Records(folder, layout, plugins, options, room)
    start = time.monotonic()
    before = None if options.fresh else records.journal()
    reason = ""
    if not options.dry_run and not options.fresh:
        standing, reason = records.standing(before)
        if standing is not None:
            for text in standing.notes:
                note(text)
            return _unchanged(standing, time.monotonic() - start, options)
    return _build(records, before, note, reason, (start, started_ns))


def _unchanged(standing: BuildResult, seconds: float, options: BuildOptions) -> BuildResult:
    result = replace(standing, seconds={"check": seconds})
    if options.explain:
        from bentotool.build.explain import explanation

        past = {"tag": result.tag, "digest": result.digest}
        result = replace(result, explained=explanation(result, past, {}, {}))
    return result


def _build(
    records: Records, before: Journal | None, note: Callable[[str], None], reason: str, started: tuple[float, int]
) -> BuildResult:
    from bentotool.build.contain import noting
    from bentotool.build.explain import Past, explanation, inputs_of, plan_digest
    from bentotool.build.memory import Memory
    from bentotool.build.planning import Work

    options, room = records.options, records.room
    notes: list[str] = []

    def noted_down(text: str) -> None:
        notes.append(text)
        note(text)

    memory = Memory(room, before, fresh=options.fresh)
    work = Work(records.folder, records.layout, records.plugins, options, noted_down, room, memory, before)
    work.seconds["check"] = time.monotonic() - started[0]
    work.cached["build"] = False
    with noting() as noted:
        planned = work.plan()
    plan, finding, ref = planned.plan, planned.probe.finding, None
    past = Past(room, records.folder, plan.name)
    inputs = inputs_of(planned)
    if not options.dry_run:
        with work.step("pack"):
            ref = _packed(planned, work, past.document)
        built = BuiltBento(ref.name, ref.tag, ref.ref, ref.digest, ref.size)
        records.plugins.call("bentotool_after_build", bento=built)
        with work.step("record"):
            past.keep(
                {"tag": f"{ref.name}:{ref.tag}", "digest": ref.digest, "plan": plan_digest(planned), "size": ref.size,
                 "descriptor": ref.descriptor.to_dict(), "inputs": inputs}
            )  # fmt: skip
            finding = memory.keep(finding, planned.journal) if finding else None
            records.keep(planned, finding, noted, ref, started[1], notes)
            room.tidy()
    result = BuildResult(
        ref.name if ref else plan.name,
        ref.tag if ref else plan.version,
        ref.digest if ref else "",
        ref.size if ref else 0,
        work.seconds,
        plan.lock.reused,
        packages=len(plan.lock.pins),
        files=len(plan.files),
        models=tuple(model.brief() for model in plan.models),
        cached=work.cached,
        plan=plan,
    )
    if not options.explain:
        return result
    reasons = {"check": reason, "service": finding.reason if finding else ""}
    return replace(result, explained=explanation(result, past.document, inputs, reasons))


def _packed(planned: Planned, work: Work, past: Mapping[str, Any] | None) -> Ref:
    """The Bento of a plan: that of the last build, where the plan is the same, else a new one."""
    from bentotool.build.explain import plan_digest
    from bentotool.build.pack import name_again, pack
    from bentotool.oci.descriptor import Descriptor

    plan, replacing = planned.plan, work.options.replace
    ref = None
    if past is not None and not work.options.fresh and past.get("plan") == plan_digest(planned):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            descriptor = Descriptor.from_dict(past["descriptor"])
            ref = name_again(plan, work.layout, descriptor, int(past["size"]), replace=replacing)
    work.cached["bento"] = ref is not None
    return ref or pack(plan, work.folder, work.layout, replace=replacing)
