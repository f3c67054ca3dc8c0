"""Pull a model or a Bento: content first, names last; nothing is believed before it is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bentotool.build.bentos import BentoStore
from bentotool.errors import ConflictError, UsageError, VerificationError
from bentotool.models.choice import EVERYTHING, Choice
from bentotool.models.foreign import family_of
from bentotool.models.manifest import ModelFile, build_manifest, model_files, read_details
from bentotool.models.oci_content import RegistryContent
from bentotool.models.oci_source import Found, find_model
from bentotool.models.store import ModelStore
from bentotool.oci.attached import keep_index
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.manifests import FetchedManifest
from bentotool.oci.reach import FILES_OF
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import RefStore, check_name, check_version
from bentotool.oci.tar import check_entry_names
from bentotool.plugins import load_plugins
from bentotool.transfer.fetching import Fetching, RemoteManifest
from bentotool.transfer.foreign import is_ours, pull_foreign
from bentotool.transfer.formats import BENTO_TYPE, KIND, MODEL_TYPE, BentoConfig, NeededModel, identity
from bentotool.transfer.places import KnownPlaces
from bentotool.transfer.platforms import check_platforms, choose_images, platform_of
from bentotool.transfer.result import ProgressMaker, Transferred, no_progress

if TYPE_CHECKING:
    # It costs a quarter of a second, which only its maker pays.
    from bentotool.oci.registry import Registry
    from bentotool.plugins import Plugins

__all__ = ["pull"]


def pull(
    layout: Layout,
    remote: RemoteReference,
    registry: Registry,
    *,
    rename: str | None = None,
    expect: str | None = None,
    trust: bool = False,
    plugins: Plugins | None = None,
    choice: Choice = EVERYTHING,
    platforms: Sequence[str] = (),
    referrers: bool = True,
    jobs: int = 4,
    progress: ProgressMaker = no_progress,
) -> Transferred:
    """Bring a model, or a Bento with its models, into the store. What is there already is not fetched.

    What refers to it (signatures, SBOMs) comes along, and its images where the registry has some.

    Args:
        remote: what to pull; without a tag, ``latest``. A digest is verified.
        rename: ``NAME[:VERSION]`` to keep it under, in place of its own.
        expect: ``"model"`` or ``"bento"`` refuses the other kind.
        trust: takes models of class ``pickle``.
        plugins: who looks at the files of a model that another tool pushed; all installed when absent.
        choice: which files of a model to take; a part of it is another model, with a version of its own.
        platforms: of a Bento's images, take those for these; all when empty, none for ``none``.
        referrers: whether to take along what refers to it. It is needed by nothing: what is not as it should be is left
            out, and stands in the notes of the result.
        jobs: files fetched at once.

    Raises:
        NotFoundError: when the registry does not have it, or no image for one of ``platforms``.
        VerificationError: when any byte is not what its digest says: nothing is kept under a name; or a policy refuses
            it: nothing is fetched.
        UnsafeError: when ``trust`` is False and a model is of class ``pickle``: nothing is fetched; or is of a more
            dangerous class than it states: nothing is kept under a name.
        ConflictError: when the name and version stand for something else here.
        RemoteError, AuthenticationError: when the registry refuses or does not answer.
    """
    from bentotool.trust.enforcing import check_pull

    check_platforms(platforms)
    work = Fetching(layout, remote, registry, jobs, progress, trust, plugins, referrers)
    # The tag is looked at once; from here on everything is named by digest.
    top = registry.get_manifest(remote.repository, remote.digest or remote.tag or "latest")
    check_pull(registry, remote, top.descriptor, platforms=platforms, plugins=plugins, note=work.notes.append)
    done = _pull_bento_at(work, top, rename, expect, choice, platforms)
    if done is None:
        if platforms:
            raise UsageError(f"{remote} has no images of its own", hint="leave out --platform")
        found = _found_model(work, top, expect)
        done = _pull_own(work, found, rename) if choice.everything else None
    if done is None:
        done = pull_foreign(
            layout,
            remote,
            registry,
            found,
            plugins=plugins or load_plugins(),
            rename=rename,
            trust=trust,
            jobs=jobs,
            progress=progress,
            choice=choice,
        )
    return replace(done, notes=(*work.notes, *done.notes))


def _pull_bento_at(
    work: Fetching,
    top: FetchedManifest,
    rename: str | None,
    expect: str | None,
    choice: Choice,
    platforms: Sequence[str],
) -> Transferred | None:
    """Pull the Bento that a manifest or an index is; None where it is something else."""
    if top.descriptor.media_type == INDEX:
        index = Index.from_bytes(top.data)
        if not any(entry.annotations.get(KIND) == "bento" for entry in index.manifests):
            return None
        _check_whole(work.remote, choice)
        return _pull_index(work, index, top, rename, expect, platforms)
    manifest = Manifest.from_bytes(top.data)
    if manifest.artifact_type != BENTO_TYPE or platforms:
        return None
    _check_expected(work.remote, "bento", expect)
    _check_whole(work.remote, choice)
    return _pull_bento(work, RemoteManifest(top.descriptor, top.data, manifest), rename)


def _found_model(work: Fetching, top: FetchedManifest, expect: str | None) -> Found:
    """The model that a manifest is, or that an index leads to."""
    if top.descriptor.media_type == INDEX:
        content = RegistryContent(work.registry, work.remote.repository)
        found = find_model(content, top.descriptor.digest, str(work.remote))
    else:
        found = Found(top.descriptor, Manifest.from_bytes(top.data))
    if family_of(found.manifest) is None:
        raise _foreign(work.remote, found.manifest.artifact_type or found.manifest.config.media_type)
    _check_expected(work.remote, "model", expect)
    return found


def _check_whole(remote: RemoteReference, choice: Choice) -> None:
    if not choice.everything:
        raise UsageError(
            f"{remote} is a Bento, which needs all files of its models", hint="leave out --include and --exclude"
        )


def _pull_own(work: Fetching, found: Found, rename: str | None) -> Transferred | None:
    """Pull a model that a release of ours pushed, under its own digest; None for those of others."""
    if found.manifest.artifact_type != MODEL_TYPE:
        return None
    if is_ours(found.manifest):
        return _pull_model(work, work.manifest(found.descriptor.digest, "model"), rename)
    if FILES_OF in found.manifest.annotations:
        return _pull_files(work, work.manifest(found.descriptor.digest, "model"), rename)
    return None


def _foreign(remote: RemoteReference, what: str) -> VerificationError:
    return VerificationError(
        f"{remote} is neither a model nor a Bento but {what[:100]!r}",
        hint="a model is pushed with: bentotool model push",
    )


def _check_expected(remote: RemoteReference, kind: str, expect: str | None) -> None:
    if expect is not None and kind != expect:
        command = "bentotool model pull" if kind == "model" else "bentotool pull"
        article = "a model" if kind == "model" else "a Bento"
        raise UsageError(f"{remote} is {article}", hint=f"{command} {remote}")


def _pull_model(work: Fetching, model: RemoteManifest, rename: str | None) -> Transferred:
    name, version = _renamed(identity(model.manifest), rename)
    model_files(model.manifest, name)  # a model without a list of its files cannot be kept: say so before fetching it
    _check_free(work.layout, "models", name, version, model.descriptor.digest)
    work.fetch([model], f"pull {name}:{version}")
    work.recheck(model.manifest, f"{name}:{version}", model.descriptor.digest)
    attached = work.attached([model.descriptor.digest], f"pull {name}:{version}")
    stored = ModelStore(work.layout).adopt(name, version, model.descriptor.digest, replace=False)
    KnownPlaces(work.layout).remember(work.remote.registry, work.remote.repository, model.descriptor.digest)
    return Transferred(
        kind="model",
        name=name,
        version=version,
        digest=stored.digest,
        size=stored.size,
        remote=str(work.remote),
        moved=work.fetched,
        referrers=attached.count,
        notes=attached.notes,
    )


def _pull_files(work: Fetching, view: RemoteManifest, rename: str | None) -> Transferred | None:
    """Pull a model that was pushed file by file: the model it stands for is made again, and has to have its digest.

    Returns:
        None when it has not, as when another release wrote it: then it is a stranger's like any other.
    """
    own = identity(view.manifest)
    name, version = _renamed(own, rename)
    wanted = check_digest(view.manifest.annotations[FILES_OF])
    _check_free(work.layout, "models", name, version, wanted)
    files = [
        ModelFile(layer.annotations.get("org.cncf.model.filepath", ""), layer.size, layer.digest)
        for layer in view.manifest.layers
    ]
    check_entry_names(file.path for file in files)
    work.fetch([view], f"pull {name}:{version}")
    made = build_manifest(
        *own, files, read_details(view.manifest), lambda digest: work.layout.blob_path(digest).open("rb", 0)
    )
    data = made[1].to_bytes()
    if sha256_bytes(data) != wanted:
        return None
    work.recheck(made[1], f"{name}:{version}", wanted)
    work.layout.put(made[2], made[1].config.media_type)
    work.layout.put(data, MANIFEST)
    stored = ModelStore(work.layout).adopt(name, version, wanted, replace=False)
    return Transferred(
        kind="model",
        name=name,
        version=version,
        digest=stored.digest,
        size=stored.size,
        remote=str(work.remote),
        moved=work.fetched,
        source_digest=view.descriptor.digest,
    )


def _pull_index(
    work: Fetching, index: Index, top: FetchedManifest, rename: str | None, expect: str | None, platforms: Sequence[str]
) -> Transferred:
    bentos = [entry for entry in index.manifests if entry.annotations.get(KIND) == "bento"]
    if len(bentos) != 1:
        raise _foreign(work.remote, f"an index with {len(bentos)} Bentos")
    _check_expected(work.remote, "bento", expect)
    images = choose_images(index, platforms)
    bento = work.manifest(bentos[0].digest, "bento")
    return _pull_bento(work, bento, rename, _Listing(index, top, images))


@dataclass(frozen=True)
class _Listing:
    """The index that a Bento was found in, and which of its images are wanted."""

    index: Index
    fetched: FetchedManifest
    images: Sequence[Descriptor]


def _pull_bento(
    work: Fetching, bento: RemoteManifest, rename: str | None, listing: _Listing | None = None
) -> Transferred:
    data = work.registry.read_blob(work.remote.repository, bento.manifest.config)
    config = BentoConfig.from_bytes(data)
    if listing is not None:
        _check_closure(config, listing.index)
    name, version = _renamed(identity(bento.manifest, (config.name, config.version)), rename)
    label = f"pull {name}:{version}"
    _check_free(work.layout, "bentos", name, version, bento.descriptor.digest)
    models = {needed.digest: (needed, work.manifest(needed.digest, "model")) for needed in config.models}
    remotes = [remote for _, remote in models.values()]
    images = work.images(listing.images, remotes) if listing else []
    work.fetch([*remotes, bento, *images], label)
    for needed, remote in models.values():
        work.recheck(remote.manifest, f"model {needed.tag}", remote.descriptor.digest)
    tops = [keep_index(work.layout, listing.fetched.data).digest] if listing else []
    attached = work.attached([*tops, *(each.descriptor.digest for each in (bento, *remotes, *images))], label)
    tags = tuple(_adopt(work.layout, needed, remote) for needed, remote in models.values())
    stored = BentoStore(work.layout).adopt(name, version, bento.descriptor.digest, replace=False)
    KnownPlaces(work.layout).remember(work.remote.registry, work.remote.repository, stored.digest, *models)
    return Transferred(
        kind="bento",
        name=name,
        version=version,
        digest=stored.digest,
        size=stored.size,
        remote=str(work.remote),
        moved=work.fetched,
        index=listing.fetched.descriptor.digest if listing else None,
        models=tags,
        images=tuple(filter(None, map(platform_of, listing.images))) if listing else (),
        referrers=attached.count,
        notes=attached.notes,
    )


def _check_closure(config: BentoConfig, index: Index) -> None:
    """Every model that the Bento names must be in the index asked for, and so under the digest that was verified."""
    listed = {entry.digest for entry in index.manifests}
    for model in config.models:
        if model.digest not in listed:
            raise VerificationError(
                f"the Bento needs model {model.tag} ({model.digest}), which its index does not list"
            )


def _adopt(layout: Layout, needed: NeededModel, model: RemoteManifest) -> str:
    """Name a model that came with a Bento. The Bento finds it by digest, so a name that is taken is left alone."""
    name, version = identity(model.manifest, (needed.name, needed.version))
    digest = model.descriptor.digest
    models = ModelStore(layout)
    try:
        return models.adopt(name, version, digest, replace=False).tag
    except ConflictError:
        return models.adopt(name, f"{version[:100]}-{digest[7:19]}", digest, replace=False).tag


def _renamed(own: tuple[str, str], rename: str | None) -> tuple[str, str]:
    if rename is None:
        return own
    name, _, version = rename.partition(":")
    return check_name(name), check_version(version) if version else own[1]


def _check_free(layout: Layout, kind: str, name: str, version: str, digest: str) -> None:
    """Say before anything is fetched that a name is taken; what is written in the end checks again."""
    standing = next((ref for ref in RefStore(layout).list(kind, name) if ref.tag == version), None)
    if standing and standing.digest != digest:
        word = "model" if kind == "models" else "Bento"
        raise ConflictError(
            f"{word} {name}:{version} is already in the store with other content ({standing.digest[:19]}…)",
            hint="keep both with --as NAME:VERSION, or delete the one in the store first",
        )
