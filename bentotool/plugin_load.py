"""Loads one plugin and looks it over; everything that can be wrong with it comes out as :class:`PluginFailure`.

Kept apart from :mod:`bentotool.plugins`, which holds the plugins that passed and asks them things.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pluggy

import bentotool.hookspecs
from bentotool.hookspecs import PROJECT
from bentotool.imagespec import ImageBuilderDecl
from bentotool.interfaces import (
    API_VERSION,
    ArchiveDecl,
    CommandDecl,
    Credentials,
    FrameworkDecl,
    PlanAddition,
    SourceDecl,
    TemplateDecl,
    is_target,
)
from bentotool.plugin_scan import FoundPlugin
from bentotool.signspec import SignerDecl
from bentotool.targetspec import TargetDecl

__all__ = [
    "HOOKS",
    "STOPPING",
    "PluginFailure",
    "PluginState",
    "checked",
    "contained",
    "explain",
    "load",
    "new_manager",
    "stdout_kept_clean",
    "warn_on_stderr",
]

PREFIX = f"{PROJECT}_"
HOOKS = tuple(sorted(name for name in vars(bentotool.hookspecs) if name.startswith(PREFIX)))

_MAX_MESSAGE = 300  # characters; a plugin's exception may hold a whole file

_MAX_RECORDS = 1000  # of one kind from one plugin: a generator that never ends is a broken plugin, not a hung tool

_MANY = {  # hooks that return an iterable, and of what
    "bentotool_frameworks": FrameworkDecl,
    "bentotool_archives": ArchiveDecl,
    "bentotool_commands": CommandDecl,
    "bentotool_image_builders": ImageBuilderDecl,
    "bentotool_signers": SignerDecl,
    "bentotool_sources": SourceDecl,
    "bentotool_targets": TargetDecl,
    "bentotool_templates": TemplateDecl,
    "bentotool_runtime_middleware": str,
}
_ONE = {  # hooks that return one value or None, and of what
    "bentotool_base_image": str,
    "bentotool_identify_model": str,
    "bentotool_registry_credentials": Credentials,
    "bentotool_signing_identity": str,
    "bentotool_plan_build": PlanAddition,
}

# A plugin's failure in these stops the work: going on without it would push what is forbidden, or build another Bento.
STOPPING = frozenset(
    {
        "bentotool_base_image",
        "bentotool_before_deploy",
        "bentotool_before_push",
        "bentotool_plan_build",
        "bentotool_runtime_middleware",
        "bentotool_signing_identity",
    }
)


@dataclass(frozen=True)
class PluginState:
    """One line of ``bentotool plugin list``; ``state`` is ``loaded``, ``disabled`` or ``failed``."""

    name: str
    distribution: str
    version: str
    target: str
    state: str
    hooks: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class PluginFailure:
    """What is wrong with a plugin, for a one-line warning."""

    plugin: FoundPlugin
    message: str

    def __str__(self) -> str:
        return f"plugin {self.plugin.name!r} ({self.plugin.origin}): {self.message}"


class _BrokenPlugin(Exception):
    """Internal: a plugin that loads and may not be used; the text says why."""


def explain(error: BaseException) -> str:
    """An exception as one line: type and text, no control characters, bounded."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    if isinstance(error, _BrokenPlugin):
        return text[:_MAX_MESSAGE]
    return f"{type(error).__name__}: {text}"[:_MAX_MESSAGE].rstrip(": ")


def contained(error: BaseException) -> bool:
    """Whether an exception out of a plugin is the plugin's failure: all but the user's interrupt.

    ``sys.exit()`` in a plugin's module is a mistake like any other.
    """
    return isinstance(error, Exception | SystemExit)


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """What a plugin prints goes to stderr: stdout holds results, with ``--json`` exactly one document."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def warn_on_stderr(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")


def new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(bentotool.hookspecs)
    return manager


def load(manager: pluggy.PluginManager, found: FoundPlugin) -> PluginFailure | None:
    """Import a plugin, look it over and register it with ``manager`` under its name; the failure, or None."""
    try:
        with stdout_kept_clean():
            plugin = _import(found)
            _check(plugin)
            manager.register(plugin, found.name)
    except BaseException as error:
        if not contained(error):
            raise
        _unregister(manager, found.name)
        return PluginFailure(found, explain(error))
    try:
        manager.check_pending()  # after each plugin, so that the offender is known
        _check_registered(manager, plugin)
    except (_BrokenPlugin, pluggy.PluginValidationError) as error:
        _unregister(manager, found.name)
        return PluginFailure(found, explain(error))
    return None


def _unregister(manager: pluggy.PluginManager, name: str) -> None:
    if manager.has_plugin(name):
        manager.unregister(name=name)


def _import(found: FoundPlugin) -> object:
    module, _, attribute = found.target.partition(":")
    if not module or module.startswith("."):
        raise _BrokenPlugin(f"its entry point {found.target!r} is not of the form 'package.module'")
    plugin: object = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        plugin = getattr(plugin, part)
    if plugin is None or isinstance(plugin, str | bytes | int | float | type):
        raise _BrokenPlugin(f"its entry point {found.target!r} is {plugin!r}, not a module or an object with hooks")
    return plugin


def _check(plugin: object) -> None:
    """Refuse what pluggy would take without a word: another interface version, unmarked or misspelt hooks."""
    version = getattr(plugin, "BENTOTOOL_API_VERSION", API_VERSION)
    if version != API_VERSION:
        raise _BrokenPlugin(f"it was written for plugin interface {version!r}, this bentotool has {API_VERSION}")
    hooks = []
    for name in dir(plugin):
        value = getattr(plugin, name, None) if name.startswith(PREFIX) else None
        if not callable(value) or isinstance(value, types.ModuleType | type):
            continue
        if name not in HOOKS:
            raise _BrokenPlugin(f"there is no hook {name!r}{_suggestion(name)}")
        if not hasattr(value, f"{PROJECT}_impl"):
            raise _BrokenPlugin(f"{name} is not marked with @hookimpl")
        hooks.append(name)
    if not hooks:
        raise _BrokenPlugin("it implements no hook")


def _suggestion(name: str) -> str:
    import difflib  # only for a message

    close = difflib.get_close_matches(name, HOOKS, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_registered(manager: pluggy.PluginManager, plugin: object) -> None:
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin and (implementation.wrapper or implementation.hookwrapper):
                raise _BrokenPlugin(f"{caller.name} is a hook wrapper, and wrappers are not called")


def checked(hook: str, value: object) -> tuple[object, ...]:
    """A hook's answer as a tuple of values of the right type; TypeError names what came instead."""
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("it is an async function; hooks are plain functions")
    if hook in _MANY:
        if value is None:
            return ()
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"it returned {type(value).__name__}, not an iterable of {_MANY[hook].__name__}")
        items = tuple(islice(value, _MAX_RECORDS + 1))
        if len(items) > _MAX_RECORDS:
            raise TypeError(f"it returned more than {_MAX_RECORDS} values")
        wrong = next((item for item in items if not isinstance(item, _MANY[hook])), None)
        if wrong is not None or None in items:
            from bentotool.sdk.wording import kind_of

            raise TypeError(f"it returned {kind_of(wrong)}, not a {_MANY[hook].__name__}")
        if _MANY[hook] is str and not all(is_target(item) for item in items):
            raise TypeError(f"it returned {items!r}, which are not all of the form 'package.module:attribute'")
        return items
    if hook in _ONE and value is not None:
        if not isinstance(value, _ONE[hook]):
            raise TypeError(f"it returned {type(value).__name__}, not {_ONE[hook].__name__} or None")
        return (value,)
    return ()
