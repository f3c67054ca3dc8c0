"""``bentotool deployment list``, ``show``, ``logs`` and ``delete``."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from bentotool.cli.console import printable
from bentotool.cli.formats import human_time
from bentotool.cli.names import DeploymentName, target_names
from bentotool.cli.state import current
from bentotool.cli.targets import place_params

Target = Annotated[
    str | None,
    typer.Option(
        metavar="TARGET", help="Ask this target, also for what is not recorded here.", autocompletion=target_names
    ),
]


def list_deployments(target: Target = None) -> None:
    """List the deployments and how they are"""
    from bentotool.deploy.api import list_deployments as every

    state = current()
    found, records = every(state.layout, state.plugins, target, state.options.target)
    for path in records.damaged:
        state.console.note(f"warning: {path} is damaged and left out")

    def human() -> None:
        if not found:
            here = "no deployments yet; make one with: bentotool deploy TARGET"
            state.console.note(here if target is None else f"no deployments of {target} there")
            return
        rows = [(each.name, each.target, each.status, each.tag, each.url) for each in found]
        state.console.table(("name", "target", "status", "bento", "url"), rows)
        for each in found:
            if each.detail:
                state.console.note(f"{each.name}: {each.detail}")

    state.console.result([each.to_dict() for each in found], human)


def show_deployment(name: DeploymentName, target: Target = None) -> None:
    """Show one deployment: how it is, and what was deployed before"""
    from bentotool.deploy.api import find_deployment

    state = current()
    record, now = find_deployment(state.layout, state.plugins, name, target, state.options.target)
    revisions = record.revisions if record is not None else ()
    options = dict(revisions[0].options) if revisions else {}
    env = dict(revisions[0].env) if revisions else {}
    history: list[dict[str, Any]] = [
        {
            "revision": each.number,
            "created": each.created,
            "tag": each.deployment.tag,
            "digest": each.deployment.digest,
            "reason": each.reason,
        }
        for each in revisions
    ]
    document = {
        **now.to_dict(), "revision": revisions[0].number if revisions else None,
        "created": revisions[0].created if revisions else "", "options": options, "env": env, "history": history,
    }  # fmt: skip

    def human() -> None:
        facts = {
            "name": name, "target": now.target, "status": now.status, "detail": now.detail, "url": now.url,
            "bento": now.tag, "digest": now.digest,
            "deployed": human_time(revisions[0].created) if revisions else "not from this store",
        }  # fmt: skip
        state.console.fields(facts)
        for key, value in options.items():
            if value is not None and value not in ("", (), []):  # 0 and false are values like others
                state.console.line(f"  option {key}={str(value).lower() if isinstance(value, bool) else value}")
        for key, value in env.items():
            state.console.line(f"  env    {key}={value}")
        for each in history[1:]:
            state.console.line(f"  before {each['tag']}  {human_time(each['created'])}")

    state.console.result(document, human)


def logs_deployment(
    name: DeploymentName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is still to come.")] = False,
    tail: Annotated[int, typer.Option(min=0, metavar="N", help="The last N lines; 0 for all.")] = 100,
    target: Target = None,
) -> None:
    """Print the logs of a deployment"""
    from bentotool.deploy.api import logs_of

    state = current()
    where = state.options.target
    for line in logs_of(state.layout, state.plugins, name, follow=follow, tail=tail, target=target, where=where):
        sys.stdout.write((json.dumps({"line": line}) if state.json else printable(line)) + "\n")
        if follow:
            sys.stdout.flush()


def delete_deployment(
    name: DeploymentName,
    target: Target = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove only the record, where the target is gone for good.")
    ] = False,
) -> None:
    """Stop a deployment and remove all that was made for it"""
    from bentotool.deploy.api import delete_deployment as delete
    from bentotool.errors import UsageError

    state = current()
    if not yes and not state.json and sys.stdin.isatty():
        typer.confirm(f"Delete deployment {name}?", abort=True, err=True)
    where = state.options.target
    if forget and (target is not None or where):
        said = "--target" if target is not None else f"--{where[0].partition('=')[0]}"
        raise UsageError("--forget asks no target", hint=f"leave {said} out")
    deployment, removed = delete(state.layout, state.plugins, name, target=target, where=where, forget=forget)
    status = "forgotten" if forget else "deleted"
    document = {"name": name, "target": deployment.target, "status": status, "removed": list(removed)}

    def human() -> None:
        state.console.line(f"{status.capitalize()} {name}")
        for what in removed:
            state.console.note(f"  {what}")

    state.console.result(document, human)


list_deployments.more_params = place_params  # type: ignore[attr-defined]
show_deployment.more_params = place_params  # type: ignore[attr-defined]
logs_deployment.more_params = place_params  # type: ignore[attr-defined]
delete_deployment.more_params = place_params  # type: ignore[attr-defined]
