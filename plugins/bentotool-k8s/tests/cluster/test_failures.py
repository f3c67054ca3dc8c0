"""What does not come up: one line that says why, and what ran before runs on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import AuthenticationError, ConflictError, RemoteError

pytestmark = pytest.mark.timeout(120)
IMAGE = "reg.example/iris"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is certain after some seconds is so after none."""
    from bentotool_k8s.cluster import rollout

    monkeypatch.setattr(rollout.Rollout, "_lasts", lambda self, what, problem: problem.lasts_s < 100)


@pytest.mark.parametrize(
    ("tag", "said", "hint"),
    [
        ("pull", f"iris does not start: image {IMAGE}:pull cannot be pulled: {IMAGE}:pull: not found", "--pull-sec"),
        ("crash", r"does not start: .* does not stay up \(exit status 1\): ValueError: broken on purpose", "log"),
        ("memory", "does not start: container service was ended for want of memory", "--memory"),
        ("secret", 'does not start: container service cannot be made: secret "token" not found', "kubectl create"),
        ("startup", "does not start: its startup probe fails: HTTP probe failed with statuscode: 503", "--timeout"),
        ("gpu", r"not ready after 5 s: no node takes its pod: 0/3 nodes are available: 3 Insuff\S+ nvidia.com/gpu$",
         "--gpus"),
        ("unready", "not ready after 5 s: its readiness probe fails: HTTP probe failed with status\\S+ 503", "--tim"),
        ("forever", "not ready after 0.5 s: ", "--timeout"),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_come_up(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace, tag: str, said: str, hint: str
) -> None:
    timeout = {"forever": 0.5, "gpu": 5.0, "unready": 5.0}.get(tag, 40.0)
    with pytest.raises(RemoteError, match=said) as caught:
        deploy(things.service(), things.deployment(tag=tag), timeout_s=timeout)
    assert "\n" not in caught.value.message
    assert hint in str(caught.value.hint)
    # it was the first one: nothing is left
    assert deploy.said.committed == []  # type: ignore[attr-defined]
    assert deploy.said.notes == ["nothing is left of it: it was the first deployment"]  # type: ignore[attr-defined]
    assert cluster.store.names("Deployment") == cluster.store.names("ConfigMap") == cluster.store.names("Service") == []


@pytest.mark.parametrize("tag", ["pull", "crash"])
def test_what_ran_before_runs_on(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace, tag: str
) -> None:
    from bentotool_k8s.cluster.standing import look

    deploy(things.service(), things.deployment())
    before = cluster.store.names("Pod")
    budget = things.plain("policy/v1", "PodDisruptionBudget", minAvailable=1)
    with pytest.raises(RemoteError, match="iris does not start"):
        deploy(things.deployment(tag=tag), budget, tag="iris:2")
    assert deploy.said.notes == ["iris:1 runs as before"]  # type: ignore[attr-defined]
    assert set(before) <= set(cluster.store.names("Pod"))  # the very pods: none was ended meanwhile
    made = cluster.store.get("apps/v1", "Deployment", "iris")
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:good"
    assert cluster.store.names("PodDisruptionBudget") == []
    assert cluster.store.names("Service") == ["iris"]  # what the failed one would have pruned
    deploy(things.service(), things.deployment())  # and the next goes on from there
    assert look(api, "iris").status == "ready"


def test_a_quota_of_pods(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    cluster.controllers.room = 0
    with pytest.raises(RemoteError, match="does not start: quota team of the namespace is used up: requested: pods=1"):
        deploy(things.deployment())


def test_a_quota_of_objects(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    cluster.services_allowed = 0
    with pytest.raises(
        RemoteError, match="Service iris: quota team of namespace default is used up: requested: services"
    ):
        deploy(things.deployment(), things.service())
    assert cluster.store.names("Deployment") == []


@pytest.mark.parametrize(
    ("verb", "resource", "said"),
    [
        ("patch", "deployments", "ada may not patch deployments.apps in namespace default"),
        ("get", "configmaps", "ada may not get configmaps in namespace default"),
        ("list", "deployments", "ada may not list deployments.apps in namespace default"),
    ],
)
def test_forbidden(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace, verb: str, resource: str, said: str
) -> None:
    cluster.forbidden.add((verb, resource))
    with pytest.raises(RemoteError, match=said) as caught:
        deploy(things.service(), things.deployment())
    assert f"kubectl auth can-i {verb} {resource}" in str(caught.value.hint)


def test_less_rights_than_usual_will_do(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    """Who may not watch, nor see pods and events, can deploy all the same."""
    cluster.forbidden |= {("watch", "deployments"), ("watch", "pods"), ("list", "pods"), ("list", "events")}
    assert deploy(things.service(), things.deployment()).committed == ["iris:1"]


def test_credentials_that_have_run_out(cluster: Any, things: SimpleNamespace, deploy: Callable[..., Any]) -> None:
    from bentotool_k8s.cluster.api import Api
    from bentotool_k8s.cluster.connection import connect

    with Api(connect(context="late")) as other:
        with pytest.raises(AuthenticationError, match="does not take the credentials of context late") as caught:
            deploy(things.service(), through=other)
        assert "sign in again" in str(caught.value.hint)


def test_a_token_and_a_namespace(cluster: Any, things: SimpleNamespace, deploy: Callable[..., Any]) -> None:
    from bentotool_k8s.cluster.api import Api
    from bentotool_k8s.cluster.connection import connect

    with Api(connect(context="robot")) as other:
        assert deploy(things.service(), things.deployment(), through=other).committed == ["iris:1"]
    assert all("/namespaces/ml/" in path for _, path in cluster.seen if "namespaces" in path)
    with Api(connect(context="robot", namespace="gone")) as other:
        with pytest.raises(RemoteError, match="the cluster has no namespace gone") as caught:
            deploy(things.service("new"), name="new", through=other)
        assert "kubectl create namespace gone" in str(caught.value.hint)


def test_what_cannot_be_changed(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    deploy(things.deployment())
    other = things.deployment()
    other["spec"]["selector"] = {"matchLabels": {"app": "else"}}
    with pytest.raises(RemoteError, match="Deployment iris cannot be changed into this: spec.selector") as caught:
        deploy(other)
    assert "another --name" in str(caught.value.hint)


def test_a_busy_server_is_asked_again(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    cluster.busy = 2
    assert deploy(things.service(), wait=False).committed == ["iris:1"]


def test_streams_that_end_and_versions_that_are_forgotten(
    cluster: Any, api: Any, things: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watching goes on after the end of a stream, from where it was; and from a new list where that is gone."""
    from bentotool_k8s.cluster import mirror

    monkeypatch.setattr(mirror, "_AGAIN_S", 0.01)
    cluster.end_watches = 1
    with mirror.Mirror(api, [("v1", "Service")], "") as found:
        for number in range(1, 7):
            cluster.store.put(things.service(f"s{number}"))
            if number == 3:
                cluster.store.forget()
            for _ in range(300):
                if len(found.items("Service") or ()) == number:
                    break
                found.wait(0.1)
            assert len(found.items("Service") or ()) == number
        cluster.store.remove("v1", "Service", "s1")
        for _ in range(300):
            if len(found.items("Service") or ()) == 5:
                break
            found.wait(0.1)
        assert len(found.items("Service") or ()) == 5
    assert len([path for _, path in cluster.seen if "watch=1" in path]) > 3


def test_of_two_at_once_the_later_counts(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    from bentotool_k8s.cluster.standing import look

    failed: list[Exception] = []

    def first() -> None:
        try:
            deploy(things.service(), things.deployment(tag="forever"), tag="iris:forever", timeout_s=60.0)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    for _ in range(600):
        if cluster.store.names("Deployment"):
            break
        thread.join(0.02)
    deploy(things.service(), things.deployment(tag="better"), tag="iris:2")
    thread.join(60)
    assert isinstance(failed[0], ConflictError)
    assert "another command deployed iris:2 under the name iris in the meantime" in str(failed[0])
    assert deploy.said.committed == ["iris:2"]  # type: ignore[attr-defined]
    made = cluster.store.get("apps/v1", "Deployment", "iris")
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:better"
    assert (look(api, "iris").status, look(api, "iris").tag) == ("ready", "iris:2")


def test_many_at_once_leave_one_whole_version(cluster: Any, things: SimpleNamespace) -> None:
    """Whoever came last has all objects: none is a mixture."""
    from bentotool_k8s.cluster.api import Api
    from bentotool_k8s.cluster.applying import Request, bring_up
    from bentotool_k8s.cluster.connection import connect

    done: list[str] = []

    def run(number: int) -> None:
        objects = [
            things.plain("policy/v1", "PodDisruptionBudget", f"p{each}", minAvailable=number) for each in range(4)
        ]
        with Api(connect()) as own:
            request = Request("iris", f"iris:{number}", "", "", tuple(objects), wait=False)
            try:
                bring_up(own, request)
                done.append(f"iris:{number}")
            except ConflictError:
                pass

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = {each["spec"]["minAvailable"] for each in cluster.store.find("policy/v1", "PodDisruptionBudget")}
    assert len(found) == 1
    anchor = cluster.store.get("v1", "ConfigMap", "bentotool-iris")["data"]
    assert anchor["tag"] == f"iris:{found.pop()}"
    assert anchor["tag"] in done
    assert anchor["state"] == "placed"


def test_ctrl_c_says_what_stands_and_the_same_command_goes_on(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool_k8s.cluster import mirror
    from bentotool_k8s.cluster.standing import look

    deploy(things.service(), things.deployment())

    def interrupt(self: Any, seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror.Mirror, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            deploy(things.service(), things.deployment(tag="forever"), tag="iris:2")
    note = deploy.said.notes[-1]  # type: ignore[attr-defined]
    assert note.startswith("interrupted: iris: ")
    assert "iris:1 serves meanwhile; the same command goes on" in note
    assert deploy.said.committed == ["iris:1"]  # type: ignore[attr-defined]
    assert deploy(things.service(), things.deployment(tag="better"), tag="iris:3").committed == ["iris:1", "iris:3"]
    assert (look(api, "iris").status, look(api, "iris").detail) == ("ready", "")


def test_ctrl_c_where_nothing_has_served_yet(
    deploy: Callable[..., Any], api: Any, things: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool_k8s.cluster import mirror
    from bentotool_k8s.cluster.standing import look

    deploy(things.deployment(tag="forever"), wait=False)

    def interrupt(self: Any, seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror.Mirror, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            deploy(things.deployment(tag="crash"), tag="iris:2")
    note = deploy.said.notes[-1]  # type: ignore[attr-defined]
    assert "serves" not in note
    assert note.endswith("the same command goes on, bentotool deployment delete iris takes it away")
    assert "serves" not in look(api, "iris").detail


@pytest.mark.parametrize(
    "message",
    [
        'failed: .spec.template.spec.containers[name="service"].lifecycle.preStop.sleep: field not declared in schema',
        'Deployment "iris" is invalid: containers[0].lifecycle.preStop: Required value: must specify a handler type',
    ],
)
def test_a_cluster_without_sleep_before_the_stop(message: str) -> None:
    from bentotool_k8s.cluster.refusals import refusal

    place = SimpleNamespace(namespace="default", server="https://c", context="one")
    error = refusal(422, {"message": message}, place, "Deployment iris")  # type: ignore[arg-type]
    assert error.message == "Deployment iris: the cluster does not know preStop.sleep"
    assert "--pre-stop 0" in str(error.hint)


def test_after_a_kill_a_failure_goes_back_to_what_last_succeeded(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool_k8s.cluster import applying
    from bentotool_k8s.cluster.standing import look

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    deploy(things.service(), things.deployment())
    with monkeypatch.context() as patch:
        patch.setattr(applying.Rollout, "wait", killed)
        with pytest.raises(Killed):
            deploy(things.service("orphan"), things.deployment(tag="better"), tag="iris:2")
    assert "orphan" in cluster.store.names("Service")
    for _ in range(600):  # the cluster goes on by itself
        standing = look(api, "iris")
        if standing.status == "ready":
            break
        time.sleep(0.05)
    assert "was not finished" in standing.detail
    with pytest.raises(RemoteError, match="cannot be pulled"):
        deploy(things.service(), things.deployment(tag="pull"), tag="iris:3")
    assert cluster.store.names("Service") == ["iris"]
    made = cluster.store.get("apps/v1", "Deployment", "iris")
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:good"
