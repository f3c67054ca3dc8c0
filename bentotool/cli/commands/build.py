"""``bentotool build``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.formats import count, shown_argument
from bentotool.cli.registries import talks_to_registry
from bentotool.cli.signing import named_signer, sign_built, signs

if TYPE_CHECKING:
    from bentotool.build.result import BuildOptions, BuildResult
    from bentotool.cli.state import State

_SHOWN = 40


@signs
@talks_to_registry
def build(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Project folder.", show_default=False)] = Path(),
    *,
    file: Annotated[str | None, typer.Option("-f", "--file", metavar="FILE", help="Configuration file in DIR.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the Bento; default: the project's or service's.")] = None,
    version: Annotated[str | None, typer.Option(help="Version; default: made from the content.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label; may be repeated.")] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Template argument; may be repeated.")
    ] = None,
    arg_file: Annotated[
        str | None, typer.Option("--arg-file", metavar="FILE", help="YAML or JSON file of template arguments.")
    ] = None,
    platform: Annotated[str | None, typer.Option(help="linux/amd64 or linux/arm64.")] = None,
    locked: Annotated[bool, typer.Option("--locked", help="Fail when bento.lock is missing or out of date.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use cached packages and find_links only.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace other content under the same version.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what changed since the last build.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Build twice in two ways and compare.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Use nothing that earlier builds left.")] = False,
    no_sbom: Annotated[bool, typer.Option("--no-sbom", help="Attach no bill of materials.")] = False,
    no_provenance: Annotated[bool, typer.Option("--no-provenance", help="Attach no provenance.")] = False,
    sign: Annotated[bool, typer.Option("--sign", help="Sign it, its models, SBOMs and provenance.")] = False,
    push: Annotated[str | None, typer.Option(metavar="REMOTE", help="Push it to HOST[:PORT]/REPOSITORY[:TAG].")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to an OCI archive too.")] = None,
) -> None:
    """Build a Bento from a project."""
    from bentotool.build.api import BuildOptions
    from bentotool.build.arguments import parse_pairs
    from bentotool.cli.building import build_project
    from bentotool.cli.delivery import check_delivery, deliver
    from bentotool.cli.state import current

    state = current()
    options = BuildOptions(
        file=file, name=name, version=version, labels=_labels(label or []), platform=platform,
        args=parse_pairs(arg or []), arg_file=arg_file,
        locked=locked, offline=offline, replace=replace, dry_run=dry_run, explain=explain, fresh=no_cache,
        show_output=state.verbose > 0,
    )  # fmt: skip
    check_delivery(push, output, sign=sign, builds=not (dry_run or check))
    signer = named_signer(state) if sign else None
    if check:
        _check(state, directory, options)
        return
    result, attached = build_project(state, directory, options, sbom=not no_sbom, provenance=not no_provenance)
    document, show = _outcome(state, result, attached, plan=dry_run)
    deliver(state, document, sign_built(state, document, signer, show) if sign else show, push, output)


def _outcome(
    state: State, result: BuildResult, attached: list[dict[str, str]] | None, *, plan: bool
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The result as JSON, and what tells a person of it."""
    document = {**result.to_dict(), **({"plan": result.plan.to_dict()} if plan and result.plan else {})}
    if attached is not None:
        document["attached"] = attached
    return document, lambda: _show(state, result)


def _show(state: State, built: BuildResult) -> None:
    console, dry_run = state.console, not built.digest
    console.line(f"{'Would build' if dry_run else 'Built'} {built.tag}")
    if not dry_run:
        console.line(built.digest)
    lock = "nothing changed" if built.cached.get("build") else "lock reused" if built.lock_reused else "locked now"
    parts = {"file": built.files, "model": len(built.models), "package": built.packages}
    facts = f"{', '.join(count(number, word) for word, number in parts.items())} ({lock})"
    console.note(f"{facts}, {sum(built.seconds.values()):.1f} s")
    if built.explained is not None:
        _show_explained(state, built.explained)
    else:
        for step, seconds in built.seconds.items():
            console.detail(f"  {step:<8} {seconds:6.2f} s")
    if dry_run and built.plan is not None:
        for item in built.plan.files:
            console.line(f"  file   {item.name}")
        for argument in built.plan.arguments:
            console.line(f"  arg    {argument['name']} = {shown_argument(argument)}")
        for model in built.plan.models:
            console.line(f"  model  {model.alias} = {model.name}:{model.version}")
        for pin in built.plan.lock.pins:
            console.line(f"  needs  {pin}")
    elif not dry_run:
        console.note(f"Next: bentotool serve {built.tag}")


def _show_explained(state: State, explained: Mapping[str, Any]) -> None:
    console, since, changes = state.console, explained["since"], explained["changes"]
    if since is None:
        console.line("no earlier build of this name is known here")
    else:
        console.line(f"since {since['tag']}: {count(len(changes), 'change')}")
    for change in changes[:_SHOWN]:
        values = " -> ".join(value for value in (change.get("before"), change.get("after")) if value)
        console.line(f"  {change['input']:<12} {change['change']:<8} {change['name']}{values and '  ' + values}")
    if len(changes) > _SHOWN:
        console.line(f"  and {len(changes) - _SHOWN} more; --json has them all")
    for step in explained["steps"]:
        because = f" ({step['because']})" if step.get("because") else ""
        read = f", {count(step['read'], 'file')} read" if step.get("read") else ""
        console.line(f"  {step['step']:<8} {step['seconds']:6.2f} s  {step.get('cache', '')}{because}{read}".rstrip())


def _check(state: State, directory: Path, options: BuildOptions) -> None:
    """Build twice in two ways; leave with status 1 where the results differ."""
    from bentotool.build.checking import check_build

    checked = check_build(directory, layout=state.layout, plugins=state.plugins, options=options)

    def show() -> None:
        state.console.line(f"Equal: {checked.tag}, built in two ways")
        state.console.line(checked.digests[0])

    if not checked.equal:
        from bentotool.errors import BuildError

        raise BuildError(
            f"{checked.tag}: two builds of the same project differ: {'; '.join(checked.differences[:5])}",
            hint="look at what the service reads when it is imported: time, place, environment, chance",
            details=checked.to_dict(),
        )
    state.console.result(checked.to_dict(), show)


def _labels(pairs: list[str]) -> dict[str, str]:
    from bentotool.errors import UsageError

    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--label {pair[:80]!r} is not of the form KEY=VALUE", hint="--label team=search")
        labels[name] = value
    return labels
