"""The targets `knative` and `kserve` in a cluster whose controllers are played by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from bentotool.deploy.options import option_values
from bentotool.deployspec import DeployService
from bentotool.errors import NotFoundError, RemoteError
from bentotool.targetspec import DeployBento, Deployment, DeployOptions

pytestmark = pytest.mark.timeout(300)
KNATIVE = ("serving.knative.dev/v1", "Service")
KSERVE = ("serving.kserve.io/v1beta1", "InferenceService")
RUNTIME = ("serving.kserve.io/v1alpha1", "ServingRuntime")
DIGEST = "bentotool.io/digest"
GRAPH = (DeployService("Front", "service:Front", ("Back",)), DeployService("Back", "service:Back"))


@pytest.fixture
def deploy(cluster: Any) -> Callable[..., Deployment]:
    """``deploy("knative", "1", "max-scale=3", …)`` deploys as the command does."""
    from bentotool_k8s.hooks import bentotool_targets
    from bentotool_k8s.serverless import KnativeTarget, KServeTarget

    cluster.store.kinds.update({
        KNATIVE: ("services", True), KSERVE: ("inferenceservices", True), RUNTIME: ("servingruntimes", True),
    })  # fmt: skip
    decls = {decl.name: decl for decl in bentotool_targets()}

    def run(target: str, version: str, *pairs: str, services: Any = (), **more: Any) -> Deployment:
        bento = DeployBento("iris", version, "sha256:" + version * 64, "service:Iris", services=services)
        values = option_values(decls[target], (f"image=reg.example/iris:{version}", *pairs))
        made: Any = KnativeTarget() if target == "knative" else KServeTarget()
        return made.apply(made.plan(bento, DeployOptions("iris", values, **more)), wait=True)

    return run


def after(seconds: float, work: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


def knative_controller(cluster: Any, status: str = "True", message: str = "") -> None:
    """What Knative says of each Service a moment after it was applied."""

    def changed(kind: str, item: dict[str, Any]) -> None:
        if item["apiVersion"] != KNATIVE[0]:
            return
        said = {
            "observedGeneration": item["metadata"]["generation"], "url": f"http://{item['metadata']['name']}.example",
            "conditions": [{"type": "Ready", "status": status, "reason": "RevisionFailed", "message": message}],
        }  # fmt: skip
        if (item.get("status") or {}) != said:
            name = item["metadata"]["name"]
            after(0.1, lambda: cluster.store.edit(*KNATIVE, name, lambda each: each.update(status=said)))

    cluster.store.on_change = changed


def test_a_graph_over_knative(cluster: Any, deploy: Callable[..., Deployment]) -> None:
    from bentotool_k8s.serverless import KnativeTarget

    knative_controller(cluster)
    done = deploy("knative", "1", services=GRAPH)
    assert (done.target, done.status, done.url) == ("knative", "ready", "http://iris.example")
    assert [each["metadata"]["name"] for each in cluster.store.find(*KNATIVE)] == ["iris-back", "iris"]
    done = deploy("knative", "2", "max-scale=3")
    assert [each["metadata"]["name"] for each in cluster.store.find(*KNATIVE)] == ["iris"]  # the other one is pruned
    annotations = cluster.store.get(*KNATIVE, "iris")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/max-scale"] == "3"
    now = KnativeTarget().status(done)
    assert (now.status, now.tag) == ("ready", "iris:2")
    KnativeTarget().delete(done)
    assert cluster.store.find(*KNATIVE) == []


def test_a_revision_that_fails_is_taken_back(cluster: Any, deploy: Callable[..., Deployment]) -> None:
    knative_controller(cluster)
    deploy("knative", "1")
    knative_controller(cluster, "False", 'Revision "iris-00002" failed with message: Unable to fetch image.')
    with pytest.raises(RemoteError, match="Unable to fetch image") as caught:
        deploy("knative", "2", "timeout=2")
    assert "\n" not in caught.value.message
    (container,) = cluster.store.get(*KNATIVE, "iris")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "reg.example/iris:1"


@pytest.mark.parametrize(("target", "hint"), [("knative", "install Knative Serving"), ("kserve", "install KServe")])
def test_a_cluster_without_it(target: str, hint: str, cluster: Any, deploy: Callable[..., Deployment]) -> None:
    del cluster.store.kinds[KNATIVE], cluster.store.kinds[KSERVE], cluster.store.kinds[RUNTIME]
    with pytest.raises((RemoteError, NotFoundError)) as caught:
        deploy(target, "1")
    assert hint in str(caught.value.hint)


def test_kserve_is_waited_for_until_it_has_taken_up_the_update(cluster: Any, deploy: Callable[..., Deployment]) -> None:
    """Its status says ready all the time, and its generation is another's, as KServe's is."""
    cluster.controllers.close()
    seen: list[str] = []
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1, "url": "http://iris.example"}

    def deployment(digest: str, generation: int, available: int) -> None:
        labels = cluster.store.get(*KSERVE, "iris")["metadata"]["labels"]
        cluster.store.put({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "iris-predictor", "labels": labels},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "iris"}},
                "template": {
                    "metadata": {"labels": {"app": "iris"}, "annotations": {DIGEST: digest}},
                    "spec": {"containers": [{"name": "kserve-container", "image": "x"}]},
                },
            },
            "status": {
                "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available,
            },
        })  # fmt: skip

    def changed(kind: str, item: dict[str, Any]) -> None:
        if kind != "InferenceService":
            return
        digest = item["spec"]["predictor"]["annotations"][DIGEST]
        if digest in seen:
            return
        seen.append(digest)
        after(0.1, lambda: cluster.store.edit(*KSERVE, "iris", lambda each: each.update(status=ready)))
        after(0.3, lambda: deployment(digest, 99, 0))
        after(1.0, lambda: deployment(digest, 99, 1))

    cluster.store.on_change = changed
    said: list[str] = []
    assert deploy("kserve", "1").url == "http://iris.example"
    assert deploy("kserve", "2", progress=said.append).status == "ready"
    (made,) = cluster.store.find("apps/v1", "Deployment")
    assert made["spec"]["template"]["metadata"]["annotations"][DIGEST] == "sha256:" + "2" * 64
    assert made["status"]["availableReplicas"] == 1
    assert any("is taken up by KServe" in text or "0 of 1 ready" in text for text in said)
