"""Knative Services and KServe InferenceServices: golden files that people read, and the fields that the two know.

Pods are checked against the schemas of four Kubernetes releases. KServe's own fields are those of its package
(`kserve_fields.json`). Knative publishes no package: `KNATIVE` has the fields of its specification (RevisionSpec), and
those of containers that its webhook allows as it is installed. Set ``BENTOTOOL_TEST_WRITE_GOLDEN`` to write the files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.deploy.options import option_values
from bentotool.deployspec import DeployService, PublishedImage
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions, TargetDecl

pytestmark = pytest.mark.timeout(300)
GOLDEN = Path(__file__).parent / "golden_serverless"
KSERVE: dict[str, Any] = json.loads((Path(__file__).parent / "kserve_fields.json").read_text())
KNATIVE: dict[str, set[str]] = {
    "pod": {
        "containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds",
        "serviceAccountName", "containers", "volumes", "imagePullSecrets", "enableServiceLinks",
        "automountServiceAccountToken",
    },
    "container": {
        "name", "args", "command", "env", "workingDir", "envFrom", "image", "imagePullPolicy", "livenessProbe", "ports",
        "readinessProbe", "resources", "securityContext", "terminationMessagePath", "terminationMessagePolicy",
        "volumeMounts",
    },
    "security": {
        "capabilities", "readOnlyRootFilesystem", "runAsUser", "runAsGroup", "runAsNonRoot", "allowPrivilegeEscalation",
        "seccompProfile",
    },
    "volume": {"secret", "configMap", "projected", "emptyDir"},
    "mount": {"name", "readOnly", "mountPath", "subPath"},
}  # fmt: skip
BEHIND_FEATURES = {"node-selector": "nodeSelector", "toleration": "tolerations", "runtime-class": "runtimeClassName"}
IRIS = (DeployService("Iris", "service:Iris"),)
BUSY = (
    DeployService(
        "Iris", "service:Iris", resources={"cpu": "2", "memory": "4Gi"},
        traffic={"timeout": 120, "max_concurrency": 16, "concurrency": 8},
    ),
)  # fmt: skip
LLAMA = (DeployService("Llama", "service:Llama", resources={"gpu": 1, "memory": "48Gi"}, envs={"HF_TOKEN": None}),)
GRAPH = (
    DeployService("Gateway", "service:Gateway", ("Embedder", "Ranker"), traffic={"timeout": 20}),
    DeployService("Embedder", "models:Embedder", resources={"gpu": 1}),
    DeployService("Ranker", "models:Ranker", path_prefix="/rank", probes={
        "livez": "/rank/livez", "readyz": "/rank/readyz", "healthz": "/rank/healthz",
    }),
)  # fmt: skip
CASES: dict[str, tuple[str, tuple[DeployService, ...], tuple[str, ...], dict[str, str]]] = {
    "knative-plain": ("knative", IRIS, (), {}),
    "knative-untold": ("knative", (), (), {}),
    "knative-traffic": ("knative", BUSY, (), {}),
    "knative-scaling": (
        "knative", BUSY, ("min-scale=1", "max-scale=9", "scale-target=3", "concurrency=4", "scale-down-delay=90"), {}
    ),
    "knative-local": ("knative", IRIS, ("cluster-local", "namespace=ml"), {"LEVEL": "info"}),
    "knative-gpu": ("knative", LLAMA, ("secret-env=HF_TOKEN=hub/token", "startup=1800", "request-timeout=900"), {}),
    "knative-secrets": (
        "knative", IRIS, ("secret=key=tls/key.pem", "secret=all=tls", "pull-secret=hub", "service-account=runner"), {}
    ),
    "knative-places": (
        "knative", IRIS, ("node-selector=disk=ssd", "toleration=gpu:NoSchedule", "runtime-class=gvisor"), {}
    ),
    "knative-graph": ("knative", GRAPH, ("namespace=ml", "Embedder.min-scale=1", "Ranker.concurrency=2"), {}),
    "kserve-plain": ("kserve", IRIS, (), {}),
    "kserve-traffic": ("kserve", BUSY, ("min-scale=1", "max-scale=4", "scale-target=6"), {}),
    "kserve-raw": ("kserve", LLAMA, ("deployment-mode=RawDeployment", "secret-env=HF_TOKEN=hub/token"), {}),
    "kserve-runtime": (
        "kserve", IRIS, ("serving-runtime", "node-selector=disk=ssd", "secret=key=tls/key.pem", "pull-secret=hub"), {}
    ),
    "kserve-graph": ("kserve", GRAPH, ("cpu=4", "memory=8Gi"), {}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _needs_plugin(require_package: Callable[[str], None]) -> None:
    require_package("bentotool_k8s")


def given(
    target: str, services: tuple[DeployService, ...], pairs: tuple[str, ...], env: dict[str, str]
) -> tuple[DeployBento, DeployOptions, PublishedImage, str]:
    from bentotool_k8s.serverless_options import KNATIVE_OPTIONS, KSERVE_OPTIONS

    specs = KNATIVE_OPTIONS if target == "knative" else KSERVE_OPTIONS
    values = option_values(TargetDecl(target, "x:Y", target, options=specs), pairs)
    bento = DeployBento("iris", "1", "sha256:" + "1" * 64, "service:Iris", "3.11", "linux/amd64", services=services)
    image = PublishedImage("ghcr.io/flowers/iris", "1", "sha256:" + "2" * 64)
    return bento, DeployOptions("iris", values, env), image, str(values["namespace"] or "")


def shape_of(target: str) -> Any:
    from bentotool_k8s.manifests.knative import KNATIVE as KNATIVE_SHAPE
    from bentotool_k8s.manifests.kserve import KSERVE as KSERVE_SHAPE

    return KNATIVE_SHAPE if target == "knative" else KSERVE_SHAPE


def made(case: str) -> list[Any]:
    target, *rest = CASES[case]
    return list(shape_of(target).objects(*given(target, *rest)))


@pytest.mark.parametrize("case", CASES)
def test_each_case_makes_its_golden_file(case: str) -> None:
    from bentotool_k8s.output import as_yaml

    target, *rest = CASES[case]
    told = [f"# note: {each}" for each in shape_of(target).notes(*given(target, *rest))]
    text = "\n".join([*told, as_yaml(made(case))])
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("BENTOTOOL_TEST_WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


def pods_of(case: str) -> list[dict[str, Any]]:
    """The part of each object that is a pod's."""
    found = []
    for each in made(case):
        spec = each.get("spec", {})
        if each["apiVersion"].startswith("serving.knative.dev"):
            pod = spec["template"]["spec"]
            found.append({key: pod[key] for key in pod if key not in ("containerConcurrency", "timeoutSeconds")})
        elif each["kind"] == "ServingRuntime":
            found.append({key: spec[key] for key in spec if key not in ("supportedModelFormats", "multiModel")})
        elif each["kind"] == "InferenceService" and "containers" in spec["predictor"]:
            own = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "containerConcurrency", "timeout")
            predictor = spec["predictor"]
            found.append({key: predictor[key] for key in predictor if key not in (*own, "annotations")})
    return found


@pytest.mark.timeout(300)
def test_their_pods_are_those_of_the_last_four_releases(require_package: Callable[[str], None]) -> None:
    require_package("kubernetes_validate")
    from kubernetes_validate import utils, validate

    distinct = {json.dumps(pod): pod for case in CASES for pod in pods_of(case)}
    for release in utils.all_versions()[-4:]:
        for pod in distinct.values():
            validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, release, strict=True)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("knative")])
def test_knative_takes_every_field(case: str) -> None:
    features = {BEHIND_FEATURES[name] for name in BEHIND_FEATURES if any(name in pair for pair in CASES[case][2])}
    for each in made(case):
        if each["apiVersion"] != "serving.knative.dev/v1":
            assert each["kind"] == "ServiceAccount"
            continue
        assert each["spec"].keys() == {"template"}
        template = each["spec"]["template"]
        pod = template["spec"]
        assert pod.keys() <= KNATIVE["pod"] | features
        assert pod.get("automountServiceAccountToken", False) is False  # Knative takes no other value
        assert 0 <= pod["containerConcurrency"] <= 1000
        (container,) = pod["containers"]
        assert container.keys() <= KNATIVE["container"]
        assert container["securityContext"].keys() <= KNATIVE["security"]
        assert "add" not in container["securityContext"]["capabilities"]
        assert not {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"} & {env["name"] for env in container["env"]}
        (port,) = container["ports"]
        assert port == {"name": "http1", "containerPort": 3000}
        ready = container["readinessProbe"]  # without a period it must say nothing of times
        assert ready.keys() == {"httpGet"}
        assert all(probe["httpGet"]["port"] == 3000 for probe in (ready, container["livenessProbe"]))
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert all(volume.keys() - {"name"} <= KNATIVE["volume"] for volume in pod["volumes"])
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert all(mount.keys() <= KNATIVE["mount"] for mount in container["volumeMounts"])
        check_annotations(template["metadata"]["annotations"])


def check_annotations(found: dict[str, str]) -> None:
    """What Knative's autoscaling package takes."""
    whole, time = re.compile(r"\d+"), re.compile(r"\d+s")
    takes = {
        "autoscaling.knative.dev/min-scale": whole, "autoscaling.knative.dev/max-scale": whole,
        "autoscaling.knative.dev/target": re.compile(r"\d+(\.\d+)?"), "autoscaling.knative.dev/scale-down-delay": time,
        "serving.knative.dev/progress-deadline": time,
    }  # fmt: skip
    assert all(isinstance(value, str) for value in found.values())
    for name, value in found.items():
        if "knative.dev/" in name:
            assert takes[name].fullmatch(value)


def of_type(value: Any, kind: str, where: str) -> None:
    """Refuse what is not of a type of KServe's models; those of Kubernetes itself are checked as pods."""
    if kind in KSERVE:
        assert value.keys() <= KSERVE[kind].keys(), f"{where}: {value.keys() - KSERVE[kind].keys()}"
        for name, each in value.items():
            of_type(each, KSERVE[kind][name], f"{where}.{name}")
    elif kind.startswith("list["):
        assert isinstance(value, list), where
        for each in value:
            of_type(each, kind[5:-1], where)
    elif kind in ("int", "str", "bool"):
        assert type(value).__name__ == kind, where
    elif kind == "dict(str, str)":
        assert all(isinstance(each, str) for each in (*value, *value.values())), where


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("kserve")])
def test_kserve_takes_every_field(case: str) -> None:
    kinds = [each["kind"] for each in made(case)]
    assert kinds[-1] == "InferenceService"
    assert ("ServingRuntime" in kinds) == ("serving-runtime" in CASES[case][2])
    for each in made(case):
        if each["kind"] != "ServiceAccount":
            of_type(each, each["kind"], each["kind"])
            container = (each["spec"].get("predictor") or each["spec"]).get("containers")
            assert container is None or [each["name"] for each in container] == ["kserve-container"]


def test_the_checks_are_strict() -> None:
    service = made("kserve-plain")[-1]
    service["spec"]["predictor"]["replicas"] = 1
    with pytest.raises(AssertionError, match="replicas"):
        of_type(service, "InferenceService", "x")
    service["spec"]["predictor"] = {"minReplicas": "1"}
    with pytest.raises(AssertionError):
        of_type(service, "InferenceService", "x")


@pytest.mark.parametrize("case", CASES)
def test_pods_keep_to_pod_security_restricted(case: str) -> None:
    for pod in pods_of(case):
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        }  # fmt: skip


def test_the_services_of_a_graph_find_one_another() -> None:
    services = {each["metadata"]["name"]: each for each in made("knative-graph") if each["kind"] == "Service"}
    assert list(services) == ["iris-ranker", "iris-embedder", "iris"]  # those that are called come first
    local = "networking.knative.dev/visibility"
    assert [each["metadata"]["labels"].get(local) for each in services.values()] == ["cluster-local"] * 2 + [None]
    (entry,) = services["iris"]["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in entry["env"]}
    assert env["BENTOTOOL_DEPENDS"] == ("Embedder=http://iris-embedder.ml.svc,Ranker=http://iris-ranker.ml.svc/rank")
    (ranker,) = services["iris-ranker"]["spec"]["template"]["spec"]["containers"]
    assert ranker["args"] == ["--service", "models:Ranker"]


@pytest.mark.parametrize("target", ["knative", "kserve"])
def test_what_cannot_be(target: str) -> None:
    with pytest.raises(UsageError, match="cannot scale from 3 pods to 2"):
        shape_of(target).objects(*given(target, IRIS, ("min-scale=3", "max-scale=2"), {}))
    with pytest.raises(UsageError, match="speaks HTTPS itself"):
        shape_of(target).objects(*given(target, (DeployService("Iris", "service:Iris", tls=True),), (), {}))
    with pytest.raises(UsageError, match="--env PORT is set by the deployment itself"):
        shape_of(target).objects(*given(target, IRIS, (), {"PORT": "80"}))
