"""What a deployment target is given, and what it gives back. Imports the standard library and errors only.

A target plans first: what it would make, as data that is printed, compared and judged. Only then it applies the plan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from bentotool.deployspec import DeployModel, DeployService, ImagePublisher
from bentotool.errors import UsageError
from bentotool.interfaces import JSON, _Declaration, _tuple_of

__all__ = [
    "DeployBento",
    "DeployOptions",
    "Deployment",
    "ImageArchive",
    "ImageMaker",
    "OptionSpec",
    "Plan",
    "PlannedResource",
    "Pruner",
    "Status",
    "Target",
    "TargetDecl",
]

OptionKind: TypeAlias = Literal["text", "integer", "number", "flag"]

Status: TypeAlias = Literal["ready", "starting", "unhealthy", "stopped", "missing", "unknown"]
"""``ready`` answers requests; ``missing``: there is nothing of it; ``unknown``: the target could not be asked."""

_OPTION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_KINDS = ("text", "integer", "number", "flag")
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class OptionSpec:
    """One option of a target: ``--NAME VALUE`` and ``--set NAME=VALUE``.

    Args:
        name: lower-case words joined by dashes.
        kind: ``text``, ``integer``, ``number`` or ``flag``.
        summary: one line for the help.
        default: the value where none is given; None: the target decides.
        choices: the only values, of a text.
        minimum, maximum: bounds of a number, both allowed.
        repeated: may be given several times; the value is a tuple.
        per_service: may be set for one Service of a graph too: ``--set SERVICE.NAME=VALUE``.
        metavar: what stands for the value in the help.
    """

    name: str
    kind: OptionKind
    summary: str
    default: JSON = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    repeated: bool = False
    metavar: str = ""
    per_service: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _OPTION.fullmatch(self.name):
            raise ValueError(f"option name {self.name!r} is not of the form {_OPTION.pattern}")
        if self.kind not in _KINDS:
            raise ValueError(f"kind {self.kind!r} of option {self.name!r} is not one of {', '.join(_KINDS)}")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"summary {self.summary!r} of option {self.name!r} is not one line of text")
        _tuple_of(str, self.choices, "choices")

    def parse(self, text: str) -> str | int | float | bool:
        """The value that a user wrote.

        Raises:
            UsageError: it is none of this option's.
        """
        if not text.isprintable():
            raise self._wrong(text, "text without control characters")
        if self.kind == "flag":
            if text.lower() not in _FLAGS:
                raise self._wrong(text, "true or false")
            return _FLAGS[text.lower()]
        if self.kind in ("integer", "number"):
            return self._number(text)
        if self.choices and text not in self.choices:
            raise self._wrong(text, f"one of {', '.join(self.choices)}")
        return text

    def _number(self, text: str) -> int | float:
        convert: Callable[[str], int | float] = int if self.kind == "integer" else float
        what = "a whole number" if self.kind == "integer" else "a number"
        try:
            value = convert(text)
        except ValueError:
            raise self._wrong(text, what) from None
        if not math.isfinite(value):
            raise self._wrong(text, what)
        if self.minimum is not None and value < self.minimum:
            raise self._wrong(text, f"at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise self._wrong(text, f"at most {self.maximum:g}")
        return value

    def _wrong(self, text: str, wanted: str) -> UsageError:
        value = self.metavar or "|".join(self.choices) or self.kind.upper()
        written = f"--{self.name} or --no-{self.name}" if self.kind == "flag" else f"--{self.name} {value}"
        return UsageError(f"{self.name} {text[:80]!r} is not {wanted}", hint=f"{written}: {self.summary}")


@dataclass(frozen=True)
class TargetDecl(_Declaration):
    """A place that Bentos are deployed to; ``target`` is a :class:`Target`, or a class of no arguments.

    Args:
        options: what it can be told.
    """

    options: tuple[OptionSpec, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _tuple_of(OptionSpec, self.options, "options")
        names = [option.name for option in self.options]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"options {', '.join(twice)} stand twice")


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
    """

    target: str
    bento: DeployBento
    options: DeployOptions
    resources: tuple[PlannedResource, ...]
    url: str = ""
    notes: tuple[str, ...] = ()
    blind: str = ""

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
