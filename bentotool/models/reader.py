"""How a running service finds its models: from the Bento it runs in, else from the store of this user.

Standard library only: this file travels in the embedded runtime, where no store exists.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, overload
from urllib.parse import urlencode

from bentotool.errors import BentotoolError, NotFoundError, UsageError

__all__ = ["BENTO_ENV", "BentoModel", "HuggingFaceModel", "Info", "Model", "asked_of", "resolve"]

BENTO_ENV = "BENTOTOOL_BENTO"
"""Path of the ``bento.json`` of the Bento that this process runs; set by the runtime."""


class Info(dict[str, Any]):
    """What is known of a model. Each key is an attribute too, and so are BentoML's names: ``info.labels``.

    A key that the place the model came from does not tell is None, or empty, as an attribute.

    Attributes:
        created: when it came into the store, RFC 3339; empty inside a Bento. No key: it is not a fact of the model.
    """

    created: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.get("labels") or {})

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.get("metadata") or {})

    @property
    def module(self) -> str:
        """BentoML's word for the framework: what ``create(module=…)`` was told, else the framework."""
        return str(self.metadata.get("module") or self.get("framework") or "")

    @property
    def signatures(self) -> dict[str, Any]:
        """Those of the methods, as ``save_model(signatures=…)`` was told."""
        return dict(self.metadata.get("signatures") or {})

    @property
    def options(self) -> dict[str, Any]:
        """Always empty: what BentoML keeps here is seen from the files, or stands in the metadata."""
        return {}

    @property
    def creation_time(self) -> datetime | None:
        """When it came into the store; None inside a Bento, which does not depend on it."""
        return datetime.fromisoformat(self.created.replace("Z", "+00:00")) if self.created else None

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            return self.get(name)
        raise AttributeError(f"nothing called {name!r} is known of a model; there are: {', '.join(sorted(self))}")


_FACTS = {"format", "framework", "main_file", "safety", "signature", "name", "tag", "version"}


@dataclass(frozen=True)
class Model:
    """A model on this disk.

    Attributes:
        tag: ``name:version``.
        digest: of its manifest.
        path: a folder with its files under their own names; read-only.
        info: framework, safety, main_file, signature, labels, metadata; see :class:`Info`.
        created: when it came into the store, RFC 3339; empty inside a Bento.
    """

    tag: str
    digest: str
    path: Path
    info: Info = field(default_factory=Info)
    created: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", Info(self.info))  # any mapping will do
        self.info.created = self.created

    @property
    def labels(self) -> dict[str, str]:
        return self.info.labels

    @property
    def metadata(self) -> dict[str, Any]:
        return self.info.metadata

    @property
    def creation_time(self) -> datetime | None:
        """When it came into the store; None inside a Bento."""
        return self.info.creation_time

    @property
    def custom_objects(self) -> dict[str, Any]:
        """Always empty: they would be a pickle, and none is kept with a model."""
        return {}

    @property
    def file_size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def load_model(self, *, trust: bool = False, **options: Any) -> Any:
        """The framework's own object; as ``bentotool.<framework>.load_model``, see there for the errors."""
        from bentotool.frameworks import namespace

        return namespace(str(self.info.framework)).load_model(self, trust=trust, **options)

    def export(self, path: str | Path) -> str:
        """Write it to an OCI archive; see :func:`bentotool.models.export_model`."""
        from bentotool.models.api import export_model

        return export_model(self.tag, path)

    @property
    def name(self) -> str:
        return self.tag.partition(":")[0]

    @property
    def version(self) -> str:
        return self.tag.partition(":")[2]

    @property
    def main_path(self) -> Path:
        """The file a loader is given; the folder itself for a model that has no main file."""
        main_file = str(self.info.get("main_file") or "")
        return self._beneath(main_file) if main_file else self.path

    def _beneath(self, item: str) -> Path:
        inner = Path(item)
        if inner.is_absolute() or inner.anchor or ".." in inner.parts:
            raise NotFoundError(f"model {self.tag} has no file {item!r}")
        return self.path / inner

    def path_of(self, item: str) -> str:
        """The path of one file, as text.

        Raises:
            NotFoundError: when the model has no such file.
        """
        path = self._beneath(item)
        if not path.exists():
            raise NotFoundError(f"model {self.tag} has no file {item!r}")
        return str(path)


class BentoModel:
    """Declares, as a class attribute of a service, that it uses a model of the store.

    Example::

        @bentotool.service
        class Iris:
            model = bentotool.models.BentoModel("iris:latest")

            def __init__(self):
                self.session = bentotool.onnx.load_model(self.model)

    Args:
        reference: ``name``, ``name:version``, ``name@sha256:…`` or a unique prefix of a version. ``latest`` is resolved
            when the Bento is built and never again.
    """

    __bentotool_model__ = True

    def __init__(self, reference: str) -> None:
        if not isinstance(reference, str) or not reference:
            raise TypeError(f"BentoModel takes a reference such as 'iris:latest', not {reference!r}")
        self.reference = reference

    @overload
    def __get__(self, instance: None, owner: type) -> BentoModel: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Model: ...
    def __get__(self, instance: object | None, owner: type) -> BentoModel | Model:
        return self if instance is None else resolve(self.reference)

    def resolve(self) -> Model:
        """The model on this disk; see :func:`resolve`."""
        return resolve(self.reference)

    def __repr__(self) -> str:
        return f"BentoModel({self.reference!r})"


_HUB_MODEL = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)
_REVISION = re.compile(r"[\w./-]+", re.ASCII)


def asked_of(address: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> str:
    """What was asked of a source, as one text: its address, and which of its files."""
    choice = urlencode({"include": list(include), "exclude": list(exclude)}, doseq=True)
    return f"{address}?{choice}" if choice else address


class HuggingFaceModel:
    """Declares, as a class attribute of a service, that it uses a repository of the Hugging Face hub.

    On an instance it is the path of a folder with the files, as text. The build takes the model from the store, and
    imports it first where it is not there; the Bento has it by its digest. Outside a Bento it is looked up, and where
    need be imported, when it is first used.

    Args:
        model_id: ``org/repo``.
        revision: a commit, a tag or a branch. What a branch stood for when the model was imported is what is used.
        endpoint: of the hub; the hub's client takes it from ``HF_ENDPOINT``, which must say the same.
        include, exclude: patterns over the names of its files, as for ``bentotool model import``.

    Attributes:
        reference: by which the model is named in the store and in a Bento.

    Raises:
        TypeError: for what is no text, or no list of texts.
        UsageError: for what names no repository or revision; for an ``endpoint`` that the hub's client does not use.
    """

    __bentotool_model__ = True

    def __init__(
        self,
        model_id: str,
        revision: str = "main",
        endpoint: str | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        for name, value, form in (("model_id", model_id, _HUB_MODEL), ("revision", revision, _REVISION)):
            if not isinstance(value, str):
                raise TypeError(f"{name} of HuggingFaceModel is a text, not {value!r:.80}")
            if not form.fullmatch(value) or ".." in value:
                raise UsageError(f"{name}={value!r:.80} is none of the hub", hint='write "org/repo", revision="main"')
        self.include, self.exclude = _patterns("include", include), _patterns("exclude", exclude)
        self.model_id, self.revision, self.endpoint = model_id, revision, endpoint
        self.reference = asked_of(f"hf://{model_id}@{revision}", self.include, self.exclude)
        self._path = ""
        # In a Bento the files are there, whichever hub they came from.
        if endpoint and not os.environ.get(BENTO_ENV):
            used = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
            if used.rstrip("/") != endpoint.rstrip("/"):
                raise UsageError(f"endpoint={endpoint!r:.200} is not {used}", hint=f"set HF_ENDPOINT={endpoint:.200}")

    @overload
    def __get__(self, instance: None, owner: type) -> HuggingFaceModel: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str: ...
    def __get__(self, instance: object | None, owner: type) -> HuggingFaceModel | str:
        return self if instance is None else self.resolve()

    def resolve(self) -> str:
        """The folder with the files; see :func:`resolve` for the errors, and ``bentotool model import`` for its own."""
        bento = os.environ.get(BENTO_ENV)
        if bento:
            return str(_from_bento(bento, self.reference).path)
        if not self._path:  # a branch does not move while the service runs
            self._path = str(_from_hub(self.reference).path)
        return self._path

    def __repr__(self) -> str:
        return f"HuggingFaceModel({self.reference!r})"


def _patterns(name: str, given: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(each, str) for each in given or ()):
        raise TypeError(f"{name} of HuggingFaceModel is a list of patterns, not {given!r:.80}")
    return tuple(given or ())


def resolve(tag: str | Model) -> Model:
    """Find a model; one that was found already is given back.

    Inside a Bento only the models it was built with exist. Elsewhere the local store is asked.

    Raises:
        NotFoundError: when there is no such model.
        UsageError: for what names no model.
    """
    if isinstance(tag, Model):
        return tag
    if not isinstance(tag, str):
        raise UsageError(f"a model is named by text such as 'iris:latest', not by a value of type {type(tag).__name__}")
    bento = os.environ.get(BENTO_ENV)
    return _from_bento(bento, tag) if bento else _from_store(tag)


@lru_cache(maxsize=8)
def _bundled(path: str) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(json.loads(Path(path).read_bytes())["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BentotoolError(f"{path} cannot be read: {error}", hint="build or pull the Bento again") from None


def _names(entry: Mapping[str, Any]) -> set[str]:
    name, version, digest = entry["name"], entry["version"], entry["digest"]
    return {entry["alias"], name, f"{name}:{version}", f"{name}@{digest}", f"{name}:latest"}


def _from_bento(bento: str, tag: str) -> Model:
    entries = _bundled(bento)
    # What the service wrote wins over a name that merely fits, as two versions of a model can be in one Bento.
    found = [entry for entry in entries if entry["alias"] == tag] or [
        entry for entry in entries if tag in _names(entry)
    ]
    if not found:
        known = ", ".join(entry["alias"] for entry in entries) or "none"
        raise NotFoundError(
            f"model {tag} is not in this Bento (it has: {known})", hint="declare it with BentoModel and build again"
        )
    entry = found[0]
    root = Path(bento).parent.parent.parent
    keys = ("framework", "format", "safety", "main_file", "signature", "labels", "metadata", "name", "version")
    tag = f"{entry['name']}:{entry['version']}"
    return Model(tag, entry["digest"], root / entry["path"], Info({key: entry.get(key) for key in keys}, tag=tag))


def _from_store(tag: str) -> Model:
    try:
        from bentotool.models.api import open_model
    except ModuleNotFoundError:
        raise NotFoundError(
            f"model {tag} cannot be looked up: this is the runtime alone, outside a Bento", hint="pip install bentotool"
        ) from None
    return open_model(tag)


def _from_hub(reference: str) -> Model:
    try:
        from bentotool.models.api import open_declared
    except ModuleNotFoundError:
        raise NotFoundError(
            f"model {reference} cannot be looked up: this is the runtime alone, outside a Bento",
            hint=f"pip install bentotool, then bentotool model import {reference.partition('?')[0]}",
        ) from None
    return open_declared(reference)
