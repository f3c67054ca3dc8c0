"""The model's manifest: a CNCF ModelPack artifact whose layers are uncompressed tars of its files.

Format: model-spec (docs/spec.md, schema/config-schema.json) of the CNCF ModelPack project. Its config is a closed
schema, so what is ours stands in manifest annotations ``io.bentotool.*``. A layer holds one file of 64 MiB or more, or
several smaller ones of one kind up to 256 MiB, under ``models/<name>/``; because it is not compressed, its digest is
also its diff id, and the same blob is a layer of a container image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar

from bentotool.errors import UsageError, VerificationError
from bentotool.oci.descriptor import MANIFEST_LIMIT, Descriptor, Manifest, canonical_json
from bentotool.oci.digest import CHUNK, sha256_bytes
from bentotool.oci.layout import FILES_ANNOTATION, LayerFile, layer_files
from bentotool.oci.tar import VirtualTar, check_entry_names, tar_size

__all__ = [
    "ARTIFACT_TYPE",
    "CONFIG_TYPE",
    "ModelDetails",
    "ModelFile",
    "build_manifest",
    "check_room",
    "content_identity",
    "model_files",
    "plan_layers",
    "read_details",
]

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_LAYER_TYPE = "application/vnd.cncf.model.{kind}.v1.tar"
_OWN_LAYER = 64 << 20
_BUNDLE = 256 << 20
_MAX_LAYERS = 100
_BESIDE_FILES = 256 << 10  # bytes of a manifest for all but its list of files
_DOCS = (".md", ".rst", ".pdf")
_CONFIGS = (".json", ".yaml", ".yml", ".txt", ".toml", ".model", ".jinja", ".spm", ".vocab", ".cfg", ".ini")
_KINDS = ("weight", "weight.config", "doc", "code")
_VERSION = "org.opencontainers.image.version"
_METADATA = "io.bentotool.metadata"
_ORIGIN = frozenset({"source", "source_digest", "source_format", "source_request"})
"""Facts that say where a model came from. The same model from a folder and from the hub has the same version."""
DigestOf = Callable[[tuple[LayerFile, ...]], str]


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its name inside the model, its size in bytes, the digest of its bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ModelDetails:
    """What is known of a model beside its bytes; all of it is in the manifest, hence under its digest."""

    framework: str
    format: str
    safety: str
    main_file: str
    signature: Mapping[str, Any]
    requirements: tuple[str, ...]
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]

    def annotations(self) -> dict[str, str]:
        def encode(value: object) -> str:
            return canonical_json(value).decode()

        return {
            "io.bentotool.framework": self.framework,
            "io.bentotool.format": self.format,
            "io.bentotool.safety": self.safety,
            "io.bentotool.main-file": self.main_file,
            "io.bentotool.signature": encode(self.signature),
            "io.bentotool.requirements": encode(self.requirements),
            "io.bentotool.labels": encode(self.labels),
            "io.bentotool.metadata": encode(self.metadata),
        }


def _kind(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    if name.endswith(_DOCS) or name.startswith(("readme", "license", "licence", "notice")):
        return "doc"
    if name.endswith(".py"):
        return "code"
    return "weight.config" if name.endswith(_CONFIGS) or name.startswith(".") else "weight"


class _Sized(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...


_File = TypeVar("_File", bound=_Sized)


def _bundles(files: Sequence[_File], limit: int) -> Iterator[tuple[str, list[_File]]]:
    for kind in _KINDS:
        bundle: list[_File] = []
        total = 0
        for file in sorted((f for f in files if _kind(f.path) == kind), key=lambda f: f.path.encode()):
            alone = limit == _BUNDLE and file.size >= _OWN_LAYER
            if bundle and (alone or total + file.size > limit):
                yield kind, bundle
                bundle, total = [], 0
            bundle.append(file)
            total += file.size
            if alone:
                yield kind, bundle
                bundle, total = [], 0
        if bundle:
            yield kind, bundle


def plan_layers(files: Sequence[_File]) -> list[tuple[str, list[_File]]]:
    """Which files make which layer, by their names and sizes alone: ``(kind, files in archive order)``."""
    limit = _BUNDLE
    while len(layers := list(_bundles(files, limit))) > _MAX_LAYERS:
        limit *= 2
    return layers


def check_room(name: str, files: Sequence[_Sized]) -> None:
    """Refuse more files than the manifest of a model can list, before any is copied.

    Raises:
        UsageError: saying how many there are.
    """
    entries = [{"path": f"models/{name}/{file.path}", "size": file.size, "sha256": "0" * 64} for file in files]
    if len(canonical_json(canonical_json(entries).decode())) > MANIFEST_LIMIT - _BESIDE_FILES:
        raise UsageError(
            f"{len(files)} files are more than the manifest of a model can list",
            hint="give the folder of one model, or pack its small files into one",
        )


def _layer_digest(listing: Sequence[LayerFile], open_blob: Callable[[str], BinaryIO]) -> str:
    blobs = {file.path: file.sha256 for file in listing}
    digest = hashlib.sha256()
    with VirtualTar([file.entry for file in listing], lambda entry: open_blob(blobs[entry.name])) as stream:
        buffer = memoryview(bytearray(CHUNK))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return f"sha256:{digest.hexdigest()}"


def _describe(kind: str, files: Sequence[ModelFile], prefix: str, digest_of: DigestOf) -> Descriptor:
    listing = tuple(LayerFile(f"{prefix}/{file.path}", file.size, file.sha256) for file in files)
    first = files[0]
    annotations = {
        "org.cncf.model.filepath": f"{prefix}/{first.path}" if len(files) == 1 else prefix,
        "org.opencontainers.image.title": f"{first.path}.tar" if len(files) == 1 else f"{kind}.tar",
        FILES_ANNOTATION: canonical_json(
            [{"path": file.path, "size": file.size, "sha256": file.sha256[7:]} for file in listing]
        ).decode(),
    }
    if len(files) == 1:
        annotations["org.cncf.model.file.metadata+json"] = canonical_json(
            {"name": first.path.rpartition("/")[2], "mode": 0o644, "uid": 0, "gid": 0, "size": first.size,
             "mtime": "1970-01-01T00:00:00Z", "typeflag": ord("0")}
        ).decode()  # fmt: skip
    size = tar_size(file.entry for file in listing)
    return Descriptor(_LAYER_TYPE.format(kind=kind), digest_of(listing), size, annotations)


def content_identity(layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> str:
    """A digest over what a model is: all of its manifest but its version and where it came from."""
    metadata = {key: value for key, value in json.loads(annotations[_METADATA]).items() if key not in _ORIGIN}
    own = {key: value for key, value in annotations.items() if key != _VERSION}
    own[_METADATA] = canonical_json(metadata).decode()
    return sha256_bytes(canonical_json({"layers": [layer.digest for layer in layers], "annotations": own}))


def build_manifest(
    name: str,
    version: str | None,
    files: Sequence[ModelFile],
    details: ModelDetails,
    open_blob: Callable[[str], BinaryIO],
    known: Mapping[tuple[LayerFile, ...], str] | None = None,
) -> tuple[str, Manifest, bytes]:
    """Describe a model whose files are stored.

    Args:
        version: None derives it from the content: twelve hexadecimal digits of :func:`content_identity`.
        open_blob: opens a file's bytes by digest.
        known: digests of layers that need not be computed again, by their files.

    Returns:
        the version, the manifest and the bytes of its config.

    Raises:
        UsageError: when there is no file.
    """
    if not files:
        raise UsageError(f"model {name} has no files", hint="give a model file, or a folder that holds one")
    prefix = f"models/{name}"

    def digest_of(listing: tuple[LayerFile, ...]) -> str:
        return (known or {}).get(listing) or _layer_digest(listing, open_blob)

    layers = tuple(_describe(kind, bundle, prefix, digest_of) for kind, bundle in plan_layers(files))
    annotations = {
        "io.bentotool.kind": "model",
        "io.bentotool.name": name,
        "io.bentotool.model.prefix": prefix,
        "org.opencontainers.image.title": name,
        **details.annotations(),
    }
    if version is None:
        version = content_identity(layers, annotations)[7:19]
    config = canonical_json(
        {
            "descriptor": {"name": name, "version": version},
            "config": {"format": details.format},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
        }
    )
    annotations[_VERSION] = version
    manifest = Manifest(
        config=Descriptor(CONFIG_TYPE, sha256_bytes(config), len(config)),
        layers=layers,
        artifact_type=ARTIFACT_TYPE,
        annotations=annotations,
    )
    return version, manifest, config


def model_files(manifest: Manifest, name: str) -> tuple[ModelFile, ...]:
    """The files of a model, their names relative to the model.

    Raises:
        VerificationError: when a layer lists none, or lists one outside ``models/<name>/``.
        UnsafeError: when two layers list the same file.
    """
    prefix = manifest.annotations.get("io.bentotool.model.prefix", f"models/{name}") + "/"
    found: list[ModelFile] = []
    for layer in manifest.layers:
        for file in layer_files(layer) or ():
            if not file.path.startswith(prefix):
                raise VerificationError(f"layer {layer.digest} has a file outside {prefix}")
            found.append(ModelFile(file.path.removeprefix(prefix), file.size, file.sha256))
    if not found:
        raise VerificationError(f"the manifest of model {name} lists no files")
    check_entry_names(file.path for file in found)  # each layer was checked alone
    return tuple(sorted(found, key=lambda file: file.path.encode()))


def read_details(manifest: Manifest) -> ModelDetails:
    """What the annotations say.

    Raises:
        VerificationError: when one of ours is damaged.
    """
    notes = manifest.annotations

    def decode(key: str, kind: type, default: Any) -> Any:
        try:
            value = json.loads(notes[key]) if key in notes else default
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise VerificationError(f"annotation {key} of the model is damaged")
        return value

    return ModelDetails(
        framework=notes.get("io.bentotool.framework", ""),
        format=notes.get("io.bentotool.format", ""),
        safety=_safety(notes.get("io.bentotool.safety")),
        main_file=notes.get("io.bentotool.main-file", ""),
        signature=decode("io.bentotool.signature", dict, {}),
        requirements=tuple(decode("io.bentotool.requirements", list, [])),
        labels=decode("io.bentotool.labels", dict, {}),
        metadata=decode("io.bentotool.metadata", dict, {}),
    )


def _safety(stated: str | None) -> str:
    """What says nothing of itself, or nothing that is known, is trusted least."""
    return stated if stated in ("data", "program") else "pickle"
