"""``bentotool.<framework>``: ``save_model``, ``load_model`` and ``get``.

Inside a Bento (``BENTOTOOL_BENTO`` names its ``bento.json``) the loader file that travels in the Bento is used, and
neither plugins nor a store exist. Elsewhere the framework's plugin is asked. This file is part of the embedded
runtime: at import it needs the standard library only, and everything else is looked for when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bentotool.errors import BentotoolError, MissingDependencyError, NotFoundError, UnsafeError, UsageError

if TYPE_CHECKING:
    from bentotool.models.reader import BentoModel, Model
    from bentotool.plugins import Plugins

__all__ = ["FrameworkNamespace", "namespace"]

BENTO_ENV = "BENTOTOOL_BENTO"


def namespace(name: str) -> FrameworkNamespace:
    """What ``bentotool.<name>`` is.

    Raises:
        AttributeError: no framework of this name is in the Bento, or declared by an installed plugin.
    """
    # ``from bentotool import plugins`` asks here first: that must find the module, and not load every plugin on the way
    if name.startswith("_") or importlib.util.find_spec(f"bentotool.{name}") or name not in _known():
        raise AttributeError(f"module 'bentotool' has no attribute {name!r}, nor is it an installed framework")
    return FrameworkNamespace(name)


class FrameworkNamespace:
    """Functions of one framework, with BentoML's argument names; see :func:`namespace`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<bentotool.{self.name}>"

    def get(self, tag: str | Model | BentoModel) -> Model:
        """The model of a tag: ``.tag``, ``.path``, ``.info``, ``.digest``.

        Raises:
            NotFoundError: there is no such model.
            UsageError: it is a model of another framework.
        """
        model = _model(tag)
        framework = model.info.get("framework")
        if framework and framework != self.name:
            raise UsageError(
                f"{model.tag} is a model of framework {framework!r}, not {self.name!r}",
                hint=f"use bentotool.{framework}",
            )
        return model

    def load_model(self, tag: str | Model | BentoModel, *, trust: bool = False, **options: Any) -> Any:
        """Load a model: the framework's own object.

        Args:
            tag: ``"iris:latest"``, or what ``get`` or a ``BentoModel`` attribute gives.
            trust: loads a model of class ``pickle``, which runs whatever code its author put in.
            options: for the framework's loader.

        Raises:
            NotFoundError: there is no such model.
            UnsafeError: it is a pickle, and ``trust`` is False.
            MissingDependencyError: the framework is not installed.
        """
        model = self.get(tag)
        if model.info.get("safety") == "pickle":
            if trust is not True:
                raise UnsafeError(
                    f"{model.tag} is a pickle: loading it runs whatever code its author put in",
                    hint="pass trust=True, if you trust where it comes from",
                )
            options["trust"] = True
        try:
            return self._loader().load(model.main_path, **options)
        except ValueError as error:
            if getattr(error, "unsafe", False):  # a loader knows no bentotool, so it says it by an attribute
                raise UnsafeError(str(error)) from error
            raise
        except ModuleNotFoundError as error:
            if isinstance(error, BentotoolError) or not error.name:
                raise
            package = error.name.partition(".")[0]
            raise MissingDependencyError(package, purpose=f"to load {model.tag}") from error

    def save_model(
        self,
        name: str,
        model: object,
        *,
        version: str | None = None,
        signatures: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        trust: bool = False,
        **options: Any,
    ) -> Model:
        """Save a model object into the local store and give it back as ``get`` does.

        Args:
            name: name in the store.
            model: the framework's own object.
            version: default: derived from the content.
            signatures: methods and their batching, recorded in the metadata as BentoML writes them.
            labels, metadata: kept with the model.
            trust: saves what can only be kept as class ``pickle``.
            options: for the framework's plugin.

        Raises:
            UsageError: the object is not one that the framework saves, or this is the runtime inside a Bento.
        """
        if os.environ.get(BENTO_ENV):
            raise UsageError(f"{name} cannot be saved inside a Bento, which has no model store")
        try:
            from bentotool.models.api import import_model
        except ModuleNotFoundError:
            raise UsageError(f"{name} cannot be saved with the runtime alone", hint="pip install bentotool") from None
        import tempfile  # pulls in much that loading does not need

        facts = dict(metadata or {})
        if signatures:
            facts["signatures"] = {method: dict(signature) for method, signature in signatures.items()}
        framework = _plugins().framework(self.name)
        with tempfile.TemporaryDirectory(prefix="bentotool-save-") as folder:
            framework.save(model, Path(folder), **options)
            return import_model(
                folder, name, version=version, framework=self.name, labels=labels, metadata=facts, trust=trust
            )

    def _loader(self) -> ModuleType:
        bento = os.environ.get(BENTO_ENV)
        if bento:
            return _bundled_loader(Path(bento), self.name)
        return importlib.import_module(_plugins().framework_decl(self.name).loader)


def _known() -> frozenset[str]:
    bento = os.environ.get(BENTO_ENV)
    if bento:
        return frozenset(_loaders(Path(bento)))
    try:
        return frozenset(_plugins().frameworks())
    except ModuleNotFoundError:  # the runtime alone, outside a Bento
        return frozenset()


def _plugins() -> Plugins:
    """One manager for the process, so that a broken plugin is warned about once."""
    return _plugins_for(os.environ.get("BENTOTOOL_DISABLE_PLUGINS"), tuple(sys.path))


@lru_cache(maxsize=1)
def _plugins_for(disabled: str | None, path: tuple[str, ...]) -> Plugins:
    """Both arguments are read by ``load_plugins`` itself; they are here so that a change of either is seen."""
    from bentotool.plugins import load_plugins

    return load_plugins()


def _model(tag: str | Model | BentoModel) -> Model:
    from bentotool.models.reader import BentoModel, resolve

    if isinstance(tag, BentoModel):
        return tag.resolve()
    return resolve(tag) if isinstance(tag, str) else tag


def _loaders(bento: Path) -> dict[str, str]:
    try:
        loaders = json.loads(bento.read_bytes()).get("loaders", {})
        return {str(name): str(path) for name, path in loaders.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise BentotoolError(f"{bento} cannot be read: {error}", hint="build or pull the Bento again") from None


def _bundled_loader(bento: Path, name: str) -> ModuleType:
    """The loader file of a Bento, as a module under a private name: it neither shadows nor is shadowed."""
    module_name = f"_bentotool_loader_{name}"
    path = _bundled_path(bento, name)
    module = sys.modules.get(module_name)
    if module is not None and module.__file__ == str(path):
        return module
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None or not path.is_file():
        raise NotFoundError(f"this Bento has no loader for {name!r} at {path}", hint="build or pull the Bento again")
    for stale in [each for each in sys.modules if each.startswith(f"{module_name}.")]:
        del sys.modules[stale]
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # what it defines may be looked up by name, as dataclasses do
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _bundled_path(bento: Path, name: str) -> Path:
    home = bento.parent.resolve()
    known = _loaders(bento)
    if name not in known:
        raise NotFoundError(
            f"this Bento has no loader for {name!r} (it has: {', '.join(sorted(known)) or 'none'})",
            hint="declare a model of that framework with BentoModel and build again",
        )
    path = (home / known[name]).resolve()
    if not path.is_relative_to(home):
        raise UnsafeError(f"{bento} names a loader outside the Bento: {known[name]}")
    return path
