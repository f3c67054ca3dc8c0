"""A policy at each place where a Bento is used: pulled, served, put into an image, deployed; signed or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.cli.main import main
from bentotool.deploy.api import apply_plan, make_plan
from bentotool.deploy.written import write_plan
from bentotool.errors import ConfigError, VerificationError
from bentotool.oci.descriptor import MANIFEST, Descriptor
from bentotool.oci.layout import Layout
from bentotool.plugin_scan import scan
from bentotool.plugins import Plugins
from bentotool.serving import plan_launch
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool.transfer.places import KnownPlaces
from bentotool.trust.enforcing import check_stored_model, images_pass

pytestmark = pytest.mark.timeout(180)
Cli = Callable[..., Any]
SHED = """
import os, pathlib
from bentotool.hookspecs import hookimpl
from bentotool.targetspec import *

@hookimpl
def bentotool_targets():
    return [TargetDecl("shed", __name__ + ":Shed", "The shed")]

class Shed:
    def plan(self, bento, options):
        return Plan("shed", bento, options, (PlannedResource("box", options.name, "create"),))
    def forms(self): return {"plain": "Plain"}
    def write(self, plan, form, publish): return {"box.txt": form}
    def apply(self, plan, wait):
        pathlib.Path(os.environ["SHED"]).write_text(plan.bento.tag)
        return Deployment(plan.name, "shed", "ready", "", plan.bento.tag, plan.bento.digest)
    def status(self, deployment): return deployment
    def logs(self, deployment, follow, tail): return iter(())
    def delete(self, deployment): return []
    def list(self): return []
"""


class Policies:
    """Writes policies, and puts them in force."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        for name in ("release", "other"):
            assert main(["key", "new", str(folder / f"{name}.key"), "--no-password", "--quiet"]) == 0

    def write(self, *, enforce: bool = True, name: str = "policy.yaml", **rule: Any) -> Path:
        rules = [{"name": "ours", "repositories": ["**"], "signers": [{"key": "release.pub"}], **rule}]
        path = self.folder / name
        path.write_text(json.dumps({"enforce": enforce, "rules": rules}))  # which is YAML too
        return path

    def force(self, **rule: Any) -> Path:
        path = self.write(**rule)
        self._monkeypatch.setenv("BENTOTOOL_POLICY", str(path))
        return path

    def off(self) -> None:
        self._monkeypatch.delenv("BENTOTOOL_POLICY", raising=False)


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Policies:
    folder = tmp_path / "policies"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    made = Policies(folder, monkeypatch)
    capsys.readouterr()
    return made


def sign(policies: Policies, reference: str, *, by: str = "release") -> None:
    assert main(["sign", "--key", str(policies.folder / f"{by}.key"), reference, "--quiet"]) == 0


STATES = {"unsigned": "is not signed", "wrongly signed": "no signature that verifies", "signed": ""}


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest, policies: Policies, bento: StoredBento, capsys: Any) -> SimpleNamespace:
    """A Bento in one of three states, and what a refusal of it says; empty where there is none."""
    if request.param != "unsigned":
        sign(policies, bento.tag, by="release" if request.param == "signed" else "other")
    capsys.readouterr()
    return SimpleNamespace(bento=bento, reason=STATES[request.param])


def judged(state: SimpleNamespace, action: Callable[[], Any]) -> Any:
    """What an action gives; where the Bento is not signed as it should be, None after it was refused."""
    if not state.reason:
        return action()
    with pytest.raises(VerificationError) as caught:
        action()
    assert caught.value.exit_status == 4
    assert state.reason in caught.value.message
    assert "policy.yaml refuses" in caught.value.message
    assert "\n" not in caught.value.message
    assert "release.pub" in str(caught.value.hint)
    return None


def test_serve(state: SimpleNamespace, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentotool.serving.missing_packages", lambda lock: [])
    policies.force()
    launch = judged(state, lambda: plan_launch(state.bento.tag, layout, verify=True))
    views = list((layout.root / "views" / "bentos").glob("*"))
    assert (launch is None) == (views == []), "nothing is unpacked of what is refused"


def test_containerize(
    state: SimpleNamespace, layout: Layout, policies: Policies, cli: Cli, base: str, wheels: Path
) -> None:
    policies.force()
    before = {path.name for path in (layout.root / "blobs" / "sha256").iterdir()}
    options = ("--base", base, "--offline", "--find-links", str(wheels))
    if state.reason:
        error = cli("containerize", state.bento.tag, *options, status=4)
        assert state.reason in error["message"]
        assert {path.name for path in (layout.root / "blobs" / "sha256").iterdir()} == before
        cli("containerize", state.bento.tag, *options, "--context", "context", status=4)
        assert not Path("context").exists()
    else:
        assert cli("containerize", state.bento.tag, *options)["images"]


@pytest.fixture
def shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    """The plugins, with one for the target ``shed`` among them."""
    site = tmp_path / "site"
    info = site / "shed-1.dist-info"
    info.mkdir(parents=True)
    (site / "shed_plugin.py").write_text(SHED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bentotool]\nshed = shed_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("SHED", str(tmp_path / "shed.txt"))
    yield Plugins(scan([str(site)]))
    sys.modules.pop("shed_plugin", None)


def test_deploy(state: SimpleNamespace, layout: Layout, policies: Policies, tmp_path: Path, shed: Plugins) -> None:
    plugins, bento = shed, state.bento
    policies.force()

    def deploy(digest: str = bento.digest, **values: Any) -> Any:
        wanted = DeployBento(bento.name, bento.version, digest)
        plan = make_plan(layout, plugins, "shed", wanted, DeployOptions("box", values))
        return apply_plan(layout, plugins, plan, wait=True)

    judged(state, deploy)
    assert (tmp_path / "shed.txt").exists() == (not state.reason), "nothing is applied of what is refused"
    for other in ({"digest": "sha256:" + "0" * 64}, {"image": "evil.example/x:1"}):
        with pytest.raises(VerificationError):
            deploy(**other)


@pytest.mark.parametrize("option", ["--dry-run", "--diff"])
def test_a_deployment_that_is_only_planned(
    option: str, state: SimpleNamespace, policies: Policies, cli: Cli, shed: Plugins
) -> None:
    policies.force()
    if state.reason:
        assert state.reason in cli("deploy", "shed", state.bento.tag, option, status=4)["message"]
        policies.force(enforce=False)
    assert cli("deploy", "shed", state.bento.tag, option)


def test_files_of_a_deployment_that_are_only_written(
    bento: StoredBento, layout: Layout, policies: Policies, shed: Plugins, tmp_path: Path
) -> None:
    policies.force()
    wanted = DeployBento(bento.name, bento.version, bento.digest)
    folder, told = tmp_path / "files", list[str]()
    plan = make_plan(layout, shed, "shed", wanted, DeployOptions("box", {}, note=told.append))
    with pytest.raises(VerificationError, match="is not signed"):
        write_plan(layout, shed, plan, "plain", folder, publish=False)
    assert not folder.exists()
    planned = replace(plan, bento=DeployBento(bento.name, bento.version, "sha256:" + "0" * 64))
    with pytest.raises(VerificationError, match="not in this store"):
        write_plan(layout, shed, planned, "plain", folder, publish=False)
    write_plan(layout, shed, planned, "plain", folder, publish=False, unbuilt=True)
    assert (folder / "box.txt").read_text() == "plain"
    assert "once it is built and signed" in told[0]


@pytest.mark.parametrize("kind", ["bento", "model"])
def test_pull(
    kind: str, state: SimpleNamespace, layout: Layout, policies: Policies, cli: Cli, real_registry: Any, tmp_path: Path
) -> None:
    reference, words = (state.bento.tag, ("pull",)) if kind == "bento" else ("iris:1", ("model", "pull"))
    name = f"{'signed' if not state.reason else state.reason.replace(' ', '-')}-{kind}"
    remote = f"{real_registry.host}/enforced/{name}:{state.bento.version if kind == 'bento' else 1}"
    cli(*(("push",) if kind == "bento" else ("model", "push")), reference, remote)
    policies.force()
    other = tmp_path / "other"
    if state.reason:
        error = cli(*words, remote, "--store", str(other), status=4)
        assert state.reason in error["message"]
        assert not list(other.glob("blobs/*/*"))
        assert not list(other.glob("refs/**/*"))
        assert cli("policy", "check", remote, status=4)["code"] == "verification_failed"
        policies.force(enforce=False)
    else:
        assert cli("policy", "check", remote)["verified"] is True
        assert cli("verify", remote, "--policy", str(policies.write()))["verified"] is True
    done = cli(*words, remote, "--store", str(other))
    assert done["digest"] == (
        state.bento.digest if kind == "bento" else BentoStore(layout).get("double").models[0].digest
    )


def test_images_need_a_signature_too(
    bento: StoredBento, layout: Layout, policies: Policies, cli: Cli, base: str, wheels: Path, real_registry: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    key = str(policies.folder / "release.key")
    cli("sign", "--key", key, bento.tag)
    remote = f"{real_registry.host}/enforced/imaged:{bento.version}"
    options = ("--base", base, "--offline", "--find-links", str(wheels))
    cli("containerize", bento.tag, *options, "-t", remote, "--push")
    policies.force()
    image = Descriptor(MANIFEST, cli("show", remote)["manifests"][0]["digest"], 1)
    assert not images_pass(layout, bento, [image], None)
    other = str(tmp_path / "other")
    error = cli("pull", remote, "--store", other, status=4)
    assert "image linux/amd64 is not signed" in error["message"]
    assert cli("pull", remote, "--store", other, "--platform", "none")["digest"] == bento.digest
    assert cli("sign", "--key", key, remote)
    third = str(tmp_path / "third")
    assert cli("pull", remote, "--store", third)["images"] == ["linux/amd64"]
    pulled = Layout(Path(third))
    assert images_pass(pulled, BentoStore(pulled).get("double"), [image], None)
    plain = cli("verify", remote, "--policy", str(policies.write()))
    assert {rule for each in plain["policies"] for rule in each["signers"]} == {"ours"}


def test_what_a_project_asks_for_holds_beside_it(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentotool.serving.missing_packages", lambda lock: [])
    policies.force()
    loose = policies.folder / "loose.yaml"
    loose.write_text("unmatched: allow\n")
    Path("bentofile.yaml").write_text(f"policy: {loose}\n")
    with pytest.raises(VerificationError, match="is not signed"):
        plan_launch(bento.tag, layout)
    sign(policies, bento.tag)
    plan_launch(bento.tag, layout)
    policies.write(name="strict.yaml", signers=[{"key": "other.pub"}])
    Path("bentofile.yaml").write_text(f"policy: {policies.folder / 'strict.yaml'}\n")
    with pytest.raises(VerificationError, match="strict.yaml refuses"):
        plan_launch(bento.tag, layout)
    policies.off()
    with pytest.raises(VerificationError, match="strict.yaml refuses"):
        plan_launch(bento.tag, layout)
    Path("bentofile.yaml").unlink()
    plan_launch(bento.tag, layout)


def test_without_enforce_there_is_a_hint(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentotool.serving.missing_packages", lambda lock: [])
    policies.force(enforce=False)
    told: list[str] = []
    plan_launch(bento.tag, layout, note=told.append)
    assert len(told) == 1
    assert "would refuse double:" in told[0]
    assert "it does with enforce: true" in told[0]


def test_where_it_came_from_decides_which_rules_hold(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentotool.serving.missing_packages", lambda lock: [])
    policies.force(repositories=["ghcr.io/acme/*"])
    with pytest.raises(VerificationError, match="no rule is about double"):
        plan_launch(bento.tag, layout)
    KnownPlaces(layout).remember("ghcr.io", "acme/double", bento.digest)
    with pytest.raises(VerificationError, match="is not signed"):
        plan_launch(bento.tag, layout)
    sign(policies, bento.tag)
    plan_launch(bento.tag, layout)
    KnownPlaces(layout).remember("evil.example", "double", bento.digest)
    with pytest.raises(VerificationError, match="no rule is about evil.example/double"):
        plan_launch(bento.tag, layout)


def test_a_folder_has_no_signature(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(BentoStore(layout).materialise(bento))
    policies.force()
    with pytest.raises(VerificationError, match="an unpacked Bento has no signature"):
        plan_launch(folder, layout)
    told: list[str] = []
    policies.force(enforce=False)
    plan_launch(folder, layout, note=told.append)
    assert "would refuse" in told[0]


def test_a_folder_with_the_name_of_a_bento(
    bento: StoredBento, layout: Layout, policies: Policies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    (tmp_path / "project").rename(bento.name)
    plan_launch(bento.name, layout, note=told.append)
    assert told == [f"this serves the folder {bento.name}, not the Bento of that name: that is {bento.name}:latest"]
    policies.force()
    plan_launch(bento.name, layout, note=told.append)
    assert told[1].startswith(f"warning: {told[0]}")
    assert "no policy judges a project folder" in told[1]
    plan_launch(f"./{bento.name}", layout, note=told.append)
    Path(bento.name).rename("x_")
    plan_launch("x_", layout, note=told.append)
    assert len(told) == 2


@pytest.mark.parametrize("what", ["project", "project/service:Double", "double"])
def test_a_policy_that_is_not_there(
    what: str, bento: StoredBento, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOTOOL_POLICY", str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError, match=r"missing\.yaml does not exist"):
        plan_launch(what, layout)


def test_models_alone(bento: StoredBento, layout: Layout, policies: Policies) -> None:
    from bentotool.models.store import ModelStore

    model = ModelStore(layout).get("iris:1")
    policies.force(safety=["data"])
    with pytest.raises(VerificationError, match=r"model iris:1 is not signed"):
        check_stored_model(layout, model)
    sign(policies, bento.tag)
    assert check_stored_model(layout, model).signed
    policies.force(safety=["program"])
    with pytest.raises(VerificationError, match="model iris:1 is of class 'data'"):
        check_stored_model(layout, model)


def test_identities_need_a_plugin_that_knows_certificates(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies.force(signers=[{"identity": "ada@example.com", "issuer": "https://issuer.example"}])
    monkeypatch.setattr("bentotool.plugins.load_plugins", lambda: Plugins([]))
    with pytest.raises(VerificationError, match="names identities, and they cannot be checked") as caught:
        plan_launch(bento.tag, layout)
    assert "bentotool-sigstore" in str(caught.value.hint)


def test_a_changed_byte_stops_serve(
    bento: StoredBento, layout: Layout, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentotool.serving.missing_packages", lambda lock: [])
    policies.force()
    sign(policies, bento.tag)
    told: list[str] = []
    launch = plan_launch(bento.tag, layout, verify=True, note=told.append)
    assert bento.digest in told[-1]
    service = launch.folder / "service.py"
    (launch.folder / "__pycache__").mkdir()
    (launch.folder / "__pycache__" / "service.pyc").write_bytes(b"planted")
    plan_launch(bento.tag, layout, verify=True)
    assert not (launch.folder / "__pycache__").exists()
    content = service.read_bytes()
    service.chmod(0o644)
    service.write_bytes(content + b"#")
    with pytest.raises(VerificationError, match="differs from what was signed"):
        plan_launch(bento.tag, layout, verify=True)
    plan_launch(bento.tag, layout)
    service.write_bytes(content)
    plan_launch(bento.tag, layout, verify=True)
    (weights,) = (layout.root / "views").glob("bentos/*/models/iris/w.bin")
    weights.chmod(0o644)
    weights.write_bytes(b"weightz")
    with pytest.raises(VerificationError, match=r"models/iris/w.bin differs"):
        plan_launch(bento.tag, layout, verify=True)


def test_commands_that_look(policies: Policies, bento: StoredBento, cli: Cli) -> None:
    assert cli("policy", "show") == []
    assert "no policy is in force" in cli("policy", "check", bento.tag, status=2)["message"]
    path = policies.force()
    (shown,) = cli("policy", "show")
    assert (shown["path"], shown["origin"], shown["enforce"]) == (str(path), "environment", True)
    found = cli("policy", "check", bento.tag, status=4)
    assert found["policies"][0]["problems"][0]["rule"] == "ours"
    cli("sign", "--key", str(policies.folder / "release.key"), bento.tag)
    assert cli("policy", "check", bento.tag)["policies"][0]["signers"]["ours"]
    assert cli("verify", bento.tag, "--policy", str(path))["verified"] is True
    loose = policies.write(enforce=False, name="loose.yaml", minimum_version="1")
    assert cli("policy", "check", bento.tag, "--policy", str(loose))["verified"] is False
    assert cli("verify", bento.tag, "--policy", str(loose), status=4)["verified"] is False
    assert (
        "leave the other options out"
        in cli("verify", bento.tag, "--policy", str(loose), "--key", "x", status=2)["hint"]
    )
