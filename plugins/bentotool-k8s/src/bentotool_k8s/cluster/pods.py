"""What is wrong with a pod, in one line, and whether it will mend by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bentotool.errors import BentotoolError
from bentotool_k8s.cluster.api import Api, Object, name_of
from bentotool_k8s.cluster.refusals import short

__all__ = ["Problem", "explained", "last_lines", "problem_of"]

_NEVER = float("inf")
_FOREVER_PULL = re.compile(
    r"not found|manifest unknown|denied|unauthorized|forbidden|no match for platform|401|403|404|no basic auth", re.I
)
_CONFIGS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "InvalidImageName")
_PULLS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a pod from being ready.

    Args:
        text: in words.
        hint: what to do.
        lasts_s: when it has lasted so long, it will not end; infinite for what still may.
        pod, container: whose log says more; empty: none does.
        previous: it is that of the run before.
        by_signal: the run was ended from outside, as when a probe fails.
    """

    text: str
    hint: str = ""
    lasts_s: float = _NEVER
    pod: str = ""
    container: str = ""
    previous: bool = False
    by_signal: bool = False


def problem_of(pod: Object) -> Problem | None:
    """What is wrong with a pod, as far as its status says; None for one that just starts."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if (found := _of_container(pod, container)) is not None:
            return found
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Problem(_unplaced(str(condition.get("message", ""))), _room(str(condition.get("message", ""))))
    if status.get("phase") == "Failed":
        said = f"{status.get('reason', 'failed')}: {status.get('message', '')}".rstrip(": ")
        return Problem(f"pod {name_of(pod)} has failed: {short(said)}")
    return None


def _of_container(pod: Object, container: Mapping[str, Any]) -> Problem | None:
    name, state = str(container["name"]), container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _PULLS:
        certain = reason == "ErrImageNeverPull" or bool(_FOREVER_PULL.search(message))
        return Problem(
            f"image {container.get('image') or image_of(pod, name)} cannot be pulled: {_pulled(message) or reason}",
            "push it, check its name, or give the cluster credentials for the registry (--pull-secret NAME)",
            lasts_s=5 if certain else 60,
        )
    if reason in _CONFIGS:
        return Problem(f"container {name} cannot be made: {short(message) or reason}", _missing(message), lasts_s=5)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if ended and (container.get("restartCount") or reason == "CrashLoopBackOff"):
        return _ended(pod, name, ended, int(container.get("restartCount") or 0), running="running" in state)
    return None


def _ended(pod: Object, name: str, ended: Mapping[str, Any], restarts: int, *, running: bool) -> Problem:
    lasts = 0.0 if restarts >= 2 and not running else _NEVER
    if ended.get("reason") == "OOMKilled":
        return Problem(
            f"container {name} was ended for want of memory", "give it more: --memory SIZE", lasts, name_of(pod), name,
            previous=True,
        )  # fmt: skip
    code = ended.get("exitCode")
    how = f"signal {ended['signal']}" if ended.get("signal") else f"exit status {code}"
    signalled = bool(ended.get("signal")) or code in (0, 137, 143)  # 0: it took SIGTERM for what it is
    return Problem(
        f"container {name} does not stay up ({how})", "its log says why", lasts, name_of(pod), name, previous=True,
        by_signal=signalled,
    )  # fmt: skip


def explained(api: Api, problem: Problem | None, pod: Object) -> Problem | None:
    """The same with what only the events know: which probe fails, and how."""
    if problem is not None and not problem.container:
        return problem
    if (failing := _failing_probe(api, name_of(pod))) is None:
        return problem
    probe, said = failing
    text = f"its {probe} probe fails: {said}"
    if problem is not None and problem.previous and not (problem.by_signal and probe != "readiness"):
        return problem  # it ended by itself, whatever a probe said meanwhile
    containers = (pod.get("spec") or {}).get("containers") or [{"name": ""}]
    container = problem.container if problem is not None else str(containers[0]["name"])
    lasts, previous = (problem.lasts_s, problem.previous) if problem is not None else (_NEVER, False)
    return Problem(text, "its log says why; --timeout gives it longer", lasts, name_of(pod), container, previous)


def _failing_probe(api: Api, pod: str) -> tuple[str, str] | None:
    try:
        events = api.find("v1", "Event", fields=f"involvedObject.kind=Pod,involvedObject.name={pod}")
    except BentotoolError:  # not allowed to see them: the rest has to do
        return None
    found = [each for each in events if each.get("reason") == "Unhealthy"]
    found.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    for event in reversed(found):
        if match := re.match(
            r"(Startup|Readiness|Liveness) probe (?:failed|errored)\S*:? *(.*)", event["message"], re.S
        ):
            return match[1].lower(), short(match[2])
    return None


def last_lines(api: Api, problem: Problem, count: int) -> Sequence[str]:
    """The end of the log of a problem; empty where there is none."""
    if not problem.container:
        return ()
    for previous in dict.fromkeys((problem.previous, False)):
        try:
            lines = list(api.log(problem.pod, problem.container, tail=count, previous=previous))
        except BentotoolError:
            continue
        if said := [line for line in lines if line.strip()]:
            return said
    return ()


def image_of(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    both: Iterator[Mapping[str, Any]] = iter((*(spec.get("initContainers") or ()), *(spec.get("containers") or ())))
    return next((str(each.get("image", "")) for each in both if each.get("name") == container), "")


def _pulled(message: str) -> str:
    """Without the words around that repeat the image's name."""
    text = short(message)
    text = re.sub(r'^Back-off pulling image "[^"]*":? ?', "", text)
    text = re.sub(r"^(?:ErrImagePull: )?", "", text)
    tail = re.search(r"(?:failed to (?:resolve reference|pull and unpack image) \"[^\"]*\": )+(.*)$", text)
    return tail[1] if tail else text


def _unplaced(message: str) -> str:
    said = short(re.split(r" preemption: ", message)[0]).rstrip(".")
    return f"no node takes its pod: {said or 'unschedulable'}"


def _room(message: str) -> str:
    if "nvidia.com/gpu" in message or "amd.com/gpu" in message:
        return "no node has such a GPU free: ask for fewer (--gpus), or add a node that has them"
    if "Insufficient" in message:
        return "ask for less (--cpu, --memory), or add a node"
    if "taint" in message:
        return "--toleration lets it run on such nodes"
    return "ask for less, or for other nodes"


def _missing(message: str) -> str:
    found = re.search(r'(secret|configmap) "([^"]+)" not found', message)
    return f"kubectl create {found[1]} … {found[2]}, and the same command again" if found else ""
