"""The targets ``knative`` and ``kserve``: other objects, by the same client of the cluster."""

from __future__ import annotations

from bentotool_k8s.manifests.knative import KNATIVE
from bentotool_k8s.manifests.kserve import KSERVE
from bentotool_k8s.target import KubernetesTarget

__all__ = ["KServeTarget", "KnativeTarget"]


class KnativeTarget(KubernetesTarget):
    """A Knative Service for each Service of the graph."""

    shape = KNATIVE


class KServeTarget(KubernetesTarget):
    """A KServe InferenceService."""

    shape = KSERVE
