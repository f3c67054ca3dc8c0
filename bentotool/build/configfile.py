"""Finding and reading the configuration file of a project.

Order, the first that is there wins: ``bentofile.yaml``, ``[tool.bentotool]``, ``[tool.bentoml.build]`` in
``pyproject.toml``. With none of them, ``service.py`` is built with the defaults.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bentotool.build.config import DEFAULT_PYTHON, BuildConfig, bento_name, python_version
from bentotool.build.contain import read_inside
from bentotool.build.image import read_image_files
from bentotool.build.schema import check_text, read_table, sequence, text
from bentotool.build.yamlfile import parse_yaml
from bentotool.errors import ConfigError, NotFoundError

__all__ = ["ProjectConfig", "load_config", "stated_policy"]

_FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class ProjectConfig:
    """A project's configuration, resolved.

    Args:
        project: the folder.
        origin: the file the configuration came from, relative to the folder, or "" for the defaults.
        config: the keys; ``service`` and ``description`` are resolved.
        dependencies: ``project.dependencies`` of pyproject.toml.
        python: Python of the Bento, ``X.Y``.
        of_image: Python packages of the service's image: ``package``, ``file`` or ``pyproject``, and its text.
    """

    project: Path
    origin: str
    config: BuildConfig
    dependencies: tuple[str, ...]
    python: str
    of_image: tuple[tuple[str, str], ...] = ()


def load_config(project: Path, file: str | None = None) -> ProjectConfig:
    """Read the configuration of the project in the folder ``project``.

    Args:
        file: a configuration file in the folder to use instead of looking for one.

    Raises:
        NotFoundError: no such folder, file, or nothing to build in the folder.
        ConfigError: the file does not say what a configuration may say.
    """
    if not project.is_dir():
        raise NotFoundError(f"no folder {str(project)!r}", hint="bentotool init DIR makes a project")
    pyproject = _read_toml(project, "pyproject.toml") if (project / "pyproject.toml").is_file() else {}
    origin, raw, where = _find(project, _in_project(project, file) if file else None, pyproject)
    config = read_table(BuildConfig, raw, where)
    meta = pyproject.get("project", {}) if origin.endswith("pyproject.toml") else {}
    dependencies: tuple[str, ...] = ()
    if isinstance(meta, Mapping):
        config, dependencies = _from_project(config, meta)
    if config.description and config.description.startswith("file:"):
        content = read_inside(project, config.description[5:], (*where, "description"), limit=_FILE_LIMIT)
        described = _decode(content, config.description[5:]).replace("\r\n", "\n")
        config = replace(config, description=check_text(described, (*where, "description"), multiline=True))
    config = read_image_files(project, config, where)
    if config.python.is_src_layout and not (project / "src").is_dir():
        raise ConfigError("there is no folder src", path=(*where, "python", "is_src_layout"))
    if config.service is None:
        if not (project / "service.py").is_file():
            raise NotFoundError(
                f"{origin or 'the folder ' + repr(str(project))} names no service and there is no service.py",
                hint="bentotool init DIR makes a project, or set `service: module:Class` in bentofile.yaml",
            )
        config = replace(config, service="service")
    return ProjectConfig(project, origin, config, dependencies, _python(project, config))


def stated_policy(project: Path) -> str:
    """What the configuration in a folder names as ``policy``; empty where it names none.

    Raises:
        ConfigError: the configuration cannot be read, or this is no path.
    """
    pyproject = _read_toml(project, "pyproject.toml") if (project / "pyproject.toml").is_file() else {}
    _, raw, where = _find(project, None, pyproject)
    tool: Any = pyproject.get("tool")
    own = tool.get("bentotool") if isinstance(tool, Mapping) else None
    # Both are looked at: a demand is not passed over because another file is read first.
    for table, place in ((raw, where), (own, ("pyproject.toml", "tool.bentotool"))):
        value = table.get("policy") if isinstance(table, Mapping) else None
        if value is not None:
            return text()(value, (*place, "policy"))
    return ""


def _in_project(project: Path, file: str) -> str:
    """The name inside the project of a file that the command line gives, from there or from the working directory."""
    base = project.resolve()
    for candidate in (project / file, Path(file)):
        if candidate.is_file() and candidate.resolve().is_relative_to(base):
            return candidate.resolve().relative_to(base).as_posix()
    return file


def _find(project: Path, file: str | None, pyproject: Mapping[str, Any]) -> tuple[str, object, tuple[str, ...]]:
    if file is not None and not file.endswith(".toml"):
        return file, _read_yaml(project, file), (file,)
    if file is not None and file != "pyproject.toml":
        pyproject = _read_toml(project, file)
    if file is None and (project / "bentofile.yaml").is_file():
        return "bentofile.yaml", _read_yaml(project, "bentofile.yaml"), ("bentofile.yaml",)
    origin = file or "pyproject.toml"
    for path in (("tool", "bentotool"), ("tool", "bentoml", "build")):
        found: Any = pyproject
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return origin, found, (origin, ".".join(path))
    if file is not None:
        raise ConfigError(
            f"{file} has neither [tool.bentotool] nor [tool.bentoml.build]", hint="bentotool init shows an example"
        )
    return ("pyproject.toml" if pyproject else ""), {}, (origin if pyproject else "defaults",)


def _from_project(config: BuildConfig, meta: Mapping[str, Any]) -> tuple[BuildConfig, tuple[str, ...]]:
    """What BentoML takes from ``[project]``: the name, and the dependencies beside ``python.packages``."""
    where = ("pyproject.toml", "project")
    if config.name is None and "name" in meta:
        config = replace(config, name=bento_name(text()(meta["name"], (*where, "name"))))
    dependencies = sequence(text())(meta.get("dependencies", []), (*where, "dependencies"))
    return config, dependencies


def _python(project: Path, config: BuildConfig) -> str:
    for chosen in (config.python.version, config.docker.python_version):
        if chosen:
            return chosen
    if (project / ".python-version").is_file():
        content = _decode(read_inside(project, ".python-version", (".python-version",), limit=4096), ".python-version")
        lines = [line.strip() for line in content.splitlines() if line.strip() and not line.startswith("#")]
        if lines:
            return python_version(lines[0].removeprefix("cpython-").removeprefix("cpython@"), (".python-version",))
    return DEFAULT_PYTHON


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8 text") from None


def _read_toml(project: Path, name: str) -> Mapping[str, Any]:
    # The name is computed so that type checking needs only one of the two installed.
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    content = _decode(read_inside(project, name, (name,), limit=_FILE_LIMIT), name)
    try:
        document: Mapping[str, Any] = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is not TOML: {_one_line(error)}") from None
    return document


def _read_yaml(project: Path, name: str) -> object:
    value = parse_yaml(_decode(read_inside(project, name, (name,), limit=_FILE_LIMIT), name), name)
    return {} if value is None else value


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
