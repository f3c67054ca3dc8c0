"""Taking the network from this process, where the system lets a process do that to itself.

On Linux a network namespace of its own, with nothing in it but loopback. Whether that works depends on the kernel's
settings, on containers and on security modules, and half of it would be worse than nothing, so it is rehearsed in a
child process first. Where it does not work the process keeps its network, silently.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["NETWORK_ENV", "leave_network"]

NETWORK_ENV = "BENTOTOOL_PROBE_NETWORK"
"""``1``: a service may use the network while a build imports it."""

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


def leave_network() -> bool:
    """Leave the network but for loopback; for a process with one thread.

    Returns:
        whether it was left.
    """
    if not sys.platform.startswith("linux") or os.environ.get(NETWORK_ENV) == "1":
        return False
    try:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _leave()
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1] != 0:
            return False
        _leave()
    except (OSError, ImportError, AttributeError):
        return False
    return True


def _leave() -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        # A user namespace would take from root the files of other users; real root needs none.
        _unshare(_NEW_NETWORK)
    else:
        _unshare(_NEW_USER | _NEW_NETWORK)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        if (os.geteuid(), os.getegid()) != (user, group):
            raise PermissionError
    _raise_loopback()


def _unshare(flags: int) -> None:
    if hasattr(os, "unshare"):  # Python 3.12
        os.unshare(flags)
        return
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _raise_loopback() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))
