"""Pulling a model that another tool pushed: its files are imported, so it gets a manifest of ours."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

from bentotool.errors import ConflictError, UsageError, VerificationError
from bentotool.models.choice import EVERYTHING, Choice
from bentotool.models.foreign import read_foreign
from bentotool.models.importing import valid_name
from bentotool.models.oci_content import RegistryContent
from bentotool.models.oci_source import Found, take_model
from bentotool.models.sources import DEFAULT_MAX_BYTES, Fetched, import_fetched
from bentotool.models.store import KIND, ModelStore, StoredModel
from bentotool.oci.descriptor import Manifest
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import check_name, check_version
from bentotool.transfer.fetching import damaged_there
from bentotool.transfer.result import ProgressMaker, Transferred

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry
    from bentotool.plugins import Plugins

__all__ = ["is_ours", "pull_foreign"]


def is_ours(manifest: Manifest) -> bool:
    """Whether the files of a model can be kept as the manifest lists them, so that its digest stays."""
    return bool(manifest.layers) and all(FILES_ANNOTATION in layer.annotations for layer in manifest.layers)


def pull_foreign(
    layout: Layout,
    remote: RemoteReference,
    registry: Registry,
    found: Found,
    *,
    plugins: Plugins,
    rename: str | None,
    trust: bool,
    jobs: int,
    progress: ProgressMaker,
    choice: Choice = EVERYTHING,
) -> Transferred:
    """Bring the files of a model and import them as any others: what they are is found out anew.

    Raises:
        VerificationError: when any byte is not what its digest says.
        UnsafeError: when it is of class ``pickle`` and ``trust`` is False, or would write outside its folder.
        ConflictError: when the name and version stand for something else here.
    """
    store = ModelStore(layout)
    first, _, last = (rename or "").partition(":")
    name, version = check_name(first) if first else None, check_version(last) if last else None
    if choice.everything and (standing := _already(store, registry, remote, found, name, version)):
        return _transferred(standing, remote, found, 0)
    if not choice.everything:
        _check_choice(choice, found.manifest, registry.read_blob(remote.repository, found.manifest.config))
    total = sum(layer.size for layer in found.manifest.layers)
    folder = layout.temporary() / f"pull-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        with progress(total, f"pull {remote}") as shown:
            model = take_model(
                RegistryContent(registry, remote.repository),
                found,
                folder,
                name=remote.repository.rpartition("/")[2],
                tag=remote.tag,
                source=f"oci://{remote}",
                max_bytes=DEFAULT_MAX_BYTES,
                advance=shown.advance,
                jobs=jobs,
                wanted=choice,
            )
        wanted = Fetched(choice.of(model), owned=True)
        try:
            stored = import_fetched(store, wanted, plugins=plugins, name=name, version=version, trust=trust)
        except UsageError as error:
            if choice.everything:
                raise
            raise UsageError(error.message, hint="--include and --exclude may leave out too much") from None
    except VerificationError as error:
        raise damaged_there(error, remote) from None
    except ConflictError as error:
        raise ConflictError(error.message, hint="keep both with --as NAME:VERSION") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _transferred(stored, remote, found, total)


def _check_choice(choice: Choice, manifest: Manifest, config: bytes) -> None:
    """Refuse a mistyped pattern before anything is fetched, where the manifest says which files there are."""
    names = [layer.names for layer in read_foreign(manifest, config).layers]
    if all(names):
        choice.check([name for each in names for name in each])


def _already(
    store: ModelStore,
    registry: Registry,
    remote: RemoteReference,
    found: Found,
    name: str | None,
    version: str | None,
) -> StoredModel | None:
    """The model here that was made of this very manifest, under the name it would get."""
    said = read_foreign(found.manifest, registry.read_blob(remote.repository, found.manifest.config))
    name = name or valid_name(said.name or remote.repository.rpartition("/")[2])
    for ref in store.refs.list(KIND, name):
        if version in (None, ref.tag):
            model = store.by_digest(name, ref.digest)
            if model.details.metadata.get("source_digest") == found.descriptor.digest:
                return store.get(ref.ref)
    return None


def _transferred(model: StoredModel, remote: RemoteReference, found: Found, moved: int) -> Transferred:
    return Transferred(
        kind="model",
        name=model.name,
        version=model.version,
        digest=model.digest,
        size=model.size,
        remote=str(remote),
        moved=moved,
        source_digest=found.descriptor.digest,
    )
