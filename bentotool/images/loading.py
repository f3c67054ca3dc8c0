"""Images into the engine of this machine, by the program that speaks for it."""

from __future__ import annotations

import shutil
import subprocess  # docker, podman and nerdctl have no interface that all of them share; always an argument list
import tempfile
from collections.abc import Callable
from pathlib import Path

from bentotool.errors import BentotoolError, RemoteError, UsageError
from bentotool.images.outputs import Images, write_archive

__all__ = ["ENGINES", "engine_program", "load_images"]

ENGINES = ("docker", "podman", "nerdctl")
_TIMEOUT_S = 3600.0


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
    with tempfile.TemporaryDirectory(prefix="bentotool-load-", ignore_cleanup_errors=True) as folder:
        archive = Path(folder) / "image.tar"
        write_archive(images, archive, advance)
        try:
            # The arguments are ours: a path of this function's own and a name of the table above.
            done = subprocess.run(
                [program, "load", "--input", str(archive)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RemoteError(f"{program} cannot load the image: {error}", hint=f"look at: {program} info") from None
    if done.returncode:
        raise _refused(program, done.stderr.decode("utf-8", "replace"))
    return program


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
