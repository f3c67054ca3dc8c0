"""The target ``cloudrun``: a service of Cloud Run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bentotool.errors import ConflictError, NotFoundError, RemoteError
from bentotool.interfaces import JSON
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource, Status
from bentotool_cloudrun.account import Place, place_of
from bentotool_cloudrun.api import CloudRun, Refusal, connect
from bentotool_cloudrun.explain import failed_condition, one_line, refusal
from bentotool_cloudrun.images import planned_image, published_image
from bentotool_cloudrun.logs import lines
from bentotool_cloudrun.manifest import BENTO, DIGEST, LABEL, as_asked_for, check_name, service_body
from bentotool_cloudrun.rollout import Rollout, short

__all__ = ["CloudRunTarget"]

_NAME = "cloudrun"
_DELETED_S, _DELETED_EVERY_S = 120, 1.0


class CloudRunTarget:
    """See :class:`bentotool.targetspec.Target`."""

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be made. Without credentials or network, as if nothing ran."""
        name = check_name(options.name)
        image, still = planned_image(bento, options.values)
        body = service_body(bento, options, image)
        blind, standing, place = "", None, None
        recorded = options.previous.facts if options.previous is not None else None
        try:
            client = connect(options.values, recorded)
            place = client.place
            _check_place(options, place)
            standing = _standing(client, name)
        except RemoteError as error:  # also AuthenticationError: whoever may not look may still print
            blind = error.message
            place = place or place_of(options.values, recorded)
            _check_place(options, place)
        full = f"{place.path}/services/{name}"
        if standing is None:
            resource = PlannedResource("service", full, "create", body)
        else:
            now = as_asked_for(standing, body)
            resource = PlannedResource("service", full, "keep" if now == body else "replace", body, now)
        url = str((standing or {}).get("uri") or "")
        return Plan(
            _NAME, bento, options, (resource,), url, (*([still] if still else []), *_notes(bento, options)), blind
        )

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Push the image where it is missing, bring the version up, then give it the requests."""
        options, values = plan.options, plan.options.values
        recorded = options.previous.facts if options.previous is not None else None
        client = connect(values, recorded)
        client.told = options.progress
        _check_place(options, client.place)
        standing = _standing(client, plan.name)  # what would be refused anyway is refused before anything is pushed
        image = published_image(plan.bento, values)
        body = service_body(plan.bento, options, image)
        done: list[Deployment] = []

        def commit(service: Mapping[str, Any]) -> None:
            facts: dict[str, JSON] = {
                "project": client.place.project, "region": client.place.region, "image": image,
                "service": plan.name, "service_revision": short(service.get("latestCreatedRevision")),
            }  # fmt: skip
            status: Status = "ready" if wait else "starting"
            detail = "" if values["traffic"] else "the new revision gets no requests"
            url = str(service.get("uri") or "")
            done.append(Deployment(
                plan.name, _NAME, status, url, plan.bento.tag, plan.bento.digest, detail, facts
            ))  # fmt: skip
            options.committed(done[-1])

        rollout = Rollout(
            client, plan.name, body, image, float(values["timeout"]), options.progress, options.note,
            bool(values["traffic"]), str(values["revision-tag"] or ""),
        )  # fmt: skip
        if standing is None:
            place = {"project": client.place.project, "region": client.place.region}
            options.making(Deployment(plan.name, _NAME, "unknown", "", plan.bento.tag, plan.bento.digest, facts=place))
            service = rollout.create(wait=wait, committed=commit)
        else:
            service = rollout.update(standing, wait=wait, committed=commit)
        _tell_url(service, rollout.tag, options)
        return done[-1]

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        client = connect({}, deployment.facts)
        with _told(client, f"look at {deployment.name}"):
            service = client.service(deployment.name)
        if service is None:
            return replace(deployment, status="missing", detail=f"there is no service {deployment.name}")
        return _described(service, client.place, deployment.facts)

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of all its revisions, from Cloud Logging."""
        client = connect({}, deployment.facts)
        with _told(client, f"read the logs of {deployment.name}"):
            if client.service(deployment.name) is None:
                raise NotFoundError(
                    f"there is no service {deployment.name} in {client.place.region} of {client.place.project}",
                    hint=f"bentotool deployment show {deployment.name}",
                )
            yield from lines(client, deployment.name, follow=follow, tail=tail)

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove the service, and with it its revisions. Images stay in their registry."""
        client = connect({}, deployment.facts)
        with _told(client, f"delete {deployment.name}"):
            service = client.service(deployment.name)
            if service is None:
                return []
            _check_ours(service, deployment.name)
            client.delete(deployment.name, str(service.get("etag", "")))
            waited = 0.0
            while client.service(deployment.name) is not None:
                if waited >= _DELETED_S:
                    raise RemoteError(
                        f"{deployment.name} is still there after {_DELETED_S} s", hint="give the command again"
                    )
                client.pause(_DELETED_EVERY_S)
                waited += _DELETED_EVERY_S
        return [f"service {deployment.name} ({client.place.region} of {client.place.project})"]

    def list(self) -> Sequence[Deployment]:
        """The deployments in the place that the environment names."""
        return self.list_at({})

    def is_at(self, deployment: Deployment, place: Mapping[str, Any]) -> bool:
        """Whether a deployment is in a project and region, as far as they are named."""
        return all(place.get(name) in (None, "", deployment.facts.get(name)) for name in ("project", "region"))

    def list_at(self, place: Mapping[str, Any]) -> Sequence[Deployment]:
        """The deployments in a project and region."""
        client = connect(place)
        with _told(client, "list deployments"):
            return [
                _described(each, client.place, {"project": client.place.project, "region": client.place.region})
                for each in client.services()
                if (each.get("labels") or {}).get(LABEL) == short(each.get("name"))
            ]


@contextlib.contextmanager
def _told(client: CloudRun, doing: str) -> Iterator[None]:
    try:
        yield
    except Refusal as error:
        raise refusal(error, doing, client.place) from None


def _standing(client: CloudRun, name: str) -> dict[str, Any] | None:
    """The service that the deployment updates, if there is one.

    Raises:
        ConflictError: it is somebody else's.
    """
    with _told(client, f"look at {name}"):
        service = client.service(name)
    if service is not None:
        _check_ours(service, name)
    return service


def _check_ours(service: Mapping[str, Any], name: str) -> None:
    if (service.get("labels") or {}).get(LABEL) != name:
        raise ConflictError(
            f"there is a service {name} that is not of this deployment", hint="choose another --name, or --region"
        )


def _check_place(options: DeployOptions, place: Place) -> None:
    """Leave nothing behind elsewhere.

    Raises:
        ConflictError: the deployment is one in another project or region.
    """
    facts = options.previous.facts if options.previous is not None else {}
    if "project" in facts and (facts["project"], facts["region"]) != (place.project, place.region):
        raise ConflictError(
            f"{options.name} is deployed in {facts['region']} of {facts['project']}, "
            f"and {place.region} of {place.project} is meant now",
            hint=f"--project {facts['project']} --region {facts['region']} updates it; another --name makes one here",
        )


def _notes(bento: DeployBento, options: DeployOptions) -> tuple[str, ...]:
    notes = []
    if len(bento.services) > 1:
        names = ", ".join(each.name for each in bento.services)
        notes.append(f"each instance runs all services of the graph: {names}")
    if options.values["allow-unauthenticated"]:
        notes.append("anybody who knows its address may call it")
    secret = {pair.partition("=")[0] for pair in options.values["secret"]}
    wanted = {name for each in bento.services for name, value in each.envs.items() if value is None}
    if lacking := sorted(wanted - secret - options.env.keys()):
        notes.append(f"{', '.join(lacking)}: declared by the service and not given: --env or --secret NAME=…")
    return tuple(notes)


def _tell_url(service: Mapping[str, Any], tag: str, options: DeployOptions) -> None:
    for each in service.get("trafficStatuses") or ():
        if tag and each.get("tag") == tag and each.get("uri"):
            options.note(f"the new revision answers at {each['uri']}, too")


def _described(service: Mapping[str, Any], place: Place, facts: Mapping[str, JSON]) -> Deployment:
    notes = service.get("annotations") or {}
    state = (service.get("terminalCondition") or {}).get("state")
    why = one_line(str(failed_condition(service).get("message") or ""))
    status: Status
    if state == "CONDITION_SUCCEEDED":
        status, why = "ready", ""
    elif service.get("latestReadyRevision"):
        status = "ready"
        why = f"{short(service.get('latestCreatedRevision'))} is not ready: {why}" if why else "an update is under way"
    else:
        status = "unhealthy" if state == "CONDITION_FAILED" else "starting"
    found: dict[str, JSON] = {**facts, "service_revision": short(service.get("latestReadyRevision"))}
    return Deployment(
        short(service.get("name")), _NAME, status, str(service.get("uri") or ""), str(notes.get(BENTO, "")),
        str(notes.get(DIGEST, "")), why, found,
    )  # fmt: skip
