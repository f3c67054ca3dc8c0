"""What a deployment target is given, and what it gives back. Imports the standard library and errors only.

A target plans first: what it would make, as data that is printed, compared and judged. Only then it applies the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from bentotool.deployspec import DeployModel, DeployService, ImagePublisher
from bentotool.interfaces import JSON, _Declaration, _tuple_of
from bentotool.optionspec import OptionKind, OptionSpec

__all__ = [
    "DeployBento",
    "DeployOptions",
    "Deployment",
    "ImageArchive",
    "ImageMaker",
    "OptionKind",
    "OptionSpec",
    "Placed",
    "Plan",
    "PlannedResource",
    "Pruner",
    "Status",
    "Target",
    "TargetDecl",
]

Status: TypeAlias = Literal["ready", "starting", "unhealthy", "stopped", "missing", "unknown"]
"""``ready`` answers requests; ``missing``: there is nothing of it; ``unknown``: the target could not be asked."""


@dataclass(frozen=True)
class TargetDecl(_Declaration):
    """A place that Bentos are deployed to; ``target`` is a :class:`Target`, or a class of no arguments.

    Args:
        options: what it can be told; the help has them in this order.
        variables: environment variables that it sets itself, with the option that says what is in it, or nothing.
            ``--env`` refuses them before anything is built.
    """

    options: tuple[OptionSpec, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _tuple_of(OptionSpec, self.options, "options")
        names = [option.name for option in self.options]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"options {', '.join(twice)} stand twice")
        needed = {need.partition("=")[0] for option in self.options for need in option.needs}
        if unknown := sorted({*needed, *filter(None, self.variables.values())} - set(names)):
            raise ValueError(f"options {', '.join(unknown)} are named, and are none of {self.name}")


@dataclass(frozen=True)
class ImageArchive:
    """An image of the store as the archive that ``docker load`` takes.

    Args:
        layers: digests of its uncompressed layers (``diff_ids`` of the OCI image configuration), from the bottom up.
        pieces: its bytes from the start, in pieces, each time it is called; without the blobs of the layers that are
            named, for a reader that has those. A damaged blob is a
            :class:`~bentotool.errors.VerificationError` in between.
        ids: what an engine may call it once it has it: the digests of its configuration and of its manifest.
    """

    layers: tuple[str, ...]
    pieces: Callable[[Collection[str]], Generator[bytes, None, None]]
    ids: tuple[str, ...] = ()


ImageMaker: TypeAlias = Callable[[str], ImageArchive]
"""Makes the image of a Bento for a platform, such as ``linux/amd64``."""


@dataclass(frozen=True)
class DeployBento:
    """What is deployed.

    Args:
        name, version, digest, service: of the Bento.
        python: ``X.Y``.
        platform: that its lock was made for.
        make_image: gives the image ``name:version`` for a platform; builds it where the store has none.
        anew: the user said how the image is to be made (its base, its builder): what ``make_image`` gives is what
            runs, whatever image of the Bento the target has.
        services: of its graph, the entry first; none where the Bento does not tell, and runs as one.
        models: those it needs, each once.
        packages: names of the packages in its lock, as the index has them.
        registry: brings it to a registry.
    """

    name: str
    version: str
    digest: str
    service: str = ""
    python: str = ""
    platform: str = ""
    make_image: ImageMaker | None = None
    anew: bool = False
    services: tuple[DeployService, ...] = ()
    models: tuple[DeployModel, ...] = ()
    packages: frozenset[str] = frozenset()
    registry: ImagePublisher | None = None

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class DeployOptions:
    """What the user said.

    Args:
        name: of the deployment.
        values: one for each option that the target declares, defaults filled in; and ``SERVICE.NAME`` where one was
            set for a Service alone. :meth:`of_service` has those of one.
        env: environment variables of the service. They are no secrets: they are shown and kept.
        note: told one line for people.
        progress: told one line that replaces the one before.
        previous: what is recorded under this name, where something is; a target may refuse to leave it behind.
        committed: may be told the outcome as soon as the new version is what counts, before the old one is cleared
            away. It is recorded then, whatever happens to the clearing.
        making: may be told, as a deployment with the facts that find it again, of what is about to be made and stays
            where the attempt fails or is killed, such as an image. A :class:`Pruner` is given it among the past.
        left: what earlier attempts at the target told of in that way, of whatever name.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None
    progress: Callable[[str], None] = lambda text: None
    previous: Deployment | None = None
    committed: Callable[[Deployment], None] = lambda deployment: None
    making: Callable[[Deployment], None] = lambda deployment: None
    left: tuple[Deployment, ...] = ()

    def of_service(self, service: str) -> dict[str, Any]:
        """The values that hold for one Service: those of all, and over them its own."""
        split = [(name.rpartition("."), value) for name, value in self.values.items()]
        return {name: value for wanted in ("", service) for (of, _, name), value in split if of == wanted}


@dataclass(frozen=True)
class PlannedResource:
    """One thing of a plan.

    Args:
        action: ``create``, ``replace``, ``keep`` or ``delete``.
        spec: what it will be, as the target's own interface takes it; never with a secret.
        now: what stands in its place, in the form of ``spec`` and with those of its keys that matter; None where
            nothing does, or that is not known. Differences are shown between the two.
        replaces: name of the one whose place it takes, where that has another name; the plan deletes that one too.
    """

    kind: str
    name: str
    action: Literal["create", "replace", "keep", "delete"]
    spec: Mapping[str, JSON] = field(default_factory=dict)
    now: Mapping[str, JSON] | None = None
    replaces: str = ""

    def to_dict(self) -> dict[str, Any]:
        place = {"replaces": self.replaces} if self.replaces else {}
        return {"kind": self.kind, "name": self.name, "action": self.action, **place, "spec": dict(self.spec)}


@dataclass(frozen=True)
class Plan:
    """What a target would do.

    Args:
        target: its name.
        url: where the service will answer, as far as that is known.
        resources: in the order in which they are made.
        notes: what a person should know before it is applied.
        blind: why the target could not look at what runs, where it could not; the plan is then as if nothing did.
        unset: it could not since nothing here says where to look: a user's to mend, and no failure of the other side.
    """

    target: str
    bento: DeployBento
    options: DeployOptions
    resources: tuple[PlannedResource, ...]
    url: str = ""
    notes: tuple[str, ...] = ()
    blind: str = ""
    unset: bool = False

    @property
    def name(self) -> str:
        return self.options.name

    def to_dict(self) -> dict[str, Any]:
        """The plan as a document; what ``deploy --dry-run --json`` prints."""
        return {
            "name": self.name, "target": self.target, "status": "planned", "url": self.url, "tag": self.bento.tag,
            "digest": self.bento.digest, "resources": [resource.to_dict() for resource in self.resources],
            "notes": [*([self.blind] if self.blind else []), *self.notes],
        }  # fmt: skip


@dataclass(frozen=True)
class Deployment:
    """A deployment as its target sees it, or as it was recorded.

    Args:
        tag, digest: of the Bento.
        detail: one line on the status, where there is something to say.
        facts: what else the target knows (image, containers, …). One that is named as an option is what that option
            came to where it was left out: it is used when the deployment is repeated or taken back.
    """

    name: str
    target: str
    status: Status
    url: str
    tag: str = ""
    digest: str = ""
    detail: str = ""
    facts: Mapping[str, JSON] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**vars(self), "facts": dict(self.facts)}


@runtime_checkable
class Target(Protocol):
    """Runs Bentos somewhere.

    When:
        The target of a :class:`TargetDecl`, made once in a process that deploys, or looks after deployments.

    Arguments:
        ``bento`` and ``options`` as the user named them; ``deployment`` as recorded, or listed by :meth:`list`.

    Return:
        See the methods. A place that cannot be reached or refuses is a :class:`~bentotool.errors.BentotoolError` of
        one line with a next step; what ran before goes on running.

    Example::

        class Attic:
            def plan(self, bento, options):
                box = PlannedResource("box", options.name, "create", {"bento": bento.tag})
                return Plan("attic", bento, options, (box,), url="http://attic.example")

            def apply(self, plan, wait):
                carry_upstairs(plan)
                return Deployment(plan.name, "attic", "ready", plan.url, plan.bento.tag, plan.bento.digest)

            def status(self, deployment):
                return deployment

            def logs(self, deployment, follow, tail):
                yield "it is quiet up there"

            def delete(self, deployment):
                return ["box " + deployment.name]

            def list(self):
                return []
    """

    def plan(self, bento: DeployBento, options: DeployOptions) -> Plan:
        """What would be made; looks at what runs, and changes nothing."""
        ...

    def apply(self, plan: Plan, wait: bool) -> Deployment:
        """Make it so. With ``wait``, come back when it answers requests; a failure leaves what ran before running."""
        ...

    def status(self, deployment: Deployment) -> Deployment:
        """How it is now."""
        ...

    def logs(self, deployment: Deployment, follow: bool, tail: int) -> Iterator[str]:
        """Lines of its logs, the last ``tail`` (0: all); with ``follow`` also those to come."""
        ...

    def delete(self, deployment: Deployment) -> Sequence[str]:
        """Remove all that was made for it and nothing else; what was removed, in words. Nothing there is no error."""
        ...

    def list(self) -> Sequence[Deployment]:
        """The deployments that the target itself finds, whoever made them."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A :class:`Target` with deployments in several places, such as clusters: what is at one is looked after from any
    machine.

    When:
        ``bentotool deployment list``, ``show``, ``logs`` and ``delete`` with one of the target's options that are a
        ``place``.

    Arguments:
        ``place``: the values of those options, None where one is left out. ``deployment`` as it was recorded.

    Return:
        ``list_at``: the deployments there, whoever made them; their facts find them again. ``is_at``: whether a
        deployment is there: as far as ``place`` says, and in the very same cluster, account or engine.

    Example::

        class Attic:
            def list_at(self, place):
                house = place["house"] or "mine"
                return [Deployment(box, "attic", "ready", "", facts={"house": house}) for box in boxes_of(house)]

            def is_at(self, deployment, place):
                return place["house"] in (None, deployment.facts["house"])
    """

    def list_at(self, place: Mapping[str, Any]) -> Sequence[Deployment]:
        """The deployments at a place."""
        ...

    def is_at(self, deployment: Deployment, place: Mapping[str, Any]) -> bool:
        """Whether a deployment is at a place."""
        ...


@runtime_checkable
class Pruner(Protocol):
    """A :class:`Target` that can also clear away what earlier revisions left, such as images.

    When:
        After a deployment, for ``bentotool deployment prune``, and when a deployment was deleted.

    Arguments:
        ``past``: revisions that nobody goes back to, and what attempts made (see ``making`` of
        :class:`DeployOptions`), also ones that ``kept`` came of. ``kept``: those that are gone back to, of every
        deployment recorded for the target. ``dry_run``: say what would go, and remove nothing.

    Return:
        What was removed, in words. What ``kept`` needs, what is in use, and what others gave a name stays.

    Example::

        class Attic:
            def prune(self, past, kept, dry_run):
                empty = {each.facts["box"] for each in past} - {each.facts["box"] for each in kept}
                return [f"box {box}" for box in sorted(empty)]
    """

    def prune(self, past: Sequence[Deployment], kept: Sequence[Deployment], dry_run: bool) -> Sequence[str]:
        """Remove what only ``past`` needed."""
        ...
