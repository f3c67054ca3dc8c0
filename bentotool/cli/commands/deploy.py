"""``bentotool deploy``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.deploying import carry_out, write_out
from bentotool.cli.names import bentos_and_folders, deployment_names, target_names
from bentotool.cli.state import State, current
from bentotool.cli.targets import describe_targets, of_stored, target_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bentotool.build.bentos import StoredBento
    from bentotool.targetspec import DeployBento

__all__ = ["deploy"]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Option of the target; of one Service: SERVICE.NAME=VALUE. May be repeated.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Environment variable of the service, no secret; may be repeated."),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="[FORM:]DIR",
        help="Write it as files for other tools, and apply nothing; with --dry-run, push nothing.",
    ),
]
Base = Annotated[str | None, typer.Option(metavar="IMAGE", help="Base image; the image is then made for it.")]
Builder = Annotated[str | None, typer.Option(metavar="oci|buildkit", help="Make the image, by this builder.")]
Diff = Annotated[bool, typer.Option("--diff", help="Print what it would change of what runs, and change nothing.")]
Verify = Annotated[bool, typer.Option("--verify", help="Servers check every byte of the Bento when they start.")]


def deploy(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="Where to: the name of a plugin's target.", autocompletion=target_names),
    ],
    bento: Annotated[
        str,
        typer.Argument(
            metavar="[BENTO_OR_FOLDER]",
            help="NAME[:VERSION], or a folder, which is built first.",
            autocompletion=bentos_and_folders,
        ),
    ] = ".",
    *,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the deployment; default: the Bento's.", autocompletion=deployment_names),
    ] = None,
    set_: Settings = None,
    env: Variables = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be made, and change nothing.")] = False,
    diff: Diff = False,
    output: Output = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers requests.")] = True,
    base: Base = None,
    builder: Builder = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network to build.")] = False,
    verify: Verify = False,
) -> None:
    """Deploy a Bento and wait until it answers"""
    from bentotool.deploy.api import find_target, make_plan
    from bentotool.deploy.options import check_deployment_name, environment, option_values, usual_name
    from bentotool.deploy.written import check_output
    from bentotool.targetspec import DeployOptions

    state = current()
    decl = find_target(state.plugins, target)
    values = option_values(decl, [*(set_ or ()), *state.options.target])
    variables = environment(env or (), decl)
    chosen = check_deployment_name(name) if name is not None else None
    written = check_output(state.plugins, target, output) if output is not None else None
    stored = partial(of_stored, state, base=base, builder=builder, offline=offline, verify=verify)
    subject = _subject(state, bento, stored, dry_run=dry_run or diff, offline=offline)
    deployed = chosen or usual_name(subject.name)
    plan = make_plan(state.layout, state.plugins, target, subject, DeployOptions(deployed, values, variables))
    unbuilt = (dry_run or diff) and Path(bento).is_dir()
    if written is not None:
        write_out(state, plan, *written, publish=not dry_run, unbuilt=unbuilt)
        return
    _tell_changes(state, deployed, values, variables)
    carry_out(state, plan, dry_run=dry_run, diff=diff, wait=wait, unbuilt=unbuilt)


deploy.more_params = target_params  # type: ignore[attr-defined]
deploy.more_help = describe_targets  # type: ignore[attr-defined]


def _tell_changes(state: State, name: str, values: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """What of an update's options is not as it was: who left one out may not know that it is back at its default."""
    from bentotool.deploy.earlier import changed_settings
    from bentotool.deploy.records import Records

    record = Records(state.layout).find(name)
    for line in changed_settings(record.current, values, env) if record is not None else ():
        state.console.note(line)


def _subject(
    state: State, text: str, stored: Callable[[StoredBento], DeployBento], *, dry_run: bool, offline: bool
) -> DeployBento:
    """The Bento that is meant: one of the store, or that of a folder, built now."""
    from bentotool.build.bentos import BentoStore
    from bentotool.errors import NotFoundError
    from bentotool.targetspec import DeployBento

    reference = text
    if Path(text).is_dir():
        from bentotool.build.api import BuildOptions
        from bentotool.cli.building import build_project
        from bentotool.cli.publishing import volume_views
        from bentotool.deploy.graph import planned_bento

        built, _ = build_project(state, Path(text), BuildOptions(dry_run=dry_run, offline=offline))
        if dry_run and not any(each.ref == built.tag for each in BentoStore(state.layout).list(built.name)):
            if built.plan is None:  # nothing has changed since it was built, and it was removed
                return DeployBento(built.name, built.version, built.digest)
            views = volume_views(state, [(model.name, model.digest) for model in built.plan.models])
            return planned_bento(built.plan, built.digest, views)
        if not dry_run:
            state.console.note(f"built {built.tag}")
        reference = built.tag
    elif text.startswith((".", "/", "~")) or text.endswith(("/", os.sep)):  # no name starts or ends so
        raise NotFoundError(f"no folder {text}", hint="name a folder with a project, or a Bento: bentotool list")
    return stored(BentoStore(state.layout).get(reference))
