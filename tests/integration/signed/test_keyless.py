"""Signing without a key as a user does: by the commands, in both versions of the log, and under a policy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry

pytestmark = pytest.mark.timeout(180)

WORKFLOW = "https://github.com/acme/fraud/.github/workflows/release.yml@refs/heads/main"


@pytest.fixture
def built(
    host: str,
    tmp_path: Path,
    make_model: Callable[..., Any],
    make_bento: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    scenes: Any,
    request: pytest.FixtureRequest,
    require_package: Callable[[str], None],
) -> Iterator[Any]:
    """A Bento in its author's store."""
    require_package("bentotool_sigstore")
    layout = Layout(tmp_path / "author")
    make_bento(layout, [make_model(layout)])
    with contextlib.ExitStack() as opened:
        registry = opened.enter_context(Registry(host, push=True))
        yield scenes(layout, registry, f"{host}/k{abs(hash(request.node.nodeid)):x}/svc:7", capsys)


def workflow_token(instance: Any, ref: str = "refs/heads/main") -> str:
    where = f"acme/fraud/.github/workflows/release.yml@{ref}"
    claims = {"job_workflow_ref": where, "workflow_ref": where, "repository": "acme/fraud", "ref": ref}
    token: str = instance.token("repo:acme/fraud", **claims)
    return token


@pytest.mark.parametrize("version", ["", "_v2"], ids=["rekor1", "rekor2"])
def test_a_push_signs_and_a_pull_brings_it_along(
    built: Any, instance: Any, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified in the registry and in another store, which asks nobody."""
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", workflow_token(instance))
    trust = ("--trust-config", str(instance.file(f"trust_config{version}.json")))
    built.done("push", "svc", built.remote, "--sign", *trust)
    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    counts = ("--identity", WORKFLOW, "--issuer", instance.url, *trust, "--offline")
    seen = len(instance.seen)
    verified = built.done("verify", built.remote, *counts)
    assert {each["kind"] for each in verified["objects"]} == {"index", "bento", "model"}
    for each in verified["objects"]:
        signer = each["evidence"][0]["signer"]
        assert (signer["identity"], signer["issuer"]) == (WORKFLOW, instance.url)
        assert signer["extensions"]["sourceRepositoryURI"] == "https://github.com/acme/fraud"
        assert each["evidence"][0]["signed_at"]
    victim = ("--store", str(tmp_path / "victim"))
    built.done("pull", built.remote, *victim)
    assert built.done("verify", "svc:7", *counts, *victim)["verified"]
    assert len(instance.seen) == seen


def test_one_sign_in_signs_everything(built: Any, instance: Any) -> None:
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    before = len(instance.seen)
    built.done("sign", "svc", "--identity-token", instance.token(), *trust)
    asked = instance.seen[before:]
    assert asked.count("POST /api/v2/signingCert") == 1
    assert asked.count("POST /api/v1/log/entries") >= 3


def test_a_token_in_a_file(built: Any, instance: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(instance.token() + "\n")
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    assert built.done("sign", "svc", "--identity-token", str(tmp_path / "token"), *trust)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"seconds": -5}, 5, "has expired"),
        ({"aud": "another"}, 5, "is not for Sigstore"),
    ],
)
def test_a_token_that_cannot_be_used(
    built: Any, instance: Any, options: dict[str, Any], status: int, says: str
) -> None:
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    assert built.run("sign", "svc", "--identity-token", instance.token(**options), *trust) == status
    error = json.loads(built.capsys.readouterr().err.splitlines()[-1])["error"]
    assert says in error["message"]
    assert error["hint"]


def test_nobody_signs(built: Any, instance: Any) -> None:
    assert built.run("sign", "svc", "--trust-config", str(instance.file("trust_config.json"))) == 5
    error = json.loads(built.capsys.readouterr().err.splitlines()[-1])["error"]
    assert "no identity" in error["message"]


def test_a_silent_service_ends_the_command(built: Any, instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing was attached."""
    monkeypatch.setenv("BENTOTOOL_SIGSTORE_TIMEOUT", "3")
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    with instance.trouble("rekor", silent=True):
        assert built.run("sign", "svc", "--identity-token", instance.token(), *trust) == 5
    assert "did not answer" in built.capsys.readouterr().err
    assert built.done("show", "svc")["referrers"] == []


def test_a_policy_of_who_may_sign(built: Any, instance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enforced at a pull: this workflow, of this branch; before anything is stored."""
    repository, config = built.remote.removesuffix(":7"), instance.file("trust_config_v2.json")
    signer = {"identity": WORKFLOW, "issuer": instance.url, "claims": {"sourceRepositoryRef": "refs/heads/main"}}
    policy = {
        "version": 1,
        "enforce": True,
        "trust_config": str(config),
        "rules": [{"repositories": [repository], "signers": [signer]}],
    }
    file, victim = tmp_path / "policy.yaml", tmp_path / "victim"
    file.write_text(yaml.safe_dump(policy))
    monkeypatch.setenv("BENTOTOOL_POLICY", str(file))
    pull = ("pull", built.remote, "--store", str(victim))

    built.done("push", "svc", built.remote)
    built.refused(*pull)
    other = ("--identity-token", workflow_token(instance, "refs/heads/try"), "--trust-config", str(config))
    built.done("sign", built.remote, *other)
    built.refused(*pull)
    assert not list(victim.rglob("blobs/sha256/*"))
    built.done("sign", built.remote, "--identity-token", workflow_token(instance), "--trust-config", str(config))
    built.done(*pull)
    assert built.done("list", "--store", str(victim))
