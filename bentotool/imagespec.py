"""What a builder of container images is given, and what it gives back.

The plan says everything about an image but how it is made: two builders of one plan give images that run the same. This
module imports the standard library and :mod:`bentotool.oci` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bentotool.interfaces import JSON, _Declaration
from bentotool.oci.descriptor import Descriptor

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout
    from bentotool.oci.registry import Registry

__all__ = [
    "BuiltImage",
    "ImageBuilder",
    "ImageBuilderDecl",
    "ImageLayer",
    "ImagePlan",
    "ImageRequest",
    "PlannedLayer",
]


@dataclass(frozen=True)
class ImageBuilderDecl(_Declaration):
    """A builder of container images; ``target`` is an :class:`ImageBuilder`, or a class that makes one."""


@dataclass(frozen=True)
class PlannedLayer:
    """One layer of ours, above those of the base.

    Args:
        kind: ``python`` (the environment of the lock), ``runtime``, ``model``, ``code``, or ``signed`` (what the server
            checks the Bento against).
        title: what it is, for people and the image's history.
        source: digest of what decides its content: of the lock, of the runtime's wheel; of a model's layer and of the
            code it is the layer itself.
        size: bytes of the layer, 0 where it is not made yet.
    """

    kind: str
    title: str
    source: str
    size: int = 0


@dataclass(frozen=True)
class ImagePlan:
    """Everything about the image of a Bento for one platform, decided before anything is fetched or made.

    Args:
        name, version, digest, service: of the Bento.
        platform: ``linux/amd64`` or ``linux/arm64``.
        python: ``X.Y``; the base has to have it.
        locked_for: the platform that the lock was resolved for.
        base: reference of the base image, ``oci:FOLDER[:TAG]`` or ``oci-archive:FILE[:TAG]``.
        base_from: who named it: ``option``, ``environment``, ``bento``, ``plugin`` or ``default``.
        prefix: folder of the Python environment in the image.
        env: variables beside those of the base; ``PATH`` is extended by ``prefix``/bin.
        user: ``uid:gid``.
        entrypoint: in exec form; no shell, no command line of bentotool.
        healthcheck: in exec form; exit status 0 when the service is ready.
        labels: of the image's config; they are also annotations of its manifest.
        layers: from the bottom.
        steps, post_steps: before and after the Python packages, each ``{"system_packages": [...]}``,
            ``{"run": command}`` or ``{"script": path in the Bento's app folder}``.
        build_include: paths of the Bento that are in place before ``steps``.
        conda: ``channels`` and ``dependencies``.
        distro, cuda_version: what the base is chosen by where none is named.
        from_source: packages without a wheel for the lock's platform.
        build_env: variables for what is run while the image is made, and in no image: the value that the Bento has,
            empty where that of the environment is meant. ``build_only`` names those that the service does not get.
    """

    name: str
    version: str
    digest: str
    service: str
    platform: str
    python: str
    locked_for: str
    base: str
    base_from: str
    prefix: str
    env: Mapping[str, str]
    user: str
    workdir: str
    entrypoint: tuple[str, ...]
    healthcheck: tuple[str, ...]
    port: int
    labels: Mapping[str, str]
    layers: tuple[PlannedLayer, ...]
    stop_signal: str = "SIGTERM"
    steps: tuple[Mapping[str, JSON], ...] = ()
    post_steps: tuple[Mapping[str, JSON], ...] = ()
    build_include: tuple[str, ...] = ()
    conda: Mapping[str, JSON] = field(default_factory=dict)
    distro: str = ""
    cuda_version: str = ""
    from_source: tuple[str, ...] = ()
    build_env: Mapping[str, str] = field(default_factory=dict)
    build_only: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def demands(self) -> tuple[str, ...]:
        """What only a builder that runs commands inside the image can give, in words; empty for most Bentos."""
        found: list[str] = []
        for step in (*self.steps, *self.post_steps):
            packages = step.get("system_packages")
            if isinstance(packages, Sequence) and not isinstance(packages, str):
                found += [f"system package {name}" for name in packages]
            found += [f"command {str(step['run'])[:60]!r}"] if "run" in step else []
            found += [f"script {step['script']}"] if "script" in step else []
        if self.conda.get("dependencies"):
            found.append("conda packages")
        found += [f"{name}, which has no wheel and is built from source" for name in self.from_source]
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The plan as a document; what ``containerize --dry-run --json`` prints."""
        return {**asdict(self), "tag": self.tag, "demands": list(self.demands)}


@dataclass(frozen=True)
class ImageRequest:
    """One call of a builder.

    Args:
        plans: one for each platform.
        layout: the store; built images go there.
        open_registry: gives a client for a registry's host, to read from it; the builder closes it.
        offline: no network: packages come from uv's cache and ``find_links``, the base from the store or a folder.
        find_links: folders of wheels.
        compress: gzip the layer with the Python environment.
        bytecode: compile the packages beforehand.
        verify: the servers are to check every byte of the Bento when they start; the plans say so already when a
            builder sees them.
        jobs: downloads at once.
        options: what the command line has for this builder alone.
        note: told one line for people.
        progress: ``(total bytes, label)`` → context manager with ``advance(count)`` and ``part(name, total)``.
    """

    plans: tuple[ImagePlan, ...]
    layout: Layout
    open_registry: Callable[[str], Registry]
    progress: Callable[[int, str], AbstractContextManager[Any]]
    offline: bool = False
    find_links: tuple[str, ...] = ()
    compress: bool = True
    bytecode: bool = False
    verify: bool = False
    jobs: int = 4
    options: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class ImageLayer:
    """A layer of an image that was built.

    Args:
        kind: as in :class:`PlannedLayer`, or ``base`` or ``bytecode``.
        cached: it was there already.
    """

    kind: str
    digest: str
    size: int
    cached: bool


@dataclass(frozen=True)
class BuiltImage:
    """An image in the store: manifest, config and every layer.

    Args:
        descriptor: of its manifest, with ``platform``.
        base: the reference that was asked for.
        base_digest: of the base's manifest for this platform.
        size: bytes of all layers and the config, as a registry holds them.
    """

    platform: str
    descriptor: Descriptor
    base: str
    base_digest: str
    size: int
    layers: tuple[ImageLayer, ...]

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "platform": self.platform,
            "digest": self.digest,
            "size": self.size,
            "base": self.base,
            "base_digest": self.base_digest,
            "layers": [vars(layer) for layer in self.layers],
        }


@runtime_checkable
class ImageBuilder(Protocol):
    """Makes container images from plans.

    When:
        ``bentotool containerize``; once, with the plans of all platforms.

    Arguments:
        See :class:`ImageRequest`.

    Return:
        One :class:`BuiltImage` for each plan, in that order. Its manifest, config and layers lie in the request's
        layout; layers of models are those of the models' manifests and need not be stored beside their files. Naming,
        pushing and writing the images to files are not the builder's work.

    Example::

        class Kiln:
            def build(self, request):
                return [bake(request.layout, plan) for plan in request.plans]
    """

    def build(self, request: ImageRequest) -> Sequence[BuiltImage]:
        """Make the images. What a plan asks for and this builder cannot do is a BuildError that says so."""
        ...
