"""What the targets ``knative`` and ``kserve`` can be told: of the options of ``k8s`` those that such pods can have, and
their own.
"""

from __future__ import annotations

from typing import Any

from bentotool.targetspec import OptionKind, OptionSpec
from bentotool_k8s.options import OPTIONS, VARIABLES

__all__ = ["KNATIVE_OPTIONS", "KSERVE_OPTIONS", "PLAIN_DEFAULTS", "SERVERLESS_VARIABLES"]

PLAIN_DEFAULTS: dict[str, Any] = {
    option.name: () if option.repeated and option.default is None else option.default for option in OPTIONS
}
"""The options of ``k8s`` as they are when nothing is said: what makes pods reads all of them."""

_SHARED = frozenset({
    "registry", "image", "platform", "namespace", "context", "kubeconfig", "force-conflicts", "timeout", "cpu",
    "memory",
    "cpu-limit", "memory-limit", "gpus", "gpu-resource", "workers", "tmp", "node-selector", "toleration",
    "runtime-class", "pull-secret", "pull-policy", "secret", "secret-env", "service-account",
    "service-account-annotation", "label", "annotation", "user", "startup",
})  # fmt: skip


def _each(name: str, kind: OptionKind, summary: str, **settings: Any) -> OptionSpec:
    return OptionSpec(name, kind, summary, per_service=True, **settings)


_SCALING = (
    _each("max-scale", "integer", "Pods at most; default: the cluster's", minimum=1, maximum=1000),
    _each("scale-target", "number", "Requests at once per pod to scale by; default: the service's concurrency",
          minimum=1, metavar="N"),
    _each("concurrency", "integer", "Requests that a pod is sent at once, at most; default: the service's "
          "max_concurrency, else no bound", minimum=0, maximum=1000, metavar="N"),
    _each("request-timeout", "number", "Seconds for a request; default: a little above the service's own", minimum=1,
          maximum=86400, metavar="SECONDS"),
)  # fmt: skip

_KNATIVE = (
    _each("min-scale", "integer", "Pods that are always there", default=0, minimum=0, maximum=1000),
    _each("scale-down-delay", "number", "Seconds before a pod without work goes", minimum=0, maximum=3600,
          metavar="SECONDS"),
    OptionSpec("cluster-local", "flag", "Reach it from within the cluster only", default=False),
)  # fmt: skip

_KSERVE = (
    # 0 is for KServe over Knative alone
    _each("min-scale", "integer", "Pods that are always there", default=1, minimum=0, maximum=1000),
    OptionSpec("serving-runtime", "flag", "Make a ServingRuntime, and an InferenceService that uses it", default=False),
    OptionSpec("deployment-mode", "text", "How KServe runs it; default: as it is set up", metavar="MODE",
               choices=("RawDeployment", "Serverless", "Standard", "Knative")),
)  # fmt: skip

_LAST = ("force-conflicts", "timeout")
_OF_PODS = tuple(option for option in OPTIONS if option.name in _SHARED and option.name not in _LAST)
_ROLLOUT = tuple(option for option in OPTIONS if option.name in _LAST)
KNATIVE_OPTIONS = (*_OF_PODS, *_SCALING, *_KNATIVE, *_ROLLOUT)
KSERVE_OPTIONS = (*_OF_PODS, *_SCALING, *_KSERVE, *_ROLLOUT)

_ASKED = {option.name for option in _OF_PODS}
SERVERLESS_VARIABLES = {name: option if option in _ASKED else "" for name, option in VARIABLES.items()}
