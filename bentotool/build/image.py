"""What a Bento says of its container image: the configuration's ``docker`` and ``conda``, with their files read.

Everything is data, checked and kept in the Bento; nothing is run and no Dockerfile is written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.build.config import ENV_PATTERN, BuildConfig, CondaConfig, DockerConfig
from bentotool.build.contain import check_relative, read_inside
from bentotool.build.schema import Where, check_text, read_table
from bentotool.build.yamlfile import parse_yaml
from bentotool.errors import ConfigError

if TYPE_CHECKING:
    from bentotool.build.plan import Plan
    from bentotool.build.serviceimage import ServiceImage
    from bentotool.plugins import Plugins

__all__ = ["choose_base", "image_of", "read_image_files"]

_LIMIT = 1 << 20
_CONDA_KEYS = ("channels", "dependencies")


def read_image_files(project: Path, config: BuildConfig, where: Where) -> BuildConfig:
    """The configuration with the files that ``docker`` and ``conda`` name read into it.

    Raises:
        NotFoundError: a file is not there.
        UnsafeError: it lies outside the project.
        ConfigError: it does not say what it may.
    """
    return replace(
        config,
        docker=_docker(project, config.docker, (*where, "docker")),
        conda=_conda(project, config.conda, (*where, "conda")),
    )


def image_of(config: BuildConfig, service: ServiceImage | None = None) -> dict[str, Any]:
    """What ``containerize`` will make the image from; keys that say nothing are left out.

    Args:
        service: what the service's own ``image=`` says. The configuration decides where both give one value; steps
            of both are made, the service's first.

    Returns:
        ``distro``, ``base_image``, ``cuda_version``, ``env``, ``conda``; ``steps`` before Python packages are installed
        and ``post_steps`` after, in order, each ``{"system_packages": [...]}``, ``{"run": command}`` or
        ``{"script": path}``; ``build_include``: paths of the Bento that are in place before.
    """
    docker, conda = config.docker, config.conda
    before, after, include = (service.steps, service.post_steps, service.build_include) if service else ((), (), ())
    steps: list[dict[str, Any]] = [step.to_dict() for step in before]
    steps += [{"system_packages": list(docker.system_packages)}] if docker.system_packages else []
    steps += [{"run": command} for command in docker.commands]
    steps += [{"script": docker.setup_script}] if docker.setup_script else []
    chosen: dict[str, Any] = {
        "distro": docker.distro or (service.distro if service else None),
        "base_image": docker.base_image or (service.base_image if service else None),
        "cuda_version": docker.cuda_version,
        "env": dict(docker.env) if isinstance(docker.env, Mapping) else {},
        "steps": steps,
        "post_steps": [step.to_dict() for step in after] + [{"run": command} for command in docker.post_commands],
        "build_include": list(include),
        "conda": {name: list(getattr(conda, name)) for name in _CONDA_KEYS if getattr(conda, name)},
    }
    return {name: value for name, value in chosen.items() if value}


def choose_base(plan: Plan, plugins: Plugins) -> Plan:
    """The plan with the base image that a plugin chooses, where neither configuration nor service names one.

    Raises:
        PluginError: a plugin fails, or names what is no image.
    """
    if plan.image.get("base_image"):
        return plan
    chosen = plugins.base_image(plan.to_dict())
    return plan if chosen is None else replace(plan, image={**plan.image, "base_image": chosen})


def _docker(project: Path, docker: DockerConfig, where: Where) -> DockerConfig:
    if isinstance(docker.env, str):
        docker = replace(docker, env=_variables(_text(project, docker.env, (*where, "env")), docker.env))
    if docker.setup_script is not None:
        read_inside(project, docker.setup_script, (*where, "setup_script"), limit=_LIMIT)
        docker = replace(docker, setup_script=check_relative(docker.setup_script, (*where, "setup_script")))
    return docker


def _variables(content: str, name: str) -> dict[str, str]:
    """Lines ``KEY=VALUE``, ``export`` before and quotes around the value allowed; nothing is expanded."""
    found: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        body = line.strip()
        if not body or body.startswith("#"):
            continue
        key, equals, value = body.removeprefix("export ").partition("=")
        key, value, where = key.strip(), value.strip(), (name, f"line {number}")
        if not equals or not re.fullmatch(ENV_PATTERN, key):
            raise ConfigError("expected KEY=VALUE", path=where)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[key] = check_text(value, where)
    return found


def _conda(project: Path, conda: CondaConfig, where: Where) -> CondaConfig:
    """Packages of conda apart from those of pip, with those of the environment file before the configuration's own."""
    channels: list[str] = []
    packages: list[str] = []
    pip: list[str] = []
    for part in (_environment(project, conda.environment_yml, where), conda):
        channels += part.channels
        pip += [line for item in part.dependencies if isinstance(item, tuple) for line in item]
        packages += [item for item in part.dependencies if isinstance(item, str)]
        pip += part.pip
    unique = (tuple(dict.fromkeys(found)) for found in (channels, packages, pip))
    return CondaConfig(conda.environment_yml, *unique)


def _environment(project: Path, file: str | None, where: Where) -> CondaConfig:
    if file is None:
        return CondaConfig()
    document = parse_yaml(_text(project, file, (*where, "environment_yml")), file)
    if not isinstance(document, Mapping):
        raise ConfigError("expected a table", path=(file,))
    known = {name: value for name, value in document.items() if name not in ("name", "prefix", "platforms")}
    return read_table(CondaConfig, known, (file,))


def _text(project: Path, file: str, where: Where) -> str:
    try:
        return read_inside(project, file, where, limit=_LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file[:120]} is not UTF-8 text", path=where) from None
