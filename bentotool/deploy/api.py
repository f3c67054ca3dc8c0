"""Deploying a Bento, and looking after what was deployed: whatever the target, in the same steps."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bentotool.deploy.leftovers import Leftovers
from bentotool.deploy.options import check_services
from bentotool.deploy.places import asked_target, found_by, moved, place_values, placed, same_deployment
from bentotool.deploy.records import Record, Records
from bentotool.errors import BentotoolError, ConflictError, NotFoundError, PluginError
from bentotool.oci.layout import Layout
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, Pruner, Target, TargetDecl

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = [
    "KEPT",
    "apply_plan",
    "check_policies",
    "delete_deployment",
    "find_deployment",
    "find_target",
    "list_deployments",
    "logs_of",
    "make_plan",
    "open_target",
    "prune_deployments",
    "pruned_targets",
    "status_of",
]

_SETTLED_S = 3600.0  # what another attempt made just now may be about to run
KEPT = 3
"""Revisions that stay as they are at the target, the current one counted; older ones are made again where needed."""


def find_target(plugins: Plugins, name: str) -> TargetDecl:
    """The declaration of a target.

    Raises:
        NotFoundError: no plugin declares it.
    """
    known = plugins.targets()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    others = (
        f"there is: {', '.join(sorted(known))}" if known else "targets come with plugins: pip install bentotool-NAME"
    )
    hint = f"did you mean {close[0]}?" if close else others
    raise NotFoundError(f"no plugin here deploys to {name[:60]!r}", hint=hint)


def open_target(plugins: Plugins, name: str) -> Target:
    """A target, imported and made.

    Raises:
        NotFoundError: no plugin declares it.
        PluginError: what its plugin gives is no target.
    """
    found = plugins.resolve(find_target(plugins, name))
    if not isinstance(found, Target):
        raise PluginError(f"target {name!r} of its plugin does not have the methods of a target")
    return found


def make_plan(layout: Layout, plugins: Plugins, target: str, bento: DeployBento, options: DeployOptions) -> Plan:
    """What deploying would do. Nothing is changed.

    Raises:
        ConflictError: the name stands for a deployment to another target.
        UsageError: a setting is for a Service that the Bento has not.
    """
    check_services(options.values, [service.name for service in bento.services])
    recorded = Records(layout).find(options.name)
    if recorded is not None and recorded.target != target:
        raise ConflictError(
            f"deployment {options.name} is one to {recorded.target}",
            hint=f"choose another --name, or: bentotool deployment delete {options.name}",
        )
    if recorded is not None:
        options = replace(options, previous=recorded.deployment)
    options = replace(options, left=tuple(Leftovers(layout).known(target)))
    return open_target(plugins, target).plan(bento, options)


def apply_plan(layout: Layout, plugins: Plugins, plan: Plan, *, wait: bool, reason: str = "") -> Record:
    """Do what a plan says, and note it down.

    Args:
        reason: what the record says on why.

    Raises:
        VerificationError: a policy refuses the Bento.
        BentotoolError: a plugin vetoes it, or the target says why it did not work; what ran before runs on.
    """
    check_policies(layout, plugins, plan)
    plugins.call("bentotool_before_deploy", target=plan.target, plan=plan)
    records = Records(layout)
    kept: list[Record] = []

    def keep(deployment: Deployment) -> None:
        if not kept:
            kept.append(records.keep(deployment, plan.options.values, plan.options.env, reason))

    committing = replace(plan, options=replace(plan.options, committed=keep, making=Leftovers(layout).note))
    deployment = open_target(plugins, plan.target).apply(committing, wait)
    keep(deployment)
    plugins.call("bentotool_after_deploy", target=plan.target, result=deployment)
    try:
        removed = prune_deployments(layout, plugins, plan.target, plan.name, older_s=_SETTLED_S) if wait else ()
        for what in removed:
            plan.options.progress(f"removed: {what}")
    except BentotoolError as error:  # it is deployed all the same
        plan.options.note(f"warning: what earlier revisions left is not cleared away: {error.message}")
    return kept[0]


def check_policies(layout: Layout, plugins: Plugins, plan: Plan, *, unbuilt: bool = False) -> None:
    """Hold the Bento against the policies in force, wherever its image comes from.

    Args:
        unbuilt: the Bento may not be there yet, as where a folder is only planned; nobody can judge it then.

    Raises:
        VerificationError: a policy refuses it.
    """
    from bentotool.build.bentos import BentoStore
    from bentotool.trust.enforcing import check_folder, check_stored_bento, in_force

    if not in_force():
        return

    def warn(text: str) -> None:
        plan.options.note(f"warning: {text}")

    if image := plan.options.values.get("image"):
        why = f"image {image} runs in its place, which no signature of the Bento covers"
        check_folder(plan.bento.tag, why=why, hint="leave --image out", note=warn)
    try:
        bento = BentoStore(layout).get(f"{plan.bento.name}@{plan.bento.digest}")
    except NotFoundError:  # a revision of the past, which the target still has
        if unbuilt:
            names = ", ".join(each.name for each in in_force())
            warn(f"policy {names} is in force, and judges {plan.bento.tag} once it is built and signed")
            return
        check_folder(plan.bento.tag, why="it is not in this store", hint="pull it again", note=warn)
        return
    check_stored_bento(layout, bento, plugins=plugins, note=warn)


def status_of(plugins: Plugins, deployment: Deployment) -> Deployment:
    """A deployment as it is now; ``unknown``, with the reason, where its target cannot be asked."""
    try:
        now = open_target(plugins, deployment.target).status(deployment)
    except BentotoolError as error:
        return replace(deployment, status="unknown", detail=error.message)
    if not now.detail and now.digest and deployment.digest and now.digest != deployment.digest:
        # deployed from another store, or by a command that was killed before it could note it down
        return replace(now, detail=f"{now.tag} runs, and {deployment.tag} is what was deployed from here")
    return now


def list_deployments(
    layout: Layout, plugins: Plugins, target: str | None = None, where: Sequence[str] = ()
) -> tuple[list[Deployment], Records]:
    """The recorded deployments as they are now; with ``target`` also what that one finds by itself.

    Args:
        where: values of the target's options that say where to look, ``NAME=VALUE``; only what is there is listed.

    Raises:
        UsageError: ``where`` says nothing that the target knows.
    """
    records = Records(layout)
    recorded = [record.deployment for record in records.list() if target is None or record.target == target]
    if target is None:
        if where:
            asked_target(None, None, where)
        found = [status_of(plugins, deployment) for deployment in recorded]
    else:
        opened, place = _looked_at(plugins, target, where)
        if place is not None:
            recorded = [moved(each, place) for each in recorded if placed(opened, target).is_at(each, place)]
        found = [status_of(plugins, deployment) for deployment in recorded]
        there = opened.list() if place is None else placed(opened, target).list_at(place)
        found += [each for each in there if not any(same_deployment(opened, known, each) for known in recorded)]
    return sorted(found, key=lambda deployment: deployment.name), records


def _looked_at(plugins: Plugins, target: str, where: Sequence[str]) -> tuple[Target, dict[str, Any] | None]:
    """A target, and the place that is meant; None where that is not said.

    Raises:
        UsageError: ``where`` says nothing that the target knows.
    """
    place = place_values(find_target(plugins, target), where) if where else None
    opened = open_target(plugins, target)
    if place is not None:
        placed(opened, target)
    return opened, place


def find_deployment(
    layout: Layout, plugins: Plugins, name: str, target: str | None = None, where: Sequence[str] = ()
) -> tuple[Record | None, Deployment]:
    """A deployment as it is now, and its record where it has one here.

    Args:
        where: as for :func:`list_deployments`.

    Raises:
        NotFoundError: it is not recorded; with ``target``, that has none of the name either.
        UsageError: ``where`` says nothing that the target knows.
    """
    recorded, deployment = _known(layout, plugins, name, target, where)
    return recorded, status_of(plugins, deployment) if recorded is not None else deployment


def _known(
    layout: Layout, plugins: Plugins, name: str, target: str | None, where: Sequence[str] = ()
) -> tuple[Record | None, Deployment]:
    """A deployment that is recorded, with its record, else one that the target finds."""
    recorded = Records(layout).find(name)
    if where:
        target = asked_target(target, recorded, where)
    if target is None:
        return (record := Records(layout).get(name)), record.deployment
    if recorded is not None and recorded.target == target and not where:
        return recorded, recorded.deployment
    opened, place = _looked_at(plugins, target, where)
    same = recorded is not None and recorded.target == target and place is not None
    if same and recorded and placed(opened, target).is_at(recorded.deployment, place or {}):
        return recorded, moved(recorded.deployment, place or {})
    found = found_by(opened, name, place)
    if found is not None:
        return None, found
    words = "".join(f" --{option} {value}" for option, _, value in (each.partition("=") for each in where))
    raise NotFoundError(
        f"{target} has no deployment {name!r}{' there' if where else ''}",
        hint=f"bentotool deployment list --target {target}{words}",
    )


def logs_of(
    layout: Layout, plugins: Plugins, name: str, *, follow: bool, tail: int, target: str | None = None,
    where: Sequence[str] = (),
) -> Iterator[str]:  # fmt: skip
    """Lines of a deployment's logs.

    Args:
        where: as for :func:`list_deployments`.

    Raises:
        NotFoundError: there is no such deployment.
        UsageError: ``where`` says nothing that the target knows.
    """
    _, deployment = _known(layout, plugins, name, target, where)
    return open_target(plugins, deployment.target).logs(deployment, follow, tail)


def delete_deployment(
    layout: Layout, plugins: Plugins, name: str, *, target: str | None = None, where: Sequence[str] = (),
    forget: bool = False,
) -> tuple[Deployment, Sequence[str]]:  # fmt: skip
    """Remove all that was made for a deployment, what only its revisions needed, then what is known of it.

    Args:
        where: as for :func:`list_deployments`. What is recorded of the name stays, if that one is elsewhere.
        forget: remove only what is known of it, as where its target is no more.

    Returns:
        It, and what was removed, in words.

    Raises:
        NotFoundError: there is no such deployment.
        UsageError: ``where`` says nothing that the target knows.
    """
    if forget:
        known = Records(layout).get(name).deployment
        Records(layout).forget(name)
        Leftovers(layout).forget(name)
        return known, [f"record of {name}"]
    left = _left_at(plugins, Leftovers(layout).known(target, name), where)
    try:
        record, deployment = _known(layout, plugins, name, target, where)
    except NotFoundError:
        if not left:  # of an attempt that came to nothing
            raise
        record, deployment = None, left[0]
    removed = open_target(plugins, deployment.target).delete(deployment)
    if record is None and Records(layout).find(name) is not None:  # what is recorded is another
        return deployment, removed
    if record is not None or left:
        removed = [*removed, *prune_deployments(layout, plugins, deployment.target, name, keep=0)]
        Records(layout).forget(name)
        Leftovers(layout).forget(name)
    return deployment, removed


def _left_at(plugins: Plugins, left: Sequence[Deployment], where: Sequence[str]) -> list[Deployment]:
    """Of what attempts left, that which is at a place."""
    if not where or not left:
        return list(left)
    opened, place = _looked_at(plugins, left[0].target, where)
    there = placed(opened, left[0].target)
    return [moved(each, place or {}) for each in left if there.is_at(each, place or {})]


def pruned_targets(layout: Layout, name: str | None = None) -> Sequence[str]:
    """The targets at which something may be left of a deployment, or of any.

    Raises:
        NotFoundError: nothing is known of the name.
    """
    records = Records(layout)
    found = {each.target for each in Leftovers(layout).known(name=name)}
    if name is None:
        found |= {each.target for each in records.list()}
    elif records.find(name) is not None or not found:
        found.add(records.get(name).target)
    return sorted(found)


def prune_deployments(
    layout: Layout, plugins: Plugins, target: str, name: str | None = None, *, keep: int = KEPT, dry_run: bool = False,
    older_s: float = 0.0,
) -> Sequence[str]:  # fmt: skip
    """Remove what revisions that nobody goes back to left at a target, such as images, and what attempts that came to
    nothing did.

    Args:
        name: of one deployment; None: all that are recorded for the target.
        keep: newest revisions of each that stay as they are, the current one counted; 0: it goes too.
        older_s: what was made within so many seconds stays, where no revision of the past needed it.

    Returns:
        What was removed, in words; nothing where the target has nothing of that kind.
    """
    pruner = open_target(plugins, target)
    if not isinstance(pruner, Pruner):
        return []
    past: list[Deployment] = []
    kept: list[Deployment] = []
    for record in Records(layout).list():
        if record.target == target:
            revisions = [each.deployment for each in record.revisions]
            bound = keep if name in (None, record.name) else len(revisions)
            kept += revisions[:bound]
            past += revisions[bound:]
    past += Leftovers(layout).known(target, name, older_s=older_s)
    return pruner.prune(past, kept, dry_run)
