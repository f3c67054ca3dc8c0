"""Deploying with a target made for the test: options, plans, records, the commands that look after deployments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.deploy.api import apply_plan, make_plan
from bentotool.deploy.leftovers import Leftovers
from bentotool.deploy.options import check_deployment_name, environment, option_values, usual_name
from bentotool.deploy.records import Records
from bentotool.deploy.written import check_output
from bentotool.errors import BentotoolError, ConflictError, RemoteError, UsageError, VerificationError
from bentotool.oci.layout import Layout
from bentotool.plugin_scan import scan
from bentotool.plugins import Plugins
from bentotool.targetoptions import planned_image, published_image
from bentotool.targetspec import DeployBento, Deployment, DeployOptions, OptionSpec, TargetDecl

ATTIC = """
import json, os, pathlib
from bentotool.errors import RemoteError, UnsafeError
from bentotool.hookspecs import hookimpl
from bentotool.targetspec import *

@hookimpl
def bentotool_targets():
    options = (OptionSpec("floor", "integer", "Which floor", default=1, minimum=0), OptionSpec("lit", "flag", "Light"),
               OptionSpec("box", "text", "Boxes", repeated=True), OptionSpec("ladder", "text", "Which ladder"))
    deep = OptionSpec("floor", "integer", "How deep", default=-1, metavar="LEVEL")
    return [TargetDecl("attic", __name__ + ":Attic", "The attic", options=options),
            TargetDecl("cellar", __name__ + ":Cellar", "The cellar", options=(deep,))]

@hookimpl
def bentotool_before_deploy(target, plan):
    if plan.bento.version == "draft":
        raise UnsafeError("it is a draft", hint="finish it")

@hookimpl
def bentotool_after_deploy(target, result):
    with open(os.environ["ATTIC"] + ".heard", "a") as file:
        file.write(result.name + "\\n")

class Attic:
    path = property(lambda self: pathlib.Path(os.environ["ATTIC"]))
    def boxes(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}
    def plan(self, bento, options):
        env = [f"{name}={value}" for name, value in options.env.items()]
        spec = {"floor": options.values["floor"], "bento": bento.tag, "env": env}
        standing = self.boxes().get(options.name)
        if standing is None:
            made = (PlannedResource("box", options.name, "create", spec),)
        else:
            old = PlannedResource("box", "old-" + options.name, "delete")
            made = (PlannedResource("box", options.name, "replace", spec, standing, replaces=old.name), old)
        blind = "the attic is dark" if os.environ.get("ATTIC_LOCKED") else ""
        return Plan("attic", bento, options, made, url="http://attic.example", blind=blind)
    def apply(self, plan, wait):
        if plan.options.env.get("STRAW"):
            facts = {"straw": plan.bento.version}
            plan.options.making(Deployment(plan.name, "attic", "unknown", "", plan.bento.tag, facts=facts))
        if plan.options.env.get("FAIL"):
            raise RemoteError("the stairs are gone", hint="mend them")
        if plan.options.env.get("STUCK"):
            plan.options.committed(Deployment(plan.name, "attic", "ready", plan.url, plan.bento.tag))
            raise RemoteError("the old box is stuck")
        self.path.write_text(json.dumps({**self.boxes(), plan.name: dict(plan.resources[0].spec)}))
        status = "ready" if wait else "starting"
        facts = {"ladder": "long"}
        return Deployment(plan.name, "attic", status, plan.url, plan.bento.tag, plan.bento.digest, facts=facts)
    def prune(self, past, kept, dry_run):
        tags = {each.tag for each in past} - {each.tag for each in kept}
        return [("would remove " if dry_run else "") + "straw of " + tag for tag in sorted(tags)]
    def status(self, deployment):
        if os.environ.get("ATTIC_LOCKED"):
            raise RemoteError("the attic is locked")
        there = deployment.name in self.boxes()
        box = self.boxes().get(deployment.name, {})
        digest = "sha256:" + "0" * 64 if box.get("bento") == "iris:1" else deployment.digest
        status = "ready" if there else "missing"
        return Deployment(deployment.name, "attic", status, deployment.url, box.get("bento", ""), digest)
    def logs(self, deployment, follow, tail):
        yield "a mouse"
        yield "a mouse\\x1b[31m"
    def delete(self, deployment):
        self.path.write_text(json.dumps({k: v for k, v in self.boxes().items() if k != deployment.name}))
        return ["box " + deployment.name]
    def list(self):
        return [Deployment(name, "attic", "ready", "", box["bento"]) for name, box in self.boxes().items()]

class Cellar(Attic):
    def forms(self):
        return {"list": "What is there", "labels": "What is stuck on it"}
    def write(self, plan, form, publish):
        return {form + ".txt": plan.name}
"""
BENTO = DeployBento("iris", "1", "sha256:" + "0" * 64)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    site = tmp_path / "site"
    info = site / "attic-1.dist-info"
    info.mkdir(parents=True)
    (site / "attic_plugin.py").write_text(ATTIC)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attic\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bentotool]\nattic = attic_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("ATTIC", str(tmp_path / "attic.json"))
    yield Plugins(scan([str(site)]))
    sys.modules.pop("attic_plugin", None)


@pytest.fixture
def layout(store: Path) -> Layout:
    return Layout(store)


@pytest.fixture
def deploy(layout: Layout, plugins: Plugins) -> Callable[..., Any]:
    def run(name: str, bento: DeployBento = BENTO, *, wait: bool = True, **env: str) -> Any:
        options = DeployOptions(name, {"floor": 1, "lit": None, "box": (), "ladder": None}, env)
        return apply_plan(layout, plugins, make_plan(layout, plugins, "attic", bento, options), wait=wait)

    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], plugins: Plugins) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_what_is_deployed_is_recorded_and_heard_of(deploy: Callable[..., Any], layout: Layout, tmp_path: Path) -> None:
    deploy("one", LEVEL="info")
    record = deploy("one", DeployBento("iris", "2", "sha256:" + "1" * 64))
    assert [(each.number, each.deployment.tag) for each in record.revisions] == [(2, "iris:2"), (1, "iris:1")]
    assert record.revisions[1].env == {"LEVEL": "info"}
    kept = Records(layout).get("one")
    assert [each.deployment for each in kept.revisions] == [each.deployment for each in record.revisions]
    assert kept.current.options == {"floor": 1, "lit": None, "box": [], "ladder": None}
    assert [each.name for each in Records(layout).list()] == ["one"]
    assert (tmp_path / "attic.json.heard").read_text() == "one\none\n"


def test_twenty_revisions_are_kept(deploy: Callable[..., Any]) -> None:
    for number in range(22):
        record = deploy("one", DeployBento("iris", str(number), ""))
    assert [each.number for each in record.revisions] == list(range(22, 2, -1))


def test_a_veto_or_a_failure_is_not_recorded(deploy: Callable[..., Any], layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(BentotoolError, match="it is a draft"):
        deploy("one", DeployBento("iris", "draft", ""))
    with pytest.raises(BentotoolError, match="the stairs are gone"):
        deploy("one", FAIL="1")
    assert Records(layout).find("one") is None
    assert not (tmp_path / "attic.json").exists()


def test_a_name_is_one_of_one_target(layout: Layout, plugins: Plugins) -> None:
    Records(layout).keep(Deployment("one", "cellar", "ready", "http://x"), {}, {})
    with pytest.raises(ConflictError, match="deployment one is one to cellar"):
        make_plan(layout, plugins, "attic", BENTO, DeployOptions("one"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 2, "revisions": []}', b'{"format":1,"revisions":[]}']
)
def test_a_damaged_record(layout: Layout, deploy: Callable[..., Any], content: bytes) -> None:
    deploy("one")
    deploy("two")
    path = layout.root / "deployments" / "one" / "1.json"
    path.write_bytes(content)
    records = Records(layout)
    with pytest.raises(VerificationError, match="is damaged"):
        records.get("one")
    assert [each.name for each in records.list()] == ["two"]
    assert records.damaged == [path]
    with pytest.raises(VerificationError, match="is damaged"):
        deploy("one")  # nobody knows any more whose it is
    path.unlink()
    assert deploy("one").current.number == 1


def test_an_earlier_revision_that_is_damaged_is_left_out(layout: Layout, deploy: Callable[..., Any]) -> None:
    for number in range(3):
        deploy("one", DeployBento("iris", str(number), ""))
    path = layout.root / "deployments" / "one" / "2.json"
    path.write_bytes(b"{")
    records = Records(layout)
    assert [each.number for each in records.get("one").revisions] == [3, 1]
    assert records.damaged == [path]
    assert deploy("one").current.number == 4


def test_records_of_many_at_once_are_all_kept(layout: Layout) -> None:
    """Processes that note down revisions at the same time, and one that is killed while it does."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bentotool.deploy.records import Records\n"
        "from bentotool.oci.layout import Layout\n"
        "from bentotool.targetspec import Deployment\n"
        "print('there', flush=True); sys.stdin.readline()\n"
        "for number in range(int(sys.argv[2])):\n"
        "    Records(Layout(Path(sys.argv[1]))).keep(Deployment('one', 'attic', 'ready', '', sys.argv[3]), {}, {})\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(layout.root), count, tag],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for count, tag in (("4", "a"), ("4", "b"), ("4", "c"), ("1000000", "killed"))
    ]  # fmt: skip
    for each in started:
        assert each.stdout is not None
        assert each.stdin is not None
        each.stdout.readline()
    for each in started:
        each.stdin.write("\n")  # type: ignore[union-attr]
        each.stdin.flush()  # type: ignore[union-attr]
    seen = []
    for each in started[:3]:
        assert each.wait(60) == 0
    started[3].kill()
    for each in started:
        each.communicate(timeout=60)
    record = Records(layout).get("one")
    seen = [each.number for each in record.revisions]
    assert seen == list(range(seen[0], seen[0] - len(seen), -1))  # each has a number of its own, and none is lost
    assert Records(layout).keep(Deployment("one", "attic", "ready", ""), {}, {}).current.number == seen[0] + 1


def test_what_is_committed_is_recorded_whatever_comes_after(
    deploy: Callable[..., Any], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BentotoolError, match="the old box is stuck"):
        deploy("one", STUCK="1")
    assert [each.deployment.tag for each in Records(layout).get("one").revisions] == ["iris:1"]


def test_commands(deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    deploy("one", LEVEL="info")
    deploy("two")
    status, out, _ = cli("--json", "deployment", "list")
    assert (status, [(each["name"], each["status"]) for each in json.loads(out)]) == (
        0,
        [("one", "ready"), ("two", "ready")],
    )
    status, out, _ = cli("--json", "deployment", "show", "one")
    assert (json.loads(out)["env"], json.loads(out)["options"]["floor"]) == ({"LEVEL": "info"}, 1)
    assert "LEVEL=info" in cli("deployment", "show", "one")[1]
    assert cli("deployment", "logs", "one")[1] == "a mouse\na mouse\\x1b[31m\n"
    status, out, _ = cli("--json", "deployment", "delete", "one")
    assert json.loads(out) == {
        "name": "one",
        "target": "attic",
        "status": "deleted",
        "removed": ["box one"],  # two needs the same straw
    }
    assert cli("deployment", "show", "one")[0] == 3
    assert cli("deployment", "delete", "one")[0] == 3
    assert json.loads(cli("--json", "deployment", "delete", "two")[1])["removed"] == ["box two", "straw of iris:1"]


def test_history_and_back(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout, plugins: Plugins
) -> None:
    deploy("one", LEVEL="info")
    assert cli("deployment", "rollback", "one")[0] == 3
    deploy("one", DeployBento("iris", "2", "sha256:" + "1" * 64))
    status, out, _ = cli("--json", "deployment", "rollback", "one")
    assert (status, json.loads(out)["tag"], json.loads(out)["revision"]) == (0, "iris:1", 3)
    history = json.loads(cli("--json", "deployment", "history", "one")[1])
    assert [(each["revision"], each["tag"], each["reason"], each["current"]) for each in history] == [
        (3, "iris:1", "rollback to 1", True), (2, "iris:2", "", False), (1, "iris:1", "", False),
    ]  # fmt: skip
    assert history[0]["changes"] == ["env LEVEL: 'info', was not set"]
    assert history[0]["options"]["ladder"] == "long"  # what the target came to choose is used again
    assert (history[0]["name"], history[0]["version"], history[0]["env"]) == ("iris", "1", {"LEVEL": "info"})
    assert cli("deployment", "rollback", "one", "--to", "2")[0] == 0
    assert Records(layout).get("one").deployment.tag == "iris:2"
    status, _, err = cli("deployment", "rollback", "one", "--to", "9")
    assert status == 3
    assert "one has no revision 9\nhint: there are: 1, 2, 3, 4" in err
    assert "rollback to 2" in cli("deployment", "history", "one")[1]


def test_a_rollback_can_be_vetoed_and_looked_at(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("one")
    deploy("one", DeployBento("iris", "2", ""))
    assert json.loads(cli("--json", "deployment", "rollback", "one", "--dry-run")[1])["tag"] == "iris:1"
    found = json.loads(cli("--json", "deployment", "rollback", "one", "--diff")[1])
    assert found["resources"][0]["changes"] == [{"path": "bento", "now": "iris:2", "then": "iris:1"}]
    assert [each.number for each in Records(layout).get("one").revisions] == [2, 1]


def test_differences(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    deploy("one", LEVEL="info")
    assert cli("deployment", "diff", "one", "--exit-code") == (0, "one runs as it would be deployed\n", "")
    path = tmp_path / "attic.json"
    path.write_text(path.read_text().replace("info", "debug").replace('"floor": 1', '"floor": 2'))
    status, out, _ = cli("deployment", "diff", "one", "--exit-code")
    assert status == 1
    assert out.splitlines() == [
        "~ box one in place of old-one", "    floor: 2 -> 1", '    env[]: - -> "LEVEL=info"',
        '    env[]: "LEVEL=debug" -> -',
    ]  # fmt: skip
    document = json.loads(cli("--json", "deployment", "diff", "one")[1])
    assert (document["changed"], document["resources"][0]["changes"][0]) == (
        True, {"path": "floor", "now": 2, "then": 1},
    )  # fmt: skip
    path.unlink()
    assert cli("deployment", "diff", "one")[1] == "+ box one\n"
    monkeypatch.setenv("ATTIC_LOCKED", "1")
    status, out, err = cli("deployment", "diff", "one")
    assert (status, out) == (5, "")
    assert "the attic is dark\nhint: --dry-run shows" in err


def test_prune(deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]]) -> None:
    for number in range(4):
        deploy("one", DeployBento("iris", str(number), ""))
    deploy("two", DeployBento("iris", "0", ""))
    assert json.loads(cli("--json", "deployment", "prune", "one")[1])["removed"] == []  # two needs it
    found = json.loads(cli("--json", "deployment", "prune", "one", "--keep", "1", "--dry-run")[1])
    assert found == {"removed": ["would remove straw of iris:1", "would remove straw of iris:2"], "dry_run": True}
    assert cli("deployment", "prune", "--keep", "2")[1] == "straw of iris:1\n"
    assert cli("deployment", "prune", "none")[0] == 3
    assert cli("deployment", "prune", "--keep", "0")[0] == 2


def test_what_attempts_left_goes_though_they_failed(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("one", DeployBento("iris", "0", ""), STRAW="1")
    for number in (1, 2, 2):
        with pytest.raises(RemoteError, match="stairs"):
            deploy("one", DeployBento("iris", str(number), ""), STRAW="1", FAIL="1")
    with pytest.raises(RemoteError, match="stairs"):
        deploy("never", DeployBento("iris", "3", ""), STRAW="1", FAIL="1")
    notes = layout.root / "deployments" / ".made"
    assert len(list(notes.iterdir())) == 4
    (notes / "one.0.json").write_text("{")
    (notes / "one.1.json").write_text(json.dumps({"format": 1, "deployment": {"name": "two"}}))
    assert [each["name"] for each in json.loads(cli("--json", "deployment", "list")[1])] == ["one"]
    dry = json.loads(cli("--json", "deployment", "prune", "--dry-run")[1])["removed"]
    assert dry == [f"would remove straw of iris:{number}" for number in (1, 2, 3)]
    assert cli("deployment", "prune", "one")[1] == "straw of iris:1\nstraw of iris:2\n"
    deploy("one", DeployBento("iris", "4", ""))
    assert len(list(notes.iterdir())) == 6  # what is of the last hour may be another's that is about to use it
    removed = json.loads(cli("--json", "deployment", "delete", "never")[1])["removed"]
    assert removed == ["box never", "straw of iris:3"]
    assert cli("deployment", "delete", "never")[0] == 3
    assert len(Leftovers(layout).known("attic", "one")) == 3
    assert Leftovers(layout).known("attic", older_s=60.0) == []
    assert cli("deployment", "delete", "one")[0] == 0
    assert list(notes.iterdir()) == []


def test_a_record_is_forgotten_where_its_target_is_no_more(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    deploy("one")
    assert cli("deployment", "delete", "one", "--forget", "--target", "attic")[0] == 2
    status, out, _ = cli("--json", "deployment", "delete", "one", "--forget")
    assert (status, json.loads(out)["status"]) == (0, "forgotten")
    assert "one" in json.loads((tmp_path / "attic.json").read_text())
    assert cli("deployment", "show", "one")[0] == 3


def test_what_runs_is_not_what_was_recorded(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("one")
    found = Deployment("one", "attic", "ready", "", "iris:0", "sha256:" + "2" * 64)
    Records(layout).keep(found, {}, {})  # as if another process had been killed before it noted iris:1 down
    detail = json.loads(cli("--json", "deployment", "show", "one")[1])["detail"]
    assert detail == "iris:1 runs, and iris:0 is what was deployed from here"


def test_a_target_that_cannot_be_asked(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy("one")
    monkeypatch.setenv("ATTIC_LOCKED", "1")
    status, out, _ = cli("--json", "deployment", "list")
    assert status == 0
    assert [(each["status"], each["detail"]) for each in json.loads(out)] == [("unknown", "the attic is locked")]


def test_what_is_not_recorded_is_found_by_its_target(
    deploy: Callable[..., Any], cli: Callable[..., tuple[int, str, str]], layout: Layout
) -> None:
    deploy("one")
    Records(layout).forget("one")
    assert json.loads(cli("--json", "deployment", "list")[1]) == []
    assert [each["name"] for each in json.loads(cli("--json", "deployment", "list", "--target", "attic")[1])] == ["one"]
    status, _, err = cli("deployment", "show", "one")
    assert (status, "--target TARGET asks that" in err) == (3, True)
    shown = json.loads(cli("--json", "deployment", "show", "one", "--target", "attic")[1])
    assert (shown["status"], shown["tag"], shown["history"]) == ("ready", "iris:1", [])
    assert "not from this store" in cli("deployment", "show", "one", "--target", "attic")[1]
    assert cli("deployment", "delete", "one", "--target", "attic")[0] == 0
    assert cli("deployment", "delete", "one", "--target", "attic")[0] == 3


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("attik", "."), 3, "no plugin here deploys to 'attik'\nhint: did you mean attic?"),
        (("attic", ".", "--set", "flor=1"), 2, "target attic has no option 'flor'\nhint: did you mean floor?"),
        (("attic", ".", "--set", "floor"), 2, "--set 'floor' is not of the form NAME=VALUE"),
        (("attic", ".", "--floor", "x"), 2, "floor 'x' is not a whole number"),
        (("attic", ".", "--floor", "-1"), 2, "floor '-1' is not at least 0"),
        (("attic", ".", "--floor", "1", "--set", "floor=2"), 2, "floor is given twice"),
        (("attic", ".", "--env", "A"), 2, "--env 'A' is not of the form NAME=VALUE"),
        (("attic", ".", "--env", "A=1", "--env", "A=2"), 2, "--env A is given twice"),
        (("attic", ".", "--name", "No_Name"), 2, "'No_Name' is no name for a deployment"),
        (("attic", "nothing"), 3, "nothing"),
        (("attic", "./nothing"), 3, "no folder ./nothing"),
    ],
)
def test_what_deploy_refuses(
    cli: Callable[..., tuple[int, str, str]], words: tuple[str, ...], status: int, said: str
) -> None:
    code, out, err = cli("deploy", *words)
    assert (code, out) == (status, "")
    assert said in err
    assert "Traceback" not in err


def test_the_help_of_a_target_has_its_options(cli: Callable[..., tuple[int, str, str]]) -> None:
    out = " ".join(cli("deploy", "attic", "--help")[1].split())
    assert "--floor INTEGER Which floor. [default: 1]" in out
    assert "--lit / --no-lit" in out
    assert "--ladder TEXT Which ladder." in out
    cellar = " ".join(cli("deploy", "--dry-run", "cellar", "--name", "attic", "--help")[1].split())
    assert "--floor LEVEL How deep. [default: -1]" in cellar
    assert "Which floor" not in cellar
    assert "--lit" not in cellar
    assert "--env NAME=VALUE" in cellar


def test_the_help_of_all_has_what_they_have_in_common(cli: Callable[..., tuple[int, str, str]]) -> None:
    for words in (("deploy", "--help"), ("deploy", "attik", "--help")):
        out = " ".join(cli(*words)[1].split())
        assert "attic The attic" in out
        assert "deploy TARGET --help has the options of one" in out
        assert "--env NAME=VALUE" in out
        assert "--floor" not in out


def test_zero_and_no_are_shown_as_options(cli: Callable[..., tuple[int, str, str]], layout: Layout) -> None:
    values = {"floor": 0, "lit": False, "ladder": None, "box": ()}
    Records(layout).keep(Deployment("one", "attic", "ready", "", "iris:1", BENTO.digest), values, {})
    shown = cli("deployment", "show", "one")[1]
    assert "  option floor=0\n  option lit=false\n" in shown
    assert "ladder" not in shown


@pytest.mark.parametrize(
    ("text", "form", "folder"),
    [("list:out", "list", "out"), ("out", "list", "out"), ("C:\\out", "list", "C:\\out"), ("C:out", "list", "C:out"),
     ("./a:b", "list", "./a:b"), ("more/a:b", "list", "more/a:b"), ("labels:a:b", "labels", "a:b")],
)  # fmt: skip
def test_the_form_and_the_folder_of_an_output(plugins: Plugins, text: str, form: str, folder: str) -> None:
    assert check_output(plugins, "cellar", text) == (form, Path(folder))


@pytest.mark.parametrize(
    ("text", "hint"),
    [("labls:out", "did you mean labels:out? a folder of that name is ./labls:out"),
     ("zip:out", "it writes list, labels; a folder of that name is ./zip:out"), (":out", "it writes list, labels;"),
     ("list:", "--output list:DIR")],
)  # fmt: skip
def test_a_form_that_the_target_does_not_write(plugins: Plugins, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_output(plugins, "cellar", text)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_values_of_options() -> None:
    decl = TargetDecl(
        "t", "a:b", "T",
        options=(OptionSpec("lit", "flag", "L"), OptionSpec("box", "text", "B", repeated=True),
                 OptionSpec("at-once", "integer", "N", default=3)),
    )  # fmt: skip
    assert option_values(decl, []) == {"lit": None, "box": (), "at-once": 3}
    given = ["lit", "box=a", "box=b=c", "at_once=4"]
    assert option_values(decl, given) == {"lit": True, "box": ("a", "b=c"), "at-once": 4}
    assert option_values(decl, ["lit=no"])["lit"] is False


def test_a_password_before_a_registry_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_REGISTRY", "me:s3cret@ghcr.io/flowers")
    for values in ({"registry": "me:s3cret@ghcr.io/flowers"}, {}, {"image": "me:s3cret@ghcr.io/flowers"}):
        for step in (planned_image, published_image):
            with pytest.raises(UsageError, match=r"'\*\*\*@ghcr.io/flowers' is no") as caught:
                step(BENTO, values)
            assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


def test_names() -> None:
    assert usual_name("Iris_Service.v2") == "iris-service-v2"
    assert usual_name("2-fast") == "b-2-fast"
    assert len(usual_name("x" * 63)) == 50
    for wrong in ("", "-a", "a-", "A", "a_b", "1a", "a" * 51, "../a", "a\n"):
        with pytest.raises(UsageError):
            check_deployment_name(wrong)


def test_variables() -> None:
    assert environment(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for wrong in ("A B=1", "1A=2", "=x", "A=\0"):
        with pytest.raises(UsageError):
            environment([wrong])
