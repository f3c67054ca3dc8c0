"""``bentotool.models`` for Python code outside a Bento, with BentoML's names."""

from __future__ import annotations

import builtins
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, UsageError
from bentotool.frameworks import split_version, with_signatures
from bentotool.interfaces import SourceModel
from bentotool.models.archives import import_archive
from bentotool.models.declared import find_model, import_declared
from bentotool.models.importing import check_given, local_files
from bentotool.models.reader import Info, Model
from bentotool.models.reader import resolve as get
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.blobs import storage_error
from bentotool.oci.layout import Layout
from bentotool.oci.partial import claim_folder
from bentotool.oci.unarchive import is_archive
from bentotool.paths import default_store
from bentotool.sdk.wording import kind_of

if TYPE_CHECKING:
    from bentotool.oci.refs import Ref
    from bentotool.plugins import Plugins

__all__ = ["create", "delete", "export_model", "get", "import_model", "list", "open_declared", "open_model"]


_HINTS = {
    "api_version": "leave it out",
    "context": "leave it out",
    "custom_objects": "it would be a pickle: write it into the model's folder in a format that is data",
    "external_modules": "the service's own code travels in the Bento: put the modules beside it",
    "input_format": "leave it out: the format is seen from the file",
    "options": "keep them in metadata=",
    "output_format": "name the file .tar, or .tar.zst to compress it",
    "params": "set the environment variables of the storage",
    "passwd": "set the environment variables of the storage",
    "protocol": "write it into the address: s3://bucket/key",
    "subpath": "give the path of the model itself",
    "user": "set the environment variables of the storage",
}
"""BentoML's arguments that mean nothing here, and what to do instead."""
_INPUT_FORMATS = {"bentomodel", "bz2", "folder", "gz", "tar", "xz", "zip"}


def _refuse(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if name not in _HINTS:
            raise TypeError(f"there is no argument {name}")
        if value is not None:
            raise UsageError(f"{name}={value!r:.40} means nothing here", hint=_HINTS[name])


def _check_labels(labels: object) -> None:
    """Refuse labels that no filter would find: ``label=a=1`` asks for a text."""
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels={labels!r:.60} is not a mapping", hint='for example labels={"team": "search"}')
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            hint = f"write {str(key)!r}: {str(value)!r:.60}, or keep it in metadata="
            raise UsageError(f"label {key!r:.60}: {value!r:.60} is not a text", hint=hint)


def _reference(tag: str | Model | Ref) -> str:
    """What :func:`get` and :func:`list` give stands for itself."""
    named = tag if isinstance(tag, str) else getattr(tag, "tag" if isinstance(tag, Model) else "ref", None)
    if not isinstance(named, str):
        raise UsageError(f"a model is named by text such as 'iris:latest', not by {kind_of(tag)}")
    return named


def _store() -> ModelStore:
    return ModelStore(Layout(default_store()))


def open_model(tag: str) -> Model:
    """A model of the local store as a folder of files.

    Raises:
        NotFoundError: when there is no such model.
    """
    store = _store()
    return _model(store, find_model(store, tag))


def open_declared(reference: str) -> Model:
    """As :func:`open_model`, for a model named by where it comes from; what is not in the store is imported.

    Raises:
        BentotoolError: it cannot be imported.
    """
    from bentotool.plugins import load_plugins

    store = _store()
    try:
        stored = find_model(store, reference)
    except NotFoundError:
        stored = import_declared(store, reference, load_plugins())
    return _model(store, stored)


def _model(store: ModelStore, stored: StoredModel) -> Model:
    details = stored.details
    info = Info(
        name=stored.name,
        version=stored.version,
        tag=stored.tag,
        framework=details.framework,
        format=details.format,
        safety=details.safety,
        main_file=details.main_file,
        signature=details.signature,
        labels=details.labels,
        metadata=details.metadata,
    )
    return Model(stored.tag, stored.digest, store.materialise(stored), info, stored.created)


def list(tag: str | None = None) -> builtins.list[Ref]:
    """References in the local store, newest first.

    Args:
        tag: a name, to list its versions only.
    """
    return _store().list(None if tag is None else _reference(tag))


def delete(tag: str | Model | Ref) -> None:
    """Remove a version, or every version of a bare name, from the local store.

    Raises:
        NotFoundError: when there is none.
    """
    refs = _store().refs
    for ref in refs.matching("models", _reference(tag)):
        refs.delete("models", ref.name, ref.tag)


@dataclass(frozen=True)
class FetchOptions:
    """What :func:`import_model` takes for models from elsewhere; ``bentotool model import`` has options of these names.

    Attributes:
        checksum: ``sha256:<hex>`` that a single file, or the manifest of a model in a registry, must have.
        max_size: bytes; the most that is fetched.
        include, exclude: patterns over the names of the model's files.
        jobs: layers fetched from a registry at once.
        plain_http: None speaks HTTP to registries on this machine, and HTTPS to all others.
        ca_file: PEM file of the authorities to trust, in place of the system's.
        client_cert: PEM file of the certificate to show to a host that asks for one.
        client_key: PEM file of its key, unless it is in the same file.
        insecure_skip_tls_verify: takes any certificate: whoever sits on the line can read and change what passes.
    """

    checksum: str | None = None
    max_size: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    jobs: int = 4
    plain_http: bool | None = None
    ca_file: str | Path | None = None
    client_cert: str | Path | None = None
    client_key: str | Path | None = None
    insecure_skip_tls_verify: bool = False

    def for_fetch(self, plugins: Plugins) -> dict[str, Any]:
        """As arguments of :func:`bentotool.models.sources.fetch`.

        Raises:
            UsageError: when a certificate's file is absent or not what it should be.
        """
        from bentotool.models.choice import Choice
        from bentotool.models.oci_source import registry_maker
        from bentotool.models.sources import DEFAULT_MAX_BYTES
        from bentotool.oci.tls import Tls

        files = (Path(each) if each else None for each in (self.ca_file, self.client_cert, self.client_key))
        tls = Tls(not self.insecure_skip_tls_verify, *files)
        return {
            "max_bytes": DEFAULT_MAX_BYTES if self.max_size is None else self.max_size,
            "checksum": self.checksum,
            "choice": Choice(_several("include", self.include), _several("exclude", self.exclude)),
            "jobs": self.jobs,
            "tls": tls,
            "open_registry": registry_maker(plugins, tls=tls, plain_http=self.plain_http, jobs=self.jobs),
        }


def _several(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise UsageError(f"{name}={patterns!r} is one text", hint=f"give a list: {name}=[{patterns!r}]")
    return tuple(patterns)


def save_files(
    write: Callable[[Path], object],
    name: str,
    *,
    version: str | None,
    framework: str,
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
    trust: bool,
) -> Model:
    """Store what ``write`` puts into an empty folder. It lies on the store's disk: the files become the blobs.

    Raises:
        BentotoolError: what :func:`import_model` says; the disk refuses.
    """
    _check_labels(labels)
    from bentotool.models.sources import Fetched, import_fetched
    from bentotool.plugins import load_plugins

    store = _store()
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(claim_folder(store.layout.temporary(), f"save-{secrets.token_hex(8)}"))
        except OSError as error:
            raise storage_error(error, store.layout.root) from None
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        folder = scratch / "model"
        folder.mkdir()
        write(folder)
        files = tuple(local_files(folder))
        # What has another name as well may be written to by that name.
        found = Fetched(SourceModel(files, name), owned=all(each.path.stat().st_nlink == 1 for each in files))
        stored = import_fetched(
            store,
            found,
            plugins=load_plugins(),
            name=name,
            version=version,
            framework=framework,
            labels=labels,
            metadata=metadata,
            trust=trust,
        )
    return _model(store, stored)


def import_model(
    path: str | Path,
    name: str | None = None,
    *,
    version: str | None = None,
    framework: str | None = None,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    trust: bool = False,
    replace: bool = False,
    link: bool = False,
    **others: Any,
) -> Model:
    """Import a model into the local store; see :func:`bentotool.models.importing.import_files`.

    Args:
        path: a file, a folder, or an address as ``bentotool model import`` takes it; or an archive that
            :func:`export_model` wrote, which brings its own labels and metadata.
        others: those of :class:`FetchOptions`; and BentoML's further arguments, refused with a hint what to do
            instead.
    """
    known = {field.name for field in fields(FetchOptions)}
    options = FetchOptions(**{key: others.pop(key) for key in known & others.keys()})
    _refuse(others)
    _check_labels(labels)
    if name in _INPUT_FORMATS:  # BentoML's second argument; no model is called so by intent
        _refuse({"input_format": name})
    if is_archive(Path(path)):
        if framework or labels or metadata or replace or link or options != FetchOptions():
            raise UsageError(
                f"{path} is an archive, which brings its own framework, labels and metadata",
                hint="with an archive go name=, version= and trust= alone",
            )
        store = _store()
        return _model(store, import_archive(store, Path(path), name=name, version=version, trust=trust))
    from bentotool.models.sources import fetch, import_fetched
    from bentotool.plugins import load_plugins

    store, plugins = _store(), load_plugins()
    check_given(plugins, name=name, version=version, framework=framework, labels=labels, metadata=metadata)
    with fetch(str(path), store.layout, plugins, **options.for_fetch(plugins)) as found:
        stored = import_fetched(
            store,
            found,
            plugins=plugins,
            name=name,
            version=version,
            framework=framework,
            labels=labels,
            metadata=metadata,
            trust=trust,
            replace=replace,
            link=link,
        )
    return _model(store, stored)


def export_model(tag: str | Model | Ref, path: str | Path, output_format: str | None = None, **others: object) -> str:
    """Write a model to an OCI archive, which ``bentotool model import-archive`` reads.

    Args:
        path: the file to write, compressed when it ends in ``.zst``, or a folder to write ``<name>-<version>.tar``
            into.
        output_format, others: BentoML's, refused with a hint what to do instead.

    Returns:
        the path of the archive.

    Raises:
        NotFoundError: when there is no such model, or the folder does not exist.
    """
    from bentotool.oci.archive import archive_root, with_attached, write_archive

    _refuse({"output_format": output_format, **others})
    store = _store()
    ref = store.refs.get("models", _reference(tag))
    target = Path(path)
    if target.is_dir():
        target = target / f"{ref.name}-{ref.tag}.tar"
    if not target.absolute().parent.is_dir():
        raise NotFoundError(f"folder {target.parent} does not exist", hint="create it first")
    roots = with_attached(store.layout, [archive_root(ref.descriptor, "model", ref.ref)])
    write_archive(store.layout, roots, target.absolute(), compress=target.suffix == ".zst")
    return str(target)


class _NewModel(Model):
    """A model in the making: its files do not exist until the caller writes them."""

    def path_of(self, item: str) -> str:
        path = self.path / item
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise NotFoundError(f"{item!r} is not inside the model")
        return str(path)


@contextmanager
def create(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    version: str | None = None,
    framework: str | None = None,
    signatures: Mapping[str, Any] | None = None,
    module: str | None = None,
    trust: bool = False,
    **others: object,
) -> Iterator[Model]:
    """Make a model from files that the caller writes.

    Args:
        name: name in the store, or ``name:version``.
        framework, trust: as for :func:`import_model`.
        signatures: as for ``save_model``.
        module: BentoML's word for the framework, ``"sklearn"`` or ``"bentoml.sklearn"``; recorded in the metadata.
        others: BentoML's further arguments, refused with a hint what to do instead.

    Yields:
        a model whose ``path`` is an empty folder to write into. It is imported when the block ends without an error,
        and then is the model of the store.
    """
    _refuse(others)
    _check_labels(labels)
    name, version = split_version(name, version)
    facts = with_signatures(metadata, signatures)
    if module:
        facts["module"] = module
    with tempfile.TemporaryDirectory(prefix="bentotool-model-") as folder:
        info = Info(labels=labels or {}, metadata=facts)
        model = _NewModel(f"{name}:{version or 'new'}", "", Path(folder), info)
        yield model
        made = import_model(
            folder, name, version=version, framework=framework, labels=labels, metadata=facts, trust=trust
        )
    for field in fields(made):
        object.__setattr__(model, field.name, getattr(made, field.name))
    object.__setattr__(model, "__class__", Model)  # and equals what get gives
