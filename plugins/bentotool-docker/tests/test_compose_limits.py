"""What a compose file says of the resources that Services declare, and of who is called; no engine is needed."""

from __future__ import annotations

from typing import Any

import pytest
from bentotool_docker.compose.document import compose_document, group_of
from bentotool_docker.compose.options import OPTIONS
from bentotool_docker.hooks import bentotool_targets
from bentotool_docker.images import Image

from bentotool.deploy.options import environment, option_values
from bentotool.deployspec import DeployService
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions, TargetDecl

DECL = TargetDecl("compose", "a:b", "Compose", options=OPTIONS)


def services(*declared: dict[str, Any], pairs: tuple[str, ...] = (), cpus: int = 0, **env: str) -> Any:
    """The services of a file for a graph, by name: ``front``, ``ranker``, …"""
    names = ("Front", "Ranker", "Other")
    made = tuple(
        DeployService(name, f"service:{name}", resources=each) for name, each in zip(names, declared, strict=False)
    )
    bento = DeployBento("iris", "1", "sha256:" + "0" * 64, services=made, packages=frozenset({"httpx"}))
    options = DeployOptions("iris", option_values(DECL, pairs), env)
    image = Image("iris:1", "", ("python",), (), "65532", {})
    return compose_document(bento, options, image, group_of(bento, options), local=True, port=3000, cpus=cpus)[
        "services"
    ]


def limits(service: Any) -> Any:
    return service.get("deploy", {}).get("resources", {}).get("limits", {})


def test_what_services_declare_bounds_their_containers() -> None:
    found = services({"cpu": "500m", "memory": "512Mi"}, {"cpu": 2, "memory": "1.5Gi"}, {"gpu": 1})
    assert limits(found["front"]) == {"cpus": "0.5", "memory": str(512 << 20)}
    assert limits(found["ranker"]) == {"cpus": "2", "memory": str(3 << 29)}
    assert limits(found["other"]) == {}


def test_what_is_set_counts() -> None:
    declared = {"cpu": "1", "memory": "1Gi"}
    found = services(declared, declared, pairs=("cpu=1.5", "Ranker.memory=256m", "gpus=all"))
    assert limits(found["front"]) == {"cpus": "1.5", "memory": str(1 << 30)}
    assert limits(found["ranker"]) == {"cpus": "1.5", "memory": str(256 << 20)}
    assert found["front"]["deploy"]["resources"]["reservations"]["devices"][0]["count"] == "all"


def test_one_container_for_all_has_the_sum() -> None:
    found = services({"cpu": "500m", "memory": "1g"}, {"cpu": "1", "memory": "1g"}, pairs=("together",))
    assert list(found) == ["front"]
    assert limits(found["front"]) == {"cpus": "1.5", "memory": str(2 << 30)}
    assert limits(services({"cpu": "1"}, {}, pairs=("together",))["front"]) == {}, "nobody knows what the other needs"


def test_no_more_than_the_engine_has() -> None:
    assert limits(services({"cpu": "16"}, cpus=4)["front"])["cpus"] == "4"
    assert limits(services({"cpu": "16"}, cpus=4, pairs=("cpu=8",))["front"])["cpus"] == "8", "the engine says it"


@pytest.mark.parametrize("declared", [{"cpu": "many"}, {"cpu": "-1"}, {"cpu": "nan"}, {"memory": "lots"}])
def test_what_is_none(declared: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        services(declared)
    assert caught.value.hint


def test_addresses_of_others_are_added() -> None:
    other = "http://other.example:3000"
    found = services({}, {}, BENTOTOOL_DEPENDS=f"elsewhere={other}")
    assert found["front"]["environment"]["BENTOTOOL_DEPENDS"] == f"Ranker=http://ranker:3000,elsewhere={other}"
    with pytest.raises(UsageError, match="names Ranker, which is deployed here"):
        services({}, {}, BENTOTOOL_DEPENDS=f"Ranker={other}")


@pytest.mark.parametrize("target", ["docker", "compose"])
def test_variables_that_the_target_sets(target: str) -> None:
    decl = next(each for each in bentotool_targets() if each.name == target)
    with pytest.raises(UsageError, match=f"--env BENTOTOOL_GRACE is set by the target {target} itself") as caught:
        environment(["BENTOTOOL_GRACE=1"], decl)
    assert str(caught.value.hint).startswith("--grace says")
    with pytest.raises(UsageError, match="--pull has no effect without --image"):
        option_values(decl, ["pull=never"])


def test_on_which_engine() -> None:
    from bentotool_docker.facts import on_engine

    from bentotool.targetspec import Deployment

    there = Deployment("iris", "docker", "ready", "", facts={"engine": "tcp://one:2376"})
    assert on_engine(there, None)
    assert on_engine(there, "tcp://one:2376")
    assert not on_engine(there, "tcp://two:2376")
