"""From the plan of an image to a Dockerfile.

Four stages, and before them ``conda`` where its packages are asked for. ``system``: the base with packages of the
distribution, commands and scripts, in their order. ``packages``: over it the Python environment of the lock, together
with compilers where something is built from source; of this stage only the environment is kept. ``environment``: both,
and the steps after the packages. ``image``: runtime, models and code over that. bentotool itself stops before the
last one and adds the store's own layers, so that a model is not copied through an engine; whoever runs the Dockerfile
elsewhere builds all of it.

The context, which `bentotool.images.context` writes, has ``packages/`` (lock, wheels, uv), ``scripts/``, ``include/``
and for the last stage ``bento/``, a tree as ``BentoStore.materialise`` makes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bentotool.errors import BuildError
from bentotool.images import buildscripts
from bentotool.images.distros import COMPILERS, Distro, distro_of
from bentotool.images.dockerfile import (
    Comment,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Mount,
    Run,
    SearchPath,
    StopSignal,
    User,
    Workdir,
    dockerfile_text,
)
from bentotool.images.installed import site_packages
from bentotool.imagespec import ImagePlan
from bentotool.interfaces import JSON

__all__ = ["CONDA_VARIABLE", "SECRETS", "TARGET", "Recipe", "base_of", "recipe_text", "script_names"]

TARGET = "environment"
"""The stage that bentotool's own builder builds."""
SECRETS = ("bentotool-ca", "bentotool-conda", "bentotool-env", "bentotool-index", "bentotool-netrc", "bentotool-uv")
"""A bundle of certificates; conda's settings; variables of steps; shell assignments for the package index; a netrc
file; settings of uv. None has to be."""
CONDA_VARIABLE = "BENTOTOOL_CONDA_IMAGE"
"""The image whose micromamba, mamba or conda makes the environment of conda packages."""
_CONDA_IMAGE = "docker.io/mambaorg/micromamba:2.3.2"
_CHANNEL = "conda-forge"
_SCRIPTS = "/opt/bentotool/scripts"


@dataclass(frozen=True)
class Recipe:
    """What a Dockerfile is made for.

    Args:
        base: what ``FROM`` names, where it is not the plan's own reference.
        mounts: the engine knows ``RUN --mount``: caches, secrets, and files that stay out of the image.
        link: it knows ``COPY --link``.
        content: for an engine that runs no step again when what is mounted there changes: the digest of a script by its
            name, and of the lock by ``bento.lock``.
        offline: nothing that runs may use a network.
        find_links: ``packages/links`` has wheels to look among.
        bytecode: packages are compiled beforehand.
        uv_version: what is installed where the host's uv does not run.
        models: folders of the models in the Bento, for the last stage.
        whole: with the stage ``image``.
    """

    plan: ImagePlan
    base: str = ""
    mounts: bool = True
    link: bool = True
    content: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    find_links: bool = False
    bytecode: bool = False
    uv_version: str = ""
    models: tuple[str, ...] = ()
    whole: bool = False


def base_of(plan: ImagePlan) -> str:
    """The reference of the base image: as it was named, else by distribution and CUDA version.

    Raises:
        BuildError: there is none for these.
    """
    if plan.base_from != "default" or not (plan.distro or plan.cuda_version):
        return plan.base
    return distro_of(plan.distro, plan.python, plan.cuda_version).base


def recipe_text(recipe: Recipe) -> str:
    """The Dockerfile.

    Raises:
        BuildError: the plan asks for what no Dockerfile here does, or holds a value that none can hold.
    """
    plan = recipe.plan
    stages = [
        *_conda(recipe),
        *_system(recipe),
        *_packages(recipe),
        *_environment(recipe),
        *(_image(recipe) if recipe.whole else ()),
    ]
    return dockerfile_text([Comment(f"{plan.tag} for {plan.platform}"), *stages])


def script_names(plan: ImagePlan) -> dict[str, str]:
    """Scripts of the plan's steps: name in ``scripts/`` → path in the Bento's app folder."""
    steps = [*(("before", i, s) for i, s in enumerate(plan.steps)), *(("after", i, s) for i, s in _after(plan))]
    return {f"{when}-{index}": str(step["script"]) for when, index, step in steps if "script" in step}


def _after(plan: ImagePlan) -> list[tuple[int, Mapping[str, JSON]]]:
    return list(enumerate(plan.post_steps))


def _distro(plan: ImagePlan) -> Distro:
    """What is known of the base; of one that somebody named only whether Python may have to be brought."""
    if _conda_packages(plan):
        return Distro("", plan.base)  # Python is conda's
    if plan.base_from == "default":
        return distro_of(plan.distro, plan.python, plan.cuda_version)
    return Distro("", plan.base, managed=bool(plan.cuda_version) or plan.distro == "ubuntu")


def _conda_packages(plan: ImagePlan) -> list[str]:
    return _texts(plan.conda.get("dependencies"))


def _texts(value: JSON) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else []


def _conda(recipe: Recipe) -> list[Instruction]:
    """A stage that makes an environment of conda; of its image nothing but that is kept."""
    plan, packages = recipe.plan, _conda_packages(recipe.plan)
    if not packages:
        return []
    if plan.distro == "alpine" and plan.base_from == "default":
        raise BuildError(
            f"the image of {plan.tag} needs conda packages, which do not run on alpine",
            hint="docker.distro: debian, or another with the C library glibc",
        )
    channels = _texts(plan.conda.get("channels")) or [_CHANNEL]
    for each in (*channels, *packages):
        if each.startswith("-"):
            raise BuildError(f"{each[:80]!r} is no conda package or channel", hint="correct conda in the configuration")
    arguments = [buildscripts.CONDA_PREFIX, plan.cuda_version]
    arguments += [word for channel in channels for word in ("--channel", channel)] + ["--override-channels"]
    arguments += ["--offline"] if recipe.offline else []
    cache = Mount("cache", {"target": buildscripts.CONDA_CACHE, "id": "bentotool-conda", "sharing": "locked"})
    mounts = (cache, *_secrets(recipe, ("bentotool-ca", "bentotool-conda"))) if recipe.mounts else ()
    return [
        From(os.environ.get(CONDA_VARIABLE) or _CONDA_IMAGE, "conda"),
        User("0:0"),
        Comment("packages of conda"),
        Run((*arguments, f"python={plan.python}", *packages), mounts, not recipe.offline, buildscripts.CONDA),
    ]


def _system(recipe: Recipe) -> list[Instruction]:
    plan, distro = recipe.plan, _distro(recipe.plan)
    found: list[Instruction] = [From(recipe.base or base_of(plan), "system"), User("0:0"), Env(plan.env)]
    if _conda_packages(plan):
        found += [
            Copy(buildscripts.CONDA_PREFIX, buildscripts.CONDA_PREFIX, "conda", recipe.link),
            Env({"CONDA_PREFIX": buildscripts.CONDA_PREFIX}),
            SearchPath(f"{buildscripts.CONDA_PREFIX}/bin"),
        ]
    if distro.python:
        found += [Comment(f"Python {plan.python}"), _install(recipe, distro.python)]
    if plan.build_include:
        found += [Copy("include/", "/home/bento/app/"), Workdir(plan.workdir)]
    return [*found, *_steps(recipe, "before", list(enumerate(plan.steps)))]


def _steps(recipe: Recipe, when: str, steps: Sequence[tuple[int, Mapping[str, JSON]]]) -> list[Instruction]:
    found: list[Instruction] = []
    for index, step in steps:
        found.append(Comment(f"step {index + 1} of {len(steps)} {when} the Python packages"))
        if packages := _texts(step.get("system_packages")):
            found.append(_install(recipe, packages, steps=True))
        if "run" in step:
            found.append(_run(recipe, ("/bin/sh", "-c", str(step["run"]))))
        if "script" in step:
            name = f"{when}-{index}"
            call = ("/bin/sh", "-c", 'exec "$0"', f"{_SCRIPTS}/{name}")  # a shell, for scripts without a first line
            if recipe.mounts:
                mount = Mount("bind", {"source": "scripts", "target": _SCRIPTS})
                found.append(_run(recipe, call, mount, content=recipe.content.get(name, "")))
            else:
                found += [Copy(f"scripts/{name}", f"{_SCRIPTS}/{name}"), _run(recipe, call)]
    return found


def _install(recipe: Recipe, packages: Sequence[str], *, steps: bool = False) -> Run:
    for name in packages:
        if name.startswith("-"):
            raise BuildError(f"{name[:80]!r} is no package", hint="correct docker.system_packages")
    cache = Mount("cache", {"target": buildscripts.SYSTEM_CACHE, "id": "bentotool-system", "sharing": "locked"})
    mounts = (cache, *_step_secrets(recipe, steps=steps)) if recipe.mounts else ()
    return Run(packages, mounts, not recipe.offline, buildscripts.INSTALL, _said(recipe) if steps else "")


def _run(recipe: Recipe, arguments: Sequence[str], *mounts: Mount, content: str = "") -> Run:
    secrets = _step_secrets(recipe, steps=True)
    return Run(arguments, (*secrets, *mounts), not recipe.offline, buildscripts.ENTER, _said(recipe, content))


def _secrets(recipe: Recipe, names: Sequence[str]) -> tuple[Mount, ...]:
    return tuple(Mount("secret", {"id": name}) for name in names) if recipe.mounts else ()


def _step_secrets(recipe: Recipe, *, steps: bool) -> tuple[Mount, ...]:
    has_variables = steps and bool(recipe.plan.build_env)
    return _secrets(recipe, ("bentotool-ca", *(("bentotool-env",) if has_variables else ())))


def _said(recipe: Recipe, content: str = "") -> str:
    """What makes a step run again beside its text: mounted content, and the values that the Bento has for variables."""
    values = [f"{name}={value}" for name, value in sorted(recipe.plan.build_env.items()) if value and recipe.mounts]
    said = "\0".join([*([content] if content else []), *values])
    return hashlib.sha256(said.encode(errors="backslashreplace")).hexdigest()[:12] if said else ""


def _packages(recipe: Recipe) -> list[Instruction]:
    plan, distro = recipe.plan, _distro(recipe.plan)
    compiled = "bytecode" if recipe.bytecode else ""
    flags = ["--no-deps"] if plan.platform == plan.locked_for else []
    flags += ["--find-links", f"{buildscripts.PACKAGES}/links"] if recipe.find_links else []
    flags += ["--offline"] if recipe.offline else []
    flags += [] if plan.from_source else ["--only-binary", ":all:"]
    arguments = (plan.python, plan.prefix, recipe.uv_version, "managed" if distro.managed else "", compiled, *flags)
    wanted = [name for name in SECRETS if name != "bentotool-conda" and (name != "bentotool-env" or plan.build_env)]
    mounts = [
        Mount("cache", {"target": buildscripts.UV_CACHE, "id": "bentotool-uv", "sharing": "shared"}),
        *_secrets(recipe, wanted),
        Mount("bind", {"source": "packages", "target": buildscripts.PACKAGES}),
    ]
    found: list[Instruction] = [From("system", "packages")]
    if plan.from_source:
        found += [Comment("compilers, which stay behind"), _install(recipe, [COMPILERS, *distro.headers])]
    found += [] if recipe.mounts else [Copy("packages/", f"{buildscripts.PACKAGES}/")]
    script, said = buildscripts.ENVIRONMENT, _said(recipe, recipe.content.get("bento.lock", ""))
    return [
        *found,
        Comment("the Python packages of bento.lock"),
        Run(arguments, mounts if recipe.mounts else (), not recipe.offline, script, said),
    ]


def _environment(recipe: Recipe) -> list[Instruction]:
    plan = recipe.plan
    found: list[Instruction] = [From("system", TARGET)]
    if _distro(plan).managed:
        found.append(Copy(buildscripts.PYTHON, buildscripts.PYTHON, "packages", recipe.link))
    found.append(Copy(plan.prefix, plan.prefix, "packages", recipe.link))
    if not plan.post_steps:
        return found
    return [*found, SearchPath(f"{plan.prefix}/bin"), *_steps(recipe, "after", _after(plan))]


def _image(recipe: Recipe) -> list[Instruction]:
    plan = recipe.plan
    copied = [("opt/bentotool/runtime/", f"/{site_packages(plan.prefix, plan.python)}/")]
    copied += [(f"{path}/", f"/{path}/") for path in recipe.models]
    copied += [("home/bento/", "/home/bento/")]
    found: list[Instruction] = [From(TARGET, "image")]
    found += [Copy(f"bento/{source}", target, "", recipe.link) for source, target in copied]
    found += [] if plan.post_steps else [SearchPath(f"{plan.prefix}/bin")]
    return [
        *found,
        Label(plan.labels),
        Workdir(plan.workdir),
        Expose(plan.port),
        StopSignal(plan.stop_signal),
        Healthcheck(plan.healthcheck),
        User(plan.user),
        Entrypoint(plan.entrypoint),
    ]
