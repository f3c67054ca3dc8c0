"""The target ``docker``: containers on one engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import docker
from docker.models.containers import Container

from bentotool.errors import AuthenticationError, NotFoundError, RemoteError, UsageError
from bentotool.interfaces import JSON
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource
from bentotool_docker.engine import connect, engine_url, is_local
from bentotool_docker.facts import check_engine, engine_of, image_ids, made_before, on_engine
from bentotool_docker.images import Image, ensure_image, find_image, image_of, remove_image, unused_images
from bentotool_docker.inspected import as_asked_for
from bentotool_docker.logs import followed_lines, lines
from bentotool_docker.spec import (
    BENTO,
    DIGEST,
    SOCKET,
    container_name,
    door_body,
    door_name,
    stop_seconds,
    version_body,
    volume_body,
    volume_name,
    where,
)
from bentotool_docker.standing import Standing, deployments, http_url, look, revision_of, state_of, url_of
from bentotool_docker.update import bring_up, take_away, usable_door

__all__ = ["DockerTarget"]

_NAME = "docker"
_PATIENCE_S = 40
_PYTHON = "/opt/bentotool/env/bin/python"


class DockerTarget:
    """See :class:`bentotool.targetspec.Target`."""

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be made. Without an engine, as if nothing ran."""
        engine = engine_url(options.values["engine"])
        check_engine(options, engine)
        given = options.values["image"]
        if given and bento.anew:
            raise UsageError(
                f"--image {given} runs as it is: --base and --builder say how the Bento's own is made",
                hint="leave --image out, or --base and --builder",
            )
        try:
            with contextlib.closing(connect(engine)) as client:
                image = find_image(client, str(given)) if given else image_of(client, bento)
                if image is not None and bento.anew:
                    image = replace(image, reference=bento.tag)
                return self._plan(bento, options, engine, look(client, options.name), client, image)
        except RemoteError as error:
            if isinstance(error, AuthenticationError):
                raise
            plan = self._plan(bento, options, engine, Standing(options.name), None, None)
            return replace(plan, blind=error.message)

    def _plan(
        self, bento: DeployBento, options: DeployOptions, engine: str, standing: Standing,
        client: docker.DockerClient | None, image: Image | None,
    ) -> Plan:  # fmt: skip
        image = image or Image(
            str(options.values["image"] or bento.tag), "", (_PYTHON,), (), str(options.values["user"] or ""), {}
        )
        door = usable_door(standing, options.values)
        resources: list[PlannedResource] = []
        if door is None:
            number = max((revision_of(each) for each in standing.doors), default=0) + 1
            body = door_body(bento, options, image, number)
            resources += [
                PlannedResource("volume", volume_name(options.name), "create", volume_body(options)),
                PlannedResource("container", door_name(options.name, number), "create", body),
            ]
            socket = body["Labels"][SOCKET]
        else:
            resources.append(PlannedResource("container", str(door.name), "keep"))
            socket = door.labels[SOCKET]
        revision = standing.newest + 1
        spec = version_body(bento, options, image, revision, socket, local=is_local(engine))
        name = container_name(options.name, revision)
        if client is not None and standing.running:
            old = standing.running[0]
            now = as_asked_for(client, old, spec)
            resources.append(PlannedResource("container", name, "replace", spec, now, replaces=str(old.name)))
        else:
            resources.append(PlannedResource("container", name, "create", spec))
        ending = (*standing.versions, *(each for each in standing.doors if door is None or each.id != door.id))
        resources += [PlannedResource("container", str(each.name), "delete") for each in ending]
        address, _, port = where(options.values).rpartition(":")
        url = url_of(door, engine) if door is not None else http_url(address, port)
        return Plan(_NAME, bento, options, tuple(resources), url)

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Make the image where it is missing, start the version, switch, let the old one end."""
        engine = engine_url(plan.options.values["engine"])
        values, note = plan.options.values, plan.options.note
        done: list[Deployment] = []
        with contextlib.closing(connect(engine, timeout=stop_seconds(values) + 600)) as client:

            def making(ids: Sequence[str]) -> None:
                facts: dict[str, JSON] = {"engine": engine, "image_ids": list(ids), "image_made": True}
                plan.options.making(
                    Deployment(plan.name, _NAME, "unknown", "", plan.bento.tag, plan.bento.digest, facts=facts)
                )

            image = ensure_image(client, plan.bento, values["image"], str(values["pull"]), note, making)

            def commit(version: Container, door: Container) -> None:
                door.reload()
                facts: dict[str, JSON] = {
                    "engine": engine, "image_name": image.reference, "image_id": image.id,
                    "container": str(version.name),
                    "image_made": image.made or made_before(plan.options, engine, image),
                    "stop_seconds": stop_seconds(values),
                }  # fmt: skip
                done.append(Deployment(
                    plan.name, _NAME, "ready" if wait else "starting", url_of(door, engine), plan.bento.tag,
                    plan.bento.digest, facts=facts,
                ))  # fmt: skip
                plan.options.committed(done[0])

            bring_up(client, engine, plan, image, wait=wait, commit=commit)
        return done[0]

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        engine = engine_of(deployment)
        with contextlib.closing(connect(engine)) as client:
            return _described(look(client, deployment.name), engine, deployment.facts)

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of the newest version. With ``follow``, also when it is started again, and of the next one."""
        with contextlib.closing(connect(engine_of(deployment))) as client:
            shown: set[str] = set()
            while True:
                versions = look(client, deployment.name).versions
                newest = next((each for each in versions if str(each.id) not in shown), None)
                if newest is None:
                    break
                shown |= {str(each.id) for each in versions}
                if not follow:
                    yield from lines(newest, tail)
                    break
                yield from followed_lines(newest, tail)
                tail = 0  # all that the next one has said so far comes after this
        if not shown:
            hint = f"bentotool deployment show {deployment.name}"
            raise NotFoundError(f"there is no container of {deployment.name}", hint=hint)

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove what carries its label."""
        seconds = deployment.facts.get("stop_seconds")
        patience = int(seconds) if isinstance(seconds, int) else _PATIENCE_S
        with contextlib.closing(connect(engine_of(deployment), timeout=patience + 60)) as client:
            return take_away(client, deployment.name, patience)

    def list(self) -> Sequence[Deployment]:
        """The deployments on the engine that is meant now."""
        return self.list_at({})

    def is_at(self, deployment: Deployment, place: Mapping[str, Any]) -> bool:
        """Whether a deployment is on an engine."""
        return on_engine(deployment, place.get("engine"))

    def list_at(self, place: Mapping[str, Any]) -> Sequence[Deployment]:
        """The deployments on an engine."""
        engine = engine_url(place.get("engine"))
        with contextlib.closing(connect(engine)) as client:
            return [_described(standing, engine, {"engine": engine}) for standing in deployments(client)]

    def prune(self, past: Sequence[Deployment], kept: Sequence[Deployment], dry_run: bool) -> Sequence[str]:
        """Remove images that were made for revisions of the past or by attempts, and that nothing and nobody uses."""
        removed: list[str] = []
        needed = {each.facts.get("image_id") for each in kept}
        for engine in sorted({engine_of(each) for each in past}):
            made = {
                identity: each.tag
                for each in past
                if each.facts.get("image_made") and engine_of(each) == engine
                for identity in image_ids(each)
                if identity not in needed
            }
            with contextlib.closing(connect(engine)) as client:
                for identity, name in unused_images(client, made).items() if made else ():
                    if not dry_run and not remove_image(client, name):
                        continue
                    removed.append(f"image {made[identity]} ({identity.removeprefix('sha256:')[:12]})")
        return removed


def _described(standing: Standing, engine: str, facts: Any) -> Deployment:
    status, detail = state_of(standing)
    first = standing.running[:1] or standing.versions[:1]
    labels = first[0].labels if first else {}
    running = {"containers": [str(each.name) for each in (*standing.doors, *standing.versions)]}
    return Deployment(
        standing.name, _NAME, status, url_of(standing.door, engine), str(labels.get(BENTO, "")),
        str(labels.get(DIGEST, "")), detail, {**facts, **running},
    )  # fmt: skip
