"""How an image comes to the engine: what of it travels, and what becomes of one that cannot."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import BentotoolError
from bentotool.targetspec import DeployBento, ImageArchive

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.name != "posix", reason="an engine at a Unix socket"),
]

QUICK = ("--drain", "0", "--grace", "5", "--port", "0")


class Between:
    """A Unix socket in front of the engine's, which counts what is sent to it.

    Attributes:
        sent: bytes.
        most: bytes after which the engine hears no more, as if it ended; None: no bound.
    """

    def __init__(self, path: Path, engine: str) -> None:
        self.url, self._engine = f"unix://{path}", engine
        self.sent, self.most = 0, None
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(self._engine)
            back = threading.Thread(target=self._pass_on, args=(far, near, False), daemon=True)
            back.start()
            self._pass_on(near, far, True)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    self.sent += len(data)
                    if self.most is not None and self.sent > self.most:
                        break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._server.close()


@pytest.fixture
def between(engine: Any, tmp_path: Path) -> Iterator[Between]:
    from bentotool_docker.engine import engine_url

    url = engine_url(None)
    if not url.startswith("unix://"):
        pytest.skip("the engine is not at a Unix socket")
    made = Between(tmp_path / "docker.sock", url.removeprefix("unix://"))
    yield made
    made.close()


@contextlib.contextmanager
def edited(project: Any, text: str) -> Iterator[None]:
    service = project.folder / "service.py"
    before = service.read_text()
    service.write_text(f"{before}\n# {text}\n")
    try:
        yield
    finally:
        service.write_text(before)


def test_an_edit_of_the_code_sends_little(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, between: Between
) -> None:
    if any(pair[:1] == ["driver-type"] for pair in engine.info().get("DriverStatus") or ()):
        pytest.skip("this engine keeps images with containerd, which wants each of their blobs")
    project.deploy(name, *QUICK, "--engine", between.url)
    before = between.sent
    with edited(project, f"edit of {name}"):
        done = project.deploy(name, *QUICK, "--engine", between.url, "--env", "VERSION=2").document
    sent = between.sent - before
    assert 0 < sent < 200_000
    assert done["facts"]["image_made"] is True
    assert tools.call(done["url"], "version") == "2"
    print(f"{sent} bytes sent, of an image of {engine.images.get(done['facts']['image_id']).attrs['Size']}")


def test_an_engine_that_ends_while_it_takes_an_image(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, between: Between
) -> None:
    """What served goes on, nothing is left, and the same command again does it."""
    url = project.deploy(name, *QUICK, "--engine", between.url, "--env", "VERSION=1").document["url"]
    standing = tools.made(engine, name)
    with edited(project, f"another edit of {name}"):
        between.most = between.sent + 9_000  # some questions, and the head of the archive
        failed = project.deploy(name, *QUICK, "--engine", between.url, "--env", "VERSION=2", ok=False)
        error = json.loads(failed.err.splitlines()[-1])["error"]
        assert (failed.status, error["code"]) == (5, "remote"), error
        assert "the connection to the engine broke" in error["message"] or "no Docker engine" in error["message"]
        assert "\n" not in error["message"]
        assert error["hint"]
        assert tools.made(engine, name) == standing
        assert tools.call(url, "version") == "1"
        between.most = None
        project.deploy(name, *QUICK, "--engine", between.url, "--env", "VERSION=2")
    assert tools.call(url, "version") == "2"


def test_an_engine_that_wants_every_layer_gets_it(engine: Any, project: Any, name: str, tmp_path: Path) -> None:
    """Whatever makes it refuse the part: the whole is sent then."""
    import docker.errors
    from bentotool_docker.images import ensure_image

    done = project.deploy(name, *QUICK).document
    image = engine.images.get(done["facts"]["image_id"])
    whole = b"".join(image.save(named=True))
    asked: list[tuple[str, ...]] = []

    def pieces(present: Any) -> Iterator[bytes]:
        asked.append(tuple(present))
        yield b"no archive" if present else whole

    archive = ImageArchive(tuple(image.attrs["RootFS"]["Layers"]), pieces)
    tag, _, version = image.tags[0].partition(":")
    notes: list[str] = []
    bento = DeployBento(tag, version, "", make_image=lambda _: archive)
    made = ensure_image(engine, bento, None, "missing", notes.append)
    assert made.id == image.id
    assert [bool(each) for each in asked] in ([True, False], [False])  # the second where containerd keeps images
    broken = ImageArchive(("sha256:none",), lambda present: (piece for piece in [b"no archive"]))
    bento = DeployBento("none", "1", "", make_image=lambda _: broken)
    with pytest.raises(BentotoolError, match="load the image of"):
        ensure_image(engine, bento, None, "missing", notes.append)
    with pytest.raises(docker.errors.ImageNotFound):
        engine.images.get("none:1")
