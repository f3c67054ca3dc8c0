"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.targetspec import TargetDecl
from bentotool_k8s.options import OPTIONS


@hookimpl
def bentotool_targets() -> list[TargetDecl]:
    return [TargetDecl("k8s", "bentotool_k8s.target:KubernetesTarget", "Kubernetes, plain objects", options=OPTIONS)]
