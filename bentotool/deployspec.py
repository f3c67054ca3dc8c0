"""What a deployment target is told of a Bento: the services of its graph, its models, and its image in a registry.

Imports the standard library and errors only, as :mod:`bentotool.targetspec`, which names these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bentotool.interfaces import JSON

if TYPE_CHECKING:
    from bentotool.targetspec import Plan

__all__ = ["DeployModel", "DeployService", "ImagePublisher", "PublishedImage", "Writer"]


@dataclass(frozen=True)
class DeployService:
    """One Service of a Bento's graph, as it is declared.

    A container of the Bento's image serves the whole graph. It serves one Service alone when it is started with the
    arguments :attr:`arguments` after the image's entrypoint, and is told where the others are: the variable
    ``BENTOTOOL_DEPENDS`` has ``NAME=URL`` of each in :attr:`depends`, joined by commas. The URL ends in that
    Service's :attr:`path_prefix`.

    Args:
        name: of the Service.
        target: its import string, ``module:Class``; empty where it has none, and cannot be served alone.
        depends: names of the Services of the graph that it calls.
        workers: processes; 0: as many as the machine has CPUs.
        resources: ``cpu``, ``memory``, ``gpu``, ``gpu_type``, as written in the service.
        traffic: ``timeout``, ``concurrency``, ``max_concurrency``, …, as written.
        envs: variables by name, None where the value is to come from whoever deploys; what the server needs to set
            for the Service's own workers is in the Bento already.
        labels: of the Service.
        path_prefix: ``""``, or what all its paths start with.
        probes: paths of ``livez``, ``readyz`` and ``healthz``, prefix included.
        metrics: path of its metrics, prefix included; empty where they are off.
        tls: it speaks HTTPS.
        command: a command of its own serves its requests.
        apis: paths of those that are called by POST, by name, prefix included.
    """

    name: str
    target: str = ""
    depends: tuple[str, ...] = ()
    workers: int = 1
    resources: Mapping[str, JSON] = field(default_factory=dict)
    traffic: Mapping[str, JSON] = field(default_factory=dict)
    envs: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    path_prefix: str = ""
    probes: Mapping[str, str] = field(
        default_factory=lambda: {"livez": "/livez", "readyz": "/readyz", "healthz": "/healthz"}
    )
    metrics: str = "/metrics"
    tls: bool = False
    command: bool = False
    apis: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What is added to the image's entrypoint to serve this Service, and those without an address."""
        return ("--service", self.target) if self.target else ()


@dataclass(frozen=True)
class DeployModel:
    """A model of the Bento.

    Args:
        alias, name, version, digest: as the Bento names it; the digest is that of its manifest.
        path: where its files lie in the image, without the first ``/``: ``models/NAME``. Its volume view has them at
            the same path.
        volume: digest of its volume view: a plain image of its files, which container runtimes mount.
    """

    alias: str
    name: str
    version: str
    digest: str
    path: str
    volume: str = ""


@dataclass(frozen=True)
class PublishedImage:
    """An image in a registry.

    Args:
        repository: ``HOST[:PORT]/REPOSITORY``.
        tag: the Bento's version there.
        digest: of the index that the tag points to: images of each platform, the Bento and its models. Empty where
            it is known only after the push.
        images: digests of the images by platform, such as ``linux/amd64``; for what takes no index.
        volumes: of each model, by its digest, the digest of the volume view in the same repository.
    """

    repository: str
    tag: str
    digest: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """What is to be deployed: by digest as soon as that is known, so that it is what was made and signed."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    def volume(self, model: str) -> str:
        """The reference of a model's volume view, by the model's digest."""
        return f"{self.repository}@{self.volumes[model]}"


class ImagePublisher(Protocol):
    """Brings the image of the Bento, its models and itself to a registry."""

    def planned(self, where: str, platforms: Sequence[str] = (), *, lean: bool = False) -> PublishedImage:
        """What :meth:`publish` would give; asks nobody.

        Args:
            where: ``HOST[:PORT]/PATH``, below which the Bento's name is the repository.
            platforms: that the image is for; none: that of the Bento's lock.
            lean: the image goes without models, which are pushed as volume views beside it.

        Raises:
            UsageError: ``where`` is no place in a registry, or nothing is built for a platform.
        """
        ...

    def publish(self, where: str, platforms: Sequence[str] = (), *, lean: bool = False) -> PublishedImage:
        """Make the image where the store has none, push what the registry has not, and tell its digest.

        Raises:
            BuildError: it cannot be made.
            RemoteError, AuthenticationError: the registry does not answer, or refuses.
        """
        ...


@runtime_checkable
class Writer(Protocol):
    """A :class:`~bentotool.targetspec.Target` that can also write what it would apply as files for other tools.

    When:
        ``bentotool deploy TARGET BENTO --output [FORM:]DIR``, in place of applying the plan.

    Example::

        class Attic:
            def forms(self):
                return {"list": "What goes into the attic"}

            def write(self, plan, form, publish):
                return {"boxes.txt": "".join(f"{each.name}\\n" for each in plan.resources)}
    """

    def forms(self) -> Mapping[str, str]:
        """What it can write, by name, each in a line; the first is meant where none is named."""
        ...

    def write(self, plan: Plan, form: str, publish: bool) -> Mapping[str, str]:
        """The files by their path below the folder, parts joined by ``/``.

        Args:
            publish: bring the image to its registry first, so that the files name it by its digest.
        """
        ...
