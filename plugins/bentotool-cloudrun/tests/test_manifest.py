"""A Bento as a service of Cloud Run: bodies that a person can read, refused by nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bentotool.deployspec import DeployService, PublishedImage
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool.testing import check_plugin

pytestmark = pytest.mark.timeout(300)
GOLDEN = Path(__file__).parent / "golden"
IMAGE = "europe-west1-docker.pkg.dev/p/bentos/iris@sha256:" + "a" * 64


def service(**more: Any) -> DeployService:
    return DeployService("Iris", "service:Iris", **more)


GRAPH = (
    DeployService("Front", "service:Front", ("Ranker",), resources={"cpu": "500m", "memory": "512Mi"}),
    DeployService("Ranker", "service:Ranker", resources={"cpu": 2, "memory": "3Gi"}),
)
CASES: dict[str, tuple[tuple[DeployService, ...], tuple[str, ...], dict[str, str]]] = {
    "plain": ((service(),), (), {}),
    "not-told": ((), (), {}),
    "traffic": ((service(traffic={"timeout": 120, "max_concurrency": 8, "concurrency": 4}),), (), {}),
    "aim": ((service(traffic={"concurrency": 32}),), (), {}),
    "public": ((service(),), ("allow-unauthenticated", "ingress=internal-and-cloud-load-balancing"), {}),
    "scaling": ((service(),), ("min-instances=1", "max-instances=7", "concurrency=4", "request-timeout=600"), {}),
    "environment": ((service(),), (), {"LEVEL": "info", "AREA": "eu"}),
    "secrets": (
        (service(),),
        (
            "secret=TOKEN=my-token:3", "secret=/run/secrets/tls/key=projects/q/secrets/key",
            "service-account=runner@p.iam.gserviceaccount.com",
        ),
        {},
    ),
    "resources": ((service(resources={"cpu": "3", "memory": "10Gi"}),), (), {}),
    "small": ((service(),), ("cpu=500m", "memory=512Mi"), {}),
    "gpu": ((service(resources={"gpu": 1, "gpu_type": "nvidia-tesla-l4"}),), ("max-instances=2",), {}),
    "gpu-large": ((service(),), ("gpus=1", "gpu-type=nvidia-rtx-pro-6000", "gpu-zonal-redundancy"), {}),
    "graph": (GRAPH, (), {}),
    "prefix": (
        (service(path_prefix="/v1", probes={"livez": "/v1/livez", "readyz": "/v1/readyz", "healthz": "/v1/healthz"}),),
        ("no", ), {},
    ),
}  # fmt: skip


def body(
    options: Callable[..., DeployOptions], services: tuple[DeployService, ...], pairs: tuple[str, ...], env: Any
) -> dict[str, Any]:
    from bentotool_cloudrun.manifest import service_body

    given = tuple(pair for pair in pairs if pair != "no") + (("cpu-throttling=false",) if "no" in pairs else ())
    bento = DeployBento("iris", "1", "sha256:" + "1" * 64, services=services)
    return service_body(bento, replace(options(*given), env=env), IMAGE)


@pytest.mark.parametrize("case", CASES)
def test_bodies(case: str, options: Callable[..., DeployOptions], standin: ModuleType) -> None:
    made = body(options, *CASES[case])
    standin.check(made, "Service", "service")
    standin.check_meaning("iris", made)
    text = yaml.safe_dump(json.loads(json.dumps(made)), sort_keys=False, width=120)
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("BENTOTOOL_TEST_WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_there_are_no_other_files() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


def test_the_standin_is_strict(options: Callable[..., DeployOptions], standin: ModuleType) -> None:
    made = body(options, *CASES["plain"])
    made["template"]["containers"][0]["livenessProbe"]["httpget"] = {}
    with pytest.raises(standin.Refused, match="Unknown name"):
        standin.check(made, "Service", "service")
    with pytest.raises(standin.Refused, match="Invalid value"):
        standin.check({"template": {"timeout": 5}}, "Service", "service")
    with pytest.raises(standin.Refused, match="Invalid value"):
        standin.check({"ingress": "ALL"}, "Service", "service")


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("gpus=2",), "one GPU at most"),
        (("gpus=all",), "one GPU at most"),
        (("memory=lots",), "memory 'lots' is not a size such as 512Mi or 4Gi"),
        (("memory=4gi",), "memory '4gi' is not a size"),
        (("memory=64Mi",), "memory '64Mi': Cloud Run gives from 128Mi to 32Gi"),
        (("memory=64Gi",), "memory '64Gi': Cloud Run gives from 128Mi to 32Gi"),
        (("cpu=many",), "cpu 'many' is not 1, 2, 4, 6 or 8 CPUs, or less than one such as 500m"),
        (("cpu=3",), "cpu '3' is not 1, 2, 4, 6 or 8 CPUs"),
        (("cpu=0",), "cpu '0' is not 1, 2, 4, 6 or 8 CPUs"),
        (("cpu=-1",), "cpu '-1' is not 1, 2, 4, 6 or 8 CPUs"),
        (("cpu=1500m",), "cpu '1500m': Cloud Run gives 1, 2, 4, 6 or 8 CPUs, or less than one from 0.08 on"),
        (("cpu=0.01",), "cpu '0.01': Cloud Run gives 1, 2, 4, 6 or 8 CPUs"),
        (("cpu=20",), "cpu '20': Cloud Run gives 1, 2, 4, 6 or 8 CPUs"),
        (("cpu=1", "memory=5Gi"), "memory 5Gi takes a cpu of 2 or more in Cloud Run, not 1"),
        (("cpu=500m", "memory=2Gi", "concurrency=1"), "memory 2Gi takes a cpu of 1 or more in Cloud Run, not 500m"),
        (("cpu=8", "memory=2Gi"), "cpu 8 takes a memory of 4Gi or more in Cloud Run, not 2Gi"),
        (("gpu-type=nvidia-l4",), "--gpu-type has no effect without a GPU"),
        (("gpu-zonal-redundancy",), "--gpu-zonal-redundancy has no effect without a GPU"),
        (("cpu=0.5", "concurrency=4"), "less than one CPU takes one request at a time"),
        (("min-instances=3", "max-instances=2"), "less than min-instances"),
        (("secret=TOKEN",), "not of the form NAME=SECRET"),
        (("secret=TOKEN=a:b",), "not of the form NAME=SECRET"),
        (("secret=TOKEN=a", "secret=TOKEN=b"), "two secrets are meant for the variable TOKEN"),
        (("secret=/a/x=a", "secret=/a/y=b"), "two secrets are meant for the folder /a"),
        (("secret=/../x=a",), "neither a variable nor a file"),
        (("secret=PORT=a",), "neither a variable nor a file"),
        (("revision-tag=Next",), "is no tag"),
    ],
)
def test_what_cloud_run_does_not_take(pairs: tuple[str, ...], said: str, options: Callable[..., DeployOptions]) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        body(options, (service(),), pairs, {})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("pairs", "cpu", "memory"),
    [
        (("cpu=4",), "4", "2048Mi"), (("cpu=8",), "8", "4096Mi"), (("memory=10Gi",), "4", "10Gi"),
        (("cpu=2", "memory=4 GB"), "2", "4G"),
        (("gpus=1", "gpu-type=nvidia-rtx-pro-6000", "cpu=22", "memory=100Gi"), "22", "100Gi"),
        (("cpu=250m", "memory=512Mi"), "250m", "512Mi"), (("cpu=1.0",), "1.0", "1024Mi"),
    ],
)  # fmt: skip
def test_sizes_that_cloud_run_has(
    pairs: tuple[str, ...], cpu: str, memory: str, options: Callable[..., DeployOptions]
) -> None:
    limits = body(options, (service(),), pairs, {})["template"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == (cpu, memory)


def test_variables_that_are_taken(options: Callable[..., DeployOptions]) -> None:
    with pytest.raises(UsageError, match="--env PORT is set by Cloud Run"):
        body(options, (service(),), (), {"PORT": "80"})
    with pytest.raises(UsageError, match="TOKEN is given by --env and by --secret"):
        body(options, (service(),), ("secret=TOKEN=a",), {"TOKEN": "b"})


def test_services_that_do_not_go_there(options: Callable[..., DeployOptions]) -> None:
    with pytest.raises(UsageError, match="speaks HTTPS itself"):
        body(options, (service(tls=True),), (), {})
    with pytest.raises(UsageError, match=r"traffic\.timeout 7200 of Iris is more than Cloud Run gives"):
        body(options, (service(traffic={"timeout": 7200}),), (), {})
    from bentotool_cloudrun.manifest import check_name

    with pytest.raises(UsageError, match="has 50 characters, and Cloud Run takes 49"):
        check_name("a" * 50)


@pytest.mark.parametrize(
    ("reference", "goes"),
    [
        ("europe-west1-docker.pkg.dev/p/r/iris:1", True),
        ("gcr.io/p/iris", True),
        ("eu.gcr.io/p/iris", True),
        ("docker.io/me/iris", True),
        ("me/iris:1", True),
        ("iris:1", True),
        ("localhost:5000/iris", False),
        ("ghcr.io/me/iris", False),
        ("notgcr.io/me/iris", False),
        ("registry:5000/iris", False),
        ("x-docker.pkg.dev.evil.example/iris", False),
    ],
)
def test_registries(reference: str, goes: bool) -> None:
    from bentotool_cloudrun.images import check_registry

    if goes:
        check_registry(reference)
        return
    with pytest.raises(UsageError, match="Cloud Run pulls from Artifact Registry and Docker Hub") as caught:
        check_registry(reference)
    assert "--registry" in str(caught.value.hint)


class Publisher:
    """Pushes nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def planned(self, where: str, platforms: Any = (), *, lean: bool = False) -> PublishedImage:
        self.asked.append(("planned", where, *platforms))
        return PublishedImage(f"{where}/iris", "1")

    def publish(self, where: str, platforms: Any = (), *, lean: bool = False) -> PublishedImage:
        self.asked.append(("publish", where, *platforms))
        return PublishedImage(f"{where}/iris", "1", "sha256:" + "1" * 64, {"linux/amd64": "sha256:" + "a" * 64})


def test_the_image_is_pushed_for_its_platform_and_named_by_digest(options: Callable[..., DeployOptions]) -> None:
    from bentotool_cloudrun.images import planned_image, published_image

    publisher = Publisher()
    bento = DeployBento("iris", "1", "sha256:" + "1" * 64, registry=publisher)
    values = options("registry=europe-west1-docker.pkg.dev/p/bentos").values
    image, note = planned_image(bento, values)
    assert image == "europe-west1-docker.pkg.dev/p/bentos/iris:1"
    assert "still to be made" in note
    assert published_image(bento, values) == IMAGE
    assert publisher.asked == [
        ("planned", "europe-west1-docker.pkg.dev/p/bentos", "linux/amd64"),
        ("publish", "europe-west1-docker.pkg.dev/p/bentos", "linux/amd64"),
    ]
    with pytest.raises(UsageError, match=r"localhost:5000/x/iris is in neither"):
        planned_image(bento, options("registry=localhost:5000/x").values)
    with pytest.raises(UsageError, match="no registry"):
        published_image(bento, options().values)


def test_the_plugin_keeps_the_contract() -> None:
    assert {"bentotool_targets", "bentotool_registry_credentials"} <= set(check_plugin("cloudrun").hooks)
