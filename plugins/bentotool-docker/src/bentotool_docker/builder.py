"""The ``buildkit`` builder: what has to be run is run by an engine, and the rest is the store's own layers.

The engine makes the base with the distribution's packages, commands, scripts and the Python environment. Above that
come the very layers that the ``oci`` builder takes: runtime, models, code. So a model never passes through the engine,
an edit of code makes one layer, and both builders' images start alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.errors import BuildError, NotFoundError, RemoteError, UsageError
from bentotool.images.baseimage import BaseImage, find_base
from bentotool.images.baseplaces import is_local
from bentotool.images.context import uv_version, write_context
from bentotool.images.oci_builder import assemble
from bentotool.images.outputs import Images, write_archive
from bentotool.images.recipe import TARGET, Recipe, base_of, recipe_text, script_names
from bentotool.imagespec import BuiltImage, ImagePlan, ImageRequest
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, parse_json_object
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.reference import RemoteReference
from bentotool_docker.made import Made, compressed, take_in
from bentotool_docker.programs import BuildCall, Program, find_program
from bentotool_docker.report import explained_build
from bentotool_docker.secrets import write_secrets

__all__ = ["BuildkitBuilder"]


class BuildkitBuilder:
    """See :class:`~bentotool.imagespec.ImageBuilder`. Options: ``engine``, ``ca_bundle``."""

    def build(self, request: ImageRequest) -> Sequence[BuiltImage]:
        """Make the images.

        Raises:
            BuildError: no engine, a step that fails, a package without a wheel, no space.
            NotFoundError: the base image or part of the Bento is missing.
            RemoteError: the engine or a registry does not answer.
        """
        program = find_program(request.options.get("engine") or None)
        return [_build(request, plan, program) for plan in request.plans]


@dataclass(frozen=True)
class _Base:
    """What a build starts from.

    Args:
        name: what ``FROM`` says.
        digest: of its manifest, or of its config where the engine knows no manifest.
        layers: as a registry has them; empty where only the engine has it.
        diff_ids: of its layers.
        pulled: the engine has it from a registry, under ``digest``.
    """

    reference: str
    name: str
    digest: str
    diff_ids: tuple[str, ...]
    layers: tuple[Descriptor, ...] = ()
    pulled: bool = False


def _build(request: ImageRequest, plan: ImagePlan, program: Program) -> BuiltImage:
    layout = request.layout
    bento = BentoStore(layout).get(f"{plan.name}@{plan.digest}")
    recipe = Recipe(
        plan,
        mounts=program.mounts,
        link=program.link,
        offline=request.offline,
        find_links=bool(request.find_links),
        bytecode=request.bytecode,
        uv_version=uv_version(),
    )
    recipe_text(recipe)  # what no Dockerfile can do is said before anything is fetched
    with tempfile.TemporaryDirectory(prefix="bentotool-buildkit-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        base = _find_base(request, plan, program, folder)
        made = _run(request, plan, bento, program, replace(recipe, base=base.name), base, folder)
    return _assembled(request, plan, bento, base, made)


def _run(
    request: ImageRequest,
    plan: ImagePlan,
    bento: StoredBento,
    program: Program,
    recipe: Recipe,
    base: _Base,
    folder: Path,
) -> Made:
    context, secrets = folder / "context", folder / "secrets"
    for each in (context, secrets):
        each.mkdir(mode=0o700)
    write_context(context, request.layout, bento, plan, request.find_links)
    if not program.sees_mounts:
        mounted = (context / "packages" / "bento.lock", *(context / "scripts" / name for name in script_names(plan)))
        recipe = replace(recipe, content={each.name: sha256_bytes(each.read_bytes()) for each in mounted})
    (folder / "Dockerfile").write_text(recipe_text(recipe), encoding="utf-8", newline="\n")
    files = write_secrets(secrets, plan, request.options.get("ca_bundle") or None)
    if not program.mounts:
        _check_plain(request, plan, files)
    call = BuildCall(
        context=context,
        dockerfile=folder / "Dockerfile",
        target=TARGET,
        platform=plan.platform,
        tag=f"localhost/bentotool-environment/{plan.name}:{folder.name.rpartition('-')[2].lower().strip('_') or '0'}",
        output=folder / "image.tar",
        secrets=files,
    )
    request.note(f"{program.name}: make the environment of {plan.tag} for {plan.platform}")
    try:
        done = program.run(program.build_command(call))
        if done.returncode:
            raise explained_build(plan, done.stdout, base.reference)
        return take_in(request, plan, program, call)
    finally:
        if not program.writes:
            program.run([program.command[0], *program.remove, call.tag], asking=True)


def _check_plain(request: ImageRequest, plan: ImagePlan, secrets: Mapping[str, Path]) -> None:
    """What an engine without secrets leaves out: said, or refused where the image would hold one."""
    if plan.build_only:
        raise BuildError(
            f"the build of {plan.tag}'s image needs the variable {plan.build_only[0]} (envs, stage: build),"
            " which docker without buildx would keep in the image",
            hint="install docker buildx, or name another program: --engine podman",
        )
    if "bentotool-ca" in secrets:
        request.note("docker without buildx takes no secrets: steps trust the certificates of the base image alone")
    if {"bentotool-index", "bentotool-uv", "bentotool-netrc"} & secrets.keys():
        request.note("docker without buildx takes no secrets: the package index of this machine is not used")
    if "bentotool-env" in secrets:
        request.note("docker without buildx takes no secrets: envs are not set while the image is made")


def _find_base(request: ImageRequest, plan: ImagePlan, program: Program, folder: Path) -> _Base:
    """The base: a folder or file, an image that the engine has, or one of a registry, which is then pinned."""
    reference = base_of(plan)
    if is_local(reference):
        return _loaded(request, plan, program, reference, folder)
    known = in_engine(program, reference, plan.platform)
    if known is not None:
        return known if request.offline else _as_in_registry(request, plan, known)
    if request.offline:
        try:
            return _loaded(request, plan, program, reference, folder)  # the store may have it
        except NotFoundError:
            raise NotFoundError(
                f"base image {reference} is not in the engine for {plan.platform}{_other(program, plan, reference)}",
                hint=f"{program.command[0]} pull it first, or name a folder: --base oci:FOLDER",
            ) from None
    try:
        base = _fetched(request, plan, reference)
    except RemoteError as error:
        # The engine may have a mirror, or certificates, that are not known here.
        done = program.run([program.command[0], *program.pull, "--platform", plan.platform, reference])
        known = None if done.returncode else in_engine(program, reference, plan.platform)
        if known is None:
            error.message += _other(program, plan, reference)
            error.args = (error.message,)
            raise
        return known
    pinned = str(RemoteReference.parse(reference).with_digest(base.digest))
    return _Base(reference, pinned, base.digest, base.diff_ids, base.layers)


def _other(program: Program, plan: ImagePlan, reference: str) -> str:
    """For what other platform the engine has an image of that name, to add to what is wrong."""
    found = program.describe(reference) or {}
    there = f"{found.get('Os')}/{found.get('Architecture')}"[:60]
    return f"; the engine's is for {there}, not for {plan.platform}" if found and there != plan.platform else ""


def _as_in_registry(request: ImageRequest, plan: ImagePlan, known: _Base) -> _Base:
    """An image that the engine pulled, with the compressed layers of its registry, where that still has them."""
    if not known.pulled:
        return known
    pinned = str(RemoteReference.parse(known.reference).with_digest(known.digest))
    try:
        base = _fetched(request, plan, pinned)
    except (RemoteError, NotFoundError):
        return known
    return replace(known, digest=base.digest, layers=base.layers) if base.diff_ids == known.diff_ids else known


def _fetched(request: ImageRequest, plan: ImagePlan, reference: str) -> BaseImage:
    return find_base(
        reference,
        plan.platform,
        request.layout,
        request.open_registry,
        offline=request.offline,
        jobs=request.jobs,
        progress=request.progress,
    )


def in_engine(program: Program, reference: str, platform: str) -> _Base | None:
    """An image that the engine has for a platform; with its digest, where it is of the reference's own repository."""
    found = program.describe(reference)
    if found is None or f"{found.get('Os')}/{found.get('Architecture')}" != platform:
        return None
    rootfs: Any = found.get("RootFS") or {}
    named = [each.digest for each in map(_parsed, found.get("RepoDigests") or ()) if each and _same(each, reference)]
    identity = str(found.get("Id", ""))
    digest = check_digest(next(iter(named), identity if identity.startswith("sha256:") else f"sha256:{identity}"))
    diff_ids = tuple(map(str, rootfs.get("Layers") or ()))
    # podman has a digest for images made here, too; they are those of no registry
    return _Base(reference, reference, digest, diff_ids, pulled=bool(named) and not reference.startswith("localhost/"))


def _parsed(text: object) -> RemoteReference | None:
    try:
        return RemoteReference.parse(str(text))
    except UsageError:
        return None


def _same(each: RemoteReference, reference: str) -> bool:
    """Whether both are of one repository: an image has digests of all where it was pulled from or pushed to."""
    other = _parsed(reference)
    return other is not None and (each.registry, each.repository) == (other.registry, other.repository)


def _loaded(request: ImageRequest, plan: ImagePlan, program: Program, reference: str, folder: Path) -> _Base:
    """A base of a folder or file, loaded into the engine under a name that its digest makes."""
    base = _fetched(request, plan, reference)
    name = f"localhost/bentotool-base:{base.digest[7:31]}"
    result = _Base(reference, name, base.digest, base.diff_ids, base.layers)
    if in_engine(program, name, plan.platform) is not None:
        return result
    if not program.load:
        raise BuildError(
            f"{program.name} takes no base image from a file", hint="name one of a registry, or --engine podman"
        )
    layout = request.layout
    entry = parse_json_object(layout.read(base.digest), f"the manifest of {reference}").get("config")
    put = layout.put(Manifest(Descriptor.from_dict(entry), base.layers).to_bytes(), MANIFEST)
    system, architecture = plan.platform.split("/")
    top = Descriptor(MANIFEST, put.digest, put.size, platform={"os": system, "architecture": architecture})
    image = BuiltImage(plan.platform, top, reference, base.digest, 0, ())
    archive = folder / "base.tar"
    write_archive(Images(layout, (image,), (), (name,)), archive)
    done = program.load_image(archive, name)
    archive.unlink()
    if done.returncode:
        raise explained_build(plan, done.stdout, reference)
    return result


def _assembled(request: ImageRequest, plan: ImagePlan, bento: StoredBento, base: _Base, made: Made) -> BuiltImage:
    """The image: what the engine made as its lower part, with the base's layers as their registry has them."""
    count = len(base.diff_ids) if made.diff_ids[: len(base.diff_ids)] == base.diff_ids else 0
    layers = (*base.layers, *made.layers[count:]) if count and base.layers else made.layers
    layers = compressed(request.layout, layers) if request.compress else layers
    settings = dict(made.config.get("config") or {})
    first = f"{plan.prefix}/bin:"  # assemble puts it there
    env = (str(each) for each in settings.get("Env") or ())
    settings["Env"] = [f"PATH={each[5:].removeprefix(first)}" if each.startswith("PATH=") else each for each in env]
    lower = BaseImage(
        reference=base.reference,
        digest=base.digest,
        config=made.config,
        layers=layers,
        diff_ids=made.diff_ids,
        settings=settings,
    )
    upper = replace(plan, layers=tuple(each for each in plan.layers if each.kind != "python"))
    image = assemble(request.layout, bento, upper, lower, made.interpreter)
    environment = {layer.digest for layer in layers[count:]}
    named = (
        replace(each, kind="environment", cached=made.cached)
        if each.kind == "base" and each.digest in environment
        else each
        for each in image.layers
    )
    return replace(image, layers=tuple(named))
