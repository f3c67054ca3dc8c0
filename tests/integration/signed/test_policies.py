"""A policy on what was signed, with a key and with an identity, in a registry and in a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.oci.refs import RefStore


def signer_of(options: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``verify`` is given, as a policy says it: the signer, and what stands at the top."""
    said = dict(zip(options[::2], options[1::2], strict=False))
    if "--key" in said:
        return {"key": said["--key"]}, {}
    return {"identity": said["--identity"], "issuer": said["--issuer"]}, {"trust_config": said["--trust-config"]}


@pytest.fixture
def policy(tmp_path: Path, who: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``policy(minimum_version="8")`` puts a policy in force that asks for who signed, and for that."""
    monkeypatch.chdir(tmp_path)

    def write(options: tuple[str, ...] = who.counts, **rule: Any) -> str:
        signer, top = signer_of(options)
        rules = [{"repositories": ["**"], "signers": [signer], **rule}]
        path = tmp_path / "policy.yaml"
        path.write_text(json.dumps({"enforce": True, "rules": rules, **top}))
        monkeypatch.setenv("BENTOTOOL_POLICY", str(path))
        return str(path)

    return write


def test_who_signed(scene: Any, who: Any, policy: Callable[..., str], tmp_path: Path) -> None:
    path = policy()
    assert scene.done("policy", "check", scene.where)["verified"] is True
    assert scene.done("verify", scene.where, "--policy", path, "--offline")["verified"] is True
    for other in who.others.values():
        policy(other)
        assert "svc:7" in scene.refused("policy", "check", scene.where)
        if scene.registry is not None:
            scene.refused("pull", scene.where)
    policy()
    if scene.registry is not None:
        other_store = str(tmp_path / "user")
        assert scene.done("pull", scene.where, "--store", other_store)["version"] == "7"
        assert scene.done("policy", "check", "svc", "--store", other_store)["verified"] is True


def test_who_signed_each_object(scene: Any, who: Any, policy: Callable[..., str]) -> None:
    path = policy()
    asked = ("verify", scene.where, "--policy", path, "--offline")
    objects = {each["kind"]: each for each in scene.done(*asked)["objects"]}
    assert {kind: each["digest"] for kind, each in objects.items()} == {k: o.digest for k, o in scene.objects.items()}
    assert all(each["signed"] and each["covered"] and each["evidence"][0]["signer"] for each in objects.values())
    scene.strip("model")
    objects = {each["kind"]: each for each in scene.done(*asked)["objects"]}
    assert (objects["model"]["signed"], objects["model"]["covered"]) == (False, True)
    scene.capsys.readouterr()
    assert main([*asked, "--store", str(scene.layout.root)]) == 0
    text = scene.capsys.readouterr().out
    assert "ok, by the signature of what holds it" in text
    assert "  signature by " in text
    assert ("were not read" in text) == (scene.registry is not None)


def test_an_identity_as_an_expression(scene: Any, who: Any, policy: Callable[..., str]) -> None:
    if "--key" in who.counts:
        policy(minimum=1, exclude=["elsewhere/*"])
        scene.done("policy", "check", scene.where)
        return
    issuer = dict(zip(who.counts[::2], who.counts[1::2], strict=False))["--issuer"]
    for pattern, good in ((".*@example[.]com", True), ("@example[.]com", False), ("dev", False)):
        policy(signers=[{"identity_regex": pattern, "issuer": issuer}])
        if good:
            scene.done("policy", "check", scene.where)
        else:
            scene.refused("policy", "check", scene.where)
    policy(signers=[{"identity_regex": ".*", "issuer": issuer, "claims": {"sourceRepositoryURI": "https://x"}}])
    scene.refused("policy", "check", scene.where)


def test_when_it_was_signed(scene: Any, who: Any, policy: Callable[..., str]) -> None:
    policy(signed_after="2020-01-01")
    if "--key" in who.counts:
        assert "without a trusted time" in scene.refused("policy", "check", scene.where)
    else:
        scene.done("policy", "check", scene.where)
        policy(signed_after="2999-01-01")
        assert "before 2999-01-01" in scene.refused("policy", "check", scene.where)


def test_an_older_version_and_one_that_was_revoked(scene: Any, policy: Callable[..., str], tmp_path: Path) -> None:
    policy(minimum_version="7")
    scene.done("policy", "check", scene.where)
    policy(minimum_version="7.1")
    assert "7.1 is the least" in scene.refused("policy", "check", scene.where)
    document = json.loads(Path(policy()).read_text())
    for kind in ("bento", "model"):
        revoked = {**document, "revoked": [scene.objects[kind].digest]}
        (tmp_path / "policy.yaml").write_text(json.dumps(revoked))
        assert "is revoked" in scene.refused("policy", "check", scene.where)


def test_no_signature_any_more(scene: Any, policy: Callable[..., str]) -> None:
    policy()
    scene.strip()
    assert "bento svc:7 is not signed" in scene.refused("policy", "check", scene.where)
    if scene.registry is not None:
        assert "is not signed" in scene.refused("pull", scene.where)


def test_a_tag_that_leads_to_another_version(scene: Any, policy: Callable[..., str], tmp_path: Path) -> None:
    path, offline = policy(), "--offline"
    if scene.registry is None:
        ref = scene.bento
        RefStore(scene.layout).set("bentos", "svc", "8", ref.descriptor, size=ref.size)
        assert "svc:8 is signed as svc:7" in scene.refused("verify", "svc:8", "--policy", path, offline)
        assert scene.done("verify", "svc:8", "--policy", path, offline, "--alias")["verified"] is True
        return
    base = scene.remote.rpartition(":")[0]
    for tag in ("8", "stable", "latest"):
        scene.publish(f"{base}:{tag}")
    user = str(tmp_path / "user")
    for tag in ("8", "stable"):
        moved = f"{base}:{tag}"
        for command in (
            ("verify", moved, "--policy", path, offline),
            ("policy", "check", moved),
            ("pull", moved, "--store", user),
        ):
            assert f"tag {tag} leads to what is signed as svc:7" in scene.refused(*command)
        assert scene.done("verify", moved, "--policy", path, offline, "--alias")["verified"] is True
    assert not list(Path(user).glob("blobs/*/*"))
    scene.done("policy", "check", f"{base}:latest")
    scene.done("policy", "check", base)
    scene.done("policy", "check", f"{base}:8@{scene.objects['index'].digest}")
    policy(aliases=["st*"])
    assert scene.done("pull", f"{base}:stable", "--store", user)["version"] == "7"
    for tag in ("8", "latest"):
        assert f"tag {tag} leads to" in scene.refused("policy", "check", f"{base}:{tag}")
