"""Deployments in several places, and options that are checked at the door, with a target made for the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.deploy.api import apply_plan, make_plan
from bentotool.deploy.options import environment, option_values
from bentotool.deploy.records import Records
from bentotool.errors import UsageError
from bentotool.oci.layout import Layout
from bentotool.plugin_scan import scan
from bentotool.plugins import Plugins
from bentotool.targetoptions import depends_variable
from bentotool.targetspec import DeployBento, DeployOptions, OptionSpec, TargetDecl

FARM = """
import json, os, pathlib
from dataclasses import replace
from bentotool.hookspecs import hookimpl
from bentotool.targetspec import *

@hookimpl
def bentotool_targets():
    options = (OptionSpec("barn", "text", "Which barn; default: the old one", place=True),
               OptionSpec("road", "text", "How to get there; default: on foot", place=True),
               OptionSpec("bales", "integer", "How many", default=1),
               OptionSpec("net", "text", "Net over them", repeated=True, needs=("bales=2", "road")))
    return [TargetDecl("farm", __name__ + ":Farm", "The farm", options=options),
            TargetDecl("shed", __name__ + ":Shed", "One shed", options=(OptionSpec("box", "text", "Which box"),))]

def path():
    return pathlib.Path(os.environ["FARM"])

def all_there():
    return json.loads(path().read_text()) if path().exists() else []

class Shed:
    def list(self):
        return []
    def plan(self, bento, options):
        there = (PlannedResource("hay", options.name, "create", {"barn": options.values.get("barn") or "old"}),)
        return Plan("farm", bento, options, there, url="http://farm.example")
    def apply(self, plan, wait):
        barn = plan.options.values["barn"] or "old"
        facts = {"barn": barn, "road": plan.options.values["road"], "tag": plan.bento.tag}
        path().write_text(json.dumps([*all_there(), [plan.name, facts]]))
        status = "ready" if wait else "starting"
        return Deployment(plan.name, "farm", status, plan.url, plan.bento.tag, plan.bento.digest, facts=facts)
    def status(self, deployment):
        there = [barn["barn"] for name, barn in all_there() if name == deployment.name]
        return replace(deployment, status="ready" if deployment.facts["barn"] in there else "missing")
    def logs(self, deployment, follow, tail):
        yield f"{deployment.facts['barn']} by {deployment.facts['road']}"
    def delete(self, deployment):
        mine = [deployment.name, deployment.facts["barn"]]
        kept = [each for each in all_there() if [each[0], each[1]["barn"]] != mine]
        path().write_text(json.dumps(kept))
        return ["hay in " + deployment.facts["barn"]]

class Farm(Shed):
    def list(self):
        return self.list_at({"barn": None, "road": None})
    def list_at(self, place):
        barn = place["barn"] or "old"
        return [Deployment(name, "farm", "ready", "", facts["tag"], facts={"barn": barn, "road": place["road"]})
                for name, facts in all_there() if facts["barn"] == barn]
    def is_at(self, deployment, place):
        return place["barn"] in (None, deployment.facts["barn"])
"""
BENTO = DeployBento("hay", "1", "sha256:" + "0" * 64)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    site = tmp_path / "site"
    info = site / "farm-1.dist-info"
    info.mkdir(parents=True)
    (site / "farm_plugin.py").write_text(FARM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: farm\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bentotool]\nfarm = farm_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("FARM", str(tmp_path / "farm.json"))
    yield Plugins(scan([str(site)]))
    sys.modules.pop("farm_plugin", None)


@pytest.fixture
def layout(store: Path) -> Layout:
    return Layout(store)


@pytest.fixture
def deploy(layout: Layout, plugins: Plugins) -> Callable[..., Any]:
    def run(name: str, barn: str | None = None, *, recorded: bool = True, **values: Any) -> None:
        options = DeployOptions(name, {"barn": barn, "road": None, "bales": 1, **values})
        apply_plan(layout, plugins, make_plan(layout, plugins, "farm", BENTO, options), wait=True)
        if not recorded:
            Records(layout).forget(name)

    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], plugins: Plugins) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def listed(cli: Callable[..., tuple[int, str, str]], *words: str) -> list[tuple[str, str]]:
    status, out, err = cli("--json", "deployment", "list", *words)
    assert status == 0, err
    return [(each["name"], each["facts"]["barn"]) for each in json.loads(out)]


def test_what_others_deployed_elsewhere_is_listed_shown_and_deleted(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    deploy("hay", "new", recorded=False)
    assert listed(cli) == []
    assert listed(cli, "--target", "farm") == []
    assert listed(cli, "--target", "farm", "--barn", "new") == [("hay", "new")]
    place = ("--target", "farm", "--barn", "new", "--road", "tractor")
    shown = json.loads(cli("--json", "deployment", "show", "hay", *place)[1])
    assert (shown["status"], shown["facts"]["barn"], shown["history"]) == ("ready", "new", [])
    assert cli("deployment", "logs", "hay", *place)[1] == "new by tractor\n"
    status, _, err = cli("deployment", "delete", "hay", "--target", "farm", "--barn", "far", "--yes")
    assert (status, "farm has no deployment 'hay' there" in err) == (3, True)
    assert "hint: bentotool deployment list --target farm --barn far" in err
    assert cli("deployment", "delete", "hay", *place, "--yes")[0] == 0
    assert json.loads((tmp_path / "farm.json").read_text()) == []


def test_one_of_the_same_name_elsewhere_is_another(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("hay", "new", recorded=False)
    deploy("hay", "old")
    assert listed(cli, "--target", "farm") == [("hay", "old")]
    assert listed(cli, "--target", "farm", "--barn", "new") == [("hay", "new")]
    shown = json.loads(cli("--json", "deployment", "show", "hay", "--barn", "new")[1])
    assert (shown["facts"]["barn"], shown["revision"]) == ("new", None)
    assert json.loads(cli("--json", "deployment", "show", "hay", "--barn", "old")[1])["revision"] == 1
    assert cli("deployment", "delete", "hay", "--barn", "new", "--yes")[0] == 0
    assert Records(layout).find("hay") is not None, "what is recorded is another"
    assert listed(cli, "--target", "farm") == [("hay", "old")]
    assert cli("deployment", "delete", "hay", "--barn", "old", "--yes")[0] == 0
    assert Records(layout).find("hay") is None


def test_what_is_recorded_elsewhere_hides_nothing_here(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]]
) -> None:
    deploy("hay", "old", recorded=False)
    deploy("hay", "new")
    assert sorted(listed(cli, "--target", "farm")) == [("hay", "new"), ("hay", "old")]


def test_what_is_recorded_is_reached_another_way(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("hay", road="path")
    deploy("hay", bales=2, road="path")
    assert cli("deployment", "logs", "hay")[1] == "old by path\n"
    assert cli("deployment", "logs", "hay", "--road", "tractor")[1] == "old by tractor\n"
    status, _, err = cli("deployment", "rollback", "hay", "--road", "tractor", "--no-wait")
    assert status == 0, err
    newest = Records(layout).get("hay").current
    assert (newest.options["road"], newest.options["bales"], newest.deployment.status) == ("tractor", 1, "starting")
    assert cli("deployment", "diff", "hay", "--road", "tractor")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--barn", "new"), "--barn says where to look, and not at which target\nhint: --target TARGET"),
        (("show", "other", "--barn", "new"), "--barn says where to look, and not at which target"),
        (("show", "hay", "--target", "shed", "--barn", "new"), "deployments of target shed are not found by --barn"),
        (("delete", "hay", "--forget", "--barn", "new", "--yes"), "--forget asks no target\nhint: leave --barn out"),
        (("list", "--bales", "2"), "--bales"),
    ],
)
def test_a_place_that_is_none(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], words: tuple[str, ...], said: str
) -> None:
    deploy("hay")
    status, out, err = cli("deployment", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_the_help_says_where_one_may_look(cli: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("list", "show", "logs", "delete", "diff", "rollback"):
        out = " ".join(cli("deployment", command, "--help")[1].split())
        assert "Where to look (default: where it was deployed):" in out, command
        assert "--barn TEXT Which barn (farm)." in out, command
        assert "--bales" not in out
    assert "--barn" not in cli("deployment", "list", "--target", "shed", "--help")[1]


def test_the_help_has_the_options_in_the_order_of_the_target(cli: Callable[..., tuple[int, str, str]]) -> None:
    out = cli("deploy", "farm", "--help")[1]
    assert out.index("--barn") < out.index("--road") < out.index("--bales")
    assert "--net TEXT Net over them. May be repeated. [with --bales 2, --road]" in " ".join(out.split())


def decl(**settings: Any) -> TargetDecl:
    options = (
        OptionSpec("most", "integer", "Most", per_service=True),
        OptionSpec("how", "text", "How", default="slow", choices=("slow", "fast"), needs=("most",), per_service=True),
        OptionSpec("push", "text", "Push", needs=("how=fast",), per_service=True),
        OptionSpec("wall", "flag", "Wall", default=True),
        OptionSpec("gate", "text", "Gate", needs=("wall",), repeated=True),
        OptionSpec("space", "text", "Space", pattern="[a-z]+", form="lower-case letters"),
    )
    return TargetDecl("t", "a:b", "T", options=options, **settings)


@pytest.mark.parametrize(
    "pairs", [["most=1", "how=fast", "push=x"], ["A.most=1", "A.how=fast"], ["most=1", "A.how=fast", "A.push=x"],
              ["how=fast", "A.most=1"], ["gate=x"], ["space=abc"], ["how=slow"], []],
)  # fmt: skip
def test_options_that_have_an_effect(pairs: list[str]) -> None:
    option_values(decl(), pairs)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["how=fast"], "--how has no effect without --most"),
        (["most=1", "push=x"], "--push has no effect without --how fast"),
        (["A.most=1", "B.how=fast"], "--how has no effect without --most"),
        (["no-wall", "gate=x"], "target t has no option 'no-wall'"),
        (["wall=no", "gate=x"], "--gate has no effect without --wall"),
        (["space=Abc"], "space 'Abc' is not lower-case letters"),
        (["space=abc/"], "space 'abc/' is not lower-case letters"),
    ],
)
def test_options_that_have_none(pairs: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        option_values(decl(), pairs)
    assert caught.value.message == said


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="options lost are named"):
        TargetDecl("t", "a:b", "T", options=(OptionSpec("how", "text", "How", needs=("lost=1",)),))
    with pytest.raises(ValueError, match="options lost are named"):
        decl(variables={"PORT": "lost"})
    with pytest.raises(ValueError, match="a pattern and a form, or has neither"):
        OptionSpec("how", "text", "How", pattern="a")


def test_variables_that_others_set() -> None:
    owner = decl(variables={"PORT": "", "BENTOTOOL_GRACE": "how"})
    assert environment(["LEVEL=1", "BENTOTOOL_DEPENDS=A=http://a:1,B=https://b/x"], owner)["LEVEL"] == "1"
    for pair, said, hint in (
        ("PORT=1", "--env PORT is set by the target t itself", "leave it out"),
        ("BENTOTOOL_GRACE=1", "--env BENTOTOOL_GRACE is set by the target t itself", "--how says what is in it"),
        ("BENTOTOOL_DOOR=x", "--env BENTOTOOL_DOOR is one that a server sets for its own processes", "leave it out"),
        ("BENTOTOOL_DEPENDS=A", "--env BENTOTOOL_DEPENDS: 'A' is not NAME=http://HOST:PORT", ""),
        ("BENTOTOOL_DEPENDS=A=a:1", "--env BENTOTOOL_DEPENDS: 'A=a:1' is not NAME=http://HOST:PORT", ""),
    ):
        with pytest.raises(UsageError) as caught:
            environment([pair], owner)
        assert caught.value.message == said
        assert str(caught.value.hint).startswith(hint)


def test_addresses_of_the_target_and_of_the_user() -> None:
    own = {"B": "http://b", "A": "http://a"}
    given = {"BENTOTOOL_DEPENDS": "C=http://c:1"}
    assert depends_variable(own, given) == "A=http://a,B=http://b,C=http://c:1"
    assert depends_variable({}, {}) == ""
    with pytest.raises(UsageError, match="names B, which is deployed here and found by itself"):
        depends_variable(own, {"BENTOTOOL_DEPENDS": "C=http://c,B=http://elsewhere"})
