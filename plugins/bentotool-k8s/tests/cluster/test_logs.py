"""Logs of pods: of all of them, while they are followed, and through an update."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import NotFoundError

pytestmark = pytest.mark.timeout(120)


def test_logs_of_one_pod_and_of_several(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    from bentotool_k8s.cluster.logs import read_logs

    deploy(things.deployment())
    assert list(read_logs(api, "iris", 0)) == cluster.log
    assert list(read_logs(api, "iris", 1)) == cluster.log[-1:]
    deploy(things.deployment(replicas=2), tag="iris:2")
    lines = list(read_logs(api, "iris", 0))
    assert len(lines) == 2 * len(cluster.log)
    assert {line.partition(" | ")[0] for line in lines} == set(cluster.store.names("Pod"))


def test_no_pod(api: Any) -> None:
    from bentotool_k8s.cluster.logs import follow_logs, read_logs

    for read in (read_logs, follow_logs):
        with pytest.raises(NotFoundError, match="there is no pod of iris in namespace default"):
            list(read(api, "iris", 10))


@pytest.mark.parametrize(("tag", "why"), [("gpu", "no node takes its pod"), ("pull", "cannot be pulled")])
def test_a_pod_that_has_not_begun_has_no_logs_and_it_is_said_why(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace, tag: str, why: str
) -> None:
    from bentotool_k8s.cluster.logs import read_logs

    deploy(things.deployment(tag=tag), wait=False)
    for _ in range(600):
        with pytest.raises(NotFoundError) as caught:
            list(read_logs(api, "iris", 10))
        if why in caught.value.message:
            break
        time.sleep(0.05)
    assert caught.value.message.startswith("there are no logs of iris yet: pod iris-")
    assert why in caught.value.message
    assert "logs iris -f" in str(caught.value.hint)


def test_logs_are_followed_through_an_update(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool_k8s.cluster import logs

    monkeypatch.setattr(logs, "_LOOK_S", 0.2)
    deploy(things.deployment())
    lines = logs.follow_logs(api, "iris", 2)
    assert [next(lines), next(lines)] == cluster.log[-2:]
    cluster.log.append("one more")
    assert next(lines) == "one more"
    update = threading.Thread(target=deploy, args=(things.deployment(tag="better"),), kwargs={"tag": "iris:2"})
    update.start()
    assert next(lines).endswith(f" | {cluster.log[0]}")  # all that the next one has said
    update.join(60)
    lines.close()  # type: ignore[attr-defined]
