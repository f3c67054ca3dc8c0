"""What a service's ``image=`` says, checked by the rules of the configuration and joined with it.

The configuration decides where both give one value; what are lists is joined, the service's first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from bentotool.build.config import BuildConfig, base_image_text, distro_text, package_name, python_version
from bentotool.build.configfile import ProjectConfig
from bentotool.build.contain import check_relative, read_inside
from bentotool.build.schema import Where, boolean, key, parser, sequence, table, text, wrong_type
from bentotool.errors import ConfigError

__all__ = ["ImageStep", "PythonSource", "ServiceImage", "check_image_files", "read_service_image", "with_image"]

_WHERE: Where = ("service", "image")
_SCRIPT_LIMIT = 1 << 20
_texts = sequence(text())


@dataclass(frozen=True)
class ImageStep:
    """One step of making an image; one of the three."""

    system_packages: tuple[str, ...] = key(sequence(package_name), (), "packages of the distribution")
    run: str = key(text(), "", "shell command")
    script: str = key(text(), "", "script of the project")

    def to_dict(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items() if v}


@dataclass(frozen=True)
class PythonSource:
    """Where Python packages come from; one of the three."""

    package: str = key(text(), "", "requirement, as in requirements.txt")
    file: str = key(text(), "", "requirements file")
    pyproject: str = key(text(), "", "pyproject.toml")


def _one(value: Any, where: Where) -> Any:
    if sum(bool(part) for part in vars(value).values()) != 1:
        raise ConfigError(f"expected one of {', '.join(vars(value))}", path=where)
    return value


@parser({}, "table")
def _step(value: object, where: Where) -> ImageStep:
    step: ImageStep = _one(table(ImageStep)(value, where), where)
    return replace(step, script=check_relative(step.script, (*where, "script"))) if step.script else step


@parser({}, "table")
def _source(value: object, where: Where) -> PythonSource:
    source: PythonSource = _one(table(PythonSource)(value, where), where)
    for name in ("file", "pyproject"):
        if path := getattr(source, name):
            check_relative(path, (*where, name))
    return source


@parser({}, "list of text")
def _paths(value: object, where: Where) -> tuple[str, ...]:
    return tuple(check_relative(path, (*where, str(index))) for index, path in enumerate(_texts(value, where)))


@dataclass(frozen=True)
class ServiceImage:
    """The declaration of ``bentotool.images.Image``."""

    base_image: str | None = key(base_image_text, None, "base image")
    distro: str | None = key(distro_text, None, "Linux distribution of the image")
    python_version: str | None = key(python_version, None, "Python of the Bento, X.Y")
    steps: tuple[ImageStep, ...] = key(sequence(_step), (), "before Python packages are installed")
    python: tuple[PythonSource, ...] = key(sequence(_source), (), "Python packages")
    uv_lock: bool = key(boolean, False, "the project's uv.lock is taken")
    post_steps: tuple[ImageStep, ...] = key(sequence(_step), (), "after Python packages are installed")
    build_include: tuple[str, ...] = key(_paths, (), "files in place before that")
    lock_python_packages: bool = key(boolean, True, "packages are pinned")
    pack_git_packages: bool = key(boolean, True, "pack git dependencies into the Bento")

    @property
    def scripts(self) -> tuple[str, ...]:
        return tuple(step.script for step in (*self.steps, *self.post_steps) if step.script)


def read_service_image(value: object) -> ServiceImage:
    """Read what a service said: the table of an `Image`, or the reference of a base image.

    Raises:
        ConfigError: a key or value that an image may not have.
        UnsafeError: a path that leads out of the project.
    """
    if value is None:
        return ServiceImage()
    if isinstance(value, str):
        value = {"base_image": value}
    if not isinstance(value, Mapping):
        raise wrong_type(value, _WHERE, "bentotool.images.Image")
    return table(ServiceImage)(dict(value), _WHERE)


def with_image(project: ProjectConfig, image: ServiceImage) -> ProjectConfig:
    """The project with the Python packages of the service's image.

    Raises:
        ConfigError: the image and the configuration exclude each other.
        NotFoundError, UnsafeError: a script is not there, or outside the project.
    """
    python, docker = project.config.python, project.config.docker
    for script in image.scripts:
        read_inside(project.project, script, _WHERE, limit=_SCRIPT_LIMIT)
    if image.uv_lock and python.lock_file not in (None, "none") and not str(python.lock_file).endswith("uv.lock"):
        raise ConfigError(f"uv_lock() stands against python.lock_file: {python.lock_file}", path=_WHERE)
    if image.uv_lock and python.lock_file is None:
        python = replace(python, lock_file="uv.lock")
    if not image.pack_git_packages:
        python = replace(python, pack_git_packages=False)
    chosen = python.version or docker.python_version or image.python_version
    sources = tuple((kind, value) for item in image.python for kind, value in vars(item).items() if value)
    config: BuildConfig = replace(project.config, python=python)
    return replace(project, config=config, python=chosen or project.python, of_image=sources)


def check_image_files(config: BuildConfig, image: ServiceImage, files: Iterable[str]) -> None:
    """Check that the files that an image is made with are among the Bento's.

    Raises:
        ConfigError: one is left out.
    """
    names = set(files)
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    wanted = [(script, (*_WHERE, "run_script")) for script in image.scripts]
    wanted += [(path, (*_WHERE, "build_include")) for path in image.build_include]
    if config.docker.setup_script:
        wanted.append((config.docker.setup_script, ("docker", "setup_script")))
    for path, where in wanted:
        if path not in names and not (path in folders and where[-1] == "build_include"):
            raise ConfigError(
                f"{path[:120]!r} is not among the Bento's files",
                path=where,
                hint="take it out of exclude and .bentoignore, or name it in include",
            )
