"""Waiting until a deployment answers requests, or until it is clear that it will not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bentotool.errors import RemoteError
from bentotool_k8s.cluster.api import Api, Object, kind_of, name_of
from bentotool_k8s.cluster.inference import is_inference, new_deployments
from bentotool_k8s.cluster.marks import selector
from bentotool_k8s.cluster.mirror import Mirror
from bentotool_k8s.cluster.pods import Problem, explained, last_lines, problem_of
from bentotool_k8s.cluster.refusals import short

__all__ = ["Rollout", "condition", "deployment_state", "deployment_trouble", "older_serves", "pods_of"]

_KINDS = (("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("v1", "Pod"))
_READY_KINDS = ("serving.knative.dev", "serving.kserve.io")
_TURN_S = 2.0
_LINES = 10
_REVISION = "deployment.kubernetes.io/revision"
_QUOTA_HINT = "ask for less (--cpu, --memory, --replicas), delete what is not needed, or have the quota raised"


class Rollout:
    """The wait for the objects of a deployment.

    Args:
        objects: all of them; those that run something are waited for.
        timeout_s: for all together.
    """

    def __init__(self, api: Api, name: str, objects: Sequence[Object], timeout_s: float) -> None:
        self.name = name
        self.said = ""
        """How far it is, in words."""
        self._api, self._timeout_s = api, timeout_s
        self._deployments = [name_of(each) for each in objects if kind_of(each) == ("apps/v1", "Deployment")]
        self._others = [
            each
            for each in objects
            if str(each["apiVersion"]).partition("/")[0] in _READY_KINDS and each["kind"] != "ServingRuntime"
        ]
        self._since: dict[str, float] = {}

    def wait(self, progress: Callable[[str], None], check_turn: Callable[[], None]) -> None:
        """Until all is ready.

        Args:
            check_turn: asked now and then; raises where another deployment has taken over.

        Raises:
            RemoteError: something will not come up, or has not in time; the message says why.
        """
        deadline = time.monotonic() + self._timeout_s
        asked = time.monotonic()
        running = bool(self._deployments or self._others)
        with Mirror(self._api, _KINDS if running else (), selector(self.name)) as mirror:
            while True:
                if time.monotonic() - asked > _TURN_S:
                    check_turn()
                    asked = time.monotonic()
                states = [*self._running(mirror), *self._conditions(mirror)]
                waiting = [(what, said, problem) for what, done, said, problem in states if not done]
                if not waiting:
                    return
                late = time.monotonic() > deadline
                for what, said, problem in waiting:
                    if late or (problem is not None and self._lasts(what, problem[0])):
                        raise self._failure(what, said, problem, progress, late=late)
                self.said = "; ".join(f"{what}: {said}" for what, said, _ in waiting)
                progress(self.said)
                mirror.wait(min(1.0, max(0.05, deadline - time.monotonic())))

    def _lasts(self, what: str, problem: Problem) -> bool:
        """Whether something has been so for as long as it takes to be sure."""
        key = f"{what} {problem.text}"
        self._since = {each: at for each, at in self._since.items() if not each.startswith(f"{what} ") or each == key}
        return time.monotonic() - self._since.setdefault(key, time.monotonic()) >= problem.lasts_s

    def _running(self, mirror: Mirror) -> list[tuple[str, bool, str, tuple[Problem, Object | None] | None]]:
        """Each Deployment: its name, whether it is ready, how far it is, what is wrong and with which pod."""
        if (refused := mirror.refusal("Deployment")) is not None:
            raise refused
        items = mirror.items("Deployment")
        found = {name_of(each): each for each in items or ()}
        states: list[tuple[str, bool, str, tuple[Problem, Object | None] | None]] = []
        for name in self._deployments:
            item = found.get(name)
            if item is None:
                states.append((name, False, "starts", None))
                continue
            done, said = deployment_state(item)
            problem = None
            if not done and current(item):
                pods = pods_of(item, mirror.items("ReplicaSet") or (), mirror.items("Pod") or ())
                problem = _trouble(item, pods)
                if problem is not None:
                    said = f"{said}, {problem[0].text}"
            states.append((name, done, said, problem))
        return states

    def _conditions(self, mirror: Mirror) -> list[tuple[str, bool, str, tuple[Problem, Object | None] | None]]:
        states: list[tuple[str, bool, str, tuple[Problem, Object | None] | None]] = []
        for wanted in self._others:
            item = self._api.get(*kind_of(wanted), name_of(wanted)) or {}
            inference = is_inference(wanted)
            ready = condition(item, "Ready") if inference or current(item) else {}
            said = short(f"{ready.get('reason', '')} {ready.get('message', '')}".strip()) or "starts"
            problem = _worst(mirror.items("Pod") or ())
            if problem is None and ready.get("status") == "False":
                problem = Problem(said, lasts_s=60), None
            done = ready.get("status") == "True"
            if done and inference and (made := new_deployments(wanted, mirror.items("Deployment"))) is not None:
                done = any(deployment_state(each)[0] for each in made)
                said = said if done else next((deployment_state(each)[1] for each in made), "is taken up by KServe")
            states.append((name_of(wanted), done, said, problem))
        return states

    def _failure(
        self, what: str, said: str, problem: tuple[Problem, Object | None] | None, progress: Callable[[str], None], *,
        late: bool,
    ) -> RemoteError:  # fmt: skip
        found, pod = problem if problem is not None else (None, None)
        if pod is not None:
            found = explained(self._api, found, pod)
        lines = last_lines(self._api, found, _LINES) if found is not None else ()
        for line in lines[:-1]:
            progress(f"{what}: {line}")
        text = found.text if found is not None else said
        text += f": {short(lines[-1])}" if lines else ""
        start = f"{what} is not ready after {self._timeout_s:g} s" if late else f"{what} does not start"
        hint = (found.hint if found is not None else "") or "--timeout SECONDS gives it longer"
        return RemoteError(f"{start}: {text}", hint=hint)


def current(item: Object) -> bool:
    """Whether the status is about what was asked for last."""
    generation = (item.get("metadata") or {}).get("generation") or 0
    return int((item.get("status") or {}).get("observedGeneration") or 0) >= int(generation)


def condition(item: Object, name: str) -> Mapping[str, Any]:
    """One of the conditions of an object; empty where it has none of the name."""
    found = ((item.get("status") or {}).get("conditions")) or ()
    return next((each for each in found if each.get("type") == name), {})


def deployment_state(item: Object) -> tuple[bool, str]:
    """Whether all pods are new and ready, and how far it is."""
    status = item.get("status") or {}
    wanted = (item.get("spec") or {}).get("replicas")
    count = 1 if wanted is None else int(wanted)
    updated, available = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    total = int(status.get("replicas") or 0)
    if not current(item):
        return False, "starts"
    if updated >= count and total <= updated and available >= updated:
        return True, f"{count} ready"
    ready = max(0, available - max(0, total - updated))  # of the new ones, as the old ones are ready
    if updated >= count and available >= total > updated:
        return False, "ends the old version"
    return False, f"{ready} of {count} ready"


def pods_of(item: Object, sets: Sequence[Object], pods: Sequence[Object]) -> list[Object]:
    """The pods of the newest version of a Deployment."""
    uid = item["metadata"].get("uid")
    revision = (item["metadata"].get("annotations") or {}).get(_REVISION)
    newest = {
        each["metadata"]["uid"]
        for each in sets
        if uid in _owners(each) and (each["metadata"].get("annotations") or {}).get(_REVISION) == revision
    }
    return [each for each in pods if newest & set(_owners(each)) and not each["metadata"].get("deletionTimestamp")]


def older_serves(item: Object, sets: Sequence[Object], pods: Sequence[Object]) -> bool:
    """Whether a pod of a version before the newest one is ready, or any while nothing new is taken up yet."""
    own = {each["metadata"]["uid"] for each in sets if item["metadata"].get("uid") in _owners(each)}
    new = {name_of(each) for each in pods_of(item, sets, pods)} if current(item) else set()
    return any(
        condition(each, "Ready").get("status") == "True"
        for each in pods
        if own & set(_owners(each)) and name_of(each) not in new and not each["metadata"].get("deletionTimestamp")
    )


def _owners(item: Object) -> list[str]:
    return [str(each.get("uid")) for each in item["metadata"].get("ownerReferences") or ()]


def _trouble(item: Object, pods: Sequence[Object]) -> tuple[Problem, Object | None] | None:
    """What is wrong with a Deployment, the surest first."""
    if (worst := _worst(pods)) is not None:
        return worst
    if (refused := deployment_trouble(item)) is not None:
        return refused, None
    unready = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if unready and all(condition(pod, "Ready").get("status") != "True" for pod in unready):
        return Problem("it runs, and is not ready", "its log says why; --timeout gives it longer",
                       pod=name_of(unready[0]), container=_first(unready[0])), unready[0]  # fmt: skip
    return None


def _worst(pods: Sequence[Object]) -> tuple[Problem, Object | None] | None:
    """The problem of a pod that is the surest not to end."""
    found = [(problem, pod) for pod in pods if (problem := problem_of(pod)) is not None]
    return min(found, key=lambda each: each[0].lasts_s) if found else None


def _first(pod: Object) -> str:
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return str(containers[0].get("name", ""))


def deployment_trouble(item: Object) -> Problem | None:
    """Why no pods are made, where that is so: a quota, a policy, a missing account."""
    failed = condition(item, "ReplicaFailure")
    if failed.get("status") != "True":
        return None
    message = str(failed.get("message", ""))
    said = short(message.partition("is forbidden: ")[2] or message)
    if quota := message.partition("exceeded quota: ")[2]:
        name, _, rest = quota.partition(", ")
        return Problem(f"quota {name} of the namespace is used up: {short(rest)}", _QUOTA_HINT, lasts_s=5)
    if "violates PodSecurity" in message:
        return Problem(
            f"the namespace does not allow such pods: {said}",
            "it asks for more than this deployment keeps to",
            lasts_s=5,
        )
    return Problem(f"no pods can be made: {said}", lasts_s=10)
