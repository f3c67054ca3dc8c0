"""What Bentos tell of their graph, and what is set for one Service of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.build.probe import Probe, probe_service
from bentotool.deploy.earlier import changed_settings, repeated_options
from bentotool.deploy.graph import packages_of, services_of
from bentotool.deploy.options import check_services, option_values
from bentotool.deploy.records import Revision
from bentotool.errors import UsageError, VerificationError
from bentotool.targetspec import Deployment, DeployOptions, OptionSpec, TargetDecl

DECL = TargetDecl(
    "attic", "attic:Attic", "The attic",
    options=(
        OptionSpec("replicas", "integer", "How many", default=1, per_service=True),
        OptionSpec("secret", "text", "Secrets", repeated=True, per_service=True),
        OptionSpec("port", "integer", "Port", default=80),
    ),
)  # fmt: skip
SERVICE = """
import bentotool
from scoring import Scorer

@bentotool.service(traffic={"timeout": 30}, resources={"cpu": "2"}, path_prefix="/front")
class Front:
    scorer = bentotool.depends(Scorer)
    elsewhere = bentotool.depends(Scorer, url="http://scorer.example")

    @bentotool.api
    def ask(self, text: str) -> int:
        return self.scorer.score(text)
"""
SCORING = """
import bentotool

@bentotool.service(name="text.scorer", workers="cpu_count", metrics={"enabled": False},
                   envs=[{"name": "FACTOR", "value": "10"}, {"name": "TOKEN"}, {"name": "PIP", "stage": "build"}])
class Scorer:
    @bentotool.api
    def score(self, text: str) -> int:
        return len(text)
"""


def test_one_service_is_set_apart_from_all() -> None:
    values = option_values(DECL, ["replicas=2", "Scorer.replicas=3", "text.scorer.secret=a", "text.scorer.secret=b"])
    assert values == {"replicas": 2, "secret": (), "port": 80, "Scorer.replicas": 3, "text.scorer.secret": ("a", "b")}
    options = DeployOptions("one", values)
    assert options.of_service("Scorer") == {"replicas": 3, "secret": (), "port": 80}
    assert options.of_service("text.scorer") == {"replicas": 2, "secret": ("a", "b"), "port": 80}
    assert options.of_service("text") == options.of_service("Other") == {"replicas": 2, "secret": (), "port": 80}


def test_what_is_no_setting_of_a_service_is_refused() -> None:
    with pytest.raises(UsageError, match="port is one for the whole deployment") as refused:
        option_values(DECL, ["Scorer.port=1"])
    assert refused.value.hint == "--set port=\u2026"
    with pytest.raises(UsageError, match="no option 'replica'"):
        option_values(DECL, ["Scorer.replica=1"])
    with pytest.raises(UsageError, match="replicas 'many' is not a whole number"):
        option_values(DECL, ["Scorer.replicas=many"])
    with pytest.raises(UsageError, match="given twice"):
        option_values(DECL, ["Scorer.replicas=1", "Scorer.replicas=2"])
    check_services({"replicas": 1, "Scorer.replicas": 2}, ["Front", "Scorer"])
    with pytest.raises(UsageError, match="no Service 'Scorr'") as misspelt:
        check_services({"Scorr.replicas": 2}, ["Front", "Scorer"])
    assert misspelt.value.hint == "did you mean Scorer?"
    with pytest.raises(UsageError) as untold:
        check_services({"Scorer.replicas": 2}, [])
    assert "build it again" in str(untold.value.hint)


def test_settings_of_a_service_are_recorded_and_repeated() -> None:
    given = option_values(DECL, ["Scorer.replicas=3", "Scorer.secret=a"])
    revision = Revision(1, "", Deployment("one", "attic", "ready", ""), {**given, "Scorer.secret": ["a"]})
    assert repeated_options(DECL, revision) == given
    assert changed_settings(revision, option_values(DECL, ["Front.replicas=2"]), {}) == [
        "Scorer.replicas: not set, was 3", "Scorer.secret: not set, was a", "Front.replicas: 2, was not set",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, require_package: Callable[[str], None]) -> Probe:
    """What a build asks of the services."""
    require_package("litestar")
    folder = tmp_path_factory.mktemp("project")
    (folder / "service.py").write_text(SERVICE)
    (folder / "scoring.py").write_text(SCORING)
    return probe_service(folder, "service:Front", store=tmp_path_factory.mktemp("store"))


@pytest.fixture
def told(asked: Probe) -> list[dict[str, Any]]:
    return copy.deepcopy(list(asked.services))


def test_services_that_may_be_apart_get_a_client(asked: Probe) -> None:
    assert any(line.startswith("httpx") for line in asked.requirements)


def stored(services: Any) -> Any:
    return SimpleNamespace(tag="front:1", config={"services": services})


def test_a_bento_tells_its_graph(told: list[dict[str, Any]]) -> None:
    front, scorer = services_of(stored(told))
    assert (front.name, front.target, front.depends, front.workers) == ("Front", "service:Front", ("text.scorer",), 1)
    assert (front.resources, front.traffic, front.path_prefix) == ({"cpu": "2"}, {"timeout": 30}, "/front")
    assert (front.probes["readyz"], front.metrics) == ("/front/readyz", "/front/metrics")
    assert (scorer.name, scorer.target, scorer.workers) == ("text.scorer", "scoring:Scorer", 0)
    assert scorer.envs == {"FACTOR": "10", "TOKEN": None}
    assert (scorer.metrics, scorer.tls, scorer.command) == ("", False, False)
    assert scorer.arguments == ("--service", "scoring:Scorer")
    assert services_of(stored(())) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("name", "a b"), ("name", None), ("target", "x; rm -rf /"), ("target", "a:b:c"), ("workers", -1), ("workers", "2"),
     ("path_prefix", "/../x y"), ("depends", ["none"]), ("probes", {}), ("envs", [{"name": "A B", "value": ""}]),
     ("resources", 3), ("labels", [])],
)  # fmt: skip
def test_a_graph_of_another_form_is_refused(told: list[dict[str, Any]], name: str, value: Any) -> None:
    """Bentos come from registries too."""
    told[0][name] = value
    with pytest.raises(VerificationError, match="front:1"):
        services_of(stored(told))


def test_two_services_of_one_name_are_refused(told: list[dict[str, Any]]) -> None:
    with pytest.raises(VerificationError, match="do not go together"):
        services_of(stored([told[0], told[0]]))


def test_packages_of_a_lock() -> None:
    lock = "# a comment\nHTTPX_Extra==1 \\\n    --hash=sha256:0\nlite.star[x]==2 ; python_version > '3'\n"
    assert packages_of(lock) == {"httpx-extra", "lite-star"}
