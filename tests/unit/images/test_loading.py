"""Images into an engine: which program, and what it says when it refuses. A stand-in takes the archive."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import BentotoolError, RemoteError, UsageError, VerificationError
from bentotool.images import loading

FAKE = """#!{python}
import os, sys
assert sys.argv[1:] == ["load"]
said = os.environ.get("FAKE_SAYS")
assert said or sys.stdin.buffer.read() == b"archive" * 100_000
sys.exit(said) if said else print("Loaded")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; an image is the word ``archive``, many times."""
    if os.name != "posix":
        pytest.skip("needs a system that runs scripts by their first line")
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(loading, "stream_archive", lambda images, file, advance: file.write(b"archive" * 100_000))
    return programs


def install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(FAKE.format(python=sys.executable))
        (folder / name).chmod(0o755)


def test_the_first_that_is_installed(folder: Path) -> None:
    with pytest.raises(UsageError, match="no engine is installed"):
        loading.engine_program(None)
    install(folder, "podman")
    assert loading.engine_program(None) == "podman"
    install(folder, "docker")
    assert loading.engine_program(None) == "docker"
    assert loading.engine_program("podman") == "podman"
    with pytest.raises(UsageError, match="nerdctl is not installed"):
        loading.engine_program("nerdctl")
    with pytest.raises(UsageError, match="no engine 'buildah'"):
        loading.engine_program("buildah")


def test_it_gets_the_archive(folder: Path) -> None:
    install(folder, "docker")
    images: Any = None
    assert loading.load_images(images, "docker") == "docker"


def test_a_damaged_blob_ends_the_program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder, "docker")

    def damaged(images: object, file: Any, advance: object) -> None:
        file.write(b"arch")
        raise VerificationError("blob is damaged")

    monkeypatch.setattr(loading, "stream_archive", damaged)
    images: Any = None
    with pytest.raises(VerificationError, match="damaged"):
        loading.load_images(images, "docker")


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", RemoteError, "no engine answers docker"),
        ("permission denied while trying to connect", RemoteError, "may not be asked: permission denied"),
        ("write /x: no space left on device", BentotoolError, "docker has no space left for the image"),
        ("first\ninvalid tar header", BentotoolError, "docker does not take the image: invalid tar header"),
    ],
)
def test_a_refusal_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[BentotoolError], message: str
) -> None:
    install(folder, "docker")
    monkeypatch.setenv("FAKE_SAYS", said)
    images: Any = None
    with pytest.raises(kind, match=message) as caught:
        loading.load_images(images, "docker")
    assert "\n" not in caught.value.message
    assert caught.value.hint
