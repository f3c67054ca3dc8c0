"""``bentotool build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Project folder.", show_default=False)] = Path(),
    *,
    file: Annotated[str | None, typer.Option("-f", "--file", metavar="FILE", help="Configuration file in DIR.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the Bento; default: the project's or service's.")] = None,
    version: Annotated[str | None, typer.Option(help="Version; default: made from the content.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label; may be repeated.")] = None,
    platform: Annotated[str | None, typer.Option(help="linux/amd64 or linux/arm64.")] = None,
    locked: Annotated[bool, typer.Option("--locked", help="Fail when bento.lock is missing or out of date.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use cached packages and find_links only.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace other content under the same version.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
) -> None:
    """Build a Bento from a project."""
    from bentotool.build.api import BuildOptions, BuildResult, build_bento
    from bentotool.cli.formats import count
    from bentotool.cli.state import current

    state = current()
    options = BuildOptions(
        file=file,
        name=name,
        version=version,
        labels=_labels(label or []),
        platform=platform,
        locked=locked,
        offline=offline,
        replace=replace,
        dry_run=dry_run,
        show_output=state.verbose > 0,
    )
    result = build_bento(
        directory, layout=state.layout, plugins=state.plugins, options=options, note=state.console.note
    )

    def show(built: BuildResult) -> None:
        plan = built.plan
        if dry_run:
            state.console.line(f"Would build {built.tag}")
        else:
            state.console.line(f"Built {built.tag}")
            state.console.line(built.digest)
        lock = "lock reused" if built.lock_reused else "locked now"
        parts = {"file": plan.files, "model": plan.models, "package": plan.lock.pins}
        facts = f"{', '.join(count(len(items), word) for word, items in parts.items())} ({lock})"
        state.console.note(f"{facts}, {sum(built.seconds.values()):.1f} s")
        for step, seconds in built.seconds.items():
            state.console.detail(f"  {step:<8} {seconds:6.2f} s")
        if dry_run:
            for item in plan.files:
                state.console.line(f"  file   {item.name}")
            for model in plan.models:
                state.console.line(f"  model  {model.alias} = {model.name}:{model.version}")
            for pin in plan.lock.pins:
                state.console.line(f"  needs  {pin}")
        else:
            state.console.note(f"Next: bentotool serve {built.tag}")

    document = {**result.to_dict(), **({"plan": result.plan.to_dict()} if dry_run else {})}
    state.console.result(document, lambda: show(result))


def _labels(pairs: list[str]) -> dict[str, str]:
    from bentotool.errors import UsageError

    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--label {pair[:80]!r} is not of the form KEY=VALUE", hint="--label team=search")
        labels[name] = value
    return labels
