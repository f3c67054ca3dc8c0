"""Putting a version of a project in place of another.

Compose stops a container before it starts the one that takes its place, so a version that does not work would be found
too late. So an update is first started beside what runs, under another project name and with no port published; only
when it is ready there, the project itself is brought up to date. Whatever goes wrong, the file from before and what ran
by it is put back.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from bentotool.errors import BentotoolError, ConflictError, NotFoundError
from bentotool.paths import write_atomic
from bentotool.targetspec import Plan
from bentotool_docker.attempt import under_way
from bentotool_docker.compose.document import DEPLOYMENT, SERVICE, as_text, project_name, stop_seconds
from bentotool_docker.compose.program import Compose
from bentotool_docker.compose.standing import health_of, look, remove_project
from bentotool_docker.engine import TAKEN, one_line
from bentotool_docker.standing import last_lines, last_words
from bentotool_docker.update import UnhealthyError

__all__ = ["FILE", "Placing", "PortError", "claimed", "take_away"]

FILE = "compose.yaml"
_TRIAL = "trial.yaml"
_LOCK = ".lock"
_LOG_LINES = 20
_SLACK_S = 120.0
_TRIAL_END_S = 2


class PortError(ConflictError):
    """The port that is to be published is in use."""


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Hold a folder while its project is changed; the system gives it back when the process ends, however it ends.

    Raises:
        ConflictError: another deployment holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("ab") as file:
        if not _locked(file.fileno()):
            raise under_way(name)
        yield


def _locked(descriptor: int) -> bool:
    """Take a lock that lasts until the file is closed; False when another process has it."""
    if sys.platform == "win32":
        import msvcrt

        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
        return False
    return _locked_posix(descriptor)


def _locked_posix(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True


@dataclass(frozen=True)
class Placing:
    """One deployment of a project, in a folder that is held.

    Args:
        document, trial: the file, and the one of what is started beside first.
        where: address and port that are published, for messages.
    """

    client: docker.DockerClient
    compose: Compose
    plan: Plan
    folder: Path
    document: dict[str, Any]
    trial: dict[str, Any]
    where: str

    @property
    def name(self) -> str:
        return self.plan.name

    def bring_up(self, *, wait: bool, commit: Callable[[], None]) -> None:
        """Bring the project up; with ``wait``, come back when all of it is healthy.

        Args:
            commit: called once the new version is what counts.

        Raises:
            UnhealthyError: it does not become ready; what ran before runs on.
            ConflictError: the port is taken, or the project is somebody else's.
        """
        file, project = self.folder / FILE, project_name(self.name)
        running = look(self.client, project)
        if any(each.labels.get(DEPLOYMENT) != self.name for each in running):
            raise ConflictError(
                f"there is a compose project {project} that is not of this deployment", hint="choose another --name"
            )
        before = file.read_bytes() if file.exists() else None
        remove_project(self.client, project_name(self.name, trial=True), _TRIAL_END_S)  # of one that was killed
        begun = False
        try:
            if running and wait and self.plan.options.values["trial"]:
                self._try()
            begun = True
            write_atomic(file, as_text(self.document, self.name).encode(), mode=0o600)
            self.plan.options.note(f"{'update' if running else 'start'} {project}")
            self._up(project, file, wait=wait)
            commit()
        except BaseException as error:
            self._tell_undone(error, self._take_back(before, bool(running), begun=begun))
            raise

    def _try(self) -> None:
        """Start the new version beside the old one, and take it away again."""
        project, file = project_name(self.name, trial=True), self.folder / _TRIAL
        self.plan.options.note(f"try {self.plan.bento.tag} beside what runs")
        try:
            write_atomic(file, as_text(self.trial, self.name).encode(), mode=0o600)
            self._up(project, file, wait=True)
        finally:
            try:
                remove_project(self.client, project, _TRIAL_END_S)
            finally:
                with contextlib.suppress(OSError):
                    file.unlink()

    def _up(self, project: str, file: Path, *, wait: bool) -> None:
        timeout = float(self.plan.options.values["timeout"])
        waits = ["--wait"] if wait else []
        deadline = time.monotonic() + timeout  # compose's own does not count the time that it waits for those called
        before = {str(each.id) for each in look(self.client, project)}

        def watch() -> None:
            for each in look(self.client, project):
                new = str(each.id) not in before
                if new and (each.attrs.get("RestartCount") or (wait and each.status in ("exited", "dead"))):
                    raise self._ended(each)
            if wait and time.monotonic() >= deadline:
                raise self._late(project)

        status, lines = self.compose.run(
            project, "up", "--detach", "--no-build", "--remove-orphans", *waits, file=file, limit=timeout + _SLACK_S,
            told=lambda line: self.plan.options.progress(line[:200]), look=watch,
        )  # fmt: skip
        if status:
            raise self._failed(project, lines)

    def _ended(self, container: Container) -> BentotoolError:
        service = container.labels.get(SERVICE, container.name)
        state = container.attrs.get("State") or {}
        if state.get("OOMKilled"):
            return UnhealthyError(f"{service} of {self.name} ran out of memory", hint="give it more: --memory SIZE")
        said = self._tell_log(container)
        return UnhealthyError(f"{service} of {self.name} does not start (exit status {state.get('ExitCode')}): {said}")

    def _tell_log(self, container: Container) -> str:
        """Show the end of a log that is about to go, and give its line on what is wrong."""
        for line in last_lines(container, _LOG_LINES):
            self.plan.options.note(f"{container.labels.get(SERVICE)} | {line}")
        return last_words(container)

    def _failed(self, project: str, lines: list[str]) -> BentotoolError:
        """Why compose says that it did not work."""
        said = one_line(next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no reason"))
        if TAKEN.search(said):
            return PortError(
                f"port {self.where} is in use",
                hint="stop what uses it, or choose another: --port N (0: a free one)",
            )
        containers = look(self.client, project)
        for each in containers:
            if each.status in ("exited", "dead", "restarting"):
                return self._ended(each)
        if any(health_of(each) == "unhealthy" for each in containers):
            return self._late(project)
        if "could not select device driver" in said or "nvidia" in said:
            return BentotoolError(
                "the engine has no GPUs to give",
                hint="install the NVIDIA container toolkit on its machine, or leave --gpus out",
            )
        if "No such image" in said:
            return NotFoundError(f"docker compose: {said}", hint="deploy it again: the image is made then")
        return BentotoolError(f"docker compose: {said}")

    def _late(self, project: str) -> BentotoolError:
        """One that does not become ready: the first of those that nobody waits for in vain."""
        waiting = [each for each in look(self.client, project) if health_of(each) in ("starting", "unhealthy")]
        who = str(waiting[0].labels.get(SERVICE)) if waiting else project
        said = self._tell_log(waiting[0]) if waiting else "it did not start"
        timeout = float(self.plan.options.values["timeout"])
        return UnhealthyError(
            f"{who} of {self.name} is not ready after {timeout:g} s: {said}", hint="give it longer: --timeout SECONDS"
        )

    def _take_back(self, before: bytes | None, ran: bool, *, begun: bool) -> str:
        """Put back what was; how things stand then, in words."""
        project, file = project_name(self.name), self.folder / FILE
        try:
            if not begun:
                return f"{self.name} goes on as it was"
            if ran and before is not None:
                write_atomic(file, before, mode=0o600)
                status, lines = self.compose.run(
                    project, "up", "--detach", "--no-build", "--remove-orphans", file=file, limit=_SLACK_S
                )
                if status:
                    said = one_line(lines[-1] if lines else "?")
                    return f"{self.name} could not be put back ({said}): deploy it again"
                return f"{self.name} is put back as it was"
            take_away(self.client, self.name, self.folder, stop_seconds(self.plan.options.values))
        except BentotoolError as error:
            return f"what was made for it is still there ({error.message}); the next deploy takes it away"
        return "nothing is left of it"

    def _tell_undone(self, error: BaseException, text: str) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.plan.options.note(f"interrupted: {text}")
        elif isinstance(error, BentotoolError) and error.hint is None:
            error.hint = text
        else:
            self.plan.options.note(text)


def take_away(client: docker.DockerClient, name: str, folder: Path | None, seconds: int) -> list[str]:
    """Remove what the engine has of a deployment, and the files that were written for it.

    Returns:
        What was removed.
    """
    removed = remove_project(client, project_name(name, trial=True), _TRIAL_END_S)
    project = project_name(name)
    if all(each.labels.get(DEPLOYMENT) == name for each in look(client, project)):
        removed += remove_project(client, project, seconds)
    if folder is not None and folder.is_dir():
        for file in (_TRIAL, FILE, _LOCK):
            with contextlib.suppress(OSError):
                (folder / file).unlink()
                if file == FILE:
                    removed.append(f"file {folder / file}")
        with contextlib.suppress(OSError):  # one that holds something else stays
            folder.rmdir()
    return removed
