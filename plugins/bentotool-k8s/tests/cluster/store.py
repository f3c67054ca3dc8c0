"""What an API server keeps: objects, their versions, what happened to them, and who may do what."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

KINDS: dict[tuple[str, str], tuple[str, bool]] = {
    ("v1", "ConfigMap"): ("configmaps", True), ("v1", "Service"): ("services", True),
    ("v1", "ServiceAccount"): ("serviceaccounts", True), ("v1", "Pod"): ("pods", True),
    ("v1", "Event"): ("events", True), ("v1", "Namespace"): ("namespaces", False),
    ("apps/v1", "Deployment"): ("deployments", True), ("apps/v1", "ReplicaSet"): ("replicasets", True),
    ("autoscaling/v2", "HorizontalPodAutoscaler"): ("horizontalpodautoscalers", True),
    ("policy/v1", "PodDisruptionBudget"): ("poddisruptionbudgets", True),
    ("networking.k8s.io/v1", "NetworkPolicy"): ("networkpolicies", True),
    ("networking.k8s.io/v1", "Ingress"): ("ingresses", True),
}  # fmt: skip
CUSTOM: dict[tuple[str, str], tuple[str, bool]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): ("scaledobjects", True),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): ("httproutes", True),
    ("serving.kserve.io/v1beta1", "InferenceService"): ("inferenceservices", True),
}
Key = tuple[str, str, str]


class Refused(Exception):
    """A ``Status`` of failure."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.document = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason,
            "code": code, "details": details,
        }  # fmt: skip


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects of one namespace, by ``(apiVersion, kind, name)``."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.namespaces = {"default", "ml"}
        self.kinds = dict(KINDS)
        self.objects: dict[Key, dict[str, Any]] = {}
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.forgotten = 0
        self.version = 100
        self.on_change: Callable[[str, dict[str, Any]], None] = lambda kind, item: None

    def install(self, *kinds: str) -> None:
        """Custom kinds, as their CRDs would bring them."""
        self.kinds.update({key: value for key, value in CUSTOM.items() if key[1] in kinds})

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        with self.lock:
            return copy.deepcopy(self.objects.get((api_version, kind, name)))

    def find(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        with self.lock:
            return [copy.deepcopy(each) for (v, k, _), each in self.objects.items() if (v, k) == (api_version, kind)]

    def names(self, kind: str) -> list[str]:
        with self.lock:
            return sorted(name for _, each, name in self.objects if each == kind)

    def put(self, item: dict[str, Any]) -> dict[str, Any]:
        """Keep an object as it is now, with a new version unless nothing changed."""
        key = (item["apiVersion"], item["kind"], item["metadata"]["name"])
        with self.lock:
            before, meta = self.objects.get(key), item["metadata"]
            if before is not None:
                meta["uid"] = before["metadata"]["uid"]
                if before.get("spec") != item.get("spec"):
                    meta["generation"] = int(before["metadata"].get("generation", 1)) + 1
                if {**before, "metadata": _bare(before)} == {**item, "metadata": _bare(item)}:
                    return copy.deepcopy(before)
            else:
                meta.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1, namespace="default")
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            self.objects[key] = copy.deepcopy(item)
            self.history.append((self.version, "MODIFIED" if before else "ADDED", copy.deepcopy(item)))
            self.lock.notify_all()
        if before is None or before.get("spec") != item.get("spec"):
            self.on_change(item["kind"], copy.deepcopy(item))
        return copy.deepcopy(item)

    def edit(self, api_version: str, kind: str, name: str, change: Callable[[dict[str, Any]], None]) -> bool:
        """Change an object in place; False where it is gone."""
        with self.lock:
            item = self.get(api_version, kind, name)
            if item is None:
                return False
            change(item)
            self.put(item)
            return True

    def remove(self, api_version: str, kind: str, name: str, *, children: bool = True) -> None:
        """Take an object away, and what it owns."""
        with self.lock:
            item = self.objects.pop((api_version, kind, name), None)
            if item is None:
                return
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, "DELETED", item))
            self.lock.notify_all()
            uid = item["metadata"]["uid"]
            for key in [key for key, each in self.objects.items() if children and uid in owners(each)]:
                self.remove(*key)

    def forget(self) -> None:
        """What happened so far cannot be watched any more."""
        with self.lock:
            self.forgotten = self.version
            self.history.clear()
            self.lock.notify_all()

    def since(self, version: int, kind: tuple[str, str], deadline: float, clock: Callable[[], float]) -> Iterator[Any]:
        """What happens to objects of a kind after a version."""
        while clock() < deadline:
            with self.lock:
                if version < self.forgotten:
                    raise Refused(410, "Expired", f"too old resource version: {version} ({self.forgotten})")
                fresh = [each for each in self.history if each[0] > version]
                if not fresh:
                    self.lock.wait(0.2)
                    continue
            for number, what, item in fresh:
                version = number
                if (item["apiVersion"], item["kind"]) == kind:
                    yield what, item


def owners(item: dict[str, Any]) -> list[str]:
    return [each["uid"] for each in item["metadata"].get("ownerReferences") or ()]


def _bare(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "generation")}
