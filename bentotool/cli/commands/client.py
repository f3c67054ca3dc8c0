"""``bentotool client gen``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.names import bento_names
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT = 30.0


def generate_client(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Address of a running service, folder of a project, or a Bento of the store.",
            autocompletion=bento_names,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there; by default it is printed.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="For a running service that asks for one.", envvar="BENTOTOOL_TOKEN"),
    ] = None,
) -> None:
    """Write a typed Python client of a service"""
    from bentotool.client.generate import generate_module
    from bentotool.paths import write_atomic

    state = current()
    document = _schema(state, target, token)
    source = generate_module(document)
    facts = {"service": str(document.get("name", "")), "apis": len(document.get("routes") or ())}
    if output is None:
        state.console.result({**facts, "source": source}, source.rstrip("\n"))
        return
    write_atomic(output, source.encode())
    state.console.result({**facts, "file": str(output)}, f"wrote {output}: a client of {facts['apis']} APIs")


def _schema(state: State, target: str, token: str | None) -> Mapping[str, Any]:
    """The ``/schema.json`` of a service: asked for, found out by importing a project apart, or read from a Bento."""
    if target.startswith(("http://", "https://")):
        return _asked(target, token)
    if Path(target).is_dir():
        from bentotool.build.configfile import load_config
        from bentotool.build.probe import probe_service

        project = load_config(Path(target).resolve())
        service = project.config.service or "service"
        return probe_service(project.project, service, store=state.layout.root, arguments=project.config.args).schema
    from bentotool.build.bentos import BentoStore

    bentos = BentoStore(state.layout)
    found: Mapping[str, Any] = bentos.api(bentos.get(target)).get("schema") or {}
    return found


def _asked(url: str, token: str | None) -> Mapping[str, Any]:
    from bentotool.client.http import SyncHTTPClient
    from bentotool.errors import RemoteError

    with SyncHTTPClient(url, token=token, timeout=_TIMEOUT, server_ready_timeout=0) as client:
        response = client.request("GET", "/schema.json")
    try:
        document = response.json() if response.status_code == 200 else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RemoteError(f"{url}/schema.json is not a service's schema (status {response.status_code})")
    return document
