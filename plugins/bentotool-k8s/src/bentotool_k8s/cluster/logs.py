"""The logs of a deployment's pods, also of those that come while it is followed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from bentotool.errors import BentotoolError, NotFoundError
from bentotool_k8s.cluster.api import Api, Object, name_of
from bentotool_k8s.cluster.marks import selector
from bentotool_k8s.cluster.pods import problem_of

__all__ = ["follow_logs", "read_logs"]

_SERVICE = ("bentotool.io/service", "app.kubernetes.io/component")
_LOOK_S = 2.0


def _pods(api: Api, name: str, service: str) -> list[dict[str, Any]]:
    found = [each for each in api.find("v1", "Pod", selector(name)) if service in ("", *_services(each))]
    return sorted(found, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))


def _services(pod: Object) -> list[str]:
    """What a pod's service is called: its label, or the name of what made it."""
    labels = pod["metadata"].get("labels") or {}
    return [str(labels[each]) for each in _SERVICE if each in labels]


def _containers(pod: Object) -> list[str]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    started = {
        each["name"] for each in states if "waiting" not in (each.get("state") or {}) or each.get("restartCount")
    }
    names = [str(each["name"]) for each in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))]
    return [name for name in names if name in started]


def read_logs(api: Api, name: str, tail: int, service: str = "") -> Iterator[str]:
    """Lines of every container, in the order of their times.

    Args:
        tail: the last ones of all together; 0: all.

    Raises:
        NotFoundError: there is no pod, or none has begun; then with the reason.
    """
    pods = _pods(api, name, service)
    sources = [(pod, container) for pod in pods for container in _containers(pod)]
    if not pods:
        hint = f"bentotool deployment show {name}; one that is scaled to zero has none until it is asked something"
        raise NotFoundError(f"there is no pod of {name} in namespace {api.namespace}", hint=hint)
    if not sources:
        hint = f"bentotool deployment logs {name} -f waits for them"
        raise NotFoundError(f"there are no logs of {name} yet: {_pending(pods[-1])}", hint=hint)
    lines: list[tuple[str, str]] = []
    several = len(sources) > 1
    for pod, container in sources:
        with contextlib.suppress(BentotoolError):  # it has gone in the meantime, or not started
            for line in api.log(name_of(pod), container, tail=tail, times=True):
                time, _, text = line.partition(" ")
                lines.append((time, _prefixed(pod, sources, container, text, several=several)))
    lines.sort(key=lambda each: each[0])
    yield from (text for _, text in (lines[-tail:] if tail else lines))


def _pending(pod: Object) -> str:
    problem = problem_of(pod)
    said = problem.text if problem is not None else str((pod.get("status") or {}).get("phase") or "Pending").lower()
    return f"pod {name_of(pod)} has not begun, {said}"


def _prefixed(pod: Object, sources: Sequence[Any], container: str, text: str, *, several: bool) -> str:
    if not several:
        return text
    same = sum(1 for each, _ in sources if name_of(each) == name_of(pod)) > 1
    return f"{name_of(pod)}{f'/{container}' if same else ''} | {text}"


def follow_logs(api: Api, name: str, tail: int, service: str = "") -> Iterator[str]:
    """The same, and what is still to come: of runs after a restart, and of pods after an update."""
    stream: queue.Queue[str] = queue.Queue()
    ending, known, opened = threading.Event(), set[tuple[str, str, int]](), list[Any]()

    def pump(pod: Object, container: str, last: int, *, several: bool) -> None:
        with contextlib.suppress(BentotoolError):
            for line in api.log(name_of(pod), container, tail=last, follow=True, opened=opened):
                stream.put(f"{name_of(pod)} | {line}" if several else line)
                if ending.is_set():
                    return

    first = True
    try:
        while True:
            pods = _pods(api, name, service)
            if not pods and first:
                yield from read_logs(api, name, tail, service)  # says that there is none
            fresh = [
                (pod, container, restarts)
                for pod in pods
                for container, restarts in _runs(pod)
                if (str(pod["metadata"]["uid"]), container, restarts) not in known
            ]
            for pod, container, restarts in fresh:
                known.add((str(pod["metadata"]["uid"]), container, restarts))
                several = len(pods) > 1 or not first
                threading.Thread(
                    target=pump, args=(pod, container, tail if first else 0), kwargs={"several": several}, daemon=True
                ).start()
            first = False
            yield from _ready(stream)
    finally:
        ending.set()
        for answer in opened:
            with contextlib.suppress(Exception):
                answer.shutdown()


def _runs(pod: Object) -> list[tuple[str, int]]:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    started = set(_containers(pod))
    return [(str(each["name"]), int(each.get("restartCount") or 0)) for each in states if each["name"] in started]


def _ready(stream: queue.Queue[str]) -> Iterator[str]:
    """What comes until it is time to look for new pods."""
    with contextlib.suppress(queue.Empty):
        yield stream.get(timeout=_LOOK_S)
        while True:
            yield stream.get_nowait()
