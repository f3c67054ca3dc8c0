"""``docker compose``: found, started, and ended with the command that started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bentotool.errors import BentotoolError, RemoteError, UsageError

__all__ = ["Compose", "find_compose"]

_ASK_S, _END_S = 60.0, 30.0
_LOOK_S = 0.4
_KEPT = 200
_GROUPED = os.name == "posix"
_IGNORED = ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR")


class Compose:
    """The program.

    Args:
        words: what starts it.
        engine: URL of the engine; empty for the one that it finds itself.
    """

    def __init__(self, words: Sequence[str], engine: str) -> None:
        self._words = [*words, "--ansi", "never"]
        # what this shell has set for another project is not meant
        self._environment = {name: value for name, value in os.environ.items() if name not in _IGNORED}
        if engine:
            self._environment["DOCKER_HOST"] = engine

    def run(
        self, project: str, *words: str, file: Path | None = None, limit: float,
        told: Callable[[str], None] = lambda line: None, look: Callable[[], None] = lambda: None,
    ) -> tuple[int, list[str]]:  # fmt: skip
        """Run it to its end.

        Args:
            limit: seconds that it may take.
            told: each line that it says.
            look: called now and then; what it raises ends the program.

        Returns:
            Its exit status, and the last lines that it said.

        Raises:
            RemoteError: it does not end.
        """
        process = self._start(project, words, file)
        lines: list[str] = []
        reading = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reading.start()
        deadline, shown = time.monotonic() + limit, 0
        try:
            while reading.is_alive():
                reading.join(_LOOK_S)
                look()
                for line in lines[shown:]:
                    told(line)
                shown = len(lines)
                if time.monotonic() >= deadline:
                    raise RemoteError(
                        f"docker compose {words[0]} did not end within {limit:.0f} s", hint="look at: docker ps"
                    )
            return process.wait(_END_S), lines[-_KEPT:]
        except BaseException:
            _end(process)
            reading.join(_END_S)
            raise
        finally:
            if not reading.is_alive() and process.stdout is not None:
                process.stdout.close()

    def lines(self, project: str, *words: str) -> Iterator[str]:
        """What it says, line by line, for as long as somebody reads."""
        process = self._start(project, words, None)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.rstrip("\r\n")
        finally:
            _end(process)
            process.stdout.close()

    def _start(self, project: str, words: Sequence[str], file: Path | None) -> subprocess.Popen[str]:
        where = ["--file", str(file)] if file is not None else []
        try:
            return subprocess.Popen(
                [*self._words, "--project-name", project, *where, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=_GROUPED,  # ctrl-C is ours to hand on
            )
        except OSError as error:
            raise BentotoolError(f"docker compose cannot be started: {error.strerror}") from None


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # closed meanwhile
        for line in process.stdout:
            if line.strip():
                lines.append(line.strip())  # noqa: PERF401 - seen by the other thread as they come


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to end as ctrl-C would; what stays is killed after a while."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT) if _GROUPED else process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()


def find_compose(engine: str) -> Compose:
    """``docker compose``, or the program ``docker-compose`` of version 2.

    Raises:
        UsageError: neither is installed.
    """
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) is None:
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [*words, "version", "--short"], capture_output=True, text=True, timeout=_ASK_S, check=False
            )
            major = done.stdout.strip().removeprefix("v").partition(".")[0]
            if done.returncode == 0 and major.isdecimal() and int(major) >= 2:
                return Compose(words, engine)
    raise UsageError(
        "docker compose is not installed",
        hint="install the plugin (docker-compose-plugin, or docker-compose-v2), or write the file alone: --no-start",
    )
