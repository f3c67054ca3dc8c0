"""The target ``compose``: a graph of Services on one machine."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from bentotool.errors import AuthenticationError, ConflictError, NotFoundError, RemoteError, UsageError
from bentotool.interfaces import JSON
from bentotool.paths import default_store, write_atomic
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource
from bentotool_docker.compose.document import (
    BENTO,
    DIGEST,
    Group,
    as_text,
    compose_document,
    group_of,
    project_name,
    stop_seconds,
)
from bentotool_docker.compose.placing import FILE, Placing, PortError, claimed, take_away
from bentotool_docker.compose.program import Compose, find_compose
from bentotool_docker.compose.standing import (
    cpus_of,
    deployments,
    engine_takes_start_interval,
    look,
    published_port,
    state_of,
    url_of,
)
from bentotool_docker.engine import connect, engine_url, is_local
from bentotool_docker.facts import check_engine, engine_of, made_before, on_engine
from bentotool_docker.images import Image, ensure_image, find_image, image_of
from bentotool_docker.spec import free_port, where
from bentotool_docker.standing import http_url
from bentotool_docker.target import DockerTarget

__all__ = ["ComposeTarget"]

_NAME = "compose"
_PYTHON = "/opt/bentotool/env/bin/python"
_PATIENCE_S = 40
_TRIES = 3
_FIRST_FREE, _FREE = 20000, 12000


class ComposeTarget:
    """See :class:`bentotool.targetspec.Target`."""

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be written. Without an engine, as if nothing ran."""
        engine, given = engine_url(options.values["engine"]), options.values["image"]
        check_engine(options, engine)
        if given and bento.anew:
            raise UsageError(
                f"--image {given} runs as it is: --base and --builder say how the Bento's own is made",
                hint="leave --image out, or --base and --builder",
            )
        folder = _folder(options)
        try:
            with contextlib.closing(connect(engine)) as client:
                image = find_image(client, str(given)) if given else image_of(client, bento)
                if image is not None and bento.anew:
                    image = replace(image, reference=bento.tag)
                running = look(client, project_name(options.name))
                quick = engine_takes_start_interval(client)
                cpus = cpus_of(client)
                return _plan(bento, options, engine, folder, image, running, quick=quick, cpus=cpus)
        except RemoteError as error:
            if isinstance(error, AuthenticationError):
                raise
            return replace(_plan(bento, options, engine, folder, None, (), quick=True), blind=error.message)

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Make the image where it is missing, write the file, have compose bring it up."""
        options, values = plan.options, plan.options.values
        engine, folder = engine_url(values["engine"]), _folder(options)
        done: list[Deployment] = []
        compose = find_compose(engine if values["engine"] else "") if values["start"] else None
        with contextlib.closing(connect(engine, timeout=stop_seconds(values) + 600)) as client:
            image = _image(client, plan, engine)
            kept = _port(options, look(client, project_name(plan.name)))
            for left in reversed(range(1 if kept else _TRIES)):
                port = kept or _free_port(options)
                try:
                    with claimed(folder, plan.name):
                        self._place(client, compose, plan, image, port, wait, done)
                except PortError:  # somebody took it while the others started
                    if not left:
                        raise
                else:
                    break
        return done[0]

    def _place(
        self, client: docker.DockerClient, compose: Compose | None, plan: Plan, image: Image, port: int, wait: bool,
        done: list[Deployment],
    ) -> None:  # fmt: skip
        options, bento, values = plan.options, plan.bento, plan.options.values
        engine, folder, group = engine_url(values["engine"]), _folder(options), group_of(bento, options)
        quick, address = engine_takes_start_interval(client), where(values).rpartition(":")[0]
        cpus = cpus_of(client)
        document, trial = (
            compose_document(
                bento, options, image, group, local=is_local(engine), port=port, quick=quick, trial=beside, cpus=cpus
            )
            for beside in (False, True)
        )

        def commit() -> None:
            facts: dict[str, JSON] = {
                "engine": engine, "folder": str(folder), "image_name": image.reference, "image_id": image.id,
                "image_made": image.made or made_before(options, engine, image),
                "stop_seconds": stop_seconds(values), "services": list(group.members),
            }  # fmt: skip
            status: Any = "stopped" if compose is None else "ready" if wait else "starting"
            url = _shown(address, port)
            done.append(Deployment(plan.name, _NAME, status, url, bento.tag, bento.digest, facts=facts))
            options.committed(done[0])

        if compose is None:
            write_atomic(folder / FILE, as_text(document, plan.name).encode(), mode=0o600)
            options.note(f"wrote {folder / FILE}")
            commit()
        else:
            Placing(client, compose, plan, folder, document, trial, f"{address}:{port}").bring_up(
                wait=wait, commit=commit
            )

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        with contextlib.closing(connect(engine_of(deployment))) as client:
            found = look(client, project_name(deployment.name))
            return _described(deployment.name, found, deployment.facts, deployment)

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of all its containers, each with the name of its own."""
        engine = engine_of(deployment)
        with contextlib.closing(connect(engine)) as client:
            if not look(client, project_name(deployment.name)):
                hint = f"bentotool deployment show {deployment.name}"
                raise NotFoundError(f"there is no container of {deployment.name}", hint=hint)
        words = ["logs", "--no-color", "--tail", str(tail or "all"), *(["--follow"] if follow else [])]
        yield from find_compose(engine).lines(project_name(deployment.name), *words)

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove what carries its label, and the file."""
        seconds, folder = deployment.facts.get("stop_seconds"), deployment.facts.get("folder")
        patience = int(seconds) if isinstance(seconds, int) else _PATIENCE_S
        place = Path(folder) if isinstance(folder, str) else None
        with contextlib.closing(connect(engine_of(deployment), timeout=patience + 60)) as client:
            if place is None or not place.is_dir():
                return take_away(client, deployment.name, place, patience)
            with claimed(place, deployment.name):
                return take_away(client, deployment.name, place, patience)

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
            found = sorted(deployments(client).items())
            return [_described(name, containers, {"engine": engine}) for name, containers in found]

    def prune(self, past: Sequence[Deployment], kept: Sequence[Deployment], dry_run: bool) -> Sequence[str]:
        """Remove images that only revisions of the past needed, as the target ``docker`` does."""
        return DockerTarget().prune(past, kept, dry_run)


def _folder(options: DeployOptions) -> Path:
    """Where the file is.

    Raises:
        ConflictError: the deployment has one in another folder.
    """
    given, before = options.values["folder"], None
    if options.previous is not None and isinstance(options.previous.facts.get("folder"), str):
        before = Path(str(options.previous.facts["folder"]))
    folder = Path(str(given)).expanduser().absolute() if given else before
    if folder is None:
        return default_store() / "compose" / options.name
    if before is not None and folder != before:
        raise ConflictError(
            f"{options.name} is deployed from {before}, and {folder} is meant now",
            hint="leave --folder out, or choose another --name",
        )
    return folder


def _port(options: DeployOptions, running: Sequence[Container]) -> int:
    """The port to publish: as asked, or the one that is; 0 where a free one is to be found."""
    wanted = int(options.values["port"])
    address, port = published_port(running)
    return wanted or (port if address == where(options.values).rpartition(":")[0] else 0)


def _free_port(options: DeployOptions) -> int:
    """A free port below those that systems give to connections: the entry takes it only when the others are ready."""
    address = where(options.values).rpartition(":")[0]
    for _ in range(_TRIES * 10):
        port = _FIRST_FREE + secrets.randbelow(_FREE)
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe,
        ):
            probe.bind((address, port))
            return port
    return free_port(address)


def _shown(address: str, port: int) -> str:
    return http_url("127.0.0.1" if address in ("0.0.0.0", "::") else address, port)  # noqa: S104 - compared with


def _image(client: docker.DockerClient, plan: Plan, engine: str) -> Image:
    options = plan.options

    def making(ids: Sequence[str]) -> None:
        facts: dict[str, JSON] = {"engine": engine, "image_ids": list(ids), "image_made": True}
        bento = plan.bento
        options.making(Deployment(plan.name, _NAME, "unknown", "", bento.tag, bento.digest, facts=facts))

    return ensure_image(client, plan.bento, options.values["image"], str(options.values["pull"]), options.note, making)


def _plan(
    bento: DeployBento, options: DeployOptions, engine: str, folder: Path, image: Image | None,
    running: Sequence[Container], *, quick: bool, cpus: int = 0,
) -> Plan:  # fmt: skip
    image = image or Image(
        str(options.values["image"] or bento.tag), "", (_PYTHON,), (), str(options.values["user"] or ""), {}
    )
    group, port = group_of(bento, options), _port(options, running)
    document = compose_document(bento, options, image, group, local=is_local(engine), port=port, quick=quick, cpus=cpus)
    file = folder / FILE
    now = _written(file)
    resources = (PlannedResource("file", str(file), "create" if now is None else "replace", document, now),)
    url = _shown(where(options.values).rpartition(":")[0], port)
    return Plan(_NAME, bento, options, resources, url, _notes(bento, options, group))


def _written(file: Path) -> dict[str, JSON] | None:
    """The file that is there, as it was meant before it was written."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _plain(found) if isinstance(found, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _notes(bento: DeployBento, options: DeployOptions, group: Group) -> tuple[str, ...]:
    notes = []
    if group.together and not options.values["together"]:
        why = "the Bento has no httpx, over which they would be called" if bento.packages else "they have no name"
        notes.append(f"{', '.join(group.together)} run in the container of {group.entry}: {why}")
    lacking = {name for service in bento.services for name, value in service.envs.items() if value is None}
    if lacking := lacking - options.env.keys():
        notes.append(f"the service wants {', '.join(sorted(lacking))}: --env, or --env-file where it is a secret")
    return tuple(notes)


def _described(
    name: str, containers: Sequence[Container], facts: Mapping[str, JSON], recorded: Deployment | None = None
) -> Deployment:
    status, detail = state_of(containers)
    labels = containers[0].labels if containers else {}
    running = {"containers": sorted(str(each.name) for each in containers)}
    url = url_of(containers) or (recorded.url if recorded is not None else "")
    return Deployment(
        name, _NAME, status, url, str(labels.get(BENTO, "")), str(labels.get(DIGEST, "")), detail, {**facts, **running}
    )
