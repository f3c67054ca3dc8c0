"""What is known of deployments: one document for each in the store, and no server.

``deployments/NAME.json`` holds what was deployed, last first, with the options it was deployed with, so that it can be
listed, repeated and taken back. It is written whole or not at all. It never holds a secret: targets take those from
files, and the record has the file's path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bentotool.deploy.options import check_deployment_name
from bentotool.errors import BentotoolError, NotFoundError, VerificationError
from bentotool.oci.layout import Layout
from bentotool.paths import write_atomic
from bentotool.targetspec import Deployment

__all__ = ["Record", "Records", "Revision"]

_FORMAT = 1
_KEPT = 20
_LIMIT = 4 << 20


@dataclass(frozen=True)
class Revision:
    """One deployment that was applied.

    Args:
        number: counted from 1.
        created: RFC 3339, UTC.
        options: values of the target's options.
        env: environment variables of the service.
    """

    number: int
    created: str
    deployment: Deployment
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "revision": self.number, "created": self.created, "deployment": self.deployment.to_dict(),
            "options": dict(self.options), "env": dict(self.env),
        }  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A deployment by name; ``revisions`` has the newest first and at least one."""

    name: str
    revisions: tuple[Revision, ...]

    @property
    def current(self) -> Revision:
        return self.revisions[0]

    @property
    def deployment(self) -> Deployment:
        return self.current.deployment

    @property
    def target(self) -> str:
        return self.deployment.target


class Records:
    """The records of a store.

    Args:
        layout: the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.root / "deployments"
        self.damaged: list[Path] = []
        """Records that the last :meth:`list` could not read and left out."""

    def _path(self, name: str) -> Path:
        return self._folder / f"{check_deployment_name(name)}.json"

    def find(self, name: str) -> Record | None:
        """The record of a name, or None.

        Raises:
            VerificationError: it is damaged.
        """
        path = self._path(name)
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except FileNotFoundError:
            return None
        try:
            return _parse(name, data)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise VerificationError(
                f"the record {path} is damaged", hint=f"remove it, and deploy {name} again"
            ) from None

    def get(self, name: str) -> Record:
        """The record of a name.

        Raises:
            NotFoundError: there is none.
        """
        found = self.find(name)
        if found is None:
            raise NotFoundError(f"no deployment {name!r} is recorded here", hint="bentotool deployment list")
        return found

    def list(self) -> list[Record]:
        """All records, by name."""
        self.damaged = []
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = self.find(path.stem)
            except BentotoolError:
                self.damaged.append(path)
                continue
            if record is not None:
                found.append(record)
        return found

    def keep(self, deployment: Deployment, options: Mapping[str, Any], env: Mapping[str, str]) -> Record:
        """Note that something was deployed; the oldest revisions are dropped."""
        before = self.find(deployment.name)
        past = before.revisions if before else ()
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        revision = Revision(past[0].number + 1 if past else 1, created, deployment, options, env)
        record = Record(deployment.name, (revision, *past)[:_KEPT])
        document = {"format": _FORMAT, "revisions": [each.to_dict() for each in record.revisions]}
        self._layout.prepare()
        write_atomic(self._path(deployment.name), json.dumps(document, indent=1).encode(), mode=0o600)
        return record

    def forget(self, name: str) -> None:
        """Remove the record of a name, if there is one."""
        self._path(name).unlink(missing_ok=True)


def _parse(name: str, data: bytes) -> Record:
    document = json.loads(data)
    if len(data) > _LIMIT or document["format"] != _FORMAT:
        raise ValueError(name)
    revisions = tuple(
        Revision(
            int(item["revision"]), str(item["created"]), _deployment(name, item["deployment"]),
            dict(item["options"]), dict(item["env"]),
        )
        for item in document["revisions"]
    )  # fmt: skip
    if not revisions:
        raise ValueError(name)
    return Record(name, revisions)


def _deployment(name: str, item: Mapping[str, Any]) -> Deployment:
    texts = {key: item[key] for key in ("target", "status", "url", "tag", "digest", "detail")}
    if item["name"] != name or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(name)
    return Deployment(name=name, facts=dict(item["facts"]), **texts)
