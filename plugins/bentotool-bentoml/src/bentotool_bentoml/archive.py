"""``FILE.bento``: a Bento that ``bentoml export`` wrote, as a project that a Bento of ours is built from.

The layout is that of BentoML 1.2 to 1.4: ``bento.yaml``, ``src/``, ``env/python/``, ``models/NAME/VERSION/``. All of it
is data here: nothing is imported, unpickled or run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bentotool.build.config import NAME_PATTERN, VERSION_PATTERN, bento_name
from bentotool.build.yamlfile import parse_yaml
from bentotool.errors import UsageError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.protocols import ArchivedBento
from bentotool_bentoml.export import unpack
from bentotool_bentoml.packages import bounded_text, write_requirements
from bentotool_bentoml.source import read_model

__all__ = ["BentoArchive"]

_LIMIT = 8 << 20
_DOCKER = (
    *("distro", "base_image", "cuda_version", "system_packages", "commands", "post_commands", "setup_script"),
    "dockerfile_template",
)
_DEFAULT = ("distro", "debian")  # BentoML writes it down even where the service chooses another
_ALIAS = '''\
"""In this Bento ``import bentoml`` means bentotool: the service was written for BentoML."""

import importlib
import importlib.abc
import importlib.util
import sys

import bentotool


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives ``bentoml.models`` the module that ``bentotool.models`` is, not a second one."""

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name.startswith("bentoml.") else None

    def create_module(self, spec):
        name = spec.name.partition(".")[2]
        try:
            found = importlib.import_module("bentotool." + name)
        except ModuleNotFoundError:
            found = bentotool
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is None:
                raise ImportError(f"bentotool has no {name}, which {spec.name} would be") from None
        self._own = getattr(found, "__spec__", None)
        return found

    def exec_module(self, module):
        module.__spec__ = self._own


sys.meta_path.insert(0, _Alias())
sys.modules[__name__] = bentotool
'''


class BentoArchive:
    """See :class:`bentotool.protocols.Archive`."""

    def unpack(self, request: SourceRequest) -> ArchivedBento:
        """Unpack an export and say what it is built from."""
        path = Path(request.uri)
        room = request.folder.resolve() / "bento"
        shutil.rmtree(room, ignore_errors=True)  # of an attempt that broke off
        unpack(path, room, request.max_bytes, request.advance)
        said = _document(room / "bento.yaml", path.name)
        _check_new(said, path.name)
        project = room / "src"
        if not project.is_dir():
            raise UsageError(f"{path.name} holds no code: it has no src/", hint="export the Bento again with BentoML")
        written = _document(project / "bentofile.yaml", path.name) if (project / "bentofile.yaml").is_file() else {}
        if not (project / "bentoml.py").exists() and not (project / "bentoml").exists():
            (project / "bentoml.py").write_text(_ALIAS, encoding="utf-8", newline="\n")
        requirements = write_requirements(room, project, _table(said, "image"))
        models = dict(_models(room / "models", path.name))
        return ArchivedBento(project, _config(said, written, requirements, project, models), models)


def _document(path: Path, title: str) -> dict[str, Any]:
    name = f"{path.name} of {title}"
    if not path.is_file():
        raise UsageError(
            f"{title} is no Bento of BentoML: it has no {path.name}", hint="bentoml export NAME:VERSION FILE.bento"
        )
    with path.open("rb") as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise UsageError(f"{name} is larger than {_LIMIT} bytes")
    document = parse_yaml(content.decode("utf-8", "replace"), name)
    if not isinstance(document, dict):
        raise UsageError(f"{name} is not a mapping", hint="export the Bento again with BentoML")
    return document


def _check_new(said: Mapping[str, Any], title: str) -> None:
    if not isinstance(said.get("service"), str) or not said["service"]:
        raise UsageError(f"bento.yaml of {title} names no service", hint="export the Bento again with BentoML")
    if said.get("runners") or (said.get("apis") and not said.get("services")):
        raise UsageError(
            f"{title} is a Bento of BentoML's old API, with runners",
            hint="write the service as a class with @bentoml.service, and build it again",
        )


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table within a document, without what is null or empty; empty where there is none."""
    value = document.get(key)
    return {k: v for k, v in value.items() if v not in (None, "", [], {})} if isinstance(value, dict) else {}


def _config(
    said: Mapping[str, Any], written: Mapping[str, Any], requirements: str, project: Path, models: Mapping[str, Any]
) -> dict[str, Any]:
    """The build's configuration: what ``bento.yaml`` says of the whole, and ``bentofile.yaml`` of the image.

    What the service says of its own image is not repeated, since the build asks the service.
    """
    name, version = str(said.get("name") or ""), str(said.get("version") or "")
    docker, envs = _table(written, "docker"), [item for item in said.get("envs") or [] if isinstance(item, dict)]
    image = {key: docker[key] for key in _DOCKER if key in docker and (key, docker[key]) != _DEFAULT}
    stated = {item.get("name") for item in envs}
    variables = docker.get("env")
    if isinstance(variables, dict) and set(variables) - stated:
        image["env"] = {key: str(value) for key, value in variables.items() if key not in stated}
    python = _table(said, "image").get("python_version") or docker.get("python_version")
    config: dict[str, Any] = {
        "service": said["service"],
        "name": name if re.fullmatch(NAME_PATTERN, name) else bento_name(name),
        "version": version if re.fullmatch(VERSION_PATTERN, version) else None,
        "description": written.get("description"),
        "labels": {key: str(value) for key, value in _table(said, "labels").items()},
        "envs": [{k: item[k] for k in ("name", "value", "stage") if item.get(k) is not None} for item in envs],
        "args": _table(said, "args"),
        "models": _references(said, project, models),
        "docker": image,
        "conda": _table(written, "conda"),
        "python": {"version": str(python) if python else None, "requirements_txt": requirements or None},
    }
    config["python"] = _table(config, "python")
    return {key: value for key, value in config.items() if value not in (None, "", [], {})}


def _references(said: Mapping[str, Any], project: Path, models: Mapping[str, Any]) -> list[dict[str, str]]:
    """The models by tag, each also under its alias and under what the code writes for it.

    A build would look ``adder:latest`` up in the store, where by now another version may be the latest.
    """
    parts = [said, *(item for item in said.get("services") or [] if isinstance(item, dict))]
    entries = [item for part in parts for item in part.get("models") or [] if isinstance(item, dict)]
    code = "\n".join(bounded_text(path) for path in sorted(project.rglob("*.py")))
    found: dict[str, str] = {}
    for entry in entries:
        tag, alias = str(entry.get("tag")), entry.get("alias")
        if tag not in models:  # of a hub, which the service asks itself
            continue
        name = tag.partition(":")[0]
        spelt = [text for text in (name, f"{name}:latest", tag) if re.search(rf"[\"']{re.escape(text)}[\"']", code)]
        for text in [*spelt, *([alias] if isinstance(alias, str) else [])] or [tag]:
            found.setdefault(text, tag)
    return [{"tag": tag, "alias": alias} for alias, tag in sorted(found.items())]


def _models(folder: Path, title: str) -> Iterator[tuple[str, SourceModel]]:
    for document in sorted(folder.glob("*/*/model.yaml")):
        home = document.parent
        tag = f"{home.parent.name}:{home.name}"
        model = read_model(home, f"model {tag} of {title}")
        if f"{model.name}:{model.version}" != tag:
            raise UsageError(f"model {tag} of {title} calls itself {model.name}:{model.version}")
        yield tag, model
