"""The programs that build images from a Dockerfile, and what each calls things: a table of argument lists."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess  # they have no other interface that all of them share; always an argument list
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, BuildError, RemoteError, UsageError

__all__ = ["PROGRAMS", "BuildCall", "Program", "find_program"]

_ASK_S, _BUILD_S, _END_S = 60.0, 7200.0, 10.0
_GROUPED = hasattr(os, "killpg")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@dataclass(frozen=True)
class BuildCall:
    """One build.

    Args:
        tag: name that the outcome gets in the engine.
        output: the file for an OCI archive, of programs that write one themselves.
        secrets: id → file.
    """

    context: Path
    dockerfile: Path
    target: str
    platform: str
    tag: str
    output: Path
    secrets: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A program.

    Args:
        command: its name and first words.
        probe: arguments that succeed where it can build.
        build: arguments of a build, before those that all share.
        mounts: it knows ``RUN --mount``, caches and secrets.
        link: it knows ``COPY --link``.
        sees_mounts: a step whose mounted files are others is run again.
        writes: the build writes an archive itself; else ``save`` does, with the image's name last.
        inspect: arguments that describe an image, the name last; empty where there is no such form.
        load: arguments that take an archive, its path last.
        variables: set for the build.
    """

    name: str
    command: tuple[str, ...]
    probe: tuple[str, ...]
    build: tuple[str, ...]
    mounts: bool = True
    link: bool = True
    sees_mounts: bool = True
    writes: bool = False
    save: tuple[str, ...] = ()
    inspect: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    remove: tuple[str, ...] = ("image", "rm", "--force")
    pull: tuple[str, ...] = ("pull", "--quiet")
    variables: Mapping[str, str] = field(default_factory=dict)

    def build_command(self, call: BuildCall) -> list[str]:
        """The whole command line of a build."""
        shared = [
            "--target",
            call.target,
            "--platform",
            call.platform,
            "--tag",
            call.tag,
            "--file",
            str(call.dockerfile),
        ]
        if self.mounts:
            for name, path in call.secrets.items():
                shared += ["--secret", ",".join(_csv(part) for part in (f"id={name}", f"src={path}"))]
        if self.writes:
            shared += ["--output", ",".join(_csv(part) for part in ("type=oci", f"dest={call.output}"))]
        # By name alone: the values, which may hold a password, come from the environment and not from an argument.
        for name in (*_PROXIES, *(each.upper() for each in _PROXIES), "SOURCE_DATE_EPOCH"):
            shared += ["--build-arg", name] if name in os.environ else []
        return [*self.command, *self.build, *shared, str(call.context)]

    def save_command(self, image: str, file: Path) -> list[str]:
        """Write an image to an archive."""
        if self.name == "buildah":
            return ["buildah", "push", image, f"oci-archive:{file}"]
        return [self.command[0], *self.save, "--output", str(file), image]

    def run(self, command: Sequence[str], *, asking: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command of it, and end it with this one.

        Args:
            asking: it answers at once, with what it says of failures apart; else both are ``stdout``, in their order.

        Raises:
            BuildError: it cannot be started, or does not end.
        """
        environment = _environment(self)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if asking else subprocess.STDOUT,
                env=environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=_GROUPED,
            )
        except OSError as error:
            raise BuildError(f"{self.command[0]} cannot be started: {error.strerror}") from None
        limit = _ASK_S if asking else _BUILD_S
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            raise BuildError(
                f"{self.command[0]} did not end within {limit:.0f} s", hint=f"look at: {self.command[0]} info"
            ) from None
        except BaseException:  # ctrl-C: what it makes for us is to end, too
            _end(process)
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err or "")

    def describe(self, image: str) -> dict[str, Any] | None:
        """What it says of an image that it has; None where it has none."""
        if not self.inspect:
            return None
        done = self.run([self.command[0], *self.inspect, image], asking=True)
        try:
            found = json.loads(done.stdout) if not done.returncode else None
        except ValueError:
            return None
        if isinstance(found, list) and found:  # podman's form
            found = found[0]
        if isinstance(found, dict) and "OCIv1" in found:
            return _of_buildah(found)
        return found if isinstance(found, dict) else None

    def load_image(self, archive: Path, name: str) -> subprocess.CompletedProcess[str]:
        """Take an image from an archive, where it has that name."""
        if self.name != "buildah":
            return self.run([self.command[0], *self.load, str(archive)])
        done = self.run(["buildah", "pull", "--quiet", f"oci-archive:{archive}"])
        if done.returncode:
            return done
        return self.run(["buildah", "tag", (done.stdout.split() or [""])[-1], name])


def _environment(program: Program) -> dict[str, str]:
    found = {**os.environ, "BUILDKIT_PROGRESS": "plain", **program.variables}
    settings = found.get("DOCKER_CONFIG")
    if program.name == "buildah" and settings and not Path(settings, "config.json").exists():
        del found["DOCKER_CONFIG"]  # buildah takes it for a file of passwords that has to be there
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to end as ctrl-C would, which it and what it started get alike; whatever stays is killed after a while."""
    for number in (signal.SIGINT, signal.SIGTERM) if _GROUPED else ():  # the first may be one that was to be ignored
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)  # it may have more to say than a pipe holds
            break
    process.kill()
    if _GROUPED:  # podman and buildah may end before the step that they run
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _of_buildah(found: Mapping[str, Any]) -> dict[str, Any]:
    """What buildah says of an image, in the words of the others."""
    config = found["OCIv1"]
    return {
        "Id": found.get("FromImageID", ""),
        "Os": config.get("os"),
        "Architecture": config.get("architecture"),
        "RootFS": {"Layers": (config.get("rootfs") or {}).get("diff_ids")},
        "RepoDigests": [],
    }


_INSPECT = ("image", "inspect", "--format", "{{json .}}")
_DOCKER = Program(
    "buildx",
    ("docker",),
    ("buildx", "version"),
    ("buildx", "build", "--progress", "plain", "--load", "--provenance", "false"),
    save=("image", "save"),
    inspect=_INSPECT,
    load=("image", "load", "--quiet", "--input"),
)
PROGRAMS: tuple[Program, ...] = (
    _DOCKER,
    Program(
        "docker",
        ("docker",),
        ("version",),
        ("build",),
        mounts=False,
        link=False,
        save=_DOCKER.save,
        inspect=_INSPECT,
        load=_DOCKER.load,
        variables={"DOCKER_BUILDKIT": "0"},
    ),
    Program(
        "podman",
        ("podman",),
        ("version",),
        ("build", "--format", "oci", "--layers", "--timestamp", "0"),
        link=False,
        sees_mounts=False,
        save=("image", "save", "--format", "oci-archive"),
        inspect=_INSPECT,
        load=("image", "load", "--quiet", "--input"),
    ),
    Program(
        "nerdctl",
        ("nerdctl",),
        ("version",),
        ("build", "--progress", "plain"),
        writes=True,
        inspect=("image", "inspect", "--mode", "dockercompat", "--format", "{{json .}}"),
        load=("image", "load", "--quiet", "--input"),
    ),
    Program(
        "buildah",
        ("buildah",),
        ("version",),
        ("build", "--format", "oci", "--layers", "--force-rm", "--timestamp", "0"),
        link=False,
        sees_mounts=False,
        inspect=("inspect", "--type", "image"),
        load=("pull", "--quiet"),
        remove=("rmi", "--force"),
    ),
)


def find_program(name: str | None) -> Program:
    """The program to build with: that of the given name, else the first one that answers.

    Args:
        name: ``docker`` (with buildx where it is there), ``podman``, ``nerdctl`` or ``buildah``.

    Raises:
        UsageError: no such name, or that program is not installed.
        RemoteError: it is there, and its engine does not answer.
    """
    known = tuple(dict.fromkeys(program.command[0] for program in PROGRAMS))
    if name is not None and name not in known:
        raise UsageError(f"no program {name[:40]!r} is known to build images", hint=f"one of {', '.join(known)}")
    refused: BentotoolError | None = None
    for program in PROGRAMS:
        if name not in (None, program.command[0]) or shutil.which(program.command[0]) is None:
            continue
        if program.run([program.command[0], *program.probe], asking=True).returncode:
            continue  # no buildx: the next entry is docker alone
        refused = _engine(program)
        if refused is None:
            return program
    if refused is not None:
        raise refused
    if name is not None:
        raise UsageError(
            f"{name} is not installed, or does not work here", hint="install it, or name another: --engine"
        )
    raise BuildError(
        "no program to build images with: " + ", ".join(known) + " are all missing",
        hint="install Docker Engine or podman; what needs no commands is made without: --builder oci",
    )


def _engine(program: Program) -> BentotoolError | None:
    """Why the engine behind a program does not answer."""
    if program.command[0] not in ("docker", "nerdctl"):
        return None  # they are their own engine
    done = program.run([program.command[0], "version", "--format", "{{.Server}}"], asking=True)
    if not done.returncode:
        return None
    said = " ".join((done.stderr.strip().splitlines() or ["no reason given"])[-1].split())[:300]
    hint = "start it (sudo systemctl start docker, or Docker Desktop), or name another program: --engine podman"
    if "permission denied" in said:
        hint = "join the group that owns the socket (sudo usermod -aG docker $USER, then log in again)"
    return RemoteError(f"no engine answers {program.command[0]}: {said}", hint=hint)


def _csv(part: str) -> str:
    """One field of an option that is read as a line of CSV."""
    return '"' + part.replace('"', '""') + '"' if any(each in part for each in ',"') else part
