"""Which cluster, context and namespace a deployment is looked for in, and what is said where that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(600)
IMAGE = "reg.example/iris:good"
SERVICE = """
import bentotool

@bentotool.service
class Iris:
    @bentotool.api
    def hello(self, name: str) -> str:
        return name
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one Bento, ``iris``."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "service.py").write_text(SERVICE)
    made = tmp_path_factory.mktemp("store")
    done = subprocess.run(
        [sys.executable, "-m", "bentotool", "build", str(folder)], env={**os.environ, "BENTOTOOL_STORE": str(made)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def cli(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """``bentotool``; no record is left of it."""
    from bentotool.cli.main import main

    monkeypatch.setenv("BENTOTOOL_STORE", str(store))
    for path in (store / "deployments").rglob("*.json"):
        path.unlink()

    def run(*words: str, status: int = 0) -> SimpleNamespace:
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert code == status, said.err
        return SimpleNamespace(out=said.out, err=said.err)

    return run


@pytest.fixture
def elsewhere(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig for the cluster whose contexts have other names; ``KUBECONFIG`` names none."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    for context in document["contexts"]:
        context["name"] = f"my-{context['name']}"
    document["current-context"] = "my-one"
    file = cluster.kubeconfig.with_name("other")
    file.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return Path(file)


def test_what_another_machine_deployed_is_looked_after(
    cluster: Any, cli: Callable[..., SimpleNamespace], store: Path, elsewhere: Path
) -> None:
    there = ("--kubeconfig", str(elsewhere), "--context", "my-robot")
    cli("deploy", "k8s", "iris", "--image", IMAGE, *there)
    (store / "deployments" / "iris" / "1.json").unlink()
    for command in (("list",), ("show", "iris"), ("logs", "iris"), ("delete", "iris", "--yes")):
        said = cli("deployment", *command, "--target", "k8s", status=2)
        assert said.err.startswith("error: no cluster is known here"), command
    found = json.loads(cli("--json", "deployment", "list", "--target", "k8s", *there).out)
    assert [(each["name"], each["facts"]["namespace"]) for each in found] == [("iris", "ml")]
    cli("deployment", "list", "--target", "k8s", *there, "--namespace", "default")
    assert "/namespaces/default/" in cluster.seen[-1][1]
    shown = json.loads(cli("--json", "deployment", "show", "iris", "--target", "k8s", *there).out)
    assert (shown["status"], shown["facts"]["context"]) == ("ready", "my-robot")
    assert cli("deployment", "logs", "iris", "--target", "k8s", *there).out.splitlines() == cluster.log
    assert "Deployment iris" in cli("deployment", "delete", "iris", "--yes", "--target", "k8s", *there).err
    assert cluster.store.names("Deployment") == []


def test_what_is_recorded_is_reached_by_a_context_of_another_name(
    cluster: Any, cli: Callable[..., SimpleNamespace], elsewhere: Path
) -> None:
    there = ("--kubeconfig", str(elsewhere))
    cli("deploy", "k8s", "iris", "--image", IMAGE, *there)
    cli("deploy", "k8s", "iris", "--image", IMAGE, "--replicas", "2", *there)
    text = elsewhere.read_text()
    elsewhere.write_text(text.replace("my-one", "renamed"))
    shown = json.loads(cli("--json", "deployment", "show", "iris").out)
    assert shown["status"] == "unknown"
    assert "there is no context 'my-one' in" in shown["detail"]
    said = cli("deployment", "delete", "iris", "--yes", status=2)
    assert "there is no context 'my-one' in" in said.err
    assert "hint: --context NAME; there is: my-late, my-robot, renamed" in said.err
    shown = json.loads(cli("--json", "deployment", "show", "iris", "--context", "renamed").out)
    assert (shown["status"], shown["revision"]) == ("ready", 2)
    assert "runs as it" in cli("deployment", "diff", "iris", "--context", "renamed").out
    cli("deployment", "rollback", "iris", "--context", "renamed", "--no-wait")
    assert cluster.store.get("apps/v1", "Deployment", "iris")["spec"]["replicas"] == 1
    cli("deployment", "delete", "iris", "--yes")
    assert cluster.store.names("Deployment") == []


def test_what_is_the_same_place(cluster: Any) -> None:
    from bentotool_k8s.target import KubernetesTarget

    from bentotool.targetspec import Deployment

    facts = {"context": "one", "namespace": "ml", "server": cluster.server}
    here = Deployment("iris", "k8s", "ready", "", facts=facts)
    there = Deployment("iris", "k8s", "ready", "", facts={**facts, "server": "https://other"})
    target = KubernetesTarget()
    for place, same in (
        ({"namespace": "ml"}, (True, True)), ({"namespace": "default"}, (False, False)),
        ({"context": "robot"}, (True, False)), ({"context": "late", "namespace": "ml"}, (True, False)),
        (facts, (True, False)), ({**facts, "namespace": "default"}, (False, False)),
    ):  # fmt: skip
        assert (target.is_at(here, place), target.is_at(there, place)) == same, place


@pytest.mark.parametrize("words", [(), ("--diff",)])
def test_where_nothing_says_which_cluster_it_is_a_wrong_configuration(
    cluster: Any, cli: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    said = cli("deploy", "k8s", "iris", "--image", IMAGE, "--context", "two", *words, status=2)
    assert said.err.startswith("error: there is no context 'two' in ")
    said = cli("deploy", "k8s", "iris", "--image", IMAGE, "--context", "two", "--dry-run", status=2)
    assert said.err.count("\n") == 2
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = cli("deploy", "k8s", "iris", "--image", IMAGE, *words, status=2)
    assert said.err.startswith("error: no cluster is known here")
    (tmp_path / "none").write_text("{")
    said = cli("deploy", "k8s", "iris", "--image", IMAGE, *words, status=2)
    assert f"error: {tmp_path / 'none'} cannot be read: it is no kubeconfig" in said.err
    cli("deploy", "k8s", "iris", "--image", IMAGE, "--dry-run")
    assert cluster.seen == []


def test_a_cluster_that_does_not_answer_is_a_failure_of_its_own(
    cluster: Any, cli: Callable[..., SimpleNamespace]
) -> None:
    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.server, "https://127.0.0.1:1"))
    for words in ((), ("--diff",)):
        said = cli("deploy", "k8s", "iris", "--image", IMAGE, *words, status=5)
        assert "no cluster answers at https://127.0.0.1:1" in said.err


def test_what_is_checked_before_anything_is_built(cli: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("raise SystemExit('it was imported')")
    for words, said in (
        (("--namespace", "My_Space"), "namespace 'My_Space' is not a name of a namespace"),
        (("--scaler", "keda"), "--scaler has no effect without --max-replicas"),
        (("--env", "BENTOTOOL_GRACE=1"), "--env BENTOTOOL_GRACE is set by the target k8s itself\nhint: --grace says"),
        (("--env", "BENTOTOOL_DEPENDS=nowhere"), "'nowhere' is not NAME=http://HOST:PORT"),
    ):
        assert said in cli("deploy", "k8s", str(tmp_path), *words, status=2).err
