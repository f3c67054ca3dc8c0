"""What a build is asked for and what it answers: records that need nothing of the build itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bentotool.build.plan import Plan

__all__ = ["BuildOptions", "BuildResult", "BuiltBento"]


@dataclass(frozen=True)
class BuildOptions:
    """What a build is asked for beside the project's own configuration.

    Args:
        file: configuration file in the project.
        platform: ``linux/amd64`` or ``linux/arm64``; default: that of the project's lock, else of this machine.
        locked: fail when the lock is absent or out of date.
        offline: resolve from the cache and ``find_links`` only.
        replace: replace another Bento under the same version.
        dry_run: plan, and write nothing.
        explain: say what changed since the last build of the name, and what each step cost.
        args: template arguments by name; they win over those of ``arg_file``, and these over ``args`` of the
            configuration.
        arg_file: YAML or JSON file with a table of them, from the working folder.
        fresh: use nothing that earlier builds left but the project's lock.
        show_output: let the service's prints appear on stderr.
        probe_timeout: seconds for importing the service.
        runtime_requirements: what the embedded runtime needs; default: what it declares;
            tests without a package index give fewer.
    """

    file: str | None = None
    name: str | None = None
    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    arg_file: str | None = None
    platform: str | None = None
    locked: bool = False
    offline: bool = False
    replace: bool = False
    dry_run: bool = False
    explain: bool = False
    fresh: bool = False
    show_output: bool = False
    probe_timeout: float | None = None
    runtime_requirements: tuple[str, ...] | None = None


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Args:
        digest: of the Bento; empty for a dry run.
        size: bytes of the Bento, models not counted; 0 for a dry run.
        seconds: time of each step.
        lock_reused: the project's lock stood.
        packages, files: how many are locked, and how many of the project's are in it.
        models: what the Bento says of each model.
        cached: what of an earlier build served again: ``{"build": bool, "service": bool, "lock": bool, "wheel": bool,
            "bento": bool, "files": number, "files_read": number}``.
        plan: what was built; None where nothing had changed since an earlier build, so that none was made.
        notes: what a person was told when it was planned, and is told again.
        explained: what changed since the last build of this name, where that was asked for.
    """

    name: str
    version: str
    digest: str
    size: int
    seconds: Mapping[str, float]
    lock_reused: bool
    packages: int = 0
    files: int = 0
    models: tuple[Mapping[str, Any], ...] = ()
    cached: Mapping[str, bool | int] = field(default_factory=dict)
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    explained: Mapping[str, Any] | None = None

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the command prints."""
        return {
            "name": self.name,
            "version": self.version,
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
            "lock_reused": self.lock_reused,
            "packages": self.packages,
            "files": self.files,
            "models": [dict(model) for model in self.models],
            "seconds": {step: round(seconds, 3) for step, seconds in self.seconds.items()},
            "cached": dict(self.cached),
            **({"explain": dict(self.explained)} if self.explained is not None else {}),
        }


@dataclass(frozen=True)
class BuiltBento:
    """What ``bentotool_after_build`` is told; ``tag`` is ``name:version``, ``size`` is in bytes, without models."""

    name: str
    version: str
    tag: str
    digest: str
    size: int
