"""How a Bento was built: SLSA provenance v1 in an in-toto statement.

Formats: https://slsa.dev/spec/v1.0/provenance and https://github.com/in-toto/attestation (spec/v1). What is stated is
chosen here, name by name: no environment, no path of the machine, no user gets in by being there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bentotool import __version__
from bentotool.oci.descriptor import canonical_json
from bentotool.trust.ci import Run
from bentotool.trust.contents import Contents, Package
from bentotool.trust.moments import source_date, stated
from bentotool.trust.revision import Revision

if TYPE_CHECKING:
    from bentotool.build.result import BuildOptions

__all__ = ["BUILD_TYPE", "PREDICATE_TYPE", "STATEMENT_TYPE", "Circumstances", "arguments_of", "provenance_json"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/bentotool/bentotool/blob/main/docs/sbom.md#build-type-v1"


@dataclass(frozen=True)
class Circumstances:
    """How one build went.

    Args:
        config: the configuration file in the project; empty where there was none.
        arguments: options of the build that were not left at their defaults; see :func:`arguments_of`.
        revision: of the project's sources.
        run: what ran it.
    """

    started: datetime
    finished: datetime
    config: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    revision: Revision | None = None
    run: Run = field(default_factory=Run)


def arguments_of(options: BuildOptions) -> dict[str, Any]:
    """The options that decide what is built, where they were given."""
    given: dict[str, Any] = {
        "file": PurePath(options.file).name if options.file else None,
        "name": options.name,
        "version": options.version,
        "labels": dict(options.labels),
        "platform": options.platform,
        "locked": options.locked,
        "offline": options.offline,
        "no-cache": options.fresh,
    }
    return {name: value for name, value in given.items() if value}


def provenance_json(contents: Contents, build: Circumstances) -> bytes:
    """The statement, canonical JSON.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is not a number.
    """
    revision, run, fixed = build.revision or build.run.revision, build.run, source_date()
    external: dict[str, Any] = {"config": build.config or None, "arguments": dict(build.arguments)}
    external["args"] = dict(contents.arguments)
    external["folder"] = revision.folder if revision else None
    external["run"] = dict(run.parameters) if run.parameters else None
    metadata = {
        "invocationId": run.invocation,
        "startedOn": stated(fixed or build.started),
        "finishedOn": stated(fixed or build.finished),
    }
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {name: value for name, value in external.items() if value},
            "internalParameters": {"python": contents.python, "platform": contents.platform},
            "resolvedDependencies": [*_sources(revision), *_materials(contents)],
        },
        "runDetails": {
            "builder": {"id": run.builder, "version": {"bentotool": __version__}},
            "metadata": {name: value for name, value in metadata.items() if value},
        },
    }
    subject = {"name": contents.name, "digest": {"sha256": contents.digest[7:]}}
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )


def _sources(revision: Revision | None) -> list[dict[str, Any]]:
    if revision is None:
        return []
    # SPDX's form of a place under version control, as SLSA's own examples have it
    kind = "" if revision.url.startswith("git://") else "git+"
    place = {"uri": f"{kind}{revision.url}@{revision.commit}"} if revision.url else {}
    dirty = {"annotations": {"dirty": revision.dirty}} if revision.dirty is not None else {}
    return [{"name": "source", **place, "digest": {"gitCommit": revision.commit}, **dirty}]


def _materials(contents: Contents) -> list[dict[str, Any]]:
    def made(name: str, digest: str, **more: str) -> dict[str, Any]:
        return {"name": name, **more, "digest": {"sha256": digest.removeprefix("sha256:")}}

    return [
        made("bento.lock", contents.lock_digest),
        made("bentotool-runtime", contents.runtime_digest, uri=contents.runtime_purl),
        *(made(model.name, model.digest, uri=model.purl) for model in contents.models),
        *map(_package, contents.packages),
    ]


def _package(package: Package) -> dict[str, Any]:
    """A package. A digest is that of one file: where the lock admits several, it is the lock that names them."""
    only = {"digest": {"sha256": package.hashes[0]}} if len(package.hashes) == 1 else {}
    commit = {"annotations": {"gitCommit": package.commit}} if package.commit else {}
    return {"name": package.name, "uri": package.purl, **only, **commit}
