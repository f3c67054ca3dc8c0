"""Putting a deployment in place, updating it, going back, taking it away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import ConflictError, RemoteError

pytestmark = pytest.mark.timeout(120)


def test_first_deployment(cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    from bentotool_k8s.cluster.standing import all_standing, look

    said = deploy(things.service(), things.deployment(replicas=2))
    assert said.committed == ["iris:1"]
    assert said.progress[:2] == ["apply Service iris", "apply Deployment iris"]
    made = cluster.store.get("apps/v1", "Deployment", "iris")
    assert made["metadata"]["labels"]["bentotool.io/deployment"] == "iris"
    assert made["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "bentotool"
    assert {each["manager"] for each in made["metadata"]["managedFields"]} == {"bentotool"}
    standing = look(api, "iris")
    assert (standing.status, standing.tag, standing.url) == ("ready", "iris:1", "http://iris")
    assert standing.parts == ("iris: 2 ready",)
    assert [each.name for each in all_standing(api, "k8s")] == ["iris"]
    assert all("fieldValidation=Strict" in path for method, path in cluster.seen if method == "PATCH")


def test_every_object_is_tried_before_any_is_applied(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    cluster.unknown.add("shiny")
    shiny = things.deployment(name="other")
    shiny["spec"]["shiny"] = True
    with pytest.raises(RemoteError, match="Deployment other: the cluster does not know spec.shiny"):
        deploy(things.service(), things.deployment(), shiny)
    assert cluster.store.names("Service") == cluster.store.names("ConfigMap") == []
    assert all("dryRun=All" in path for method, path in cluster.seen if method == "PATCH")


@pytest.mark.parametrize(
    ("version", "kind", "hint"),
    [
        ("keda.sh/v1alpha1", "ScaledObject", "install KEDA"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "use an Ingress"),
        ("serving.kserve.io/v1beta1", "InferenceService", "install KServe"),
        ("policy/v9", "PodDisruptionBudget", "--replicas 1 without --max-replicas"),
        ("autoscaling/v9", "HorizontalPodAutoscaler", "too old"),
    ],
)
def test_a_kind_that_the_cluster_has_not_is_told_before_anything_is_applied(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace, version: str, kind: str, hint: str
) -> None:
    with pytest.raises(RemoteError, match=rf"does not know {kind} \({version}\); nothing is changed") as caught:
        deploy(things.deployment(), things.plain(version, kind))
    assert hint in str(caught.value.hint)
    assert not [path for method, path in cluster.seen if method == "PATCH"]


def test_a_custom_kind_that_is_installed_is_applied_and_waited_for(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    cluster.store.install("InferenceService")
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}

    def become_ready(kind: str, item: dict[str, Any]) -> None:
        key = (item["apiVersion"], kind, item["metadata"]["name"])
        threading.Timer(0.3, lambda: cluster.store.edit(*key, lambda each: each.update(status=ready))).start()

    cluster.store.on_change = become_ready
    said = deploy(things.plain("serving.kserve.io/v1beta1", "InferenceService", predictor={"minReplicas": 1}))
    assert said.committed == ["iris:1"]


def test_an_update_prunes_what_it_no_longer_has_and_nothing_else(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    budget = things.plain("policy/v1", "PodDisruptionBudget", minAvailable=1)
    deploy(things.service(), things.deployment(), budget)
    labels = cluster.store.get("policy/v1", "PodDisruptionBudget", "iris")["metadata"]["labels"]
    # somebody's copy with our labels, another deployment's, and one of a kind that is none of ours
    for name, marks in (("copy", labels), ("other", {**labels, "bentotool.io/deployment": "other"}), ("plain", {})):
        cluster.store.put(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": name, "labels": dict(marks)},
            }
        )
    said = deploy(things.service(), things.deployment(tag="better"), tag="iris:2")
    assert "removed: PodDisruptionBudget iris" in said.progress
    assert cluster.store.names("PodDisruptionBudget") == ["copy", "other", "plain"]
    assert cluster.store.names("Service") == ["iris"]


def test_the_same_again_changes_nothing(cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    deploy(things.service(), things.deployment())
    before = cluster.store.get("apps/v1", "Deployment", "iris")["metadata"]
    deploy(things.service(), things.deployment())
    after = cluster.store.get("apps/v1", "Deployment", "iris")["metadata"]
    assert before["generation"] == after["generation"]
    assert len(cluster.store.names("ReplicaSet")) == 1


def test_values_of_others_are_never_overwritten_silently(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    deploy(things.deployment())
    cluster.by("kubectl-scale", ("apps/v1", "Deployment"), "iris", replicas=3)
    with pytest.raises(
        ConflictError, match=r"Deployment iris has values .*: kubectl-scale set spec.replicas"
    ) as caught:
        deploy(things.deployment(tag="better"), tag="iris:2")
    assert "--force-conflicts" in str(caught.value.hint)
    kept = cluster.store.get("apps/v1", "Deployment", "iris")["spec"]
    assert kept["replicas"] == 3
    assert kept["template"]["spec"]["containers"][0]["image"].endswith(":good")
    deploy(things.deployment(tag="better"), tag="iris:2", force=True)
    assert cluster.store.get("apps/v1", "Deployment", "iris")["spec"]["replicas"] == 1


def test_a_field_that_is_left_to_an_autoscaler_is_left_alone(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    deploy(things.deployment(replicas=None))
    cluster.by("horizontal-pod-autoscaler", ("apps/v1", "Deployment"), "iris", replicas=3)
    deploy(things.deployment(replicas=None, tag="better"), tag="iris:2")
    assert cluster.store.get("apps/v1", "Deployment", "iris")["spec"]["replicas"] == 3


def test_what_is_somebody_elses_is_left_alone(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    cluster.store.put(things.service())
    with pytest.raises(
        ConflictError, match="there is a Service iris in namespace default that is not of this deployment"
    ):
        deploy(things.service(), things.deployment())
    assert cluster.store.names("Deployment") == []


def test_delete_takes_all_of_it_and_waits(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    from bentotool_k8s.cluster.removing import remove_all
    from bentotool_k8s.cluster.standing import look

    deploy(things.service(), things.deployment())
    deploy(things.service("other"), things.deployment("other"), name="other")
    assert sorted(remove_all(api, "iris")) == ["ConfigMap bentotool-iris", "Deployment iris", "Service iris"]
    assert cluster.store.names("Deployment") == ["other"]
    assert cluster.store.names("Service") == ["other"]
    assert not [name for name in cluster.store.names("Pod") if name.startswith("iris")]
    assert remove_all(api, "iris") == []
    assert look(api, "iris").status == "missing"


def test_delete_without_the_anchor_goes_by_labels(
    cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    from bentotool_k8s.cluster.removing import remove_all

    deploy(things.service(), things.deployment())
    cluster.store.remove("v1", "ConfigMap", "bentotool-iris")
    assert sorted(remove_all(api, "iris")) == ["Deployment iris", "Service iris"]


def test_what_would_change(cluster: Any, api: Any, deploy: Callable[..., Any], things: SimpleNamespace) -> None:
    from bentotool_k8s.cluster.applying import Request, check
    from bentotool_k8s.cluster.changes import as_asked_for, same

    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    deploy(things.deployment(env=env))

    def compared(item: dict[str, Any]) -> tuple[bool, Any, Any]:
        wanted, live, then = check(api, Request("iris", "iris:2", "", "", (item,), force=True))[0]
        return same(live, then), wanted, as_asked_for(live, wanted, then)

    equal, wanted, now = compared(things.deployment(env=env))  # though 1000m is 1 on the server
    assert equal
    assert now == wanted
    equal, wanted, now = compared(things.deployment(tag="better", env=env[:1]))
    assert not equal
    container = now["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(":good")
    assert container["env"] == env  # what we set, and want no more, is shown
    assert container["resources"] == wanted["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert "restartPolicy" not in now["spec"]["template"]["spec"]  # the server's own


def test_a_warning_of_the_cluster_is_passed_on(
    cluster: Any, deploy: Callable[..., Any], things: SimpleNamespace
) -> None:
    cluster.warning = 'would violate PodSecurity \\"restricted:latest\\"'
    said = deploy(things.service(), wait=False)
    assert said.notes == ['warning of the cluster: would violate PodSecurity "restricted:latest"']
