"""Watches a project's files, as a process of its own beside the supervisor, and tells it when one has changed.

``python -m bentotool.runtime.watching --sockets N FOLDER``. Where watchfiles is installed the system tells of changes;
else the files are looked at twice a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bentotool.runtime.handover import receive_sockets

__all__ = ["changes", "is_watched", "main"]

_EVERY_S = 0.5
_SUFFIXES = frozenset((".py", ".pyi", ".yaml", ".yml", ".toml"))
_PASSED_OVER = frozenset(("__pycache__", "node_modules", "venv", "site-packages"))


def is_watched(path: Path, folder: Path) -> bool:
    """Whether a file is part of what is served: code or configuration, in no hidden folder and no environment."""
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else path.parts
    hidden = any(part.startswith(".") or part in _PASSED_OVER for part in inside)
    return path.suffix in _SUFFIXES and not hidden


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _PASSED_OVER
            and not os.path.exists(os.path.join(root, name, "pyvenv.cfg"))
        ]
        yield from (Path(root, name) for name in names if Path(name).suffix in _SUFFIXES and not name.startswith("."))


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {}
    for path in _files(folder):
        with contextlib.suppress(OSError):
            state = path.stat()
            found[path] = state.st_mtime_ns, state.st_size
    return found


def _looked_for(folder: Path, stop: threading.Event) -> Iterator[None]:
    before = _states(folder)
    while not stop.wait(_EVERY_S):
        now = _states(folder)
        if now != before:
            before = now
            yield


def _told(folder: Path, stop: threading.Event) -> Iterator[None]:
    from watchfiles import watch

    for _ in watch(
        folder, watch_filter=lambda _change, path: is_watched(Path(path), folder), debounce=200, stop_event=stop,
        raise_interrupt=False,
    ):  # fmt: skip
        yield


def changes(folder: Path, stop: threading.Event) -> Iterator[None]:
    """One item for each time that files have changed, until `stop` is set."""
    watcher: Callable[[Path, threading.Event], Iterator[None]] = _told
    try:
        import watchfiles  # noqa: F401 - whether it is here decides
    except ImportError:
        watcher = _looked_for
    yield from watcher(folder, stop)


def main(argv: list[str] | None = None) -> int:
    """Watch until the supervisor goes."""
    parser = argparse.ArgumentParser(prog="python -m bentotool.runtime.watching", description=__doc__)
    parser.add_argument("--sockets", required=True)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    line = receive_sockets(options.sockets)[-1]
    stop = threading.Event()
    threading.Thread(target=_stay, args=(line, stop), daemon=True).start()
    with contextlib.suppress(OSError):
        for _ in changes(options.folder.resolve(), stop):
            line.sendall(json.dumps({"type": "changed"}).encode() + b"\n")
    return 0


def _stay(line: socket.socket, stop: threading.Event) -> None:
    """The supervisor says nothing here: when the line can be read, it has gone."""
    select.select([line], [], [])
    stop.set()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
