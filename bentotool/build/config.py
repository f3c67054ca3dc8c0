"""The build configuration: every key with its type, default and meaning.

The keys are those that BentoML 1.4 reads from ``bentofile.yaml`` and ``[tool.bentoml.build]``; ``[tool.bentotool]`` has
the same ones, and ``version`` and ``python.version`` besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bentotool.build.arguments import parse_arguments
from bentotool.build.moment import moment
from bentotool.build.schema import (
    Where,
    boolean,
    check_text,
    key,
    one_of,
    parser,
    sequence,
    table,
    table_schema,
    text,
    text_map,
    version_text,
    wrong_type,
)
from bentotool.errors import ConfigError

__all__ = [
    "DEFAULT_PYTHON",
    "BuildConfig",
    "CondaConfig",
    "DockerConfig",
    "EnvConfig",
    "IndexConfig",
    "ModelConfig",
    "PythonConfig",
    "base_image_text",
    "bento_name",
    "distro_text",
    "package_name",
    "parse_envs",
    "parse_labels",
    "python_version",
]

DEFAULT_PYTHON = "3.12"
SUPPORTED_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
VERSION_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
ENV_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
LABEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"
INDEX_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_SERVICE_PATTERN = r"(?:[A-Za-z_][\w.]*|[\w./-]+\.py)(?::[A-Za-z_]\w*)?"

_name = text(NAME_PATTERN, "a name of lower-case letters, digits, '.', '_' and '-', at most 63 characters")
_texts = sequence(text(), single=True)


@parser({"type": ["string", "number"], "not": {"const": 3.1}, "examples": list(SUPPORTED_PYTHONS)}, "version")
def python_version(value: object, where: Where) -> str:
    """Parser of a Python version, ``X.Y`` or ``X.Y.Z``; the patch level is dropped, as no lock depends on it.

    Raises:
        ConfigError: for anything that is not a supported version.
    """
    version = version_text(value, where)
    if not re.fullmatch(r"3\.\d{1,2}(\.\d{1,3})?", version):
        raise ConfigError(f"expected a Python version such as 3.12, got {version[:40]!r}", path=where)
    minor = ".".join(version.split(".")[:2])
    if minor not in SUPPORTED_PYTHONS:
        raise ConfigError(f"Python {minor} is not supported", path=where, hint=f"one of {', '.join(SUPPORTED_PYTHONS)}")
    return minor


@dataclass(frozen=True)
class IndexConfig:
    """One entry of ``python.indexes``: a package index with a name; credentials come from the environment."""

    name: str = key(text(INDEX_PATTERN, "the name of an index"), "", "name, as in UV_INDEX_NAME_PASSWORD")
    url: str = key(text(), "", "its URL, without credentials")
    default: bool = key(boolean, False, "asked in place of the public index, after all others")
    explicit: bool = key(boolean, False, "asked for the packages that are pinned to it, and for nothing else")
    packages: tuple[str, ...] = key(_texts, (), "packages that are asked of this index and of no other")


@parser({**table_schema(IndexConfig), "required": ["name", "url"]}, "table")
def _index(value: object, where: Where) -> IndexConfig:
    index: IndexConfig = table(IndexConfig)(value, where)
    for name in ("name", "url"):
        if not getattr(index, name):
            raise ConfigError(f"an index needs a {name}", path=(*where, name))
    return index


@dataclass(frozen=True)
class PythonConfig:
    """``python``: the Python packages of the Bento and where they come from."""

    version: str | None = key(python_version, None, "Python of the Bento, X.Y")
    packages: tuple[str, ...] = key(_texts, (), "requirements, as in requirements.txt")
    requirements_txt: str | None = key(text(), None, "requirements file; wins over packages")
    lock_packages: bool = key(boolean, True, "packages are pinned with their hashes; false changes nothing here")
    lock_file: str | None = key(
        text(r"none|(?:.*/)?(?:uv\.lock|pylock\.(?:[^./]+\.)?toml)", "uv.lock, pylock.toml, pylock.NAME.toml or none"),
        None,
        "lock of the project that is taken as it is; none: do not look for one",
    )
    extras: tuple[str, ...] = key(_texts, (), "extras of the project (project.optional-dependencies) in the Bento")
    groups: tuple[str, ...] = key(_texts, (), "dependency groups of the project in the Bento")
    exclude_newer: str | None = key(moment, None, "leave out what was published after this date or time")
    index_url: str | None = key(text(), None, "package index instead of the default one")
    indexes: tuple[IndexConfig, ...] = key(sequence(_index), (), "package indexes by name")
    extra_index_url: tuple[str, ...] = key(_texts, (), "further package indexes")
    find_links: tuple[str, ...] = key(_texts, (), "folders or pages with wheels")
    no_index: bool = key(boolean, False, "use no index, only find_links")
    trusted_host: tuple[str, ...] = key(_texts, (), "hosts whose TLS certificate is not checked")
    pip_args: str | None = key(
        text(), None, "arguments for pip", refused="write such options into a file: python.requirements_txt"
    )
    wheels: tuple[str, ...] = key(_texts, (), "wheels of the project, packed into the Bento")
    pack_git_packages: bool = key(boolean, True, "pack git dependencies into the Bento")
    is_src_layout: bool = key(boolean, False, "modules lie below src/; found there by themselves too")


_variables = text_map(ENV_PATTERN, "the name of a variable")


@parser({"anyOf": [_variables.schema, {"type": "array", "items": {"type": "string"}}, {"type": "string"}]}, "table")
def _environment(value: object, where: Where) -> dict[str, str] | str:
    """Parser of ``docker.env``: a table, a list of ``KEY=VALUE``, or the path of a file with such lines."""
    if isinstance(value, str):
        return text()(value, where)
    if isinstance(value, list):
        pairs: dict[str, object] = {}
        for index, item in enumerate(value):
            if not isinstance(item, str) or "=" not in item:
                raise wrong_type(item, (*where, str(index)), "text of the form KEY=VALUE")
            name, _, content = item.partition("=")
            pairs[name] = content
        value = pairs
    return _variables(value, where)


distro_text = one_of("debian", "ubuntu", "alpine", "ubi8", "ubi9", "amazonlinux", "wolfi")
"""Parser of a Linux distribution."""
base_image_text = text(r"[\w./:@-]+", "an image reference")
"""Parser of a base image."""
package_name = text(r"[A-Za-z0-9][\w.+:=~-]*", "the name of a package")
"""Parser of a package of a distribution."""


@dataclass(frozen=True)
class DockerConfig:
    """``docker``: what a container image of the Bento is made from; kept in the Bento for ``containerize``."""

    distro: str | None = key(distro_text, None, "Linux distribution of the image")
    base_image: str | None = key(base_image_text, None, "base image")
    python_version: str | None = key(python_version, None, "Python of the Bento, X.Y")
    cuda_version: str | None = key(version_text, None, "CUDA version of the image")
    system_packages: tuple[str, ...] = key(
        sequence(package_name, single=True),
        (),
        "packages of the distribution",
    )
    env: Mapping[str, str] | str = key(_environment, {}, "environment variables of the image, or a file of them")
    commands: tuple[str, ...] = key(_texts, (), "shell commands run in the image before Python packages are installed")
    post_commands: tuple[str, ...] = key(_texts, (), "shell commands run in the image after that")
    setup_script: str | None = key(text(), None, "script of the project run in the image, after commands")
    dockerfile_template: str | None = key(
        text(),
        None,
        "Dockerfile template",
        refused="use docker.base_image, system_packages, commands, post_commands and setup_script",
    )


_conda_package = text(r"[A-Za-z0-9_][\w.:/=<>!~,*|\[\] -]*", "a conda package such as numpy>=2")


@parser({"anyOf": [_conda_package.schema, {"type": "object", "properties": {"pip": _texts.schema}}]}, "text")
def _conda_dependency(value: object, where: Where) -> str | tuple[str, ...]:
    """Parser of one entry of ``dependencies``: a conda package, or ``{pip: [...]}`` as environment files have it."""
    if isinstance(value, dict) and set(value) == {"pip"}:
        return _texts(value["pip"], (*where, "pip"))
    return _conda_package(value, where)


@dataclass(frozen=True)
class CondaConfig:
    """``conda``: packages that conda installs in the image; ``serve`` without an image does not have them."""

    environment_yml: str | None = key(text(), None, "conda environment file; its channels and packages come first")
    channels: tuple[str, ...] = key(
        sequence(text(r"[A-Za-z0-9_][\w.:/-]*", "a conda channel"), single=True), (), "conda channels"
    )
    dependencies: tuple[Any, ...] = key(sequence(_conda_dependency), (), "conda packages")
    pip: tuple[str, ...] = key(_texts, (), "pip packages; locked like those of python.packages")


@dataclass(frozen=True)
class ModelConfig:
    """One entry of ``models``: a reference, or a table with ``tag`` and ``alias``."""

    tag: str = key(
        text(r"[\w.-]+(?::[\w.-]+|@sha256:[0-9a-f]{64})?", "a model such as iris:latest"), "", "model in the store"
    )
    alias: str | None = key(text(r"[\w.:-]+", "an alias"), None, "name that the service uses")
    filter: str | None = key(text(), None, "which models BentoML's cloud sends", refused="name the version in tag")


@dataclass(frozen=True)
class EnvConfig:
    """One entry of ``envs``: a variable of the service's environment; without a value it is given when it runs."""

    name: str = key(text(ENV_PATTERN, "the name of a variable"), "", "name")
    value: str = key(text(), "", "value")
    stage: str = key(one_of("all", "build", "runtime"), "all", "when it is set")


@parser({"anyOf": [{"type": "string"}, {**table_schema(ModelConfig), "required": ["tag"]}]}, "text or table")
def _model(value: object, where: Where) -> ModelConfig:
    model = table(ModelConfig)({"tag": value} if isinstance(value, str) else value, where)
    if not model.tag:
        raise ConfigError("a model needs a tag", path=(*where, "tag"))
    return model


@parser({**table_schema(EnvConfig), "required": ["name"]}, "table")
def _env(value: object, where: Where) -> EnvConfig:
    if isinstance(value, dict) and isinstance(value.get("value"), (int, float)):
        value = {**value, "value": text_map()({"value": value["value"]}, where)["value"]}
    env = table(EnvConfig)(value, where)
    if not env.name:
        raise ConfigError("a variable needs a name", path=(*where, "name"))
    return env


parse_labels = text_map(LABEL_PATTERN, "a label name")
"""Parser of ``labels``, for those that a service or a plugin gives too."""

parse_envs = sequence(_env)
"""Parser of ``envs``, for those that a service or a plugin declares too."""


@dataclass(frozen=True)
class BuildConfig:
    """The whole configuration of one build."""

    service: str | None = key(
        text(_SERVICE_PATTERN, "an import string such as service:Iris"), None, "the service, module:Class"
    )
    name: str | None = key(_name, None, "name of the Bento; default: the service's")
    version: str | None = key(
        text(VERSION_PATTERN, "a version"), None, "version of the Bento; default: made from its content"
    )
    description: str | None = key(text(multiline=True), None, "description, or file:PATH")
    labels: Mapping[str, str] = key(parse_labels, {}, "labels")
    include: tuple[str, ...] = key(_texts, ("*",), "files to take, patterns as in .gitignore")
    exclude: tuple[str, ...] = key(_texts, (), "files to leave out, patterns as in .gitignore")
    python: PythonConfig = key(table(PythonConfig), PythonConfig, "Python packages")
    docker: DockerConfig = key(table(DockerConfig), DockerConfig, "container image")
    conda: CondaConfig = key(table(CondaConfig), CondaConfig, "conda environment")
    models: tuple[ModelConfig, ...] = key(sequence(_model), (), "models beside those that the service names")
    envs: tuple[EnvConfig, ...] = key(parse_envs, (), "environment variables of the service")
    policy: str | None = key(
        text(), None, "policy that artifacts have to meet here, a file; see trust.md. It is no part of the Bento"
    )
    args: Mapping[str, Any] = key(parse_arguments, {}, "template arguments, for use_arguments in the service")

    def override(
        self, *, name: str | None = None, version: str | None = None, labels: Mapping[str, str] | None = None
    ) -> BuildConfig:
        """The same configuration with values from the command line, checked by the same rules.

        Raises:
            ConfigError: for a value that the configuration file would not be allowed to hold either.
        """
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = _name(name, ("--name",))
        if version is not None:
            changes["version"] = text(VERSION_PATTERN, "a version")(version, ("--version",))
        if labels:
            checked = parse_labels(dict(labels), ("--label",))
            changes["labels"] = {**self.labels, **checked}
        return replace(self, **changes) if changes else self


def bento_name(candidate: str) -> str | None:
    """A valid Bento name made from a project's or class's name, or None when nothing valid remains."""
    name = re.sub(r"[^a-z0-9._-]+", "-", check_text(candidate, ()).lower()).strip("._-")[:63].rstrip("._-")
    return name if re.fullmatch(NAME_PATTERN, name) else None
