"""The plugins of this environment: found by entry point, loaded when a kind is first asked for, each in isolation.

::

    plugins = load_plugins()                  # nothing is imported yet
    plugins.frameworks()                      # loads every plugin's hooks module; {"onnx": FrameworkDecl(...)}
    plugins.framework("onnx").detect(files)   # imports the framework part of one plugin
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from bentotool.errors import BentotoolError, MissingDependencyError, PluginError, UsageError
from bentotool.imagespec import ImageBuilderDecl
from bentotool.interfaces import (
    ArchiveDecl,
    CommandDecl,
    Credentials,
    FrameworkDecl,
    PlanAddition,
    SourceDecl,
    TemplateDecl,
)
from bentotool.plugin_load import (
    STOPPING,
    PluginFailure,
    PluginState,
    checked,
    contained,
    explain,
    load,
    new_manager,
    stdout_kept_clean,
    warn_on_stderr,
)
from bentotool.plugin_merge import base_image, clash, merge_additions
from bentotool.plugin_scan import FoundPlugin, scan
from bentotool.protocols import Archive, Framework, Source
from bentotool.signspec import SignerDecl
from bentotool.targetspec import TargetDecl

__all__ = ["FoundPlugin", "PluginFailure", "PluginState", "Plugins", "load_plugins"]

DISABLE_VARIABLE = "BENTOTOOL_DISABLE_PLUGINS"


class _Declared(Protocol):
    @property
    def name(self) -> str: ...


class _Targeted(_Declared, Protocol):
    @property
    def target(self) -> str: ...


DeclT = TypeVar("DeclT", bound=_Declared)


def load_plugins(
    disabled: Collection[str] = (),
    *,
    warn: Callable[[str], None] | None = None,
    found: Sequence[FoundPlugin] | None = None,
) -> Plugins:
    """The plugins of this environment; cheap, as nothing is searched or imported before it is needed.

    Args:
        disabled: names of plugins to leave out, beside those of ``BENTOTOOL_DISABLE_PLUGINS`` (separated by commas).
        warn: gets one line for each failure; default: stderr.
        found: the plugins to use in place of those installed.
    """
    names = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    return Plugins(found, disabled=names | set(disabled), warn=warn)


class Plugins:
    """See the module's text; made by :func:`load_plugins`."""

    def __init__(
        self,
        found: Sequence[FoundPlugin] | None = None,
        *,
        disabled: Collection[str] = (),
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._given = found
        self.disabled = frozenset(disabled)
        self._warn = warn or warn_on_stderr
        self._failures: list[PluginFailure] = []
        self._loaded = False
        self._found: tuple[FoundPlugin, ...] = ()
        self._by_name: dict[str, FoundPlugin] = {}
        self._manager = new_manager()
        self._declared: dict[str, list[tuple[FoundPlugin, _Declared]]] = {}
        self._resolved: dict[str, object] = {}

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """What went wrong so far; each was also given to ``warn`` once."""
        return tuple(self._failures)

    def selection(self) -> list[FoundPlugin]:
        """The plugins that are to be loaded; imports none."""
        return [
            plugin for plugin in (scan() if self._given is None else self._given) if plugin.name not in self.disabled
        ]

    # -- asking by kind ----------------------------------------------------------------------------------------------

    def frameworks(self) -> dict[str, FrameworkDecl]:
        """Frameworks by name. Raises PluginError where two plugins declare one name."""
        return self._unique("bentotool_frameworks", FrameworkDecl, "framework")

    def templates(self) -> dict[str, TemplateDecl]:
        """Project templates by name. Raises PluginError where two plugins declare one name."""
        return self._unique("bentotool_templates", TemplateDecl, "template")

    def image_builders(self) -> dict[str, ImageBuilderDecl]:
        """Builders of container images by name. Raises PluginError where two plugins declare one name."""
        return self._unique("bentotool_image_builders", ImageBuilderDecl, "image builder")

    def targets(self) -> dict[str, TargetDecl]:
        """Deployment targets by name. Raises PluginError where two plugins declare one name."""
        return self._unique("bentotool_targets", TargetDecl, "target")

    def signers(self) -> dict[str, SignerDecl]:
        """Signers by name. Raises PluginError where two plugins declare one name."""
        return self._unique("bentotool_signers", SignerDecl, "signer")

    def sources(self) -> dict[str, SourceDecl]:
        """Sources by URI scheme. Raises PluginError where two plugins declare one scheme."""
        return self._by_key("bentotool_sources", SourceDecl, "source", lambda record: record.schemes)

    def archives(self) -> dict[str, ArchiveDecl]:
        """Archives of other tools' Bentos by suffix. Raises PluginError where two plugins declare one suffix."""
        return self._by_key("bentotool_archives", ArchiveDecl, "archive", lambda record: record.suffixes)

    def commands(self, reserved: Collection[str] = ()) -> dict[str, CommandDecl]:
        """Commands by name; a name in ``reserved``, or taken by two plugins, is left out with a warning.

        Never raises for a clash: ``bentotool --help`` and ``plugin list`` are needed most when something is wrong.
        """
        owners: dict[str, list[tuple[FoundPlugin, CommandDecl]]] = {}
        for plugin, record in self._records("bentotool_commands", CommandDecl):
            owners.setdefault(record.name, []).append((plugin, record))
        offered = {}
        for name, claims in owners.items():
            if name in reserved:
                for plugin, _ in claims:
                    self._fail(plugin, f"its command {name!r} is bentotool's own and is not offered")
            elif len(claims) > 1:
                others = " and ".join(plugin.origin for plugin, _ in claims)
                self._fail(claims[0][0], f"its command {name!r} is not offered: declared by {others}")
            else:
                offered[name] = claims[0][1]
        return offered

    def framework_decl(self, name: str) -> FrameworkDecl:
        """The record of a framework; UsageError with suggestions where no plugin declares it."""
        declared = self.frameworks()
        if name in declared:
            return declared[name]
        import difflib  # only for a message

        close = difflib.get_close_matches(name, declared, 1)
        hint = f"did you mean {close[0]!r}?" if close else "bentotool plugin list shows what is installed"
        known = ", ".join(sorted(declared)) or "none"
        raise UsageError(f"no installed plugin knows framework {name!r}; installed: {known}", hint=hint)

    def framework(self, name: str) -> Framework:
        """The implementation of a framework; UsageError with suggestions where no plugin declares it."""
        decl = self.framework_decl(name)
        implementation = self.resolve(decl)
        if not isinstance(implementation, Framework):
            raise PluginError(f"{self._owner(decl)}: {decl.target} is not a Framework")
        return implementation

    def source(self, decl: SourceDecl) -> Source:
        """The implementation of a source."""
        implementation = self.resolve(decl)
        if not isinstance(implementation, Source):
            raise PluginError(f"{self._owner(decl)}: {decl.target} is not a Source")
        return implementation

    def archive(self, decl: ArchiveDecl) -> Archive:
        """The implementation of an archive."""
        implementation = self.resolve(decl)
        if not isinstance(implementation, Archive):
            raise PluginError(f"{self._owner(decl)}: {decl.target} is not an Archive")
        return implementation

    def loader_path(self, name: str) -> Path:
        """The file of a framework's stand-alone loader, to be copied into a Bento."""
        decl = self.framework_decl(name)
        from importlib.util import find_spec

        try:
            spec = find_spec(decl.loader)
        except (ImportError, ValueError) as error:
            raise PluginError(f"{self._owner(decl)}: loader {decl.loader!r}: {explain(error)}") from error
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            raise PluginError(f"{self._owner(decl)}: loader {decl.loader!r} is not a Python file")
        return Path(spec.origin)

    def loader_files(self, name: str) -> dict[str, Path]:
        """What travels in a Bento, by its name below ``loaders/`` without ``.py``: the loader, or its whole package."""
        path = self.loader_path(name)
        if path.name != "__init__.py":
            return {name: path}
        return {f"{name}/{part.stem}": part for part in sorted(path.parent.glob("*.py"))}

    def resolve(self, decl: _Targeted) -> object:
        """Import what a record's target names; a class is called without arguments. Cached.

        Raises MissingDependencyError where a package that the plugin needs is absent, PluginError for anything else.
        """
        if decl.target not in self._resolved:
            module, _, attribute = decl.target.partition(":")
            try:
                with stdout_kept_clean():
                    value: object = importlib.import_module(module)
                    for part in attribute.split("."):
                        value = getattr(value, part)
                    self._resolved[decl.target] = value() if inspect.isclass(value) else value
            except BentotoolError:
                raise
            except BaseException as error:
                if not contained(error):
                    raise
                missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
                if missing and missing.partition(".")[0] != module.partition(".")[0]:
                    raise MissingDependencyError(missing.partition(".")[0], purpose=self._owner(decl)) from error
                raise PluginError(f"{self._owner(decl)}: {decl.target}: {explain(error)}") from error
        return self._resolved[decl.target]

    # -- hooks -------------------------------------------------------------------------------------------------------

    def call(self, hook: str, **arguments: object) -> list[object]:
        """Call a hook on every plugin, in the order of their names; answers other than None, flattened to one list.

        For a ``firstresult`` hook the list holds at most one answer. A plugin that raises or answers with a wrong
        type is warned about and skipped; where the hook's text says so it stops the work: a BentotoolError as it is,
        anything else as PluginError.
        """
        return [value for _, value in self._answers(hook, arguments)]

    def credentials(self, registry: str, repository: str, actions: Sequence[str]) -> Credentials | None:
        """The first plugin's credentials for a registry, or None."""
        answers = self.call(
            "bentotool_registry_credentials", registry=registry, repository=repository, actions=tuple(actions)
        )
        return next((value for value in answers if isinstance(value, Credentials)), None)

    def runtime_middleware(self, service: str) -> tuple[str, ...]:
        """Dotted targets of ASGI middleware for a service."""
        return tuple(self.named_middleware(service))

    def named_middleware(self, service: str) -> dict[str, str]:
        """The same targets, each with the first plugin that names it."""
        named: dict[str, str] = {}
        for plugin, target in self._answers("bentotool_runtime_middleware", {"service": service}):
            named.setdefault(str(target), plugin.name)
        return named

    def plan_build(self, config: Mapping[str, object], models: Sequence[object]) -> PlanAddition:
        """What all plugins add to a Bento, merged. PluginError where two give one key different values."""
        return merge_additions(self._answers("bentotool_plan_build", {"config": config, "models": models}))

    def base_image(self, plan: Mapping[str, object]) -> str | None:
        """The base image that plugins name for a plan, or None. PluginError where two differ or one is no reference."""
        return base_image(self._answers("bentotool_base_image", {"plan": plan}))

    def states(self) -> list[PluginState]:
        """Every plugin found, loaded or not, with its hooks and what is wrong with it."""
        self._load()
        problems: dict[FoundPlugin, list[str]] = {}
        for failure in self._failures:
            problems.setdefault(failure.plugin, []).append(failure.message)
        return [self._state(plugin, problems.get(plugin)) for plugin in self._found]

    def declared_by(self, name: str) -> list[object]:
        """The records that one plugin declares, of all kinds."""
        self.check()
        return [record for records in self._declared.values() for plugin, record in records if plugin.name == name]

    def check(self) -> tuple[PluginFailure, ...]:
        """Ask for all declarations, so that every failure and clash is known; never raises for one."""
        self.commands()
        for ask in (self.frameworks, self.templates, self.image_builders, self.targets, self.signers):
            try:
                ask()
            except PluginError as error:
                claims = error.details.get("plugins")
                for name in claims if isinstance(claims, list) else ():
                    self._fail(self._by_name[name], error.message)
        return self.failures

    def _state(self, plugin: FoundPlugin, problems: list[str] | None) -> PluginState:
        registered = self._manager.get_plugin(plugin.name) if self._by_name.get(plugin.name) == plugin else None
        state = "loaded" if registered else "disabled" if plugin.name in self.disabled else "failed"
        callers = self._manager.get_hookcallers(registered) if registered else None
        hooks = tuple(sorted(caller.name for caller in callers or ()))
        problem = "; ".join(problems) if problems else None
        return PluginState(plugin.name, plugin.distribution, plugin.version, plugin.target, state, hooks, problem)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        self._found = tuple(scan() if self._given is None else self._given)
        wanted: dict[str, list[FoundPlugin]] = {}
        for plugin in self._found:
            if plugin.name not in self.disabled:
                wanted.setdefault(plugin.name, []).append(plugin)
        for name in sorted(wanted, reverse=True):  # pluggy calls the last registered first
            first, *others = wanted[name]
            if others:
                origins = " and ".join(plugin.origin for plugin in wanted[name])
                for plugin in wanted[name]:
                    self._fail(plugin, f"not loaded, its name is taken twice: by {origins}")
                continue
            failure = load(self._manager, first)
            if failure:
                self._fail(first, failure.message)
            else:
                self._by_name[name] = first

    def _fail(self, plugin: FoundPlugin, message: str) -> None:
        failure = PluginFailure(plugin, message)
        if failure not in self._failures:
            self._failures.append(failure)
            self._warn(str(failure))

    def _answers(self, hook: str, arguments: Mapping[str, object]) -> Iterator[tuple[FoundPlugin, object]]:
        self._load()
        caller = getattr(self._manager.hook, hook)
        first_only = bool(caller.spec and caller.spec.opts.get("firstresult"))
        for implementation in reversed(caller.get_hookimpls()):
            plugin = self._by_name[implementation.plugin_name]
            try:
                with stdout_kept_clean():
                    value = implementation.function(*(arguments[name] for name in implementation.argnames))
                    answers = checked(hook, value)
            except BaseException as error:
                if not contained(error):
                    raise
                self._hook_failed(plugin, hook, error)
                continue
            for answer in answers:
                yield plugin, answer
                if first_only:
                    return

    def _hook_failed(self, plugin: FoundPlugin, hook: str, error: BaseException) -> None:
        if hook in STOPPING:
            if isinstance(error, BentotoolError):
                error.details.setdefault("plugin", plugin.name)
                raise error
            message = str(PluginFailure(plugin, f"{hook} failed: {explain(error)}"))
            raise PluginError(message, hint=f"bentotool --disable-plugin {plugin.name} … goes on without it") from error
        self._fail(plugin, f"{hook} failed: {explain(error)}")

    def _records(self, hook: str, kind: type[DeclT]) -> list[tuple[FoundPlugin, DeclT]]:
        if hook not in self._declared:
            self._declared[hook] = [
                (plugin, record) for plugin, record in self._answers(hook, {}) if isinstance(record, kind)
            ]
        return [(plugin, record) for plugin, record in self._declared[hook] if isinstance(record, kind)]

    def _by_key(self, hook: str, kind: type[DeclT], what: str, of: Callable[..., Sequence[str]]) -> dict[str, DeclT]:
        owners: dict[str, tuple[FoundPlugin, DeclT]] = {}
        for plugin, record in self._records(hook, kind):
            for key in of(record):
                if key in owners:
                    raise clash(f"{what} {key!r}", [owners[key][0], plugin])
                owners[key] = plugin, record
        return {key: record for key, (_, record) in owners.items()}

    def _unique(self, hook: str, kind: type[DeclT], what: str) -> dict[str, DeclT]:
        owners: dict[str, FoundPlugin] = {}
        records: dict[str, DeclT] = {}
        for plugin, record in self._records(hook, kind):
            if record.name in records:
                raise clash(f"{what} {record.name!r}", [owners[record.name], plugin])
            owners[record.name], records[record.name] = plugin, record
        return records

    def _owner(self, decl: object) -> str:
        for records in self._declared.values():
            for plugin, record in records:
                if record is decl:
                    return f"plugin {plugin.name!r} ({plugin.origin})"
        return "plugin"
