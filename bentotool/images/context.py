"""The context of a Dockerfile's build: the lock, wheels, uv, scripts, and for the whole image the Bento itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.uvrun import uv_program
from bentotool.environments import with_wheels
from bentotool.errors import NotFoundError, UsageError, VerificationError
from bentotool.images.recipe import Recipe, recipe_text, script_names
from bentotool.imagespec import ImagePlan
from bentotool.models.store import link_file
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.tar import check_entry_name
from bentotool.trust.enforcing import check_stored_bento

__all__ = ["uv_version", "whole_dockerfile", "write_context", "write_whole_context"]

_INSIDE = "file:///opt/bentotool/packages/wheels"


def whole_dockerfile(bento: StoredBento, plan: ImagePlan, *, offline: bool = False, find_links: bool = False) -> str:
    """The Dockerfile of the whole image, for other tools to build.

    Raises:
        BuildError: the plan asks for what no Dockerfile here does.
    """
    models = tuple(dict.fromkeys(check_entry_name(model.path) for model in bento.models))
    recipe = Recipe(plan, offline=offline, find_links=find_links, uv_version=uv_version(), models=models, whole=True)
    return recipe_text(recipe)


def write_whole_context(
    folder: Path, layout: Layout, bento: StoredBento, plan: ImagePlan, text: str, find_links: Sequence[str] = ()
) -> None:
    """Write a Dockerfile and all that it needs into a new folder; files of models are links to the store's own.

    Raises:
        UsageError: the folder holds something.
        NotFoundError, VerificationError: part of the Bento is missing or damaged; or a policy refuses it.
        BentotoolError: the disk refuses.
    """
    if check_stored_bento(layout, bento).runtime_check:
        raise VerificationError(
            f"a policy wants {bento.tag} to check itself, and a Dockerfile of one's own makes no such image",
            hint=f"bentotool containerize {bento.tag} makes one",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} holds something already", hint="name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_context(folder, layout, bento, plan, find_links)
        (folder / "Dockerfile").write_text(text, encoding="utf-8", newline="\n")
        tree = BentoStore(layout).materialise(bento)
        for source in _below(tree):
            name = source.relative_to(tree)
            if name.parts[0] != "wheels":
                target = folder / "bento" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if name.parts[0] == "models":
                    link_file(source, target)
                else:
                    shutil.copyfile(source, target)
    except OSError as error:
        raise storage_error(error, folder) from None


def uv_version() -> str:
    """The version of uv here, which is installed in the image's build where this one's program does not run."""
    return version("uv")


def write_context(
    folder: Path, layout: Layout, bento: StoredBento, plan: ImagePlan, find_links: Sequence[str] = ()
) -> None:
    """Write the context of a build.

    Raises:
        NotFoundError: a folder of wheels, or a script, is not there.
        VerificationError: the Bento is damaged.
    """
    packages, wheels = folder / "packages", folder / "packages" / "wheels"
    wheels.mkdir(parents=True)
    for name, layer in bento.wheels.items():
        if not layout.verify_blob(layer.digest):
            raise VerificationError(f"{name} of Bento {bento.tag} is damaged", hint="build or pull it again")
        link_file(layout.blob_path(layer.digest), wheels / name)
    lock = BentoStore(layout).requirements(bento)
    if bento.wheels:
        lock = with_wheels(lock, wheels).replace(wheels.absolute().as_uri(), _INSIDE)
    (packages / "bento.lock").write_text(lock, encoding="utf-8", newline="\n")
    if sys.platform == "linux":
        _link(Path(uv_program()), packages / "uv")
    if find_links:
        _links(packages / "links", find_links)
    _files(folder, layout, bento, plan)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def _links(target: Path, folders: Sequence[str]) -> None:
    target.mkdir()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise NotFoundError(f"no folder {str(folder)!r} with wheels", hint="--find-links DIR")
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.endswith((".whl", ".tar.gz")) and not (target / file.name).exists():
                _link(file, target / file.name)


def _files(folder: Path, layout: Layout, bento: StoredBento, plan: ImagePlan) -> None:
    """Scripts and files that the plan's steps use, and no others: an edit elsewhere makes no step run again."""
    scripts = script_names(plan)
    if not scripts and not plan.build_include:
        return
    app = BentoStore(layout).materialise(bento) / "home" / "bento" / "app"
    (folder / "scripts").mkdir()
    (folder / "include").mkdir()
    for name, path in scripts.items():
        source = app / check_entry_name(path)
        if not source.is_file():
            raise NotFoundError(f"script {path[:120]!r} is not among the files of {bento.tag}", hint="build it again")
        shutil.copyfile(source, folder / "scripts" / name)
        (folder / "scripts" / name).chmod(0o755)
    for path in plan.build_include:
        for source in _below(app / check_entry_name(path)):
            target = folder / "include" / source.relative_to(app)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _below(path: Path) -> Iterator[Path]:
    yield from (sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path])
