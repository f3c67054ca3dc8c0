"""Arguments that name something in the store, and what a shell completes them to.

Names are completed without versions: a colon parts words for some shells.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bentotool.cli.state import current

__all__ = ["BentoReference", "DeploymentName", "ModelReference", "bento_names", "deployment_names", "model_names"]

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
