"""What the target can be told, declared once: flags, ``--set``, defaults and bounds come from here.

Those with ``per_service`` may be set for one Service of a graph: ``--set Scorer.gpus=1``.
"""

from __future__ import annotations

from typing import Any

from bentotool.targetoptions import IMAGE_OPTIONS
from bentotool.targetspec import OptionKind, OptionSpec

__all__ = ["OPTIONS", "VARIABLES"]


def _each(name: str, kind: OptionKind, summary: str, **settings: Any) -> OptionSpec:
    return OptionSpec(name, kind, summary, per_service=True, **settings)


_NAMESPACE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SPACE: dict[str, Any] = {
    "metavar": "NAME", "pattern": _NAMESPACE,
    "form": "a name of a namespace: lower-case letters, digits and dashes, 63 at most",
}  # fmt: skip
_NAMED: dict[str, Any] = {
    "metavar": "NAME", "pattern": r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?",
    "form": "a name as clusters have them: lower-case letters, digits, dashes and dots",
}  # fmt: skip

_CLUSTER = (
    OptionSpec("context", "text", "Context of the kubeconfig; default: the current one", metavar="NAME", place=True),
    OptionSpec("kubeconfig", "text", "Kubeconfig; default: KUBECONFIG, else ~/.kube/config", metavar="FILE",
               place=True),
    OptionSpec("namespace", "text", "Namespace; default: that of the context", place=True, **_SPACE),
)  # fmt: skip

_ROLLOUT = (
    OptionSpec("force-conflicts", "flag", "Take over fields that others have set in the meantime", default=False),
    OptionSpec("timeout", "number", "Seconds to wait for readiness", default=600, minimum=1, maximum=86400,
               metavar="SECONDS"),
)  # fmt: skip

_SIZE = (
    _each("replicas", "integer", "Pods of each Service", default=1, minimum=0, maximum=1000),
    _each("cpu", "text", "CPU that is asked for, such as 500m or 2; default: the service's, else 500m", metavar="N"),
    _each("memory", "text", "Memory, such as 2Gi; also its bound; default: the service's, else 512Mi without a bound",
          metavar="SIZE"),
    _each("cpu-limit", "text", "Bound of CPU; default: none", metavar="N"),
    _each("memory-limit", "text", "Bound of memory in place of --memory", metavar="SIZE"),
    _each("gpus", "integer", "GPUs of each pod; default: the service's", minimum=0, maximum=64),
    _each("gpu-resource", "text", "What the cluster calls GPUs", default="nvidia.com/gpu", metavar="NAME"),
    _each("workers", "integer", "Processes in each pod; default: the service's", minimum=1, maximum=512),
    _each("tmp", "text", "Size of /tmp", default="1Gi", metavar="SIZE"),
    _each("shm", "text", "Size of /dev/shm, in memory; default: the node's 64Mi", metavar="SIZE"),
)  # fmt: skip

_SCALING = (
    _each("max-replicas", "integer", "Scale up to so many pods; default: no scaling", minimum=1, maximum=1000),
    _each("min-replicas", "integer", "Scale down to so few; 0 needs --scaler keda; default: --replicas", minimum=0,
          maximum=1000, needs=("max-replicas",)),
    _each("scaler", "text", "What scales: HorizontalPodAutoscaler or KEDA's ScaledObject", default="hpa",
          choices=("hpa", "keda"), needs=("max-replicas",)),
    _each("scale-on", "text", "What it goes by: CPU, or the runtime's count of requests in progress", default="cpu",
          choices=("cpu", "requests"), needs=("max-replicas",)),
    _each("scale-target", "number", "Percent of the CPU asked for, or requests per pod; default: 80, or the service's "
          "concurrency", minimum=1, metavar="N", needs=("max-replicas",)),
    _each("prometheus", "text", "Address at which KEDA asks Prometheus", metavar="URL",
          needs=("max-replicas", "scaler=keda", "scale-on=requests"),
          pattern=r"https?://[^\s/?#@]+(?:[/?#]\S*)?", form="an address such as http://prometheus.monitoring:9090"),
    _each("scale-query", "text", "Query in place of the runtime's requests in progress", metavar="PROMQL",
          needs=("max-replicas", "scaler=keda", "scale-on=requests")),
    _each("cooldown", "integer", "Seconds without work before KEDA scales to 0", default=300, minimum=0, maximum=86400,
          needs=("max-replicas", "scaler=keda", "min-replicas=0"), metavar="SECONDS"),
)  # fmt: skip

_PLACE = (
    _each("node-selector", "text", "Label that nodes must have", repeated=True, metavar="LABEL=VALUE"),
    _each("node-affinity", "text", "Label of which nodes must have one of some values", repeated=True,
          metavar="LABEL=VALUE,…"),
    _each("toleration", "text", "Taint that is tolerated", repeated=True, metavar="KEY[=VALUE][:EFFECT]"),
    _each("spread", "text", "Whether pods must, or only should, be spread over zones and nodes", default="soft",
          choices=("none", "soft", "hard")),
    _each("anti-affinity", "text", "Whether two pods of a Service must not share a node", default="none",
          choices=("none", "soft", "hard")),
    _each("priority-class", "text", "PriorityClass of the pods", **_NAMED),
    _each("runtime-class", "text", "RuntimeClass of the pods, such as nvidia or gvisor", **_NAMED),
)  # fmt: skip

_TRAFFIC = (
    OptionSpec("port", "integer", "Port of the Kubernetes Services", default=80, minimum=1, maximum=65535),
    OptionSpec("service-type", "text", "Type of the entry's Kubernetes Service", default="ClusterIP",
               choices=("ClusterIP", "NodePort", "LoadBalancer")),
    OptionSpec("service-annotation", "text", "Annotation of the entry's Kubernetes Service", repeated=True,
               metavar="NAME=VALUE"),
    OptionSpec("host", "text", "Host name under which the entry is reached from outside", repeated=True,
               metavar="NAME"),
    OptionSpec("path", "text", "Path below which it is reached there; default: the service's prefix, or /",
               metavar="PATH"),
    OptionSpec("ingress-class", "text", "IngressClass; default: the cluster's", **_NAMED),
    OptionSpec("ingress-annotation", "text", "Annotation of the Ingress", repeated=True, metavar="NAME=VALUE"),
    OptionSpec("tls-secret", "text", "Secret with the certificate of the hosts", **_NAMED),
    OptionSpec("gateway", "text", "Gateway to attach an HTTPRoute to, in place of an Ingress",
               metavar="[NAMESPACE/]NAME[:SECTION]"),
    OptionSpec("network-policy", "flag", "Let only those who call a Service reach its pods", default=True),
    OptionSpec("allow-from", "text", "Namespace that may reach the entry; default: all", repeated=True,
               needs=("network-policy",), **_SPACE),
    OptionSpec("metrics-from", "text", "Namespace from which Prometheus may reach all pods", repeated=True,
               needs=("network-policy",), **_SPACE),
)  # fmt: skip

_POD = (
    OptionSpec("models", "text", "Models in the image, or mounted from the registry (Kubernetes 1.33 and later)",
               default="image", choices=("image", "volume")),
    OptionSpec("pull-secret", "text", "Secret with the registry's credentials", repeated=True, **_NAMED),
    OptionSpec("pull-policy", "text", "When nodes pull the image", default="IfNotPresent",
               choices=("Always", "IfNotPresent", "Never")),
    _each("secret", "text", "Key of a Secret to mount as /run/secrets/NAME; without a key all of them, in a folder",
          repeated=True, metavar="NAME=SECRET[/KEY]"),
    _each("secret-env", "text", "Variable from a key of a Secret", repeated=True, metavar="NAME=SECRET/KEY"),
    OptionSpec("service-account", "text", "ServiceAccount that there is; default: one without rights is made",
               **_NAMED),
    OptionSpec("service-account-annotation", "text", "Annotation of the ServiceAccount that is made", repeated=True,
               metavar="NAME=VALUE"),
    OptionSpec("token", "flag", "Give the pods the ServiceAccount's token", default=False),
    OptionSpec("label", "text", "Label of all objects", repeated=True, metavar="NAME=VALUE"),
    OptionSpec("annotation", "text", "Annotation of the pods", repeated=True, metavar="NAME=VALUE"),
    OptionSpec("user", "integer", "User id of the process", default=65532, minimum=1, maximum=2147483647),
    _each("startup", "number", "Seconds that a pod may take until it is ready the first time", default=600,
          minimum=1, maximum=86400, metavar="SECONDS"),
    # after these no new connection comes any more: the pod is taken out of the Service when it begins to end
    _each("pre-stop", "integer", "Seconds in which a pod that is to end goes on as before", default=5, minimum=0,
          maximum=3600, metavar="SECONDS"),
    # who asks again within these is told that the connection ends: an update cuts only what was idle for longer
    _each("drain", "number", "Seconds in which its clients are sent to other pods after that", default=6, minimum=0,
          maximum=3600, metavar="SECONDS"),
    _each("grace", "number", "Seconds for requests in flight after that; default: the service's timeout", minimum=0,
          maximum=86400, metavar="SECONDS"),
    _each("strategy", "text", "Update pod by pod, or end the old ones first where there is no room for both",
          default="rolling", choices=("rolling", "recreate")),
)  # fmt: skip

OPTIONS = (*_CLUSTER, *IMAGE_OPTIONS, *_SIZE, *_SCALING, *_TRAFFIC, *_POD, *_PLACE, *_ROLLOUT)

VARIABLES = {
    "PORT": "", "BENTOTOOL_HOST": "", "BENTOTOOL_WORKERS": "workers", "BENTOTOOL_DRAIN_DELAY": "drain",
    "BENTOTOOL_GRACE": "grace",
}  # fmt: skip
"""What is set in the containers, and the option that says what is in it."""
