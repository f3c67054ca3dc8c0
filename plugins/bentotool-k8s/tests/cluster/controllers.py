"""What makes pods of Deployments, and what becomes of those: the tag of the image says it, such as ``iris:crash``."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import Any

from k8s_store import Store, now

STEP_S = 0.05
REVISION = "deployment.kubernetes.io/revision"
PULL = (
    'Back-off pulling image "{image}": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image '
    '"{image}": failed to resolve reference "{image}": {image}: not found'
)
UNPLACED = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No preemption "
    "victims found for incoming pod."
)


class Controllers:
    """The Deployment controller, a scheduler and a node, in a thread for each Deployment."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.room = 100
        """Pods that the namespace's quota allows."""
        self.ending = threading.Event()
        self.threads: list[threading.Thread] = []
        store.on_change = self._changed

    def _changed(self, kind: str, item: dict[str, Any]) -> None:
        if kind == "Deployment" and not self.ending.is_set():
            thread = threading.Thread(target=self._run, args=(item["metadata"]["name"],), daemon=True)
            self.threads.append(thread)
            thread.start()

    def close(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(5)

    def _run(self, name: str) -> None:
        item = self.store.get("apps/v1", "Deployment", name)
        if item is None:
            return
        generation = item["metadata"]["generation"]
        self.ending.wait(STEP_S)
        new, revision = self._set(item)
        count = int(item["spec"].get("replicas", 1))
        tag = item["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]
        self.store.edit("apps/v1", "Deployment", name, lambda each: _observed(each, generation, revision))
        self._drop(name, keep=new, only_unready=True)
        for number in range(count):
            if len(self.store.find("v1", "Pod")) >= self.room:
                self._status(name, generation, new, count, failure=_quota(name))
                return
            self._pod(new, number)
        for stage in range(_STAGES.get(tag, 2)):
            if self.ending.wait(STEP_S) or self._moved_on(name, generation):
                return
            for pod in self._pods(new):
                self.store.edit("v1", "Pod", pod, lambda each, at=stage: become(each, tag, at, self.store))
            self._status(name, generation, new, count)
        if tag not in _BAD and not self._moved_on(name, generation):
            self._drop(name, keep=new)
            self._status(name, generation, new, count)

    def _moved_on(self, name: str, generation: int) -> bool:
        item = self.store.get("apps/v1", "Deployment", name)
        return item is None or item["metadata"]["generation"] != generation

    def _set(self, item: dict[str, Any]) -> tuple[str, str]:
        template, uid = item["spec"]["template"], item["metadata"]["uid"]
        mark = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{item['metadata']['name']}-{mark}"
        sets = [each for each in self.store.find("apps/v1", "ReplicaSet") if uid in _owner(each)]
        newest = max((int(each["metadata"]["annotations"][REVISION]) for each in sets), default=0) + 1
        meta = {
            "name": name, "labels": template["metadata"]["labels"], "annotations": {REVISION: str(newest)},
            "ownerReferences": [{"uid": uid, "kind": "Deployment", "name": item["metadata"]["name"]}],
        }  # fmt: skip
        known = self.store.get("apps/v1", "ReplicaSet", name)
        made = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": {"template": template}}
        self.store.put({**made, "metadata": {**known["metadata"], **meta}} if known else made)
        return name, str(newest)

    def _pod(self, owner: str, number: int) -> None:
        parent = self.store.get("apps/v1", "ReplicaSet", owner)
        if parent is None or self.store.get("v1", "Pod", f"{owner}-{number}") is not None:
            return
        template = parent["spec"]["template"]
        self.store.put({
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"], "status": {"phase": "Pending"},
            "metadata": {
                "name": f"{owner}-{number}", "labels": template["metadata"]["labels"],
                "ownerReferences": [{"uid": parent["metadata"]["uid"], "kind": "ReplicaSet", "name": owner}],
            },
        })  # fmt: skip

    def _pods(self, owner: str) -> list[str]:
        return [each["metadata"]["name"] for each in self.store.find("v1", "Pod") if _made_by(each, owner)]

    def _drop(self, name: str, keep: str, *, only_unready: bool = False) -> None:
        """The pods of other versions go: all, or those that never got ready."""
        item = self.store.get("apps/v1", "Deployment", name)
        others = [
            each["metadata"]["name"]
            for each in self.store.find("apps/v1", "ReplicaSet")
            if item is not None and item["metadata"]["uid"] in _owner(each) and each["metadata"]["name"] != keep
        ]
        for pod in self.store.find("v1", "Pod"):
            if any(_made_by(pod, each) for each in others) and not (only_unready and _is_ready(pod)):
                self.store.remove("v1", "Pod", pod["metadata"]["name"])

    def _status(self, name: str, generation: int, new: str, count: int, failure: str = "") -> None:
        item = self.store.get("apps/v1", "Deployment", name)
        if item is None or item["metadata"]["generation"] != generation:
            return
        uids = {
            each["metadata"]["uid"]
            for each in self.store.find("apps/v1", "ReplicaSet")
            if item["metadata"]["uid"] in _owner(each)
        }
        pods = [each for each in self.store.find("v1", "Pod") if uids & set(_owner(each))]
        updated = [each for each in pods if _made_by(each, new)]
        ready = sum(map(_is_ready, pods))
        status = {
            "observedGeneration": generation, "replicas": len(pods), "updatedReplicas": len(updated),
            "readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": max(0, count - ready),
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}]
            if failure else [],
        }  # fmt: skip
        self.store.edit("apps/v1", "Deployment", name, lambda each: each.update(status=status))


_BAD = ("pull", "crash", "gpu", "unready", "secret", "memory", "startup", "forever")
_STAGES = {"crash": 4, "slow": 20, "memory": 4, "startup": 4}


def _observed(item: dict[str, Any], generation: int, revision: str) -> None:
    item["status"] = {**(item.get("status") or {}), "observedGeneration": generation, "updatedReplicas": 0}
    item["metadata"].setdefault("annotations", {})[REVISION] = revision


def _quota(name: str) -> str:
    return f'pods "{name}-x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2'


def _owner(item: dict[str, Any]) -> list[str]:
    return [each["uid"] for each in item["metadata"].get("ownerReferences") or ()]


def _made_by(pod: dict[str, Any], owner: str) -> bool:
    return any(each["name"] == owner for each in pod["metadata"].get("ownerReferences") or ())


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions") or ())


def become(pod: dict[str, Any], tag: str, stage: int, store: Store) -> None:
    """The status of a pod at a stage of its life."""
    image = pod["spec"]["containers"][0]["image"]
    state: dict[str, Any] = {"running": {"startedAt": now()}}
    last: dict[str, Any] = {}
    ready, restarts = False, 0
    if tag == "gpu":
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNPLACED}
        pod["status"] = {"phase": "Pending", "conditions": [condition]}
        return
    if tag == "pull":
        state = {"waiting": {"reason": "ImagePullBackOff", "message": PULL.format(image=image)}}
    elif tag == "secret":
        state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "token" not found'}}
    elif tag in ("crash", "memory", "startup"):
        restarts = stage
        ended = {"exitCode": 137, "reason": "OOMKilled"} if tag == "memory" else {"exitCode": 1, "reason": "Error"}
        ended = {"exitCode": 143, "reason": "Error"} if tag == "startup" else ended
        last = {"terminated": ended}
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    elif tag not in _BAD:
        ready = stage >= (15 if tag == "slow" else 1)
    if tag in ("unready", "startup") and stage == 1:
        probe, said = ("Startup", "statuscode: 503") if tag == "startup" else ("Readiness", "statuscode: 503")
        store.put({
            "apiVersion": "v1", "kind": "Event", "reason": "Unhealthy", "lastTimestamp": now(),
            "message": f"{probe} probe failed: HTTP probe failed with {said}",
            "metadata": {"name": f"{pod['metadata']['name']}.{time.monotonic_ns()}"},
            "involvedObject": {"kind": "Pod", "name": pod["metadata"]["name"]},
        })  # fmt: skip
    pod["status"] = {
        "phase": "Running" if "running" in state else "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True" if ready else "False"},
        ],
        "containerStatuses": [{
            "name": pod["spec"]["containers"][0]["name"], "image": image, "ready": ready, "restartCount": restarts,
            "state": state, "lastState": last,
        }],
    }  # fmt: skip
