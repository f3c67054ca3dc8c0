"""Seeing what the import of a service looked at, so that the same import need not be repeated.

Python's audit events say which files are opened and which folders are listed; a class below ``os.environ`` says which
variables are read, and functions in place of ``os.stat`` and ``os.access`` which paths were asked for. What none of
them tells (files that native code opens, answers of the network, a child process) makes the account incomplete, and it
says so.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Witness", "watch"]

_UNSEEN = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn",
        "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendmsg", "socket.sendto",
        "subprocess.Popen",
    }
)  # fmt: skip
_KERNEL = ("/proc/", "/sys/", "/dev/")
_PACKAGES = ("site-packages", "dist-packages")
_PLAIN_NATIVE = frozenset(
    {"msgspec", "multidict", "yaml", "markupsafe", "uvloop", "httptools", "numpy", "pydantic_core"}
)
"""Native packages that open no file by themselves: those of the runtime, and what many services import."""


class Witness:
    """What was looked at since :func:`watch`; paths are absolute."""

    def __init__(self) -> None:
        self.opened: dict[str, None] = {}
        self.listed: dict[str, None] = {}
        self.variables: dict[str, None] = {}
        self.unseen: dict[str, None] = {}
        self.asked: dict[str, str] = {}
        self._library = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook; it must never raise."""
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & os.O_WRONLY):
                self._note(self.opened, path)
        elif event in ("os.listdir", "os.scandir"):
            self._note(self.listed, "." if arguments[0] is None else arguments[0])
        elif event == "sqlite3.connect":
            self._note(self.opened, arguments[0])
        elif event in _UNSEEN:
            self.unseen[event] = None

    def _note(self, where: dict[str, None], path: object) -> None:
        try:
            if isinstance(path, int):
                return
            text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        except (TypeError, ValueError, OSError):
            return
        if not self._told(text):
            where[text] = None

    def _told(self, path: str) -> bool:
        """Whether the interpreter's version tells the content already, or nothing can."""
        if path.startswith(_KERNEL) or path.endswith(".pyc"):
            return True
        return path.startswith(self._library) and not any(part in path for part in _PACKAGES)

    def ask(self, path: object, there: str) -> None:
        """Python asked what is at a path; ``there`` is ``file``, ``folder``, ``other``, or empty for nothing.

        Of what came or went meanwhile nobody knows which answer counted: ``both``.
        """
        asked: dict[str, None] = {}
        self._note(asked, path)
        for text in asked:
            if self.asked.setdefault(text, there) != there:
                self.asked[text] = "both"

    def account(self) -> dict[str, Any]:
        """All that was seen, as a JSON document."""
        opened, native = dict(self.opened), False
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path and not self._told(path):
                opened[os.path.abspath(path)] = None
                if not path.endswith((".py", ".pyc")) and name.partition(".")[0] not in _PLAIN_NATIVE:
                    native = True
        return {
            "opened": sorted(opened),
            "listed": sorted(self.listed),
            "asked": dict(sorted(self.asked.items())),
            "variables": sorted(self.variables),
            "unseen": sorted(self.unseen),
            "path": [os.path.abspath(entry) for entry in sys.path],
            "native": native,
        }


def _watch_stat(witness: Witness) -> None:
    """Tell of each path of which Python asks whether it exists: no audit event does.

    The functions take the place of ``os.stat`` and ``os.access``, which ``os.path`` and ``pathlib`` call; the import
    system has its own, and Windows answers some of ``os.path`` in C.
    """
    look, access = os.stat, os.access

    def watched_stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        there = ""
        try:
            facts = look(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
            there = "folder" if stat.S_ISDIR(facts.st_mode) else "file" if stat.S_ISREG(facts.st_mode) else "other"
        except OSError as error:
            there = "" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else "other"
            raise
        finally:
            if dir_fd is None and follow_symlinks:
                witness.ask(path, there)
        return facts

    def watched_access(path: Any, mode: int, **how: Any) -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError):
            watched_stat(path)
        return access(path, mode, **how)

    for original, watched in ((look, watched_stat), (access, watched_access)):
        _stand_in(original, watched)
    os.stat, os.access = watched_stat, watched_access


def _stand_in(original: Callable[..., Any], watched: Callable[..., Any]) -> None:
    """Let a function count as able to do what the one that it replaces can."""
    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if original in able:
            able.add(watched)


def watch() -> Witness:
    """Begin to watch this process; there is no end to it."""
    witness = Witness()

    class Watched(type(os.environ)):  # type: ignore[misc]  # the class of os.environ has no public name
        """``os.environ``, telling which variables are asked for; ``*`` for all."""

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, (str, bytes)):
                witness.variables[os.fsdecode(key)] = None
            return super().__getitem__(key)

        def __iter__(self) -> Iterator[Any]:
            witness.variables["*"] = None
            return iter(super().__iter__())

        def copy(self) -> dict[Any, Any]:
            witness.variables["*"] = None
            return dict(super().copy())

    _watch_stat(witness)
    for name in ("environ", "environb"):
        if hasattr(os, name):
            getattr(os, name).__class__ = Watched
    sys.addaudithook(witness.hook)
    return witness
