"""Policy files: what is taken, what is refused and where it says so, and which files are in force."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bentotool.cli.main import main
from bentotool.errors import BentotoolError, ConfigError
from bentotool.trust.policyfile import load_policy, policies_in_force
from bentotool.trust.policyschema import policy_page, policy_schema, read_policy

PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsrhZ4LsUfG4P3A50yC6eoG4yioH3
93tF8OzPXlvGKU0SuGCdprUGZBHoXgUpGMAnizmcGTZPLj/Q/m+y7bcMVw==
-----END PUBLIC KEY-----
"""
ME = {"identity": "ada@example.com", "issuer": "https://issuer.example"}


def rule(**more: Any) -> dict[str, Any]:
    return {"rules": [{"repositories": ["ghcr.io/acme/**"], **more}]}


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"version": 1, "enforce": True, "unmatched": "allow", "runtime_check": True},
    {"revoked": ["sha256:" + "a" * 64]},
    rule(),
    rule(name="x", exclude=["ghcr.io/acme/try/*"], signers=[ME], minimum=1, signed_after="2026-01-01"),
    rule(signers=[{"identity_regex": ".*@example[.]com", "issuer": "https://issuer.example"}], minimum=2),
    rule(signers=[{**ME, "claims": {"source_repository_ref": "refs/heads/main"}}]),
    rule(signers=[{"key": "a.pub"}, {"key_pem": PEM}], signed_after="2026-01-01T10:00:00Z"),
    rule(signers=[ME], attestations=[{"type": "provenance", "fields": [{"path": "a.b", "equals": "c"}]}]),
    rule(
        attestations=[{"type": "https://example.com/x", "signers": [ME], "fields": [{"path": ["a.b"], "one_of": [1]}]}]
    ),
    rule(safety=["data", "program"], minimum_version="1.4"),
    rule(signers=[ME], aliases=["latest", "stable", "pr-*"]),
    rule(signers=[ME], aliases=[]),
]
REFUSED: list[tuple[Any, str, str]] = [
    ([], "expected a table", ""),
    ({"enforced": True}, "unknown key 'enforced'", "did you mean 'enforce'?"),
    ({"enforce": "yes"}, "enforce: expected true or false", ""),
    ({"version": 2}, "version: this is a policy of format 2", ""),
    ({"unmatched": "alow"}, "unmatched: unknown value 'alow'", "did you mean 'allow'?"),
    ({"revoked": ["sha256:x"]}, "revoked → 0: expected a digest", ""),
    ({"rules": [{}]}, "rules → 0: a rule needs repositories", "repositories"),
    ({"rules": [{"repositories": ["a b"]}]}, "repositories → 0", ""),
    (rule(signer=[ME]), "rules → 0: unknown key 'signer'", "did you mean 'signers'?"),
    (rule(signers=[{"identity": "a@b"}]), "signers → 0: an identity needs the issuer", "issuer"),
    (rule(signers=[{"issuer": "https://x"}]), "signers → 0: expected one of identity", ""),
    (rule(signers=[{"key": "a", **ME}]), "signers → 0: expected one of identity", ""),
    (rule(signers=[{"key": "a", "issuer": "https://x"}]), "signers → 0: a key has no issuer", ""),
    (rule(signers=[{"identity_regex": "(", "issuer": "https://x"}]), "identity_regex: '(' is no regular", ""),
    (rule(signers=[ME], minimum=2), "minimum: 2 signatures are asked for, and 1 signers", ""),
    (rule(signers=[ME], minimum=0), "minimum: expected a number from 1", ""),
    (rule(signers=[ME], minimum=True), "minimum: expected a number", ""),
    (rule(signed_after="2026-01-01"), "signed_after: there are no signers", ""),
    (rule(signers=[ME], signed_after="soon"), "signed_after: expected a date", ""),
    (rule(attestations=[{"type": "provenance"}]), "attestations → 0: nobody is named", "anybody"),
    (rule(signers=[ME], attestations=[{}]), "attestations → 0: an attestation needs a type", ""),
    (rule(signers=[ME], attestations=[{"type": "slsa"}]), "type: unknown type 'slsa'", "provenance"),
    (rule(signers=[ME], attestations=[{"type": "spdx", "fields": [{"path": "a"}]}]), "expected one of equals", ""),
    (rule(signers=[ME], attestations=[{"type": "spdx", "fields": [{"equals": "a"}]}]), "a field needs a path", ""),
    (
        rule(signers=[ME], attestations=[{"type": "spdx", "fields": [{"path": "a..b", "equals": 1}]}]),
        "expected names",
        "",
    ),
    (rule(safety=["date"]), "safety → 0: unknown value 'date'", "did you mean 'data'?"),
    (rule(minimum_version=1.4), "minimum_version: expected a version", ""),
    # nothing after the colon, or an empty list, is a slip that would ask for less than is meant
    ({"enforce": None}, "enforce: there is nothing here", ""),
    ({"enforced": None}, "unknown key 'enforced'", "did you mean 'enforce'?"),
    (rule(signer=None), "rules → 0: unknown key 'signer'", "did you mean 'signers'?"),
    (rule(signers=[{**ME, "claims": {"ref": None}}]), "claims → ref: there is nothing here", ""),
    (rule(aliases=["a b"]), "aliases → 0: expected a tag", ""),
    (rule(signers=None), "signers: there is nothing here", ""),
    (rule(signers=[]), "signers: there is nothing here", ""),
    (rule(safety=[]), "safety: there is nothing here", ""),
]


def write(folder: Path, document: object, name: str = "policy.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("document", ACCEPTED)
def test_what_is_taken(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_text(PEM)
    load_policy(write(tmp_path, document))


@pytest.mark.parametrize(("document", "message", "hint"), REFUSED)
def test_what_is_refused(document: Any, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, document))
    assert message in caught.value.message
    assert caught.value.message.startswith(str(tmp_path / "policy.yaml"))
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message


def test_the_schema_says_what_the_reader_does(require_package: Callable[[str], None]) -> None:
    require_package("jsonschema")
    import jsonschema

    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for document in ACCEPTED:
        assert check.is_valid(document), document
    beyond = ("( is", "2 signatures", "nobody is named", "no signers", "expected a date", "nothing here", "'(' is no")
    for refused, message, _ in REFUSED:
        if not any(each in message for each in beyond) and "expected names" not in message:
            assert not check.is_valid(refused), refused


def test_the_command_and_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "policy"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_schema()
    docs = Path(__file__).parents[3] / "docs" / "trust.md"
    written = docs.read_text(encoding="utf-8").partition("a test compares -->\n")[2].partition("<!-- end")[0]
    assert written == policy_page(), "write policy_page() into docs/trust.md"


def test_the_policies_of_the_page_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "trust.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in page.split("```yaml\n")[1:]]
    (tmp_path / "keys").mkdir()
    for name in ("research", "platform"):
        (tmp_path / "keys" / f"{name}.pub").write_text(PEM)
    (policy,) = (block for block in blocks if "rules" in block)
    assert len(load_policy(write(tmp_path, policy)).policy.rules) == 2
    kinds = {block["kind"]: block["spec"] for block in blocks if "kind" in block}
    assert set(kinds) == {"ImageValidatingPolicy", "ClusterImagePolicy"}
    signer = policy["rules"][0]["signers"][0]
    for identity in (
        kinds["ImageValidatingPolicy"]["attestors"][0]["cosign"]["keyless"]["identities"][0],
        kinds["ClusterImagePolicy"]["authorities"][0]["keyless"]["identities"][0],
    ):
        assert (identity["subject"], identity["issuer"]) == (signer["identity"], signer["issuer"])


def test_a_key_is_found_beside_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a.pub").write_text(PEM)
    found = load_policy(write(tmp_path, rule(signers=[{"key": "keys/a.pub"}, {"key_pem": PEM}])))
    assert len(found.keys) == 1
    assert set(found.fingerprints) == {"keys/a.pub", PEM}
    assert not found.identities
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"rules → 0 → signers → 0 → key: key .*missing.pub"):
        load_policy(write(tmp_path, rule(signers=[{"key": "missing.pub"}])))
    with pytest.raises(ConfigError, match="cannot be used"):
        load_policy(write(tmp_path, rule(signers=[{"key": "policy.yaml"}])))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: [", b"a: 1\na: 2", b"!!python/object:os.system {}", b"x" * 2_000_000]
)
def test_what_is_no_yaml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_policy(path)


def test_which_are_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert policies_in_force() == ()
    theirs = write(tmp_path, {"enforce": True}, "theirs.yaml")
    monkeypatch.setenv("BENTOTOOL_POLICY", str(theirs))
    assert [each.origin for each in policies_in_force()] == ["environment"]
    write(tmp_path, {"enforce": False}, "own.yaml")
    (tmp_path / "bentofile.yaml").write_text("policy: own.yaml\n")
    assert [(each.origin, each.policy.enforce) for each in policies_in_force()] == [
        ("environment", True),
        ("project", False),
    ]
    (tmp_path / "bentofile.yaml").write_text("service: a:B\n")
    (tmp_path / "pyproject.toml").write_text('[tool.bentotool]\npolicy = "own.yaml"\n')
    assert [each.origin for each in policies_in_force()] == ["environment", "project"]
    monkeypatch.delenv("BENTOTOOL_POLICY")
    assert [each.origin for each in policies_in_force()] == ["project"]
    (tmp_path / "pyproject.toml").write_text('[tool.bentotool]\npolicy = "theirs.yaml"\n')
    monkeypatch.setenv("BENTOTOOL_POLICY", str(theirs))
    assert [each.origin for each in policies_in_force()] == ["environment"], "one file is read once"


def test_one_that_is_named_is_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOTOOL_POLICY", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError):
        policies_in_force()
    monkeypatch.delenv("BENTOTOOL_POLICY")
    for text in ("policy: gone.yaml\n", "policy: [1]\n", "policy: {a\n"):
        (tmp_path / "bentofile.yaml").write_text(text)
        with pytest.raises(BentotoolError):
            policies_in_force()


def test_an_empty_file_asks_for_nothing_by_name() -> None:
    with pytest.raises(ConfigError, match="expected a table, got nothing"):
        read_policy(None, ("policy.yaml",))
