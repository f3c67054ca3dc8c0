"""The socket of a server, and what is said where it does not come to that."""

from __future__ import annotations

import json
import os
import socket
import sys

from bentotool.errors import BentotoolError, ConflictError, UsageError

__all__ = ["bind", "report"]


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConflictError: the port is in use.
        UsageError: no such address on this machine, or a port that may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise UsageError(f"host {host!r}: {getattr(error, 'strerror', error)}", hint="use --host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows this option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except PermissionError as error:
        listener.close()
        raise UsageError(f"port {port} may not be used: {error.strerror}", hint="use a port above 1023") from error
    except OSError as error:
        listener.close()
        raise ConflictError(
            f"port {port} on {host} is in use", hint="stop what uses it, or pass --port 0 for a free port"
        ) from error
    return listener


def report(error: BentotoolError, form: str) -> None:
    """One line, or one JSON document, on standard error."""
    if form == "json":
        sys.stderr.write(json.dumps(error.to_dict(), default=str) + "\n")
    else:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
    sys.stderr.flush()
