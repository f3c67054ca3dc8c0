"""What the target refuses, each in a line that says what instead; and what KEDA and Gateway API take."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from bentotool_k8s.manifests import group_of, notes, objects, url_of
from bentotool_k8s.names import member_names, object_name
from bentotool_k8s.settings import amount, quantity

from bentotool.deploy.options import option_values
from bentotool.errors import UsageError

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("k8s_golden", GOLDEN / "regenerate.py")
assert _spec is not None
assert _spec.loader is not None
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)
CASES = {case[0]: case for case in regenerate.cases()}

REFUSED = {
    "cpu=lots": "cpu 'lots' is no quantity",
    "memory=0": "memory '0' is nothing",
    "memory=2Gi memory-limit=1Gi": "memory: 2Gi is asked for, and 1Gi is the bound",
    "min-replicas=2": "--min-replicas has no effect without --max-replicas",
    "scaler=keda": "--scaler has no effect without --max-replicas",
    "scale-on=requests": "--scale-on has no effect without --max-replicas",
    "scale-target=5": "--scale-target has no effect without --max-replicas",
    "max-replicas=2 prometheus=http://p": "--prometheus has no effect without --scaler keda",
    "max-replicas=2 scaler=keda prometheus=http://p": "--prometheus has no effect without --scale-on requests",
    "max-replicas=2 scaler=keda cooldown=5": "--cooldown has no effect without --min-replicas 0",
    "max-replicas=2 scaler=keda scale-on=requests prometheus=p:9090": "prometheus 'p:9090' is not an address such as",
    "max-replicas=2 scaler=keda scale-on=requests prometheus=http://": "prometheus 'http://' is not an address such",
    "max-replicas=2 scaler=keda scale-on=requests prometheus=http://me:it@p": "prometheus 'http://me:it@p' is not an",
    "network-policy=no allow-from=web": "--allow-from has no effect without --network-policy",
    "namespace=My_Space": "namespace 'My_Space' is not a name of a namespace",
    "namespace=-a": "namespace '-a' is not a name of a namespace",
    "namespace=a.b": "namespace 'a.b' is not a name of a namespace",
    f"namespace={'a' * 64}": f"namespace '{'a' * 64}' is not a name of a namespace",
    "metrics-from=a/b": "metrics-from 'a/b' is not a name of a namespace",
    "pull-secret=Hub": "pull-secret 'Hub' is not a name as clusters have them",
    "service-account=mine service-account-annotation=a=b": "--service-account-annotation is for a ServiceAccount that",
    "host=a.example tls-secret=a_b": "tls-secret 'a_b' is not a name as clusters have them",
    "min-replicas=3 max-replicas=2": "it cannot scale from 3 pods down to 2",
    "min-replicas=0 max-replicas=2": "a HorizontalPodAutoscaler does not scale to 0",
    "max-replicas=2 scaler=keda scale-on=requests": "KEDA counts requests by asking Prometheus",
    "min-replicas=0 max-replicas=2 scaler=keda": "where no pod runs there is no CPU to go by",
    "min-replicas=0 max-replicas=2 scaler=keda scale-on=requests prometheus=http://p": "where no pod runs there is",
    "gpu-resource=a/b/c gpus=1": "gpu-resource 'a/b/c' is no name of that kind",
    "node-selector=disk": "--node-selector 'disk' is not of the form NAME=VALUE",
    "node-selector=disk=a/b": "--node-selector: 'a/b' is no value of a label",
    "node-affinity=zone=a,b/c": "--node-affinity: 'b/c' is no value of a label",
    "toleration=spot:Sometimes": "--toleration 'spot:Sometimes' is not of the form KEY[=VALUE][:EFFECT]",
    "label=team=a label=team=b": "--label team is given twice",
    "secret=token=hub/token secret=token=other": "--secret token is given twice",
    "host=Example.com": "--host 'Example.com' is no name of a host",
    "host=a.example path=x": "--path 'x' is no path",
    "tls-secret=x": "--tls-secret without a host to be reached at",
    "gateway=a/b/c": "--gateway 'a/b/c' is no Gateway",
    "gateway=infra/public tls-secret=x": "--tls-secret is one of an Ingress",
    "models=volume": "model iris:3 cannot be mounted as a volume",
}


def made(name: str, given: str, env: Mapping[str, str] | None = None, **changes: Any) -> list[Any]:
    _, _, bento, options, image, _ = CASES[name]
    values = option_values(regenerate.DECL, given.split())
    told = replace(options, values=values, env=env or {})
    return objects(bento, told, replace(image, **changes))


@pytest.mark.parametrize("given", REFUSED)
def test_what_no_pod_can_have_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(REFUSED[given])}") as refused:
        made("models-as-volumes", given, volumes={})
    assert refused.value.hint
    assert "\n" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    "given", ["secret-env=TOKEN=hunter2", "secret-env=TOKEN=HUNTER/2", "secret=../x=hub", "secret=a=B"]
)
def test_a_secret_that_is_typed_in_is_not_repeated(given: str) -> None:
    with pytest.raises(UsageError, match="the name of a Secret of the cluster") as refused:
        made("one-service", given)
    assert "hunter" not in str(refused.value).lower()


def test_variables_that_are_the_deployments_own() -> None:
    with pytest.raises(UsageError, match="--env PORT is set by the deployment itself"):
        made("one-service", "", env={"PORT": "1"})
    with pytest.raises(UsageError, match="variable LEVEL is set twice"):
        made("one-service", "secret-env=LEVEL=a/b", env={"LEVEL": "info"})


def test_quantities_that_people_write() -> None:
    written = {
        "512mb": "512M",
        "2 GB": "2G",
        "4GiB": "4Gi",
        "64k": "64k",
        "64KiB": "64Ki",
        "1.5": "1.5",
        "250m": "250m",
    }
    assert {text: quantity(text, "memory") for text in written} == written
    assert amount(quantity("64KiB", "memory")) == 64 * 1024
    assert [amount(each) for each in ("250m", "2", "1k", "1Ki", "2G", "1Gi")] == [0.25, 2, 1000, 1024, 2e9, 1 << 30]


def test_names_are_told_apart_and_fit() -> None:
    assert member_names(["TextScorer", "text_scorer2"]) == {"TextScorer": "text-scorer", "text_scorer2": "text-scorer2"}
    twins = member_names(["A_b", "a-b", "a.b"])
    assert len(set(twins.values())) == 3
    long = member_names(["x" * 63, "x" * 62 + "y"])
    assert all(len(object_name("d" * 50, label)) <= 63 for label in long.values())
    assert len({object_name("d" * 50, label) for label in long.values()}) == 2
    for label in (*twins.values(), *long.values()):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", label)


def test_where_it_answers() -> None:
    _, _, bento, options, image, _ = CASES["ingress"]
    assert url_of(bento, options, image) == "https://iris.example.com"
    _, _, bento, options, image, _ = CASES["ingress-below-a-path"]
    assert url_of(bento, options, image) == "http://example.com/iris/v1"
    _, _, bento, options, image, _ = CASES["one-service"]
    assert url_of(bento, options, image, "ml") == "http://iris.ml"


def test_requests_to_scale_by_need_metrics() -> None:
    _, _, bento, options, image, _ = CASES["scaled-by-requests"]
    silent = replace(bento, services=(replace(bento.services[0], metrics=""),))
    with pytest.raises(UsageError, match="has no metrics to be scaled by"):
        notes(group_of(silent, options, image, ""))


# Written from the references of KEDA 2 (ScaledObject specification; scalers `cpu` and `prometheus`) and of Gateway API
# (HTTPRoute, v1): the fields that there are of the parts that we write, and no others.
TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}


def table(required: str, more: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    names = required.split()
    fields = {**dict.fromkeys(names, TEXT), **more, **(optional or {})}
    return {"type": "object", "properties": fields, "required": [*names, *more], "additionalProperties": False}


KIND = {"enum": ["Utilization", "AverageValue"]}
CPU = table("", {"type": {"const": "cpu"}, "metricType": KIND, "metadata": table("value", {})})
PROMETHEUS = table(
    "", {"type": {"const": "prometheus"},
         "metadata": table("serverAddress query threshold", {}, {"activationThreshold": TEXT, "namespace": TEXT})},
)  # fmt: skip
SCALED = table(
    "", {"scaleTargetRef": table("name", {}, {"apiVersion": TEXT, "kind": TEXT}),
         "triggers": {"type": "array", "minItems": 1, "items": {"oneOf": [CPU, PROMETHEUS]}}},
    dict.fromkeys(["pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount"], COUNT),
)  # fmt: skip
PARENT = table("name", {}, {"group": {"type": "string"}, "kind": TEXT, "namespace": TEXT, "sectionName": TEXT})
BACKEND = table(
    "name", {"port": COUNT}, {"group": {"type": "string"}, "kind": TEXT, "namespace": TEXT, "weight": COUNT}
)
PATH = {"type": {"enum": ["Exact", "PathPrefix"]}, "value": {"type": "string", "pattern": "^/"}}
MATCH = table("", {"path": table("", PATH)})
ROUTE = table(
    "", {"parentRefs": {"type": "array", "maxItems": 32, "items": PARENT},
         "rules": {"type": "array", "maxItems": 16, "items": table("", {
             "matches": {"type": "array", "items": MATCH}, "backendRefs": {"type": "array", "items": BACKEND}})}},
    {"hostnames": {"type": "array", "maxItems": 16, "items": TEXT}},
)  # fmt: skip


@pytest.mark.parametrize("name", ["keda-cpu", "keda-requests", "keda-to-zero", "gateway"])
def test_kinds_of_others_have_the_fields_of_their_reference(name: str, require_package: Callable[[str], None]) -> None:
    require_package("jsonschema")
    import jsonschema

    schemas = {"ScaledObject": SCALED, "HTTPRoute": ROUTE}
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    found = [each for each in yaml.safe_load_all(text) if each["kind"] in schemas]
    assert len(found) == 1
    jsonschema.validate(found[0]["spec"], schemas[found[0]["kind"]])
