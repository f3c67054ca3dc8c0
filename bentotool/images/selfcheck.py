"""Images whose server holds every byte of the Bento against its digest when it starts.

Such an image has one variable and one small layer more: the manifests, the lock and the carried wheels, by which
:mod:`bentotool.runtime.verifying` knows what the files have to be. No other layer changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bentotool.build.bentos import StoredBento
from bentotool.build.media import LOCK, WHEEL
from bentotool.build.wheel import open_wheel
from bentotool.errors import BuildError, UsageError
from bentotool.images.layer import LayerEntry
from bentotool.imagespec import ImagePlan, ImageRequest, PlannedLayer
from bentotool.oci.layout import Layout
from bentotool.runtime.verifying import DOCUMENTS, VARIABLE

__all__ = ["checked_plan", "checked_request", "checks_itself", "document_entries"]

_LIMIT = 256 << 20
_MODULE = "bentotool/runtime/verifying.py"


def checked_plan(layout: Layout, bento: StoredBento, plan: ImagePlan) -> ImagePlan:
    """A plan of an image that checks itself.

    Raises:
        BuildError: the runtime that the Bento carries cannot.
    """
    if checks_itself(plan):
        return plan
    wheel = layout.read(bento.layer(WHEEL).digest, _LIMIT)
    if not any(name == _MODULE for name, _ in open_wheel(wheel)):
        raise BuildError(
            f"the runtime in Bento {bento.tag} is of a release that cannot check itself", hint="build the Bento again"
        )
    layer = PlannedLayer("signed", f"what {bento.tag} is checked against", bento.digest)
    return replace(plan, env={**plan.env, VARIABLE: bento.digest}, layers=(*plan.layers, layer))


def checks_itself(plan: ImagePlan) -> bool:
    """Whether the image checks itself when it starts."""
    return any(layer.kind == "signed" for layer in plan.layers)


def checked_request(request: ImageRequest, bento: StoredBento) -> ImageRequest:
    """A request for images that check themselves.

    Raises:
        UsageError: bytecode is asked for, which Python would take in place of the files that are checked.
        BuildError: as for :func:`checked_plan`.
    """
    if request.bytecode:
        raise UsageError(
            "an image that checks itself cannot have bytecode, which nobody signed", hint="leave --bytecode out"
        )
    return replace(request, plans=tuple(checked_plan(request.layout, bento, plan) for plan in request.plans))


def document_entries(layout: Layout, bento: StoredBento) -> Iterator[LayerEntry]:
    """The files of the layer, each named by its digest."""
    carried = [layer.digest for layer in bento.wheels.values()]
    models = [model.digest for model in bento.models]
    for digest in sorted({bento.digest, bento.layer(LOCK).digest, *carried, *models}):
        yield LayerEntry(f"{DOCUMENTS}/{digest[7:]}", layout.read(digest, _LIMIT))
