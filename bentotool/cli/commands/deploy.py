"""``bentotool deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.state import State, current
from bentotool.cli.targets import describe_targets, image_maker, target_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from bentotool.deploy.records import Record
    from bentotool.targetspec import DeployBento, Plan

__all__ = ["deploy"]


def deploy(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where to: the name of a plugin's target.")],
    bento: Annotated[
        str, typer.Argument(metavar="[BENTO_OR_FOLDER]", help="NAME[:VERSION], or a folder, which is built first.")
    ] = ".",
    *,
    name: Annotated[str | None, typer.Option(help="Name of the deployment; default: the Bento's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the target; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Environment variable of the service, no secret; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be made, and change nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers requests.")] = True,
    base: Annotated[str | None, typer.Option(metavar="IMAGE", help="Base of an image that has to be built.")] = None,
    builder: Annotated[str | None, typer.Option(metavar="oci|buildkit", help="Builder of the image.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network to build.")] = False,
) -> None:
    """Deploy a Bento and wait until it answers"""
    from bentotool.deploy.api import apply_plan, find_target, make_plan
    from bentotool.deploy.options import check_deployment_name, environment, option_values, usual_name
    from bentotool.targetspec import DeployOptions

    state = current()
    decl = find_target(state.plugins, target)
    values = option_values(decl, [*(set_ or ()), *state.options.target])
    variables = environment(env or ())
    chosen = check_deployment_name(name) if name is not None else None
    subject = _subject(state, bento, dry_run, lambda found: image_maker(
        state, found, base=base, builder=builder, offline=offline))  # fmt: skip
    options = DeployOptions(
        chosen or usual_name(subject.name), values, variables, state.console.note, state.console.detail
    )
    plan = make_plan(state.layout, state.plugins, target, subject, options)
    for note in plan.notes:
        state.console.note(note)
    if dry_run:
        state.console.result(plan.to_dict(), lambda: _show_plan(state, plan))
        return
    record = apply_plan(state.layout, state.plugins, plan, wait=wait)
    document = {**record.deployment.to_dict(), "revision": record.current.number}
    state.console.result(document, lambda: _show(state, record))


deploy.more_params = target_params  # type: ignore[attr-defined]
deploy.more_help = describe_targets  # type: ignore[attr-defined]


def _subject(state: State, text: str, dry_run: bool, maker: Callable[..., Callable[[str, Path], Path]]) -> DeployBento:
    """The Bento that is meant: one of the store, or that of a folder, built now."""
    from bentotool.build.bentos import BentoStore
    from bentotool.targetspec import DeployBento

    reference = text
    if Path(text).is_dir():
        from bentotool.build.api import BuildOptions, build_bento

        built = build_bento(
            Path(text), layout=state.layout, plugins=state.plugins, options=BuildOptions(dry_run=dry_run),
            note=state.console.note,
        )  # fmt: skip
        if dry_run:
            return DeployBento(built.name, built.version, built.digest)
        state.console.note(f"built {built.tag}")
        reference = built.tag
    found = BentoStore(state.layout).get(reference)
    return DeployBento(
        found.name, found.version, found.digest, found.service, found.python, found.platform, make_image=maker(found)
    )


def _show_plan(state: State, plan: Plan) -> None:
    """As YAML, which a person reads and a file compares."""
    import json

    import yaml

    document = json.loads(json.dumps(plan.to_dict()))  # a value that stands twice is written twice, not as an alias
    state.console.line(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())


def _show(state: State, record: Record) -> None:
    done = record.deployment
    state.console.line(f"Deployed {done.name} to {done.target}: {done.tag} is {done.status}")
    state.console.line(done.url)
    state.console.note(f"Next: bentotool deployment logs {done.name}")
