"""Manifests against golden files that people read, the schemas of four Kubernetes releases, and Pod Security."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("k8s_golden", GOLDEN / "regenerate.py")
assert _spec is not None
assert _spec.loader is not None
regenerate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(regenerate)
CASES = {case[0]: case for case in regenerate.cases()}
OURS = ("keda.sh", "gateway.networking.k8s.io")


@functools.cache
def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")))


def pods(name: str) -> Iterator[Any]:
    return (each["spec"]["template"]["spec"] for each in documents(name) if each["kind"] == "Deployment")


@pytest.mark.parametrize("name", CASES)
def test_each_case_makes_its_golden_file(name: str) -> None:
    expected = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert regenerate.golden(*CASES[name]) == expected, "python plugins/bentotool-k8s/tests/golden/regenerate.py"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {*CASES, "cases"}


@pytest.fixture(scope="module")
def releases(require_package: Callable[[str], None]) -> Iterator[list[str]]:
    """The last four releases that the package has schemas of, which are read once."""
    require_package("kubernetes_validate")
    from kubernetes_validate import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield utils.all_versions()[-4:]


@pytest.mark.timeout(300)
def test_every_object_is_one_of_the_last_four_releases(releases: list[str]) -> None:
    from kubernetes_validate import SchemaNotFoundError, validate

    distinct = {json.dumps(each): each for name in CASES for each in documents(name)}
    unknown = set()
    for each in distinct.values():
        for release in releases:
            try:
                validate(each, release, strict=True)
            except SchemaNotFoundError:
                unknown.add(each["apiVersion"])
    assert {version.partition("/")[0] for version in unknown} == set(OURS)
    assert len(releases) == 4


ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "projected", "secret"}


@pytest.mark.parametrize("name", CASES)
def test_pods_keep_to_pod_security_restricted(name: str) -> None:
    """What the Pod Security Standards say of "restricted", control by control; `image` is among them since 1.33."""
    for pod in pods(name):
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"} & pod["securityContext"].keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
            }  # fmt: skip
            assert all("hostPort" not in port for port in container["ports"])
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= ALLOWED_VOLUMES


@pytest.mark.parametrize("name", CASES)
def test_a_pod_may_take_as_long_to_end_as_its_server_does(name: str) -> None:
    for pod in pods(name):
        (container,) = pod["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        ending = before + float(env["BENTOTOOL_DRAIN_DELAY"]) + float(env["BENTOTOOL_GRACE"])
        assert pod["terminationGracePeriodSeconds"] >= ending + 5


@pytest.mark.parametrize("name", CASES)
def test_objects_find_one_another(name: str) -> None:
    made = documents(name)
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in made}
    assert len(by_kind) == len(made)
    deployments = [each for each in made if each["kind"] == "Deployment"]
    for each in deployments:
        labels, selected = each["spec"]["template"]["metadata"]["labels"], each["spec"]["selector"]["matchLabels"]
        assert selected.items() <= labels.items()
        service = by_kind["Service", each["metadata"]["name"]]
        assert service["spec"]["selector"] == selected
        (container,) = each["spec"]["template"]["spec"]["containers"]
        named = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
        volumes = {volume["name"] for volume in each["spec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        for env in container["env"]:
            if env["name"] == "BENTOTOOL_DEPENDS":
                hosts = [
                    part.partition("://")[2].partition("/")[0].partition(":")[0] for part in env["value"].split(",")
                ]
                assert all(("Service", host) in by_kind for host in hosts if "." not in host)
    selectors = [json.dumps(each["spec"]["selector"]) for each in deployments]
    assert len(set(selectors)) == len(selectors)
    assert all(len(each["metadata"]["name"]) <= 63 for each in made)
    assert all(len(str(value)) <= 63 for each in made for value in each["metadata"]["labels"].values())


def test_no_two_calls_differ() -> None:
    case = CASES["graph-sized"]
    assert regenerate.golden(*case) == regenerate.golden(*case)
