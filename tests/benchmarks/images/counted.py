"""A docker-registry of this machine behind a counter of the bytes that are sent to it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["Counter", "registry"]

_PIECE = 1 << 18


class Counter(socketserver.ThreadingTCPServer):
    """Passes connections on.

    Attributes:
        sent: bytes from clients to the registry, headers and all; set it to 0 before what is to be counted.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self.sent, self._lock = port, 0, threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def count(self, size: int) -> None:
        with self._lock:
            self.sent += size


class _Handler(socketserver.BaseRequestHandler):
    server: Counter

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
            back = threading.Thread(target=_pass_on, args=(upstream, self.request, lambda _: None), daemon=True)
            back.start()
            _pass_on(self.request, upstream, self.server.count)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket, count: Callable[[int], None]) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
            count(len(piece))
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[Counter]:
    """An empty one, which keeps its files below ``folder``; ``docker-registry`` has to be on the path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{folder / 'registry'}'}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=10).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        with Counter(port) as counter:
            threading.Thread(target=counter.serve_forever, daemon=True).start()
            yield counter
            counter.shutdown()
    finally:
        process.terminate()
        process.wait(10)
