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
import re
import sys
from collections.abc import Callable, Mapping, Sequence
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
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ALIASES = {
    "diffusers": "huggingface",
    "picklable_model": "picklable",
    "pytorch": "torch",
    "pytorch_lightning": "torch",
    "torchscript": "torch",
    "transformers": "huggingface",
}
"""BentoML's names of frameworks whose plugin has another."""
_RENAMED = {"device_id": "device", "device_name": "device"}
"""BentoML's names of options, and what loaders that do not know them call the same."""
_NOT_KEPT = {
    "custom_objects": "it would be a pickle: save it as a model of its own, or make it where the service starts",
    "external_modules": "the service's own code travels in the Bento: put the modules beside it",
}


def namespace(name: str) -> FrameworkNamespace:
    """What ``bentotool.<name>`` is; BentoML's names of frameworks are understood too.

    Raises:
        AttributeError: no framework of this name is in the Bento, or declared by an installed plugin.
    """
    # ``from bentotool import plugins`` asks here first: that must find the module, and not load every plugin on the way
    found = None if name.startswith("_") or importlib.util.find_spec(f"bentotool.{name}") else _canonical(name)
    if found is None:
        raise AttributeError(f"module 'bentotool' has no attribute {name!r}, nor is it an installed framework")
    return FrameworkNamespace(found)


class FrameworkNamespace:
    """Functions of one framework, with BentoML's argument names; see :func:`namespace`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<bentotool.{self.name}>"

    def get(self, tag_like: str | Model | BentoModel) -> Model:
        """The model of a tag: ``.tag``, ``.path``, ``.info``, ``.digest``.

        Raises:
            NotFoundError: there is no such model.
            UsageError: it is a model of another framework.
        """
        model = _model(tag_like)
        framework = model.info.get("framework")
        if framework and framework != self.name:
            raise UsageError(
                f"{model.tag} is a model of framework {framework!r}, not {self.name!r}",
                hint=f"use bentotool.{framework}",
            )
        return model

    def load_model(self, bento_model: str | Model | BentoModel, *, trust: bool = False, **options: Any) -> Any:
        """Load a model: the framework's own object.

        Args:
            bento_model: ``"iris:latest"``, or what ``get`` or a ``BentoModel`` attribute gives.
            trust: loads a model of class ``pickle``, which runs whatever code its author put in.
            options: for the framework's loader, some also by the names BentoML has for them.

        Raises:
            NotFoundError: there is no such model.
            UnsafeError: it is a pickle, and ``trust`` is False.
            MissingDependencyError: the framework is not installed.
        """
        model = self.get(bento_model)
        if model.info.get("safety") == "pickle":
            from bentotool.models.trust import require_trust

            facts = model.info.get("metadata") or {}
            reasons = facts.get("needs_trust")
            require_trust(
                "pickle",
                model.tag,
                trust=trust,
                instead=facts.get("instead"),
                reasons=reasons,
                format=str(model.info.get("format") or ("" if reasons else "pickle")),
                how="trust=True loads it",
            )
            options["trust"] = True
        try:
            load = self._loader().load
            return load(model.main_path, **_renamed(options, load))
        except ValueError as error:
            # A loader knows no bentotool: it calls a folder of the store by its name, and says by an attribute what
            # is unsafe.
            if len(error.args) == 1 and _DIGEST.fullmatch(Path(model.path).name):
                text = str(error).replace(str(model.path), model.tag)
                error.args = (text.replace(Path(model.path).name, model.tag),)
            if getattr(error, "unsafe", False):
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
        custom_objects: Mapping[str, Any] | None = None,
        external_modules: Sequence[ModuleType] | None = None,
        metadata: Mapping[str, Any] | None = None,
        trust: bool = False,
        **options: Any,
    ) -> Model:
        """Save a model object into the local store and give it back as ``get`` does.

        Args:
            name: name in the store, or ``name:version``.
            model: the framework's own object.
            version: default: derived from the content.
            signatures: methods and their batching, recorded in the metadata as BentoML writes them.
            labels, metadata: kept with the model.
            custom_objects, external_modules: BentoML's, refused with a hint what to do instead.
            trust: saves what can only be kept as class ``pickle``.
            options: for the framework's plugin.

        Raises:
            UsageError: the object is not one that the framework saves, or this is the runtime inside a Bento.
        """
        _refuse({"custom_objects": custom_objects, "external_modules": external_modules})
        if os.environ.get(BENTO_ENV):
            raise UsageError(f"{name} cannot be saved inside a Bento, which has no model store")
        try:
            from bentotool.models.api import save_files
        except ModuleNotFoundError:
            raise UsageError(f"{name} cannot be saved with the runtime alone", hint="pip install bentotool") from None
        name, version = split_version(name, version)
        facts = with_signatures(metadata, signatures)
        framework = _plugins().framework(self.name)
        return save_files(
            lambda folder: framework.save(model, folder, **options),
            name,
            version=version,
            framework=self.name,
            labels=labels,
            metadata=facts,
            trust=trust,
        )

    def import_model(self, name: str, source: str | Path, **options: Any) -> Model:
        """Import what lies at a path or an address as a model of this framework.

        Args:
            name: name in the store, or ``name:version``.
            source: a file, a folder, or an address as ``bentotool model import`` takes it.
            options: those of :func:`bentotool.models.api.import_model`; ``signatures`` as for :meth:`save_model`.
        """
        from bentotool.models.api import import_model

        _refuse({key: options.pop(key, None) for key in _NOT_KEPT})
        name, version = split_version(name, options.pop("version", None))
        facts = with_signatures(options.pop("metadata", None), options.pop("signatures", None))
        return import_model(source, name, version=version, framework=self.name, metadata=facts, **options)

    def _loader(self) -> ModuleType:
        bento = os.environ.get(BENTO_ENV)
        if bento:
            return _bundled_loader(Path(bento), self.name)
        return importlib.import_module(_plugins().framework_decl(self.name).loader)


def split_version(name: str, version: str | None) -> tuple[str, str | None]:
    """``name:version``, where BentoML takes a tag for a name."""
    if version is None and isinstance(name, str) and ":" in name:
        name, _, version = name.partition(":")
    return name, version


def with_signatures(metadata: Mapping[str, Any] | None, signatures: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata with the signatures of a model's methods, as BentoML writes them.

    Raises:
        UsageError: they are not a dictionary for each method.
    """
    facts = dict(metadata or {})
    if signatures:
        try:
            facts["signatures"] = {str(method): dict(signature) for method, signature in signatures.items()}
        except (AttributeError, TypeError, ValueError):
            raise UsageError(
                f"signatures {signatures!r:.80} are not a dictionary for each method",
                hint='signatures={"predict": {"batchable": True}}',
            ) from None
    return facts


def _refuse(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} is not kept with a model", hint=_NOT_KEPT[name])


def _renamed(options: dict[str, Any], load: Callable[..., object]) -> dict[str, Any]:
    """Options by the names that the loader has for them."""
    import inspect  # as heavy as the rest of this module

    parameters = inspect.signature(load).parameters
    return {
        new if name not in parameters and (new := _RENAMED.get(name, name)) in parameters else name: value
        for name, value in options.items()
    }


def _canonical(name: str) -> str | None:
    """The name of the framework that is meant, if it is there."""
    known = _known()
    return name if name in known else alias if (alias := _ALIASES.get(name)) in known else None


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
