"""From a project to a plan: configuration, service, models, lock and files, each step with its time."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.build.arguments import check_secrets, check_size, read_arguments
from bentotool.build.collect import CodeFile, collect, secrets_by_name
from bentotool.build.config import BuildConfig, bento_name, parse_envs, parse_labels
from bentotool.build.configfile import ProjectConfig, load_config
from bentotool.build.contain import open_inside
from bentotool.build.image import choose_base, image_of
from bentotool.build.journal import Journal
from bentotool.build.lock import LOCK_FILE, PLATFORMS, Lock, default_platform, make_lock, read_lock
from bentotool.build.memory import Memory
from bentotool.build.middleware import check_middleware
from bentotool.build.packing import Packer
from bentotool.build.plan import Plan, PlannedModel
from bentotool.build.probe import Probe, probe_service
from bentotool.build.requirements import RUNTIME_REQUIREMENTS, Requirements, gather
from bentotool.build.result import BuildOptions
from bentotool.build.room import Room
from bentotool.build.serviceimage import check_image_files, read_service_image, with_image
from bentotool.build.taskstores import task_store_requirements
from bentotool.build.wheel import as_text, cached_runtime_wheel
from bentotool.errors import BuildError, ConfigError, NotFoundError, UsageError
from bentotool.interfaces import PlanAddition
from bentotool.models.declared import find_model, import_declared, is_origin
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.layout import Layout
from bentotool.paths import write_atomic

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["Planned", "Work"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made from.

    Args:
        models: digest by the reference under which each model was looked up.
        loaders: the files that the frameworks' loaders were read from.
        journal: what was seen of the project's files.
    """

    plan: Plan
    project: ProjectConfig
    config: BuildConfig
    probe: Probe
    requirements: Requirements
    addition: PlanAddition
    models: Mapping[str, str]
    loaders: tuple[Path, ...]
    journal: Journal


@dataclass(frozen=True)
class Work:
    """One build under way.

    Args:
        room: what earlier builds left there is used, and what this one learns is kept there.
        memory: what services said of themselves.
        before: the journal of an earlier build.
        seconds: time of the steps done so far.
        cached: what of earlier builds served again so far.
    """

    folder: Path
    layout: Layout
    plugins: Plugins
    options: BuildOptions
    note: Callable[[str], None]
    room: Room
    memory: Memory
    before: Journal | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool | int] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - start

    def plan(self) -> Planned:
        """Everything of the Bento, decided.

        Raises:
            BentotoolError: as :func:`bentotool.build.api.build_bento` says.
        """
        options, plugins = self.options, self.plugins
        if options.platform is not None and options.platform not in PLATFORMS:
            raise UsageError(f"unknown platform {options.platform[:40]!r}", hint=f"one of {', '.join(PLATFORMS)}")
        with self.step("config"):
            project = load_config(self.folder, options.file)
            config = project.config.override(name=options.name, version=options.version, labels=options.labels)
        with self.step("service"):
            probe = self.probe(config)
            self.check_secrets(project, probe)
            image = read_service_image(probe.image)
            project = with_image(project, image)
        with self.step("models"):
            stored = self.find_models(config, probe)
            models = _plan_models(stored)
            files_of = [plugins.loader_files(name) for name in _frameworks(stored)]
            loaders = {name: path for files in files_of for name, path in files.items()}
            addition = plugins.plan_build(config=asdict(config), models=models)
        with self.step("lock"):
            needs = [line for _, model in stored for line in model.details.requirements]
            extra = (*probe.requirements, *addition.requirements, *task_store_requirements(config.envs), *needs)
            requirements, lock = self.lock(project, extra)
        with self.step("files"):
            files, journal = self.collect(project, probe, addition, packed=bool(lock.wheels))
            self.check_secrets(project, probe, [file.name for file in files])
            check_image_files(config, image, [file.name for file in files])
        middleware = plugins.named_middleware(probe.service)
        check_middleware(middleware, {file.name for file in files} | set(addition.files), lock.pins, self.note)
        with self.step("wheel"):
            runtime_version, wheel, known = cached_runtime_wheel(self.room, self.layout, self.runtime)
            self.cached["wheel"] = known
        drawn = Plan(
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
            labels=_labels(config, probe, addition),
            envs=_envs(config, probe, addition),
            models=models,
            loaders={name: as_text(path.read_bytes()) for name, path in loaders.items()},
            added=addition.files,
            image=image_of(config, image),
            middleware=tuple(middleware),
            arguments=probe.arguments,
            services=probe.services,
        )
        plan = choose_base(drawn, plugins).settled()
        used = {reference: model.digest for reference, model in _wanted(config, probe, stored)}
        return Planned(plan, project, config, probe, requirements, addition, used, tuple(loaders.values()), journal)

    @property
    def runtime(self) -> tuple[str, ...]:
        given = self.options.runtime_requirements
        return RUNTIME_REQUIREMENTS if given is None else given

    def probe(self, config: BuildConfig) -> Probe:
        arguments = {**config.args, **read_arguments(self.options.arg_file, self.options.args)}
        check_size(arguments)
        service = config.service or "service"
        _check_place(self.folder, service)
        probe = probe_service(
            self.folder,
            service,
            store=self.layout.root,
            timeout=self.options.probe_timeout,
            show_output=self.options.show_output,
            memory=self.memory,
            arguments=arguments,
        )
        self.cached["service"] = probe.finding is not None and probe.finding.hit
        return probe

    def find_models(self, config: BuildConfig, probe: Probe) -> list[tuple[str, StoredModel]]:
        """The models of the service and of the configuration, each with the name it is asked for by.

        One that is named by its origin is imported where it is not in the store.
        """
        store, found = ModelStore(self.layout), []
        for alias, reference in sorted(_references(config, probe).items()):
            try:
                model = find_model(store, reference)
            except NotFoundError as error:
                if not is_origin(reference):
                    name = reference.split(":")[0].split("@")[0]
                    hint = error.hint if error.hint and error.hint.startswith("did you mean") else None
                    hint = hint or f"bentotool model import FILE --name {name}"
                    raise NotFoundError(error.message, hint=hint) from None
                if self.options.offline:
                    raise
                model = import_declared(store, reference, self.plugins)
            found.append((alias, model))
        return found

    def check_secrets(self, project: ProjectConfig, probe: Probe, files: Sequence[str] = ()) -> None:
        origin, file = project.origin or "the configuration", self.options.arg_file
        check_secrets(probe.arguments, project.config.args, origin, self.folder, file, files)

    def collect(
        self, project: ProjectConfig, probe: Probe, addition: PlanAddition, *, packed: bool
    ) -> tuple[tuple[CodeFile, ...], Journal]:
        """The project's files, looked over, and what was seen of them; ``packed`` wheels may bring modules as well."""
        config, journal = project.config, Journal()
        files = collect(
            self.folder, config.include, config.exclude, where=project.origin or "defaults", store=self.layout.root,
            before=self.before, journal=journal,
        )  # fmt: skip
        self.cached.update(files=journal.hits, files_read=journal.misses)
        _check_added(files, addition)
        if not packed:
            self.check_modules(probe, {file.name for file in files} | set(addition.files))
        if doubtful := secrets_by_name(files, config.include):
            named = ", ".join(doubtful[:3]) + (" and more" if len(doubtful) > 3 else "")
            self.note(
                f"{named} may hold secrets and goes into the Bento: leave it out by exclude, or name it in include"
            )
        return files, journal

    def installed(self, name: str) -> bool:
        """Whether a file below the project is no part of it, but of an environment that lies there."""
        base, prefix = os.path.realpath(self.folder), os.path.realpath(sys.prefix)
        there = Path(prefix).is_relative_to(base) and Path(base, name).is_relative_to(prefix)
        return there or not _INSTALLED.isdisjoint(name.split("/"))

    def check_modules(self, probe: Probe, files: Set[str]) -> None:
        """Whether the Bento has what the service is imported from.

        Raises:
            ConfigError: the service's own file is left out.
        """
        names = {unicodedata.normalize("NFC", name) for name in probe.modules if not self.installed(name)}
        lost = [name for name in sorted(names) if name not in files]
        module = probe.service.partition(":")[0].replace(".", "/")
        for name in lost:
            if name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__") == module:
                raise ConfigError(
                    f"{name} is the service's, and exclude, include or a .bentoignore leaves it out of the Bento",
                    hint="take it in; what a service imports has to be in the Bento",
                )
        if lost:
            named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
            self.note(f"{named}: imported by the service and left out of the Bento, where it may fail to start")

    def lock(self, project: ProjectConfig, extra: tuple[str, ...]) -> tuple[Requirements, Lock]:
        options = self.options
        previous = read_lock(self.folder)
        platform = options.platform or (previous.platform if previous else default_platform())
        requirements = gather(project, self.runtime, extra, platform=platform, locked=options.locked, note=self.note)
        packer = Packer(self.folder, self.layout.root / "cache" / "wheels")
        lock = make_lock(
            requirements, project.python, platform,
            previous=previous, locked=options.locked, offline=options.offline, packer=packer,
        )  # fmt: skip
        if lock.built:
            named = ", ".join(lock.built[:5]) + (f" and {len(lock.built) - 5} more" if len(lock.built) > 5 else "")
            self.note(f"no wheel for {platform}: {named}; built from source where the Bento is installed")
        self.cached["lock"] = lock.reused
        if not lock.reused and not options.dry_run:
            try:
                write_atomic(self.folder / LOCK_FILE, lock.text.encode())
            except OSError as error:
                self.note(f"{LOCK_FILE} is not kept in the project ({error.strerror}): the next build resolves again")
        return requirements, lock


def _check_place(folder: Path, service: str) -> None:
    """UnsafeError where the service's file is a link out of the project: before its code runs, not after."""
    module = service.partition(":")[0]
    name = module.removesuffix(".py") if module.endswith(".py") else module.replace(".", "/")
    for place in (f"{name}.py", f"{name}/__init__.py", f"src/{name}.py", f"src/{name}/__init__.py"):
        if (folder / place).is_file() or (folder / place).is_symlink():
            open_inside(folder, place).close()


def _bento_name(config: BuildConfig, probe: Probe) -> str:
    name = config.name or bento_name(probe.name)
    if not name:
        raise ConfigError(
            f"no Bento name can be made from {probe.name!r}", hint="set name: in the configuration, or give --name"
        )
    return name


def _references(config: BuildConfig, probe: Probe) -> dict[str, str]:
    """The reference of each model of the service and of the configuration, by what it is asked for by."""
    wanted = {reference: reference for reference in probe.models}
    return wanted | {model.alias or model.tag: model.tag for model in config.models}


def _wanted(
    config: BuildConfig, probe: Probe, stored: list[tuple[str, StoredModel]]
) -> Iterator[tuple[str, StoredModel]]:
    references = _references(config, probe)
    for alias, model in stored:
        yield references[alias], model


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


def _labels(config: BuildConfig, probe: Probe, addition: PlanAddition) -> dict[str, str]:
    """Labels by name; the configuration wins over plugins, and they over the service."""
    return {
        **parse_labels(probe.labels, ("service", "labels")),
        **parse_labels(dict(addition.labels), ("plugins", "labels")),
        **config.labels,
    }


def _envs(config: BuildConfig, probe: Probe, addition: PlanAddition) -> tuple[Mapping[str, str], ...]:
    """Variables by name; the configuration wins over plugins, and they over the service."""
    merged = {env.name: env for env in parse_envs([dict(item) for item in probe.envs], ("service", "envs"))}
    merged |= {
        env.name: env for env in parse_envs([{"name": k, "value": v} for k, v in addition.env.items()], ("plugins",))
    }
    merged |= {env.name: env for env in config.envs}
    return tuple({"name": env.name, "value": env.value, "stage": env.stage} for _, env in sorted(merged.items()))
