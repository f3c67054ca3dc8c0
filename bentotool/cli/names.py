"""Arguments that name something in the store, and what a shell completes them to.

Names are completed without versions: a colon parts words for some shells.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bentotool.cli.state import current

__all__ = [
    "BentoReference",
    "DeploymentName",
    "ModelReference",
    "bento_names",
    "bentos_and_folders",
    "deployment_names",
    "model_names",
    "target_names",
]

_FORMS = "name, name:version, name@sha256:…, or name:PREFIX of a version."


def model_names(incomplete: str) -> list[str]:
    """Names of models that start so."""
    return _names("models", incomplete)


def bento_names(incomplete: str) -> list[str]:
    """Names of Bentos that start so."""
    return _names("bentos", incomplete)


def deployment_names(incomplete: str) -> list[str]:
    """Names of recorded deployments that start so."""
    from bentotool.deploy.records import Records
    from bentotool.errors import BentotoolError

    try:
        return [record.name for record in Records(current().layout).list() if record.name.startswith(incomplete)]
    except (BentotoolError, OSError):  # a shell has no place for an error
        return []


def target_names(incomplete: str) -> list[str]:
    """Deployment targets that start so."""
    return [name for name in sorted(current().plugins.targets()) if name.startswith(incomplete)]


def bentos_and_folders(incomplete: str) -> list[str]:
    """Bentos of the store and folders that start so; a folder ends with a slash."""
    head, slash, start = incomplete.rpartition("/")
    try:
        with os.scandir(head or (slash or ".")) as entries:
            folders = sorted(each.name for each in entries if each.is_dir() and each.name.startswith(start))
    except OSError:
        folders = []
    shown = [f"{head}{slash}{name}/" for name in folders if start.startswith(".") or not name.startswith(".")]
    return [*bento_names(incomplete), *shown]


def _names(kind: str, start: str) -> list[str]:
    from bentotool.errors import BentotoolError
    from bentotool.oci.refs import RefStore

    try:
        refs = RefStore(current().layout).list(kind)
    except (BentotoolError, OSError):  # a shell has no place for an error
        return []
    return sorted({ref.name for ref in refs if ref.name.startswith(start)})


ModelReference = Annotated[str, typer.Argument(metavar="REF", help=_FORMS, autocompletion=model_names)]
BentoReference = Annotated[str, typer.Argument(metavar="REF", help=_FORMS, autocompletion=bento_names)]
DeploymentName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the deployment.", autocompletion=deployment_names)
]
