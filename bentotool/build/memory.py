"""What services said of themselves when they were last imported, kept while nothing that they depended on changes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bentotool.build.journal import Journal
from bentotool.build.room import Room
from bentotool.build.trace import Ground, Trace, data_digest, names_digest, take_trace, touched_since

__all__ = ["Finding", "Memory", "document_digest", "service_environment"]


@dataclass(frozen=True)
class Finding:
    """How a service's description was found out.

    Args:
        name: of the document in the room.
        given: keyed digest of the template arguments.
        document: the description, as the probe wrote it.
        trace: what it depended on; None where that is not known.
        hit: whether it was remembered.
        reason: what changed since, or why nothing could be remembered.
    """

    name: str
    ground: Ground = field(repr=False)
    given: str = ""
    document: dict[str, Any] = field(default_factory=dict, repr=False)
    trace: Trace | None = field(default=None, repr=False)
    hit: bool = False
    reason: str = ""


def document_digest(document: Mapping[str, Any]) -> str:
    """Digest of a probe's description, to know it again."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def service_environment(store: Path) -> dict[str, str]:
    """The environment in which a service is imported."""
    # Bytecode would appear in the user's folder; a random hash seed would let sets change the order of the schema.
    return {**os.environ, "BENTOTOOL_STORE": str(store), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}


class Memory:
    """Remembers in a room.

    Args:
        journal: that of the project's last build.
        fresh: recall nothing.
    """

    def __init__(self, room: Room, journal: Journal | None, *, fresh: bool = False) -> None:
        self._room = room
        self._journal = journal
        self._fresh = fresh

    def recall(
        self,
        project: Path,
        service: str,
        store: Path,
        environment: Mapping[str, str],
        arguments: Mapping[str, Any] | None = None,
        *,
        given: str | None = None,
    ) -> Finding:
        """What is remembered of a service that is imported with some arguments, with ``hit`` where it counts.

        Args:
            arguments: template arguments; only a keyed digest of them is kept.
            given: that digest, where it is known already.
        """
        from bentotool import __version__
        from bentotool.sdk.importing import PROBE_VARIABLE

        environment = {**environment, PROBE_VARIABLE: "1"}
        python = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
        base = os.path.realpath(project)
        given = self._room.key("arguments", dict(arguments or {})) if given is None else given
        place = [
            given,
            base,
            service,
            str(store),
            sys.prefix,
            os.path.realpath(sys.executable),
            sys.version,
            __version__,
            python,
        ]
        ground = Ground(Path(base), Path(store), environment, self._room.salt(), self._journal)
        name = self._room.key("service", *place)
        kept = None if self._fresh else self._room.read(name)
        trace = Trace.from_dict(kept["trace"]) if kept and "trace" in kept else None
        if kept is None or trace is None or not isinstance(kept.get("document"), dict):
            return Finding(name, ground, given, reason="not imported before")
        changed = trace.difference(ground)
        return Finding(
            name, ground, given, kept["document"], trace, hit=not changed, reason=changed and f"{changed} changed"
        )

    def learn(self, finding: Finding, document: dict[str, Any], seen: Any, started_ns: int, scratch: str) -> Finding:
        """The finding after an import that began at a time and wrote a description."""
        trace = take_trace(seen, finding.ground, started_ns, scratch)
        return replace(finding, document=document, trace=trace)

    def keep(self, finding: Finding, journal: Journal) -> Finding:
        """Write down what was learnt, now that the project's files are known.

        Returns:
            the finding, without a trace where it cannot be told what the import depended on.
        """
        trace = finding.trace
        if finding.hit:
            self._room.used(finding.name)
            return finding
        if trace is not None and trace.data:
            if any(touched_since(max(stamp[1], stamp[3]), trace.read_ns) for stamp, _, _ in journal.files.values()):
                trace = None
            else:
                trace = replace(trace, data=data_digest(finding.ground.project, journal))
        if trace is not None:
            trace = replace(trace, names=names_digest(finding.ground.project, list(journal.folders)))
            self._room.write(finding.name, {"document": finding.document, "trace": trace.to_dict()})
        return replace(finding, trace=trace)
