"""How a worker finds its place among the services of a server: what it tells the supervisor, and what it is told.

The first line to a worker is ``{"type": "setup", "values": {...}, "peers": {...}}``: template arguments, and where the
other services are called. The first worker of all is told no peers: it tells ``{"type": "parts", "parts": [...]}`` and,
where there is something to wait for, gets ``{"type": "peers", ...}``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from bentotool.errors import ServiceLoadError
from bentotool.runtime.parts import describe_parts, part_document
from bentotool.sdk.dependency import graph, provide
from bentotool.sdk.service import Service

__all__ = ["find_part", "read_line", "take_peers", "tell_parts"]


def read_line(line: socket.socket) -> dict[str, Any]:
    """One message of the supervisor, without which nothing goes on. Unbuffered: what follows is read elsewhere."""
    with line.makefile("rb", buffering=0) as stream:
        text = stream.readline()
    if not text:
        raise SystemExit(0)  # the supervisor has gone
    document: dict[str, Any] = json.loads(text)
    return document


def tell_parts(entry: Service[Any], line: socket.socket, *, inside: bool) -> Mapping[str, Any]:
    """Say what there is; give the peers.

    Raises:
        ConfigError: the graph is not in order.
    """
    parts = describe_parts(entry, inside=inside)
    document = {"type": "parts", "parts": [part_document(part) for part in parts]}
    line.sendall(json.dumps(document).encode() + b"\n")
    if len(parts) == 1 and not parts[0].wants_gpu:
        return {}
    while (message := read_line(line))["type"] != "peers":
        pass
    peers: Mapping[str, Any] = message["peers"]
    return peers


def find_part(entry: Service[Any], name: str) -> Service[Any]:
    """The service of that name among those the entry brings along."""
    found = graph(entry).get(name)
    if found is None:  # the file was changed since the first worker read it
        raise ServiceLoadError(f"service {name!r} is not there any more")
    return found


def take_peers(entry: Service[Any], service: Service[Any], peers: Mapping[str, Any]) -> None:
    """Let the dependencies of a service be called where they run."""
    others = peers.get("services", {})
    if not others:
        return
    from bentotool.runtime.remote import RemotePeer

    known = graph(entry)
    for name, place in others.items():
        if name in known and known[name] is not service:
            provide(name, RemotePeer(known[name], place["addresses"], peers["token"], place["url"]))
