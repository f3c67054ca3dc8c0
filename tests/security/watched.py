"""Runs command lines and reports what they did that looking at a model never needs. Started by ``test_canary``.

Usage: ``watched.py JOB REPORT``. JOB is a JSON file with ``lines``, command lines that are run twice in this process:
the first round loads what the tool itself consists of, so in the second nothing at all may be imported, compiled or
executed. In both rounds nothing of the folders ``data`` and ``written`` may be, no program may start, nothing is
unpickled, no connection is made, and files are changed below the folders ``written`` only. ``planted`` files are
executed, to see that it is noticed.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
    "pickle.find_class", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "code.__new__", "webbrowser.open",
    "shutil.unpack_archive", "os.putenv", "sys.setprofile", "sys.settrace",
)  # fmt: skip
_RUNS = ("exec", "compile", "import", "marshal.loads")
_OWN_TEXT = ("typing.py", "inspect.py", "dataclasses.py", f"collections{os.sep}__init__.py", "annotationlib.py")
"""Parts of Python that compile text which they, or the annotations of a function, are made of."""
_CHANGES = (
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.utime"
)  # fmt: skip


def _roots(folders: list[str]) -> tuple[str, ...]:
    return tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders)


def _inside(path: object, roots: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True  # a descriptor: it was seen when it was opened by name
    try:
        # the folder is resolved, not the file: a link itself is what is changed
        folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return (os.path.join(os.path.realpath(folder), name) + os.sep).startswith(roots)


class Watch:
    """An audit hook that remembers, and never refuses: what it finds must not change what happens."""

    def __init__(self, data: list[str], written: list[str]) -> None:
        self.written = _roots(written)
        self.data = _roots([*data, *written])
        self.second_round = False
        self.found: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _NEVER and arguments != (None,):  # the program itself, opened as a library
            self.found.append(f"{event} {arguments!r:.300}")
        elif event in _RUNS:
            if sys._getframe(1).f_code.co_filename.endswith(_OWN_TEXT):
                return
            where = getattr(arguments[0], "co_filename", arguments[1] if len(arguments) > 1 else "")
            if self.second_round or (
                isinstance(where, str) and not where.startswith(("<", "frozen")) and where and _inside(where, self.data)
            ):
                self.found.append(f"{event} {arguments!r:.300}")
        elif event == "open":
            path, mode, flags = arguments
            writes = any(letter in str(mode) for letter in "wax+") or (isinstance(flags, int) and flags & _WRITES)
            if writes and path != os.devnull and not _inside(path, self.written):
                self.found.append(f"open {path!r} {mode!r}")
        elif event in _CHANGES:
            paths = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
            if not all(_inside(path, self.written) for path in paths):
                self.found.append(f"{event} {arguments!r:.300}")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from bentotool.cli.main import main as bentotool

    watch = Watch(job["data"], job["written"])
    sys.addaudithook(watch)
    for second in (False, True):
        watch.second_round = second
        statuses = [bentotool(line) for line in job["lines"]]
        for path in job.get("planted", ()):
            runpy.run_path(path)
    watch.second_round = False
    found = list(watch.found)
    Path(sys.argv[2]).write_text(json.dumps({"statuses": statuses, "found": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
