"""From the plan of an image to a Dockerfile.

Four stages. ``system``: the base with packages of the distribution, commands and scripts, in their order. ``packages``:
over it the Python environment of the lock, together with compilers where something is built from source; of this stage
only the environment is kept. ``environment``: both, and the steps after the packages. ``image``: runtime, models and
code over that. bentotool's own builder stops before the last one and adds the store's own layers, so that a model is
not copied through an engine; whoever runs the Dockerfile elsewhere builds all of it.

The context, which `bentotool.images.context` writes, has ``packages/`` (lock, wheels, uv), ``scripts/``, ``include/``
and for the last stage ``bento/``, a tree as ``BentoStore.materialise`` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bentotool.errors import BuildError
from bentotool.images.distros import COMPILERS, INSTALL, Distro, distro_of
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

__all__ = ["MARK", "SECRETS", "TARGET", "Recipe", "base_of", "recipe_text", "script_names"]

TARGET = "environment"
"""The stage that bentotool's own builder builds."""
MARK = "bentotool:"
"""Starts the lines with which a script here says why it ends."""
SECRETS = ("bentotool-ca", "bentotool-index", "bentotool-netrc", "bentotool-uv")
"""A bundle of certificates; shell assignments for the package index; a netrc file; settings of uv. None has to be."""
_PACKAGES, _SCRIPTS = "/opt/bentotool/packages", "/opt/bentotool/scripts"
_CACHE = "/var/cache/bentotool"
_PYTHON = "/opt/python"

_TRUST = """
if [ -f /run/secrets/bentotool-ca ]; then
  SSL_CERT_FILE=/run/secrets/bentotool-ca
  PIP_CERT=$SSL_CERT_FILE REQUESTS_CA_BUNDLE=$SSL_CERT_FILE CURL_CA_BUNDLE=$SSL_CERT_FILE GIT_SSL_CAINFO=$SSL_CERT_FILE
  NODE_EXTRA_CA_CERTS=$SSL_CERT_FILE
  export SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS
fi
""".strip()
_ENTER = f'{_TRUST}\nexec "$@"'
_ENVIRONMENT = f"""
set -eu
python=$1 prefix=$2 uv_version=$3 managed=$4 bytecode=$5
shift 5
{_TRUST}
if [ -f /run/secrets/bentotool-index ]; then set -a; . /run/secrets/bentotool-index; set +a; fi
if [ -f /run/secrets/bentotool-uv ]; then export UV_CONFIG_FILE=/run/secrets/bentotool-uv; fi
if [ -f /run/secrets/bentotool-netrc ]; then export NETRC=/run/secrets/bentotool-netrc; fi
export UV_CACHE_DIR={_CACHE}/uv UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
found=$(command -v "python$python" || true)
if [ -z "$found" ] && [ -z "$managed" ]; then
  echo "{MARK} no-python: the base image has no Python $python" >&2
  exit 65
fi
uv={_PACKAGES}/uv
if ! "$uv" --version >/dev/null 2>&1; then
  # what the host brought does not run here: another system, processor or C library
  "${{found:-python3}}" -m pip install -q --target /tmp/bentotool-uv "uv==$uv_version"
  uv=/tmp/bentotool-uv/bin/uv
fi
if [ -z "$found" ]; then
  UV_PYTHON_DOWNLOADS=automatic "$uv" python install --install-dir /tmp/bentotool-python "$python"
  for each in /tmp/bentotool-python/cpython-*; do  # beside the folder there may be links to it
    if [ ! -L "$each" ]; then mv "$each" {_PYTHON}; fi
  done
  found={_PYTHON}/bin/python$python
fi
if [ -n "$managed" ]; then mkdir -p /opt/python; fi
"$uv" -q venv --python "$found" "$prefix"
if grep -q '^[A-Za-z0-9]' {_PACKAGES}/bento.lock; then
  "$uv" pip install --python "$prefix/bin/python" --require-hashes --color never "$@" -r {_PACKAGES}/bento.lock
fi
if [ -n "$bytecode" ]; then  # a file that does not compile is compiled when it is asked for, and says so then
  "$prefix/bin/python" -I -m compileall -qq --invalidation-mode unchecked-hash "$prefix/lib" || true
fi
# Equal content has equal times, whenever it is installed.
"$prefix/bin/python" -I -c '
import os, sys
for place, folders, names in os.walk(sys.argv[1], topdown=False):
    for each in (*names, *folders, "."):
        os.utime(os.path.join(place, each), (0, 0), follow_symlinks=False)
' "$prefix"
""".strip()


@dataclass(frozen=True)
class Recipe:
    """What a Dockerfile is made for.

    Args:
        base: what ``FROM`` names, where it is not the plan's own reference.
        mounts: the engine knows ``RUN --mount``: caches, secrets, and files that stay out of the image.
        link: it knows ``COPY --link``.
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
    distro = distro_of(plan.distro, plan.cuda_version)
    return distro.base.format(python=plan.python, digits=plan.python.replace(".", ""))


def recipe_text(recipe: Recipe) -> str:
    """The Dockerfile.

    Raises:
        BuildError: the plan asks for what no Dockerfile here does, or holds a value that none can hold.
    """
    plan = recipe.plan
    if plan.conda.get("dependencies"):
        raise BuildError(
            f"the image of {plan.tag} needs conda packages, which no builder installs",
            hint="name them under python.packages, or a base image that has them: docker.base_image",
        )
    stages = [*_system(recipe), *_packages(recipe), *_environment(recipe), *(_image(recipe) if recipe.whole else ())]
    return dockerfile_text(stages)


def script_names(plan: ImagePlan) -> dict[str, str]:
    """Scripts of the plan's steps: name in ``scripts/`` → path in the Bento's app folder."""
    steps = [*(("before", i, s) for i, s in enumerate(plan.steps)), *(("after", i, s) for i, s in _after(plan))]
    return {f"{when}-{index}": str(step["script"]) for when, index, step in steps if "script" in step}


def _after(plan: ImagePlan) -> list[tuple[int, Mapping[str, JSON]]]:
    return list(enumerate(plan.post_steps))


def _distro(plan: ImagePlan) -> Distro:
    """What is known of the base; of one that somebody named only whether Python may have to be brought."""
    if plan.base_from == "default":
        return distro_of(plan.distro, plan.cuda_version)
    return Distro("", plan.base, managed=bool(plan.cuda_version) or plan.distro == "ubuntu")


def _system(recipe: Recipe) -> list[Instruction]:
    plan, distro = recipe.plan, _distro(recipe.plan)
    found: list[Instruction] = [
        Comment(f"{plan.tag} for {plan.platform}"),
        From(recipe.base or base_of(plan), "system"),
        User("0"),
        Env(plan.env),
    ]
    if distro.python:
        names = [name.format(python=plan.python) for name in distro.python]
        found.append(_install(recipe, names))
    if plan.build_include:
        found += [Copy("include/", "/home/bento/app/"), Workdir(plan.workdir)]
    return [*found, *_steps(recipe, "before", list(enumerate(plan.steps)))]


def _steps(recipe: Recipe, when: str, steps: Sequence[tuple[int, Mapping[str, JSON]]]) -> list[Instruction]:
    found: list[Instruction] = []
    for index, step in steps:
        packages = step.get("system_packages")
        if isinstance(packages, (list, tuple)) and packages:
            found.append(_install(recipe, [str(name) for name in packages]))
        if "run" in step:
            found.append(_run(recipe, ("/bin/sh", "-c", str(step["run"]))))
        if "script" in step:
            name = f"{when}-{index}"
            call = ("/bin/sh", "-c", 'exec "$0"', f"{_SCRIPTS}/{name}")  # a shell, for scripts without a first line
            if recipe.mounts:
                found.append(_run(recipe, call, Mount("bind", {"source": "scripts", "target": _SCRIPTS})))
            else:
                found += [Copy(f"scripts/{name}", f"{_SCRIPTS}/{name}"), _run(recipe, call)]
    return found


def _install(recipe: Recipe, packages: Sequence[str]) -> Run:
    for name in packages:
        if name.startswith("-"):
            raise BuildError(f"{name[:80]!r} is no package", hint="correct docker.system_packages")
    script = f"{_TRUST}\n{INSTALL}"
    return Run(packages, _secrets(recipe, ("bentotool-ca",)), not recipe.offline, script)


def _run(recipe: Recipe, arguments: Sequence[str], *mounts: Mount) -> Run:
    return Run(arguments, (*_secrets(recipe, ("bentotool-ca",)), *mounts), not recipe.offline, _ENTER)


def _secrets(recipe: Recipe, names: Sequence[str]) -> tuple[Mount, ...]:
    return tuple(Mount("secret", {"id": name}) for name in names) if recipe.mounts else ()


def _packages(recipe: Recipe) -> list[Instruction]:
    plan = recipe.plan
    managed, compiled = _distro(plan).managed, "bytecode" if recipe.bytecode else ""
    flags = ["--no-deps"] if plan.platform == plan.locked_for else []
    flags += ["--find-links", f"{_PACKAGES}/links"] if recipe.find_links else []
    flags += ["--offline"] if recipe.offline else []
    flags += [] if plan.from_source else ["--only-binary", ":all:"]
    arguments = (plan.python, plan.prefix, recipe.uv_version, "managed" if managed else "", compiled, *flags)
    mounts = [
        Mount("cache", {"target": f"{_CACHE}/uv", "id": "bentotool-uv", "sharing": "shared"}),
        *_secrets(recipe, SECRETS),
        Mount("bind", {"source": "packages", "target": _PACKAGES}),
    ]
    found: list[Instruction] = [From("system", "packages")]
    found += [_install(recipe, [COMPILERS])] if plan.from_source else []
    found += [] if recipe.mounts else [Copy("packages/", f"{_PACKAGES}/")]
    return [*found, Run(arguments, mounts if recipe.mounts else (), not recipe.offline, _ENVIRONMENT)]


def _environment(recipe: Recipe) -> list[Instruction]:
    plan = recipe.plan
    found: list[Instruction] = [From("system", TARGET)]
    if _distro(plan).managed:
        found.append(Copy(_PYTHON, _PYTHON, "packages", recipe.link))
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
