"""The plan of a Bento: everything it will hold, decided and immutable, before a byte of it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bentotool.build.collect import CodeFile
from bentotool.build.lock import Lock
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import sha256_bytes

__all__ = ["FORMAT", "Plan", "PlannedModel"]

FORMAT = 1
"""Version of the Bento's inner format, as stated in ``bento.json`` and in the config blob."""


@dataclass(frozen=True)
class PlannedModel:
    """A model of the Bento.

    Args:
        alias: the reference as the service or the configuration writes it; what the service asks for at run time.
        path: where its files lie below the Bento's root, e.g. ``models/iris``.
    """

    alias: str
    name: str
    version: str
    digest: str
    path: str
    framework: str
    safety: str
    main_file: str = ""
    size: int = 0
    signature: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def brief(self) -> dict[str, Any]:
        """What the config blob says of the model."""
        names = ("alias", "name", "version", "digest", "path", "framework", "safety")
        return {name: getattr(self, name) for name in names}

    def full(self) -> dict[str, Any]:
        """What ``bento.json`` says of the model."""
        more = {"main_file": self.main_file, "signature": dict(self.signature)}
        return {**self.brief(), **more, "labels": dict(self.labels), "metadata": dict(self.metadata)}


@dataclass(frozen=True)
class Plan:
    """All inputs of a Bento.

    Args:
        version: empty until :meth:`settled`.
        files: the project's files.
        added: files of plugins, by their name in the project.
        loaders: source of each framework's stand-alone loader; of ``<name>/__init__`` and so on where it is a package.
        envs: ``{"name", "value", "stage"}``.
        image: what the container image is made from, as far as the configuration says.
        wheel: the embedded runtime.
        api: the API documents, canonical JSON.
        arguments: ``{"name", "type", "required", "secret"}``, and ``value`` where one was given that is no secret.
        services: of the graph, for whoever deploys; the runtime asks the services themselves.
    """

    name: str
    version: str
    service: str
    python: str
    files: tuple[CodeFile, ...]
    lock: Lock
    runtime_version: str
    wheel: bytes
    api: bytes
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    envs: tuple[Mapping[str, str], ...] = ()
    models: tuple[PlannedModel, ...] = ()
    loaders: Mapping[str, bytes] = field(default_factory=dict)
    added: Mapping[str, bytes] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    middleware: tuple[str, ...] = ()
    arguments: tuple[Mapping[str, Any], ...] = ()
    services: tuple[Mapping[str, Any], ...] = ()

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def settled(self) -> Plan:
        """The plan with its version: the one given, else twelve hexadecimal digits made from everything else."""
        if self.version:
            return self
        return replace(self, version=hashlib.sha256(canonical_json(self.to_dict())).hexdigest()[:12])

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as a document; contents by digest. What ``--dry-run`` prints."""
        return {
            **self.config(),
            "files": [{"path": file.name, "size": file.size, "digest": file.digest} for file in self.files],
            "added": {name: sha256_bytes(content) for name, content in sorted(self.added.items())},
            "loaders": {name: sha256_bytes(content) for name, content in sorted(self.loaders.items())},
            "models": [model.full() for model in self.models],
            "middleware": list(self.middleware),
            "api": sha256_bytes(self.api),
        }

    def config(self) -> dict[str, Any]:
        """The document of the config blob."""
        return {
            "schema": FORMAT,
            "name": self.name,
            "version": self.version,
            "service": self.service,
            "python": self.python,
            "platform": self.lock.platform,
            "description": self.description,
            "labels": dict(self.labels),
            "envs": [dict(env) for env in self.envs],
            "image": dict(self.image),
            "lock": {"digest": sha256_bytes(self.lock.text.encode()), "inputs": self.lock.inputs},
            "runtime": {"version": self.runtime_version, "digest": sha256_bytes(self.wheel)},
            "models": [model.brief() for model in self.models],
            **({"wheels": [wheel.brief() for wheel in self.lock.wheels]} if self.lock.wheels else {}),
            **({"arguments": [dict(argument) for argument in self.arguments]} if self.arguments else {}),
            **({"services": [dict(service) for service in self.services]} if self.services else {}),
        }

    def bento_json(self) -> bytes:
        """``bento.json``: what the runtime reads."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "service": self.service,
            "python": self.python,
            "labels": dict(self.labels),
            "description": self.description,
            "runtime": {"version": self.runtime_version, "digest": sha256_bytes(self.wheel)},
            "models": [model.full() for model in self.models],
            "loaders": {
                name.removesuffix("/__init__"): f"loaders/{name}.py"
                for name in sorted(self.loaders)
                if "/" not in name or name.endswith("/__init__")
            },
            "envs": [
                {"name": env["name"], "value": env["value"]}
                for env in self.envs
                if env["stage"] != "build" and env["value"]
            ],
            "middleware": list(self.middleware),
            **({"arguments": [dict(argument) for argument in self.arguments]} if self.arguments else {}),
        }
        return canonical_json(document)
