"""Manifests in which other tools publish models, read into one form.

Four families, each with its own media types:

* CNCF ModelPack (model-spec, docs/spec.md): ``application/vnd.cncf.model.<kind>.v1.<raw|tar>[+gzip|+zstd]``, written by
  modctl, KitOps, Docker Model Runner and by ourselves; ``vnd.cnai.model`` before it had that name.
* KitOps ModelKit: ``application/vnd.kitops.modelkit.<kind>.v1.<tar|raw>[+gzip|+zstd]``, its config a Kitfile as JSON.
* Docker Model Runner: ``application/vnd.docker.ai.*``, a file for each layer, or a tar of small ones.
* What ``oras push`` makes of files and folders: any types, each layer named by its title; a folder is a tar in gzip,
  marked ``io.deis.oras.content.unpack``.

All of it is a stranger's word: paths are checked when files are made, facts become metadata, and nothing here says
what a model is or whether it is safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bentotool.errors import UsageError, VerificationError
from bentotool.models.manifest import read_details
from bentotool.oci.descriptor import Descriptor, Manifest, parse_json_object
from bentotool.oci.layers import layer_files

if TYPE_CHECKING:
    from bentotool.interfaces import JSON

__all__ = ["ForeignLayer", "ForeignModel", "family_of", "read_foreign"]

Family = Literal["ModelPack artifact", "KitOps ModelKit", "Docker model", "artifact of files"]
_MODELPACK = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\.(?:weight|weight\.config|doc|code|dataset)\.v1\."
    r"(?P<form>raw|tar)(?:\+(?P<compression>gzip|zstd))?",
    re.ASCII,
)
_MODELKIT = re.compile(
    r"application/vnd\.kitops\.modelkit\.(?P<kind>[a-z]+)\.v1\.(?P<form>raw|tar)(?:\+(?P<compression>gzip|zstd))?",
    re.ASCII,
)
_IMAGE_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.v1\.(?P<form>tar)(?:\+(?P<compression>gzip|zstd))?", re.ASCII
)
_DOCKER = "application/vnd.docker.ai."
_DOCKER_NAMES = {
    "gguf.v3": "model{}.gguf",
    "safetensors": "model{}.safetensors",
    "dduf": "model{}.dduf",
    "mmproj": "model{}.mmproj",
    "chat.template.jinja": "template{}.jinja",
    "license": "LICENSE{}",
}
_KITFILE_LAYER = "application/vnd.kitops.modelkit.config.v1+json"
_KITFILE_NOTES = ("ml.kitops.modelkit.kitfile", "org.kitops.modelkit.kitfile")
_PATH_NOTES = ("org.cncf.model.filepath", "org.cnai.model.filepath")
_SIZE_NOTES = ("org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json")
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
_NO_FILES = (
    "application/vnd.bentotool.",
    "application/vnd.oci.image.config.",
    "application/vnd.docker.container.image.",
    "application/vnd.cncf.helm.",
    "application/vnd.dev.cosign.",
    "application/vnd.dev.sigstore.",
)
_TEXT_LIMIT, _LIST_LIMIT = 2000, 50


@dataclass(frozen=True)
class ForeignLayer:
    """One layer of files.

    Attributes:
        packed: ``"tar"``, or ``"raw"`` for the bytes of one file.
        compression: ``""``, ``"gzip"`` or ``"zstd"``.
        path: where the file goes, of a raw layer; what the manifest says it holds, of a tar.
        file_size: bytes of the one file in it, where the manifest says.
        below: what is put before the names in a tar.
        strip: what is taken from the front of the names in a tar.
    """

    descriptor: Descriptor
    packed: str
    compression: str
    path: str = ""
    file_size: int | None = None
    below: str = ""
    strip: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The files in it, as far as its descriptor tells; empty when that is not known."""
        if self.packed == "raw":
            return (self.path,)
        return tuple(file.path.removeprefix(self.strip) for file in layer_files(self.descriptor) or ())

    def place(self, entry: str, size: int) -> str:
        """Where a file of the tar goes.

        Raises:
            VerificationError: when it is not of the size that the manifest states.
        """
        if self.file_size is not None and size != self.file_size:
            raise VerificationError(f"{entry[:120]!r} has {size} bytes, where the manifest states {self.file_size}")
        if self.strip and entry.startswith(self.strip):
            return entry[len(self.strip) :]
        folder, slash, base = self.path.rpartition("/")
        if slash and entry == base and self.file_size is not None:
            return f"{folder}/{base}"  # some tools pack a file under its last name alone, and say the rest beside it
        whole = entry == self.path or entry.startswith(f"{self.path}/")
        return f"{self.below}/{entry}" if self.below and not whole else entry


@dataclass(frozen=True)
class ForeignModel:
    """What a manifest holds and says.

    Attributes:
        name, version: as it calls itself; empty where it does not.
        metadata: facts it states.
    """

    family: Family
    layers: tuple[ForeignLayer, ...]
    name: str = ""
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, JSON] = field(default_factory=dict)


def family_of(manifest: Manifest) -> Family | None:
    """Whose form a manifest has, by its own types; None when it is no model that we can read."""
    types = (manifest.artifact_type or "", manifest.config.media_type)
    if any(each.startswith(("application/vnd.cncf.model.", "application/vnd.cnai.model.")) for each in types):
        return "ModelPack artifact"
    if any(each.startswith("application/vnd.kitops.modelkit.") for each in types):
        return "KitOps ModelKit"
    if any(each.startswith(_DOCKER) for each in types):
        return "Docker model"
    return "artifact of files" if _is_files(manifest) else None


def _is_files(manifest: Manifest) -> bool:
    """Whether each layer is a file or folder with a name; images, charts, signatures and Bentos are something else."""
    types = (manifest.artifact_type or "", manifest.config.media_type)
    return (
        bool(manifest.layers)
        and manifest.subject is None
        and not any(each.startswith(_NO_FILES) for each in types)
        and all(layer.annotations.get(_TITLE) for layer in manifest.layers)
    )


def read_foreign(manifest: Manifest, config: bytes) -> ForeignModel:
    """Read the manifest of a model, and its config.

    Raises:
        UsageError: when it holds no files, or is of no known family.
        VerificationError: when a layer is of an unknown type or names no file, or a document is damaged.
    """
    family = family_of(manifest)
    if family is None:
        raise UsageError(f"{manifest.artifact_type or manifest.config.media_type!r} is not a model")
    if family == "artifact of files":
        return ForeignModel(family, tuple(map(_titled, manifest.layers)))
    document = parse_json_object(config, "the config of the model")
    kitfile = document if family == "KitOps ModelKit" else _noted_kitfile(manifest)
    if family == "Docker model":
        layers = _docker_layers(manifest.layers)
    else:
        layers = tuple(_layer(each, manifest, kitfile) for each in manifest.layers if not _is_kitfile(each))
    if not layers:
        parent = _text(_section(kitfile, "model").get("path"))
        raise UsageError(
            f"the {family} holds no files" + (f" of its own: it builds on {parent}" if parent else ""),
            hint=f"bentotool model import oci://{parent}" if parent else "ask its publisher for one that does",
        )
    name, version, metadata = _kit_facts(kitfile)
    if family != "KitOps ModelKit":
        own = _pack_facts(document)
        name, version, metadata = own[0] or name, own[1] or version, {**metadata, **own[2]}
    labels: Mapping[str, str] = {}
    if "io.bentotool.name" in manifest.annotations:  # one of ours
        details = read_details(manifest)
        labels = {key: text for key, value in details.labels.items() if (text := _text(value))}
        metadata = dict(details.metadata)
    return ForeignModel(family, layers, name, version, labels, metadata)


def _is_kitfile(layer: Descriptor) -> bool:
    return layer.media_type == _KITFILE_LAYER


def _noted_kitfile(manifest: Manifest) -> dict[str, Any]:
    for key in _KITFILE_NOTES:
        if key in manifest.annotations:
            return parse_json_object(manifest.annotations[key].encode(), f"annotation {key}")
    return {}


def _first(layer: Descriptor, keys: Sequence[str]) -> str:
    return next((layer.annotations[key] for key in keys if layer.annotations.get(key)), "")


def _file_size(layer: Descriptor) -> int | None:
    text = _first(layer, _SIZE_NOTES)
    try:
        facts = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise VerificationError(f"the file metadata of layer {layer.digest} is not JSON") from None
    size = facts.get("size") if isinstance(facts, dict) else None
    if size == layer.size and ".tar" in layer.media_type:
        return None  # said of the archive itself, not of a file in it
    regular = isinstance(facts, dict) and facts.get("typeflag") in (0, ord("0"))
    return size if regular and isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None


def _layer(layer: Descriptor, manifest: Manifest, kitfile: Mapping[str, Any]) -> ForeignLayer:
    match = (
        _MODELPACK.fullmatch(layer.media_type)
        or _MODELKIT.fullmatch(layer.media_type)
        or _IMAGE_LAYER.fullmatch(layer.media_type)
    )
    if match is None:
        raise VerificationError(f"layer {layer.digest} is of type {layer.media_type[:100]!r}, which is not known")
    found = match.groupdict()
    entry, packed_with_path = _kit_entry(kitfile, manifest, layer)
    path = (_first(layer, _PATH_NOTES) or entry).removeprefix("./").removesuffix("/")
    if found["form"] == "raw" and not path:
        path = layer.annotations.get(_TITLE, "")
        if not path:
            raise VerificationError(f"layer {layer.digest} does not say which file it is")
    prefix = manifest.annotations.get("io.bentotool.model.prefix", "")
    old = not packed_with_path and found["form"] == "tar" and entry
    return ForeignLayer(
        layer,
        packed=found["form"],
        compression=found["compression"] or "",
        path=path,
        file_size=_file_size(layer),
        below=path.rpartition("/")[0] if old else "",
        strip=f"{prefix}/" if prefix else "",
    )


_KIT_LISTS = {"modelpart": ("model", "parts"), "code": ("code",), "dataset": ("datasets",), "docs": ("docs",)}


def _kit_entry(kitfile: Mapping[str, Any], manifest: Manifest, layer: Descriptor) -> tuple[str, bool]:
    """The path that a Kitfile gives a layer, and whether names in its tar contain it.

    Kitfiles before digests were kept in them list layers in order, and their tars start at the path's own name.
    """
    found = _MODELKIT.fullmatch(layer.media_type)
    kind = found["kind"] if found else ""
    entries = [item for each in ("model", *_KIT_LISTS) for item in _kit_items(kitfile, each)]
    for item in entries:
        if item.get("digest") == layer.digest:
            return _text(item.get("path")), True
    if any("digest" in item for item in entries):
        return "", True
    same = [each for each in manifest.layers if each.media_type.startswith(f"application/vnd.kitops.modelkit.{kind}.")]
    items = _kit_items(kitfile, kind)
    position = next((number for number, each in enumerate(same) if each is layer), len(items))
    return (_text(items[position].get("path")), False) if position < len(items) else ("", True)


def _kit_items(kitfile: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    if kind == "model":
        return [_section(kitfile, "model")]
    value: Any = kitfile
    for key in _KIT_LISTS.get(kind, ("",)):
        value = value.get(key) if isinstance(value, Mapping) else None
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _docker_layers(layers: Sequence[Descriptor]) -> tuple[ForeignLayer, ...]:
    found: list[ForeignLayer] = []
    for layer in layers:
        kind = layer.media_type.removeprefix(_DOCKER)
        if kind in ("vllm.config.tar", "dir.tar"):
            found.append(ForeignLayer(layer, "tar", ""))
            continue
        path = _first(layer, (*_PATH_NOTES, _TITLE))
        if not path and kind in _DOCKER_NAMES:
            same = [each for each in layers if each.media_type == layer.media_type]
            number = next(number for number, each in enumerate(same, 1) if each is layer)
            path = _DOCKER_NAMES[kind].format(f"-{number:05d}-of-{len(same):05d}" if len(same) > 1 else "")
        if not path or not layer.media_type.startswith(_DOCKER):
            raise VerificationError(f"layer {layer.digest} is of type {layer.media_type[:100]!r}, which is not known")
        found.append(ForeignLayer(layer, "raw", "", path, layer.size))
    return tuple(found)


def _titled(layer: Descriptor) -> ForeignLayer:
    title = layer.annotations[_TITLE]
    if layer.annotations.get(_UNPACK) == "true":
        return ForeignLayer(layer, "tar", "gzip")  # the names in it begin with the title
    return ForeignLayer(layer, "raw", "", title.removeprefix("./"), layer.size)


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """A stranger's text when it is short and harmless, else nothing."""
    return value if isinstance(value, str) and len(value) <= _TEXT_LIMIT and value.isprintable() else ""


def _facts(values: Mapping[str, object]) -> dict[str, JSON]:
    facts: dict[str, JSON] = {}
    for key, value in values.items():
        if isinstance(value, list):
            texts = [text for each in value[:_LIST_LIMIT] if (text := _text(each))]
            facts |= {key: texts} if texts else {}
        elif isinstance(value, str):
            # a description has lines, and nothing else that drives a terminal
            facts |= {key: text} if (text := _text(" ".join(value.split()))) else {}
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 62:
            facts[key] = value
    return facts


def _kit_facts(kitfile: Mapping[str, Any]) -> tuple[str, str, dict[str, JSON]]:
    package, model = _section(kitfile, "package"), _section(kitfile, "model")
    facts = {
        "description": package.get("description") or model.get("description"),
        "license": package.get("license") or model.get("license"),
        "authors": package.get("authors"),
        "stated_framework": model.get("framework"),
        "stated_format": model.get("format"),
    }
    name, version = package.get("name") or model.get("name"), package.get("version") or model.get("version")
    return _text(name), _text(version), _facts(facts)


def _pack_facts(document: Mapping[str, Any]) -> tuple[str, str, dict[str, JSON]]:
    about, config = _section(document, "descriptor"), _section(document, "config")
    licenses = about.get("licenses")
    facts = {
        "title": about.get("title"),
        "description": about.get("description"),
        "license": licenses[0] if isinstance(licenses, list) and len(licenses) == 1 else licenses,
        "authors": about.get("authors"),
        "vendor": about.get("vendor"),
        "family": about.get("family"),
        "source_url": about.get("sourceURL"),
        "doc_url": about.get("docURL"),
        "revision": about.get("revision"),
        "stated_format": config.get("format"),
        "architecture": config.get("architecture"),
        "parameters": config.get("paramSize") or config.get("parameters") or config.get("size"),
        "precision": config.get("precision"),
        "quantization": config.get("quantization"),
        "context_size": config.get("context_size"),
    }
    return _text(about.get("name")), _text(about.get("version")), _facts(facts)
