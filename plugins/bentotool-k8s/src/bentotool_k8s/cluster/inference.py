"""Whether KServe has taken up what an InferenceService asks for.

Its own word is not enough: ``observedGeneration`` is that of an object below it (kserve/kserve#6081), and while an
update has only been asked for, ``Ready`` is still that of the version before. What runs has the Bento's digest.
"""

from __future__ import annotations

from collections.abc import Sequence

from bentotool_k8s.cluster.api import Object
from bentotool_k8s.names import DIGEST

__all__ = ["is_inference", "new_deployments"]


def is_inference(item: Object) -> bool:
    return str(item["apiVersion"]).startswith("serving.kserve.io/") and item["kind"] == "InferenceService"


def new_deployments(wanted: Object, deployments: Sequence[Object] | None) -> list[Object] | None:
    """The Deployments that KServe, or Knative for it, made of an InferenceService; None where that cannot be told.

    Args:
        deployments: those with the labels of the deployment; None where they may not be seen.
    """
    digest = ((wanted["spec"].get("predictor") or {}).get("annotations") or {}).get(DIGEST)
    marks = [(_mark(each), each) for each in deployments or ()]
    if digest is None or not any(mark for mark, _ in marks):
        return None
    return [each for mark, each in marks if mark == digest]


def _mark(deployment: Object) -> str:
    template = (deployment.get("spec") or {}).get("template") or {}
    return str(((template.get("metadata") or {}).get("annotations") or {}).get(DIGEST, ""))
