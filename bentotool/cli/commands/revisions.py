"""``bentotool deployment history``, ``diff``, ``rollback`` and ``prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.deploying import carry_out
from bentotool.cli.formats import human_time
from bentotool.cli.names import DeploymentName, deployment_names
from bentotool.cli.state import State, current
from bentotool.cli.targets import deployed_again, place_params, placed_registry_params, show_differences

if TYPE_CHECKING:
    from bentotool.deploy.records import Revision
    from bentotool.targetspec import DeployBento, Plan

__all__ = ["diff_deployment", "history_deployment", "prune_deployments", "rollback_deployment"]

Base = Annotated[str | None, typer.Option(metavar="IMAGE", help="Base image; the image is then made for it.")]
Builder = Annotated[str | None, typer.Option(metavar="oci|buildkit", help="Make the image, by this builder.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use no network to build.")]


def history_deployment(name: DeploymentName) -> None:
    """List what was deployed under a name"""
    from bentotool.deploy.earlier import changed_settings
    from bentotool.deploy.records import Records

    state = current()
    records = Records(state.layout)
    record = records.get(name)
    for path in records.damaged:
        state.console.note(f"warning: {path} is damaged and left out")
    rows: list[dict[str, Any]] = []
    for index, each in enumerate(record.revisions):
        before = record.revisions[index + 1] if index + 1 < len(record.revisions) else None
        bento, _, version = each.deployment.tag.partition(":")
        rows.append({
            "revision": each.number, "current": index == 0, "created": each.created, "name": bento, "version": version,
            "tag": each.deployment.tag, "digest": each.deployment.digest, "reason": each.reason,
            "options": dict(each.options), "env": dict(each.env),
            "changes": changed_settings(before, each.options, each.env) if before else [],
        })  # fmt: skip

    def human() -> None:
        cells = [
            (each["revision"], human_time(each["created"]), each["tag"],
             "; ".join(filter(None, [each["reason"], *each["changes"]])))
            for each in rows
        ]  # fmt: skip
        state.console.table(("revision", "deployed", "bento", "what"), cells)

    state.console.result(rows, human)


def _plan_of(
    state: State, name: str, revision: Revision, *, base: str | None, builder: str | None, offline: bool
) -> Plan:
    """What deploying a revision again would do."""
    from bentotool.deploy.api import find_target, make_plan
    from bentotool.deploy.earlier import repeated_options
    from bentotool.deploy.places import place_values
    from bentotool.targetspec import DeployOptions

    target = revision.deployment.target
    decl = find_target(state.plugins, target)
    said = place_values(decl, state.options.target)
    values = {**repeated_options(decl, revision), **{each: said[each] for each in said if said[each] is not None}}
    bento = deployed_again(state, revision, base=base, builder=builder, offline=offline)
    options = DeployOptions(name, _own_image(revision, values, bento), revision.env)
    return make_plan(state.layout, state.plugins, target, bento, options)


def _own_image(revision: Revision, values: dict[str, Any], bento: DeployBento) -> dict[str, Any]:
    """The values for a revision whose image is pushed again, where it is to be made anew, or where a policy asks whose
    it is: it was the Bento's own, but by the name in a registry alone nobody can tell.
    """
    from bentotool.trust.enforcing import in_force

    pinned = revision.deployment.facts.get("image")
    named = revision.options.get("image") or not isinstance(pinned, str) or "@" not in pinned
    if named or bento.registry is None or not (bento.anew or in_force()):
        return values
    where = str(pinned).partition("@")[0].removesuffix(f"/{bento.name}")
    return {**values, "image": None, "registry": values.get("registry") or where}


def diff_deployment(
    name: DeploymentName,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with status 1 when something differs.")] = False,
) -> None:
    """Show where what runs is not what was deployed"""
    from bentotool.deploy.records import Records

    state = current()
    record = Records(state.layout).get(name)
    plan = _plan_of(state, name, record.current, base=None, builder=None, offline=True)
    if show_differences(state, plan) and exit_code:
        raise typer.Exit(1)


diff_deployment.more_params = place_params  # type: ignore[attr-defined]


def rollback_deployment(
    name: DeploymentName,
    to: Annotated[int | None, typer.Option(metavar="REVISION", min=1, help="Default: the one before.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be made, and change nothing.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print what it would change of what runs, and change nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers requests.")] = True,
    base: Base = None,
    builder: Builder = None,
    offline: Offline = False,
) -> None:
    """Deploy an earlier revision again, as it was"""
    from bentotool.deploy.earlier import revision_before
    from bentotool.deploy.records import Records

    state = current()
    record = Records(state.layout).get(name)
    revision = revision_before(record) if to is None else record.revision(to)
    plan = _plan_of(state, name, revision, base=base, builder=builder, offline=offline)
    if not (dry_run or diff):
        state.console.note(f"back to revision {revision.number}: {revision.deployment.tag}")
    carry_out(state, plan, dry_run=dry_run, diff=diff, wait=wait, reason=f"rollback to {revision.number}")


rollback_deployment.more_params = placed_registry_params  # type: ignore[attr-defined]


def prune_deployments(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Of this deployment alone.", autocompletion=deployment_names)
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="Newest revisions that keep theirs, the current one counted.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go, and remove nothing.")] = False,
) -> None:
    """Remove images and the like that only old revisions needed"""
    from bentotool.deploy.api import prune_deployments as prune
    from bentotool.deploy.api import pruned_targets

    state = current()
    targets = pruned_targets(state.layout, name)
    removed = [
        what for each in targets for what in prune(state.layout, state.plugins, each, name, keep=keep, dry_run=dry_run)
    ]

    def human() -> None:
        for what in removed:
            state.console.line(what)
        if not removed:
            state.console.note("nothing that only old revisions needed")

    state.console.result({"removed": removed, "dry_run": dry_run}, human)
