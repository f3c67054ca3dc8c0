"""Images into the engine of this machine, by the program that speaks for it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess  # docker, podman and nerdctl have no interface that all of them share; always an argument list
import tempfile
from collections.abc import Callable
from typing import IO

from bentotool.errors import BentotoolError, RemoteError, UsageError
from bentotool.images.outputs import Images, stream_archive

__all__ = ["ENGINES", "engine_program", "load_images"]

ENGINES = ("docker", "podman", "nerdctl")
_TIMEOUT_S, _END_S = 3600.0, 20.0
_REPORT_LIMIT = 1 << 20


def engine_program(name: str | None) -> str:
    """The program that takes images: of that name, else the first that is installed.

    Raises:
        UsageError: none is installed, or not that one.
    """
    if name is not None and name not in ENGINES:
        raise UsageError(f"no engine {name[:40]!r} is known to load images", hint=f"one of {', '.join(ENGINES)}")
    found = next((each for each in ENGINES if name in (None, each) and shutil.which(each)), None)
    if found is None:
        raise UsageError(
            f"{name or 'no engine'} is {'not ' if name else ''}installed to load the image into",
            hint="install Docker or podman, or write a file: --output FILE.tar",
        )
    return found


def load_images(images: Images, program: str, advance: Callable[[int], None] = lambda amount: None) -> str:
    """Load images into an engine, under all their names. Layers that it has are not unpacked again.

    Args:
        program: of `engine_program`.

    Returns:
        the program.

    Raises:
        RemoteError: the engine does not answer.
        BentotoolError: it refuses, or has no space.
    """
    with tempfile.TemporaryFile() as report:
        try:
            status = _fed(images, program, report, advance)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RemoteError(f"{program} cannot load the image: {error}", hint=f"look at: {program} info") from None
        if status:
            report.seek(0)
            raise _refused(program, report.read(_REPORT_LIMIT).decode("utf-8", "replace"))
    return program


def _fed(images: Images, program: str, report: IO[bytes], advance: Callable[[int], None]) -> int:
    """Run the program with the archive as its input, of which nothing is written here; gives its exit status.

    Raises:
        VerificationError: a blob is damaged; the program is ended within the archive then.
        OSError, subprocess.TimeoutExpired: it could not be started, or does not end.
    """
    # The argument is ours: a name of the table above.
    process = subprocess.Popen([program, "load"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=report)
    assert process.stdin is not None
    try:
        try:
            stream_archive(images, process.stdin, advance)
            process.stdin.close()
        except OSError:
            if process.wait(_END_S) == 0:  # it has ended; why, its status and its last words say better
                raise
        return process.wait(_TIMEOUT_S)
    finally:
        process.kill()
        with contextlib.suppress(OSError):  # what it did not read
            process.stdin.close()
        process.wait()


def _refused(program: str, report: str) -> BentotoolError:
    said = " ".join((report.strip().splitlines() or ["it gave no reason"])[-1].split())[:300]
    if "no space left" in said:
        return BentotoolError(
            f"{program} has no space left for the image", hint=f"{program} system df shows what takes it"
        )
    if "permission denied" in said:
        hint = "join the group that owns the engine's socket: sudo usermod -aG docker $USER"
        return RemoteError(f"the engine of {program} may not be asked: permission denied", hint=hint)
    if "Cannot connect" in said or "connect:" in said or "dial unix" in said:
        return RemoteError(f"no engine answers {program}: {said}", hint="start it: sudo systemctl start docker")
    return BentotoolError(f"{program} does not take the image: {said}", hint=f"look at: {program} info")
