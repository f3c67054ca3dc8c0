"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.targetspec import TargetDecl
from bentotool_k8s.options import OPTIONS, VARIABLES
from bentotool_k8s.serverless_options import KNATIVE_OPTIONS, KSERVE_OPTIONS, SERVERLESS_VARIABLES


@hookimpl
def bentotool_targets() -> list[TargetDecl]:
    return [
        TargetDecl("k8s", "bentotool_k8s.target:KubernetesTarget", "Kubernetes, plain objects", options=OPTIONS,
                   variables=VARIABLES),
        TargetDecl("knative", "bentotool_k8s.serverless:KnativeTarget", "Knative Services on Kubernetes",
                   options=KNATIVE_OPTIONS, variables=SERVERLESS_VARIABLES),
        TargetDecl("kserve", "bentotool_k8s.serverless:KServeTarget", "A KServe InferenceService on Kubernetes",
                   options=KSERVE_OPTIONS, variables=SERVERLESS_VARIABLES),
    ]  # fmt: skip
