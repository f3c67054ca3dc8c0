"""The target ``k8s``: objects in one namespace of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from bentotool.deployspec import PublishedImage
from bentotool.errors import ConflictError, NotFoundError, RemoteError, UsageError
from bentotool.interfaces import JSON
from bentotool.targetoptions import planned_image, published_image
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, Plan, PlannedResource
from bentotool_k8s.cluster.api import Api, Object, kind_of, name_of
from bentotool_k8s.cluster.applying import Request, bring_up, check
from bentotool_k8s.cluster.changes import as_asked_for, same
from bentotool_k8s.cluster.connection import Connection, connect
from bentotool_k8s.cluster.logs import follow_logs, read_logs
from bentotool_k8s.cluster.marks import anchor_name, find_anchor, marked
from bentotool_k8s.cluster.removing import found_of, remove_all
from bentotool_k8s.cluster.standing import Standing, all_standing, look
from bentotool_k8s.manifests import PLAIN, Shape
from bentotool_k8s.output import files_of

__all__ = ["KubernetesTarget"]


class KubernetesTarget:
    """See :class:`bentotool.targetspec.Target`."""

    shape: Shape = PLAIN
    """Which objects are made of a Bento."""

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be made. Without a cluster, as if nothing ran."""
        image, note = planned_image(bento, options.values, lean=_lean(options))
        told = (note,) if note else ()
        try:
            connection = _connected(options.values)
        except (RemoteError, UsageError) as error:
            unset = isinstance(error, UsageError)
            if unset and any(options.values.get(each) for each in ("kubeconfig", "context")):
                raise  # it was said which cluster is meant
            plan = _plan(self.shape, bento, options, image, str(options.values["namespace"] or ""), None)
            return replace(plan, notes=(*told, *plan.notes), blind=error.message, unset=unset)
        with closing(connection):
            _check_place(options, connection)
            try:
                plan = _plan(self.shape, bento, options, image, connection.namespace, Api(connection))
            except RemoteError as error:
                plan = _plan(self.shape, bento, options, image, connection.namespace, None)
                plan = replace(plan, blind=error.message)
        return replace(plan, notes=(*told, *plan.notes))

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Push the image where it has to be, apply the objects, wait until they are ready."""
        options, bento = plan.options, plan.bento
        with closing(_connected(options.values)) as connection:
            _check_place(options, connection)
            api = Api(connection)
            image = published_image(bento, options.values, lean=_lean(options))
            facts: dict[str, JSON] = {**_place(connection, options.values), "image": image.reference}
            url = self.shape.url(bento, options, image, connection.namespace)
            done = Deployment(
                plan.name, self.shape.target, "ready" if wait else "starting", url, bento.tag, bento.digest, facts=facts
            )
            options.making(replace(done, status="unknown"))
            request = _request(self.shape, bento, options, image, connection.namespace, url)
            bring_up(api, replace(request, wait=wait, committed=lambda: options.committed(done)))
            return replace(done, url=look(api, plan.name).url or url) if wait else done

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        with closing(_of(deployment)) as connection:
            return _described(self.shape, look(Api(connection), deployment.name), deployment.facts)

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of all its pods, each after the pod's name where there are several."""
        with closing(_of(deployment)) as connection:
            read = follow_logs if follow else read_logs
            yield from read(Api(connection), deployment.name, tail)

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove what carries its labels and was applied by us."""
        with closing(_of(deployment)) as connection:
            return remove_all(Api(connection), deployment.name)

    def list(self) -> Sequence[Deployment]:
        """The deployments in the namespace of the current context."""
        return self.list_at({})

    def list_at(self, place: Mapping[str, Any]) -> Sequence[Deployment]:
        """The deployments in a namespace of a cluster."""
        with closing(_connected(place)) as connection:
            facts = _place(connection, place)
            return [_described(self.shape, each, facts) for each in all_standing(Api(connection), self.shape.target)]

    def is_at(self, deployment: Deployment, place: Mapping[str, Any]) -> bool:
        """Whether a deployment is on the very cluster of a context, and in the namespace if one is named."""
        facts, namespace = deployment.facts, place.get("namespace")
        if namespace and namespace != facts.get("namespace"):
            return False
        if place.get("server"):  # the facts of another
            return bool(place["server"] == facts.get("server"))
        if not (place.get("context") or place.get("kubeconfig")):
            return True
        with closing(_connected({**facts, **{name: value for name, value in place.items() if value}})) as connection:
            return connection.server == facts.get("server")

    def forms(self) -> Mapping[str, str]:
        """What it can write, for other tools."""
        return self.shape.forms

    def write(self, plan: Plan, form: str, publish: bool) -> Mapping[str, str]:
        """The files of a form; see :class:`bentotool.deployspec.Writer`."""
        return files_of(self.shape, plan, form, publish)


def _connected(values: Mapping[str, Any]) -> Connection:
    return connect(
        *(str(values[each]) if values.get(each) else None for each in ("kubeconfig", "context", "namespace"))
    )


def _place(connection: Connection, values: Mapping[str, Any]) -> dict[str, JSON]:
    """What finds the deployment again."""
    given = {"kubeconfig": str(values["kubeconfig"])} if values.get("kubeconfig") else {}
    return {
        "context": connection.context, "namespace": connection.namespace, "server": connection.server, **given
    }  # fmt: skip


def _of(deployment: Deployment) -> Connection:
    """The cluster that a deployment is on.

    Raises:
        UsageError: its context is no more, or leads to another by now.
        RemoteError: it is not to be had.
    """
    connection = _connected(deployment.facts)
    server = deployment.facts.get("server")
    if isinstance(server, str) and server != connection.server:
        connection.close()
        raise UsageError(
            f"{deployment.name} is on the cluster at {server}, and context {connection.context} leads to "
            f"{connection.server} now",
            hint="--context or --kubeconfig says how to get there; "
            f"where it is no more: bentotool deployment delete {deployment.name} --forget",
        )
    return connection


def _check_place(options: DeployOptions, connection: Connection) -> None:
    """Leave nothing behind in another namespace or cluster.

    Raises:
        ConflictError: the deployment is one there.
    """
    facts = options.previous.facts if options.previous is not None else {}
    server, namespace = facts.get("server", connection.server), facts.get("namespace", connection.namespace)
    if (server, namespace) != (connection.server, connection.namespace):
        raise ConflictError(
            f"{options.name} is deployed in namespace {namespace} of {server}, and {connection.namespace} of "
            f"{connection.server} is meant now",
            hint=f"--context {facts.get('context')} --namespace {namespace} updates it there; "
            "another --name makes one here",
        )


def _lean(options: DeployOptions) -> bool:
    return bool(options.values.get("models") == "volume")


def _request(
    shape: Shape, bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str, url: str
) -> Request:
    return Request(
        options.name, bento.tag, bento.digest, url, tuple(shape.objects(bento, options, image, namespace)),
        target=shape.target, force=bool(options.values.get("force-conflicts")),
        timeout_s=float(options.values["timeout"]), note=options.note, progress=options.progress,
    )  # fmt: skip


def _plan(
    shape: Shape, bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str, api: Api | None
) -> Plan:
    """The plan, compared with what stands there where there is a cluster to ask."""
    url = shape.url(bento, options, image, namespace)
    request = _request(shape, bento, options, image, namespace, url)
    told = tuple(shape.notes(bento, options, image, namespace))
    if api is None:
        resources = [_planned(marked(each, options.name), None, None) for each in request.objects]
    else:
        resources = _compared(api, request)
    return Plan(shape.target, bento, options, tuple(resources), url, told)


def _compared(api: Api, request: Request) -> list[PlannedResource]:
    try:
        found = check(api, replace(request, force=True))  # a conflict is shown as a difference, and told when applying
    except NotFoundError as error:
        raise RemoteError(error.message, hint=error.hint) from None
    resources = [_planned(item, live, then) for item, live, then in found]
    planned = {(*kind_of(item), name_of(item)) for item, _, _ in found}
    anchor, there = find_anchor(api, request.name)
    if there is None:
        return resources
    gone = [
        each for each in found_of(api, request.name, anchor.kinds) if (*kind_of(each), name_of(each)) not in planned
    ]
    return [*resources, *(PlannedResource(str(each["kind"]), name_of(each), "delete") for each in gone)]


def _planned(item: Object, live: Object | None, then: Object | None) -> PlannedResource:
    kind, name = str(item["kind"]), name_of(item)
    if live is None or then is None:
        return PlannedResource(kind, name, "create", item)
    now = as_asked_for(live, item, then)
    return PlannedResource(kind, name, "keep" if same(live, then) else "replace", item, now)


def _described(shape: Shape, standing: Standing, facts: Mapping[str, JSON]) -> Deployment:
    more: dict[str, JSON] = {"anchor": anchor_name(standing.name), "parts": list(standing.parts)}
    return Deployment(
        standing.name, shape.target, standing.status, standing.url, standing.tag, standing.digest, standing.detail,
        {**facts, **more},
    )  # fmt: skip
