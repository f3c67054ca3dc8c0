"""From a Bento and options to Kubernetes objects: pure functions, which ask no cluster and read no clock.

:func:`objects` gives all of a deployment in the order in which they are to be applied. Equal input gives equal output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bentotool.deployspec import DeployService, PublishedImage
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.manifests.network import outside, outside_url, policies, service
from bentotool_k8s.manifests.scaling import budget, scaler
from bentotool_k8s.manifests.workloads import account, deployment
from bentotool_k8s.names import member_names, object_name
from bentotool_k8s.settings import settings_of

__all__ = ["PLAIN", "Object", "Shape", "group_of", "notes", "objects", "url_of"]

_CLIENT = "httpx"


def objects(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str = "") -> list[Object]:
    """All objects of a deployment.

    Args:
        options: with a value for each of the target's options.
        image: what its pods run.
        namespace: that they lie in; empty: none is written, and it is that of whoever applies them.

    Raises:
        UsageError: an option that cannot be, or that does not go with the Bento.
    """
    group = group_of(bento, options, image, namespace)
    made = [*account(group), *policies(group)]
    # those that are called come first: who calls them finds them
    for member in reversed(group.members):
        made += [service(group, member), deployment(group, member), *budget(group, member), *scaler(group, member)]
    return [*made, *outside(group)]


def url_of(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str = "") -> str:
    """Where the entry answers."""
    return outside_url(group_of(bento, options, image, namespace))


def group_of(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str = "") -> Group:
    """The members of a deployment: one for each Service of the graph that can be served alone."""
    services = bento.services or (DeployService(bento.service.rpartition(":")[2] or bento.name),)
    by_name = {each.name: each for each in services}
    entry = services[0]
    apart = {each.name for each in services if each is entry or (each.target and _callable(bento))}
    labels = member_names([each.name for each in services])
    members = [_member(bento, options, by_name, apart, name, labels) for name in by_name if name in apart]
    return Group(bento, options, image, namespace, members)


def _callable(bento: DeployBento) -> bool:
    """Whether services of the Bento can call one another over HTTP: that takes a client in its environment."""
    return not bento.packages or _CLIENT in bento.packages


def _member(
    bento: DeployBento, options: DeployOptions, services: dict[str, DeployService], apart: set[str], name: str,
    labels: dict[str, str],
) -> Member:  # fmt: skip
    found, entry = services[name], next(iter(services))
    inside = tuple(services[each] for each in _within(services, apart, name))
    called = {each for part in (found, *inside) for each in part.depends if each in apart}
    names = {each: object_name(options.name, "" if each == entry else labels[each]) for each in apart}
    return Member(
        service=found,
        settings=settings_of(found, options.of_service(name)),
        label=labels[name],
        name=names[name],
        calls=tuple(sorted(names[each] for each in called)),
        inside=inside,
        entry=name == entry,
        alone=len(apart) > 1,
    )


def _within(services: dict[str, DeployService], apart: set[str], name: str) -> Iterator[str]:
    """Services that run in the pods of another, since they have none of their own."""
    seen, queue = set[str](), [each for each in services[name].depends if each not in apart]
    while queue:
        current = queue.pop(0)
        if current not in seen:
            seen.add(current)
            yield current
            queue += [each for each in services[current].depends if each not in apart]


def notes(group: Group) -> list[str]:
    """What a person should know of what was made of the Bento."""
    found = []
    bento, names = group.bento, {each.service.name for each in group.members}
    together = [each for each in bento.services if each.name not in names]
    if together:
        why = f"the Bento lacks {_CLIENT}" if not _callable(bento) else "nothing can start them alone"
        found.append(f"{', '.join(each.name for each in together)}: in the pods of who calls them, since {why}")
    for member in group.members:
        service = member.service
        given = {*group.options.env, *(each.name for each in member.settings.secret_variables)}
        missing = [name for name, value in service.envs.items() if value is None and name not in given]
        if missing:
            found.append(f"{service.name} expects {', '.join(missing)}: --secret-env {missing[0]}=SECRET/KEY, or --env")
        kind = service.resources.get("gpu_type")
        if kind and not (member.settings.node_selector or member.settings.node_affinity):
            found.append(
                f"{service.name} asks for GPUs of type {kind}: say which nodes have them, with --node-selector"
            )
        if member.settings.values["scale-on"] == "requests" and not service.metrics:
            raise UsageError(f"{service.name} has no metrics to be scaled by", hint="--scale-on cpu")
    return found


_Making = Callable[[DeployBento, DeployOptions, PublishedImage, str], Sequence[Object]]


@dataclass(frozen=True)
class Shape:
    """What a target makes of a Bento.

    Args:
        target: its name.
        objects, notes, url: for a Bento, options, an image and a namespace; as those of this module.
        forms: in which files are written, and what each is.
    """

    target: str
    objects: _Making
    notes: Callable[[DeployBento, DeployOptions, PublishedImage, str], Sequence[str]]
    url: Callable[[DeployBento, DeployOptions, PublishedImage, str], str]
    forms: Mapping[str, str]


def _notes(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> list[str]:
    return notes(group_of(bento, options, image, namespace))


PLAIN = Shape(
    "k8s", objects, _notes, url_of,
    {
        "manifests": "One file for kubectl apply -f",
        "kustomize": "A Kustomize base, a file for each object",
        "helm": "A Helm chart",
    },
)  # fmt: skip
