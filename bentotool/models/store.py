"""The Model Store: models by name and version over an image layout."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, ConflictError, UsageError, VerificationError
from bentotool.models.manifest import (
    ARTIFACT_TYPE,
    ModelDetails,
    ModelFile,
    build_manifest,
    content_identity,
    model_files,
    read_details,
)
from bentotool.oci.descriptor import MANIFEST, MANIFEST_LIMIT, Descriptor, Manifest, canonical_json
from bentotool.oci.digest import is_regular
from bentotool.oci.layers import LayerFile
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.refs import Ref, RefStore, check_name, check_version
from bentotool.oci.tar import check_entry_name, check_entry_names
from bentotool.paths import make_folder, seal_folder

__all__ = ["KIND", "ModelStore", "StoredModel"]

KIND = "models"


@dataclass(frozen=True)
class StoredModel:
    """A model in the store.

    Attributes:
        size: bytes of its files.
        created: when it came into this store, RFC 3339 in UTC.
    """

    name: str
    version: str
    digest: str
    size: int
    created: str
    details: ModelDetails
    files: tuple[ModelFile, ...]
    manifest: Manifest
    descriptor: Descriptor

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that every command prints."""
        details = self.details
        return {
            "name": self.name,
            "version": self.version,
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
            "created": self.created,
            "framework": details.framework,
            "format": details.format,
            "safety": details.safety,
            "main_file": details.main_file,
            "signature": dict(details.signature),
            "requirements": list(details.requirements),
            "labels": dict(details.labels),
            "metadata": dict(details.metadata),
            "files": [{"path": file.path, "size": file.size, "digest": file.sha256} for file in self.files],
        }


class ModelStore:
    """Adds, finds, names and removes models.

    Args:
        layout: where they lie.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.refs = RefStore(layout)

    def add(
        self,
        name: str,
        version: str | None,
        files: Sequence[ModelFile],
        details: ModelDetails,
        *,
        replace: bool = False,
        layers: Mapping[tuple[LayerFile, ...], str] | None = None,
    ) -> StoredModel:
        """Name a model whose files are blobs of the layout already.

        The same model from another place changes nothing: where the first came from stays noted.

        Args:
            version: None derives it from the content, so that the same model always has the same version.
            replace: whether another model under this name and version is replaced.
            layers: digests of its layers that are known already, by their files.

        Raises:
            ConflictError: when the version stands for another model and ``replace`` is False.
            UsageError: when files, labels and facts are more than a manifest can hold.
        """
        name = check_name(name)
        check_entry_names(file.path for file in files)
        version, manifest, config = build_manifest(
            name,
            check_version(version) if version else None,
            files,
            details,
            lambda d: self.layout.blob_path(d).open("rb", 0),
            layers,
        )
        data = manifest.to_bytes()
        if len(data) > MANIFEST_LIMIT:
            raise UsageError(
                f"the manifest of {name} would have {len(data)} bytes, more than {MANIFEST_LIMIT}",
                hint="give fewer files, labels or facts",
            )
        self.layout.put(config, manifest.config.media_type)
        digest = self.layout.put(data, MANIFEST).digest
        try:
            return self.adopt(name, version, digest, replace=replace)
        except ConflictError:
            if standing := self._standing(name, version, manifest):
                return standing
            raise

    def _standing(self, name: str, version: str, wanted: Manifest) -> StoredModel | None:
        """The model under this name and version, if it differs from the wanted one in nothing but its origin."""
        try:
            model = self.get(f"{name}:{version}")
            one, other = (content_identity(each.layers, each.annotations) for each in (model.manifest, wanted))
            return model if one == other else None
        except (BentotoolError, ValueError, KeyError, AttributeError):  # what stands there is damaged
            return None

    def adopt(self, name: str, version: str, digest: str, *, replace: bool = True) -> StoredModel:
        """Give a name and version to a model whose manifest and files are in the layout.

        Raises:
            ConflictError: when the version stands for another model and ``replace`` is False.
            VerificationError: when the manifest is not that of a model.
        """
        model = self.by_digest(name, digest)
        details = model.details
        # Copied beside the reference so that listing many models reads no manifest.
        brief = {"io.bentotool.framework": details.framework, "io.bentotool.safety": details.safety}
        if details.labels:
            brief["io.bentotool.labels"] = canonical_json(dict(details.labels)).decode()
        descriptor = Descriptor(MANIFEST, digest, model.descriptor.size, brief, ARTIFACT_TYPE)
        return self._load(self.refs.set(KIND, name, version, descriptor, size=model.size, replace=replace))

    def get(self, reference: str) -> StoredModel:
        """Find a model by ``name``, ``name:version``, ``name@sha256:…``, ``latest`` or a unique version prefix.

        Raises:
            NotFoundError: when there is none.
            VerificationError: when its manifest is damaged.
        """
        return self._load(self.refs.get(KIND, reference))

    def by_digest(self, name: str, digest: str) -> StoredModel:
        """Find a model by the digest of its manifest, whether or not a reference of this store still names it.

        Raises:
            NotFoundError: when the manifest is not stored.
        """
        manifest = Manifest.from_bytes(self.layout.read(digest))
        size = self.layout.blob_path(digest).stat().st_size
        version = manifest.annotations.get("org.opencontainers.image.version", digest[7:19])
        return self._load(Ref(KIND, check_name(name), version, Descriptor(MANIFEST, digest, size), "", 0))

    def _load(self, ref: Ref) -> StoredModel:
        manifest = Manifest.from_bytes(self.layout.read(ref.digest))
        if manifest.artifact_type != ARTIFACT_TYPE:
            raise VerificationError(f"{ref.ref} is not a model but {manifest.artifact_type}")
        files = model_files(manifest, ref.name)
        size = sum(file.size for file in files)
        details = read_details(manifest)
        if self.layout.remarked(ref.digest) in ("program", "pickle"):  # worse than it says of itself
            details = replace(details, safety=self.layout.remarked(ref.digest))
        if details.main_file:
            check_entry_name(details.main_file)  # it becomes a path below the model's folder
        return StoredModel(ref.name, ref.tag, ref.digest, size, ref.created, details, files, manifest, ref.descriptor)

    def list(self, name: str | None = None) -> list[Ref]:
        """All references, newest first. Manifests are not read: listing many models stays cheap."""
        return self.refs.list(KIND, name)

    def tag(self, reference: str, version: str, *, replace: bool = False) -> StoredModel:
        """Give a model one more version name; see :meth:`RefStore.alias`."""
        return self._load(self.refs.alias(KIND, reference, version, replace=replace))

    def verify(self, model: StoredModel, advance: Callable[[int], None] = lambda amount: None) -> None:
        """Read every file of a model and compare it with its digest.

        Args:
            advance: told the bytes of each piece read.

        Raises:
            VerificationError: naming the damaged or missing files.
        """
        bad = [file.path for file in model.files if not self.layout.verify_blob(file.sha256, advance)]
        if bad:
            raise VerificationError(
                f"model {model.tag}: {', '.join(bad[:5])} is damaged or missing", hint="import or pull the model again"
            )

    def check_linked(self, model: StoredModel) -> None:
        """Compare files that were imported by link with what they looked like then, without reading them.

        Raises:
            VerificationError: when one was written to since.
        """
        for file in model.files:
            self.layout.linked.check(file.sha256, self.layout.blob_path(file.sha256))

    def materialise(self, model: StoredModel) -> Path:
        """A read-only folder with the model's files under their own names, and no second copy of their bytes.

        The folder is made once for a manifest, under another name, and renamed when it is whole.

        Raises:
            VerificationError: when a file of the model is not in the store.
            UsageError: when there is no such folder yet, and this user may not write to the store.
        """
        self.check_linked(model)
        folder = self.layout.root / "views" / "models" / model.digest[7:]
        if folder.is_dir():
            seal_folder(folder)  # whoever made it may have been killed before that
            return folder
        draft = self.layout.root / "tmp" / secrets.token_hex(16)
        try:
            self.layout.temporary()
            for file in model.files:
                target = draft / check_entry_name(file.path)
                make_folder(target.parent)
                link_file(self.layout.blob_path(file.sha256), target)
            make_folder(folder.parent)
            draft.rename(folder)  # which what is read-only could not be
            seal_folder(folder)
        except FileNotFoundError:
            raise VerificationError(
                f"model {model.tag} is not whole in the store {self.layout.root}", hint="import or pull it again"
            ) from None
        except OSError as error:
            if not folder.is_dir():  # another process may have finished the same folder first
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise UsageError(
                        f"the store {self.layout.root} is read-only, and has no folder of {model.tag} yet",
                        hint=f"copy the model with: bentotool model export {model.tag}; or let a user who may write to "
                        f"the store run once: bentotool model path {model.tag}",
                    ) from None
                raise storage_error(error, self.layout.root) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder


def link_file(source: Path, target: Path) -> None:
    """Make ``target`` the same read-only file as ``source``, by copy only where the file system has no hard links."""
    try:
        if not is_regular(source):  # a link or pipe in its place is not the blob, and nobody is given it
            raise FileNotFoundError(source)
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):  # a copy over what exists would be written through to its blob
        raise
    except OSError:
        shutil.copyfile(source, target)
        with contextlib.suppress(OSError):
            target.chmod(0o444)
