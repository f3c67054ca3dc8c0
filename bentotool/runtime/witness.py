"""Seeing what the import of a service looked at, so that the same import need not be repeated.

Python's audit events say which files are opened and which folders are listed; a class below ``os.environ`` says which
variables are read. What no event tells (files that native code opens, answers of the network, a child process) makes
the account incomplete, and it says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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
            "variables": sorted(self.variables),
            "unseen": sorted(self.unseen),
            "path": [os.path.abspath(entry) for entry in sys.path],
            "native": native,
        }


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

    for name in ("environ", "environb"):
        if hasattr(os, name):
            getattr(os, name).__class__ = Watched
    sys.addaudithook(witness.hook)
    return witness
