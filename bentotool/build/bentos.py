"""The Bento Store: Bentos by name and version over an image layout."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool.build.media import API, ARTIFACT_TYPE, CODE, CONFIG, KIND, LOCK, TITLE, WHEEL, WHEELS, brief
from bentotool.errors import VerificationError
from bentotool.models.store import ModelStore, link_file
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest
from bentotool.oci.digest import check_digest
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.refs import Ref, RefStore, check_name, check_version
from bentotool.oci.tar import check_entry_name, untar
from bentotool.paths import make_folder

__all__ = ["BentoModelRef", "BentoStore", "StoredBento"]

_CONFIG_LIMIT = 4 << 20
_LAYER_LIMIT = 256 << 20
_TEXT_KEYS = ("name", "version", "service", "python", "platform", "description")


@dataclass(frozen=True)
class BentoModelRef:
    """A model that a Bento names, by digest."""

    alias: str
    name: str
    version: str
    digest: str
    path: str
    framework: str = ""
    safety: str = ""


@dataclass(frozen=True)
class StoredBento:
    """A Bento in the store.

    Attributes:
        size: bytes of its own content; models are not counted.
        created: when it came into this store, RFC 3339 in UTC.
    """

    name: str
    version: str
    digest: str
    size: int
    created: str
    service: str
    python: str
    platform: str
    description: str
    labels: Mapping[str, str]
    models: tuple[BentoModelRef, ...]
    config: Mapping[str, Any]
    manifest: Manifest
    descriptor: Descriptor

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def layer(self, media_type: str) -> Descriptor:
        """The layer of a kind; of wheels, that of the embedded runtime.

        Raises:
            VerificationError: when the Bento has none or several.
        """
        every = (layer for layer in self.manifest.layers if layer.media_type == media_type)
        found = [layer for layer in every if not layer.annotations.get(TITLE, "").startswith(WHEELS)]
        if len(found) != 1:
            raise VerificationError(f"Bento {self.tag} has {len(found)} layers of type {media_type}, not one")
        return found[0]

    @property
    def arguments(self) -> list[dict[str, Any]]:
        """Its template arguments: ``{"name", "type", "required", "secret"}``, and ``value`` of those it was built with.

        Raises:
            VerificationError: they are not in that form.
        """
        try:
            return [
                {**{key: _text(item[key]) for key in ("name", "type")}, "required": item["required"] is True}
                | ({"secret": True} if item["secret"] else {"secret": False, **_value(item)})
                for item in self.config.get("arguments", ())
            ]
        except (KeyError, TypeError):
            raise VerificationError(f"the arguments of Bento {self.tag} are not in the expected form") from None

    @property
    def wheels(self) -> dict[str, Descriptor]:
        """The packages that the Bento carries as wheels: their layers by file name.

        Raises:
            VerificationError: a name that is not that of a wheel, or stands twice.
        """
        found: dict[str, Descriptor] = {}
        for layer in self.manifest.layers:
            title = layer.annotations.get(TITLE, "")
            if layer.media_type == WHEEL and title.startswith(WHEELS):
                name = title[len(WHEELS) :]
                if name in found or not re.fullmatch(r"[A-Za-z0-9][\w.+!-]{0,200}\.whl", name, re.ASCII):
                    raise VerificationError(f"Bento {self.tag} carries a wheel named {name[:120]!r}")
                found[name] = layer
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that every command prints."""
        names = ("name", "version", "tag", "digest", "size", "created", "service", "python", "platform", "description")
        models = [dict(vars(model)) for model in self.models]
        return {**{name: getattr(self, name) for name in names}, "labels": dict(self.labels), "models": models}


class BentoStore:
    """Finds, names, removes and lays out Bentos.

    Args:
        layout: where they lie.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.refs = RefStore(layout)

    def get(self, reference: str) -> StoredBento:
        """Find a Bento by ``name``, ``name:version``, ``name@sha256:…``, ``latest`` or a unique version prefix.

        Raises:
            NotFoundError: when there is none.
            VerificationError: when its manifest or config is damaged.
        """
        return self._load(self.refs.get(KIND, reference))

    def list(self, name: str | None = None) -> list[Ref]:
        """All references, newest first. Manifests are not read: listing many Bentos stays cheap."""
        return self.refs.list(KIND, name)

    def adopt(self, name: str, version: str, digest: str, *, replace: bool = True) -> StoredBento:
        """Give a name and version to a Bento whose manifest and layers are in the layout, as after a pull.

        Raises:
            ConflictError: the version stands for another Bento and ``replace`` is False.
            VerificationError: the manifest is not that of a Bento.
        """
        manifest_size = self.layout.blob_path(digest).stat().st_size
        found = self._load(
            Ref(KIND, check_name(name), check_version(version), Descriptor(MANIFEST, digest, manifest_size), "", 0)
        )
        facts = brief(found.service, found.python, found.labels)
        descriptor = Descriptor(MANIFEST, digest, manifest_size, facts, ARTIFACT_TYPE)
        return self._load(self.refs.set(KIND, name, version, descriptor, size=found.size, replace=replace))

    def tag(self, reference: str, version: str, *, replace: bool = False) -> StoredBento:
        """Give a Bento one more version name; see :meth:`RefStore.alias`."""
        return self._load(self.refs.alias(KIND, reference, version, replace=replace))

    def requirements(self, bento: StoredBento) -> str:
        """The text of its lock: a requirements file with hashes."""
        return self.layout.read(bento.layer(LOCK).digest, _LAYER_LIMIT).decode()

    def api(self, bento: StoredBento) -> dict[str, Any]:
        """Its API documents: ``{"openapi", "schema"}``."""
        document = json.loads(self.layout.read(bento.layer(API).digest, _LAYER_LIMIT))
        return document if isinstance(document, dict) else {}

    def _load(self, ref: Ref) -> StoredBento:
        manifest = Manifest.from_bytes(self.layout.read(ref.digest))
        if manifest.artifact_type != ARTIFACT_TYPE or manifest.config.media_type != CONFIG:
            raise VerificationError(f"{ref.ref} is not a Bento but {manifest.artifact_type}")
        try:
            config = json.loads(self.layout.read(manifest.config.digest, _CONFIG_LIMIT))
            text = {name: _text(config[name]) for name in _TEXT_KEYS}
            models = tuple(_model(item) for item in config["models"])
            labels = {_text(key): _text(value) for key, value in config["labels"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationError(
                f"the config of Bento {ref.ref} is not in the expected form: {error!r}"[:200]
            ) from None
        size = ref.descriptor.size + manifest.config.size + sum(layer.size for layer in manifest.layers)
        text |= {"name": ref.name, "version": ref.tag}
        return StoredBento(
            **text, digest=ref.digest, size=size, created=ref.created, labels=labels, models=models,
            config=config, manifest=manifest, descriptor=ref.descriptor,
        )  # fmt: skip

    def materialise(self, bento: StoredBento) -> Path:
        """The Bento as a folder tree: ``home/bento``, ``models/<name>``, ``opt/bentotool/runtime``, ``wheels``.

        It is made once for a digest, under another name, and renamed when it is whole. Model files are links to the
        store's own: their bytes are not copied.

        Raises:
            NotFoundError: a model or layer is not in the store.
            VerificationError: a layer is damaged.
        """
        # It brings the reader of configurations along, which listing and showing can do without.
        from bentotool.build.wheel import open_wheel

        models = ModelStore(self.layout)
        for model in bento.models:
            models.check_linked(models.by_digest(model.name, model.digest))
        folder = self.layout.root / "views" / "bentos" / bento.digest[7:]
        if folder.is_dir():
            return folder
        draft = self.layout.temporary() / os.urandom(16).hex()
        try:
            make_folder(draft, private=True)
            self._unpack_code(bento, draft)
            for name, content in open_wheel(self.layout.read(bento.layer(WHEEL).digest, _LAYER_LIMIT)):
                _write(draft / "opt" / "bentotool" / "runtime" / check_entry_name(name), (content,))
            self._link_models(bento, draft)
            self._link_wheels(bento, draft)
            make_folder(folder.parent)
            draft.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # another process may have finished the same folder first
                raise storage_error(error, self.layout.root) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def _unpack_code(self, bento: StoredBento, draft: Path) -> None:
        layer = bento.layer(CODE)
        if not self.layout.verify_blob(layer.digest):
            raise VerificationError(
                f"the code of Bento {bento.tag} is damaged or missing", hint="build or pull it again"
            )
        with self.layout.open_layer(layer) as stream:
            for entry, pieces in untar(stream):
                if not entry.name.startswith("home/bento/"):
                    raise VerificationError(f"the code of Bento {bento.tag} holds {entry.name!r} outside home/bento")
                _write(draft / entry.name, pieces)

    def _link_wheels(self, bento: StoredBento, draft: Path) -> None:
        for name, layer in bento.wheels.items():
            if not self.layout.verify_blob(layer.digest):
                raise VerificationError(
                    f"{name} of Bento {bento.tag} is damaged or missing", hint="build or pull it again"
                )
            make_folder(draft / "wheels")
            link_file(self.layout.blob_path(layer.digest), draft / "wheels" / name)

    def _link_models(self, bento: StoredBento, draft: Path) -> None:
        store, done = ModelStore(self.layout), dict[str, str]()
        for model in bento.models:
            if done.setdefault(model.path, model.digest) != model.digest:
                raise VerificationError(f"Bento {bento.tag} puts two models at {model.path}")
            target = draft / model.path
            if target.exists():
                continue
            for file in store.by_digest(model.name, model.digest).files:
                place = target / check_entry_name(file.path)
                make_folder(place.parent)
                link_file(self.layout.blob_path(file.sha256), place)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _value(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": item["value"]} if "value" in item else {}


def _model(item: Mapping[str, Any]) -> BentoModelRef:
    required = {name: _text(item[name]) for name in ("alias", "name", "version", "digest", "path")}
    model = BentoModelRef(**required, framework=_text(item.get("framework", "")), safety=_text(item.get("safety", "")))
    check_digest(model.digest)
    if not check_entry_name(model.path).startswith("models/"):
        raise VerificationError(f"model {model.name} lies at {model.path!r}, outside models/")
    return model


def _write(target: Path, pieces: Any) -> None:
    make_folder(target.parent)
    with target.open("xb") as file:
        for piece in pieces:
            file.write(piece)
    target.chmod(0o444)
