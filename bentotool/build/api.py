"""Building a Bento: configuration, service, models, lock and files become a plan, and the plan a Bento."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.collect import CodeFile, collect
from bentotool.build.config import BuildConfig, bento_name, parse_envs, parse_labels
from bentotool.build.configfile import ProjectConfig, load_config
from bentotool.build.lock import LOCK_FILE, PLATFORMS, Lock, default_platform, make_lock, read_lock
from bentotool.build.pack import pack
from bentotool.build.plan import Plan, PlannedModel
from bentotool.build.probe import Probe, probe_service
from bentotool.build.requirements import RUNTIME_REQUIREMENTS, gather
from bentotool.build.wheel import as_text, runtime_wheel
from bentotool.errors import BuildError, ConfigError, NotFoundError, UsageError
from bentotool.interfaces import PlanAddition
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.layout import Layout
from bentotool.paths import write_atomic

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["BuildOptions", "BuildResult", "build_bento"]


@dataclass(frozen=True)
class BuildOptions:
    """What a build is asked for beside the project's own configuration.

    Args:
        file: configuration file in the project.
        platform: ``linux/amd64`` or ``linux/arm64``; default: that of the project's lock, else of this machine.
        locked: fail when the lock is absent or out of date.
        offline: resolve from the cache and ``find_links`` only.
        replace: replace another Bento under the same version.
        dry_run: plan, and write nothing.
        show_output: let the service's prints appear on stderr.
        probe_timeout: seconds for importing the service.
        runtime_requirements: what the embedded runtime needs; tests without a package index give fewer.
    """

    file: str | None = None
    name: str | None = None
    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    locked: bool = False
    offline: bool = False
    replace: bool = False
    dry_run: bool = False
    show_output: bool = False
    probe_timeout: float | None = None
    runtime_requirements: tuple[str, ...] = RUNTIME_REQUIREMENTS


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Args:
        digest: of the Bento; empty for a dry run.
        size: bytes of the Bento, models not counted; 0 for a dry run.
        seconds: time of each step.
        lock_reused: the project's lock stood.
        plan: what was built.
    """

    name: str
    version: str
    digest: str
    size: int
    seconds: Mapping[str, float]
    lock_reused: bool
    plan: Plan

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the command prints."""
        return {
            "name": self.name,
            "version": self.version,
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
            "lock_reused": self.lock_reused,
            "packages": len(self.plan.lock.pins),
            "files": len(self.plan.files),
            "models": [model.brief() for model in self.plan.models],
            "seconds": {step: round(seconds, 3) for step, seconds in self.seconds.items()},
        }


def build_bento(
    project: Path,
    *,
    layout: Layout,
    plugins: Plugins,
    options: BuildOptions | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> BuildResult:
    """Build the project in a folder into a Bento in the store.

    Args:
        note: told of what a person should know beside the result.

    Raises:
        ConfigError, UsageError: the configuration or an option is wrong.
        NotFoundError: the service's file, or a model.
        ServiceLoadError: the service does not import.
        UnsafeError: a path leads out of the project.
        BuildError, RemoteError: the requirements cannot be locked.
        ConflictError: the version stands for other content.
    """
    work = _Work(Path(project), layout, plugins, options or BuildOptions(), note)
    plan = work.plan()
    if work.options.dry_run:
        return BuildResult(plan.name, plan.version, "", 0, work.seconds, plan.lock.reused, plan)
    with work.step("pack"):
        ref = pack(plan, work.folder, layout, replace=work.options.replace)
    plugins.call("bentotool_after_build", bento=ref)
    return BuildResult(ref.name, ref.tag, ref.digest, ref.size, work.seconds, plan.lock.reused, plan)


@dataclass(frozen=True)
class _Work:
    """One build under way, with the time of its steps."""

    folder: Path
    layout: Layout
    plugins: Plugins
    options: BuildOptions
    note: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - start

    def plan(self) -> Plan:
        options, plugins = self.options, self.plugins
        if options.platform is not None and options.platform not in PLATFORMS:
            raise UsageError(f"unknown platform {options.platform[:40]!r}", hint=f"one of {', '.join(PLATFORMS)}")
        with self.step("config"):
            project = load_config(self.folder, options.file)
            config = project.config.override(name=options.name, version=options.version, labels=options.labels)
        with self.step("service"):
            probe = probe_service(
                self.folder,
                config.service or "service",
                store=self.layout.root,
                timeout=options.probe_timeout,
                show_output=options.show_output,
            )
        with self.step("models"):
            stored = _find_models(config, probe, ModelStore(self.layout))
            models = _plan_models(stored)
            files_of = (plugins.loader_files(name) for name in _frameworks(stored))
            loaders = {name: as_text(path.read_bytes()) for files in files_of for name, path in files.items()}
            addition = plugins.plan_build(config=asdict(config), models=models)
        with self.step("lock"):
            needs = [line for _, model in stored for line in model.details.requirements]
            lock = self.lock(project, (*probe.requirements, *addition.requirements, *needs))
        with self.step("files"):
            files = collect(
                self.folder,
                config.include,
                config.exclude,
                where=project.origin or "defaults",
                store=self.layout.root,
            )
            _check_added(files, addition)
            runtime_version, wheel = runtime_wheel(options.runtime_requirements)
        return Plan(
            name=_bento_name(config, probe),
            version=config.version or "",
            service=probe.service,
            python=project.python,
            files=files,
            lock=lock,
            runtime_version=runtime_version,
            wheel=wheel,
            api=canonical_json({"openapi": probe.openapi, "schema": probe.schema}),
            description=config.description or probe.description,
            labels={
                **parse_labels(probe.labels, ("service", "labels")),
                **parse_labels(dict(addition.labels), ("plugins", "labels")),
                **config.labels,
            },
            envs=_envs(config, probe, addition),
            models=models,
            loaders=loaders,
            added=addition.files,
            image=_image(config, probe),
            middleware=plugins.runtime_middleware(probe.service),
        ).settled()

    def lock(self, project: ProjectConfig, extra: tuple[str, ...]) -> Lock:
        options = self.options
        requirements = gather(project, options.runtime_requirements, extra)
        previous = read_lock(self.folder)
        platform = options.platform or (previous.platform if previous else default_platform())
        lock = make_lock(
            requirements, project.python, platform, previous=previous, locked=options.locked, offline=options.offline
        )
        if not lock.reused and not options.dry_run:
            try:
                write_atomic(self.folder / LOCK_FILE, lock.text.encode())
            except OSError as error:
                self.note(f"{LOCK_FILE} is not kept in the project ({error.strerror}): the next build resolves again")
        return lock


def _bento_name(config: BuildConfig, probe: Probe) -> str:
    name = config.name or bento_name(probe.name)
    if not name:
        raise ConfigError(
            f"no Bento name can be made from {probe.name!r}", hint="set name: in the configuration, or give --name"
        )
    return name


def _find_models(config: BuildConfig, probe: Probe, store: ModelStore) -> list[tuple[str, StoredModel]]:
    """The models of the service and of the configuration, each with the reference it is asked for by."""
    wanted = {reference: reference for reference in probe.models}
    wanted |= {model.alias or model.tag: model.tag for model in config.models}
    found = []
    for alias, reference in sorted(wanted.items()):
        try:
            found.append((alias, store.get(reference)))
        except NotFoundError as error:
            name = reference.split(":")[0].split("@")[0]
            hint = error.hint if error.hint and error.hint.startswith("did you mean") else None
            raise NotFoundError(error.message, hint=hint or f"bentotool model import FILE --name {name}") from None
    return found


def _plan_models(stored: list[tuple[str, StoredModel]]) -> tuple[PlannedModel, ...]:
    places: dict[str, StoredModel] = {}
    planned = []
    for alias, model in stored:
        path = model.manifest.annotations.get("io.bentotool.model.prefix", f"models/{model.name}")
        other = places.setdefault(path, model)
        if other.digest != model.digest:
            raise ConfigError(
                f"not supported yet: {other.tag} and {model.tag} in one Bento",
                hint="import one of them under another name",
            )
        details = model.details
        planned.append(
            PlannedModel(
                alias, model.name, _version(model), model.digest, path, details.framework, details.safety,
                details.main_file, model.size, details.signature, details.labels, details.metadata,
            )
        )  # fmt: skip
    return tuple(planned)


def _version(model: StoredModel) -> str:
    """The version in the model's own manifest: a store may know it by other names, which must not change the Bento."""
    return model.manifest.annotations.get("org.opencontainers.image.version", model.version)


def _frameworks(stored: list[tuple[str, StoredModel]]) -> list[str]:
    return sorted({model.details.framework for _, model in stored if model.details.framework})


def _check_added(files: tuple[CodeFile, ...], addition: PlanAddition) -> None:
    clash = {file.name for file in files} & set(addition.files)
    if clash:
        raise BuildError(
            f"a plugin adds {min(clash)!r}, which the project has already", hint="rename or exclude the file"
        )


def _envs(config: BuildConfig, probe: Probe, addition: PlanAddition) -> tuple[Mapping[str, str], ...]:
    """Variables by name; the configuration wins over plugins, and they over the service."""
    merged = {env.name: env for env in parse_envs([dict(item) for item in probe.envs], ("service", "envs"))}
    merged |= {
        env.name: env for env in parse_envs([{"name": k, "value": v} for k, v in addition.env.items()], ("plugins",))
    }
    merged |= {env.name: env for env in config.envs}
    return tuple({"name": env.name, "value": env.value, "stage": env.stage} for _, env in sorted(merged.items()))


def _image(config: BuildConfig, probe: Probe) -> dict[str, Any]:
    """What ``containerize`` will make the image from; keys that say nothing are left out."""
    docker = config.docker
    chosen: dict[str, Any] = {
        "distro": docker.distro,
        "base_image": docker.base_image,
        "cuda_version": docker.cuda_version,
        "system_packages": list(docker.system_packages),
        "env": dict(docker.env),
        "service": probe.image,
    }
    return {name: value for name, value in chosen.items() if value}
