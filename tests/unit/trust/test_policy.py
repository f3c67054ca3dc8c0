"""Judging an artifact by a policy: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.trust.evidence import Evidence, Findings, Rejected, SignerIdentity
from bentotool.trust.policy import Judged, Part, Subject, judge, matches_repository
from bentotool.trust.policyschema import read_policy
from bentotool.trust.statements import COSIGN_SIGN, MODEL_SIGNING

HUB = "https://token.actions.githubusercontent.com"
INDEX, BENTO, IMAGE, MODEL = (f"sha256:{digit * 64}" for digit in "abcd")
PROVENANCE = "https://slsa.dev/provenance/v1"
KEYS = {"a.pub": "sha256:aa", "b.pub": "sha256:bb"}
A, B = SignerIdentity(key="sha256:aa"), SignerIdentity(key="sha256:bb")
MAY = datetime(2026, 5, 1, tzinfo=timezone.utc)
WHOLE = Subject(
    "ghcr.io/acme/fraud:1",
    ("ghcr.io/acme/fraud",),
    (
        Part("index", "fraud:1", INDEX, frozenset({BENTO, IMAGE, MODEL}), needed=False),
        Part("bento", "fraud:1", BENTO, frozenset({MODEL}), main=True, version="1.5"),
        Part("image", "linux/amd64", IMAGE),
        Part("model", "iris:1", MODEL, safety="program"),
    ),
)
ALONE = Subject("fraud", ("ghcr.io/acme/fraud",), (WHOLE.parts[1], WHOLE.parts[3]))


def signed(subject: str, signer: SignerIdentity = A, **more: Any) -> Evidence:
    known: dict[str, Any] = {"kind": "signature", "predicate_type": COSIGN_SIGN, "predicate": {}, "signed_at": None}
    return Evidence(subject, signer=signer, referrer="sha256:r", annotations={}, **{**known, **more})


def said(predicate: dict[str, Any], subject: str = BENTO, signer: SignerIdentity = A) -> Evidence:
    return signed(subject, signer, kind="attestation", predicate_type=PROVENANCE, predicate=predicate)


def ask(
    evidence: list[Evidence], subject: Subject = WHOLE, /, *, top: dict[str, Any] | None = None, **rule: Any
) -> Judged:
    rules = [{"repositories": ["ghcr.io/acme/*"], "signers": [{"key": "a.pub"}], **rule}]
    policy = read_policy({"enforce": True, "rules": rules, **(top or {})}, ("p",))
    return judge(policy, "p", subject, Findings(tuple(evidence)), KEYS)


def test_a_signature_covers_what_its_manifest_lists() -> None:
    assert ask([signed(INDEX)]).met
    assert ask([signed(INDEX)]).proven == {BENTO, IMAGE, MODEL}
    assert ask([signed(BENTO), signed(IMAGE)]).met
    assert ask([signed(BENTO)], ALONE).met
    found = ask([signed(BENTO)])
    assert [problem.message for problem in found.problems] == ["image linux/amd64 is not signed"]
    assert found.proven == {BENTO, MODEL}
    assert not ask([signed(MODEL)]).met
    assert not ask([]).met


def test_who_counts() -> None:
    assert ask([signed(INDEX, B)]).problems[0].message == (
        "bento fraud:1 is signed by key sha256:bb, who is not among the signers"
    )
    assert "bentotool sign" in ask([]).problems[0].hint
    assert ask([signed(INDEX, B)], signers=[{"key": "a.pub"}, {"key": "b.pub"}]).met
    assert not ask([signed(INDEX, predicate_type=MODEL_SIGNING)]).met
    assert not ask([signed(INDEX, kind="attestation")]).met


def test_how_many() -> None:
    both = [{"key": "a.pub"}, {"key": "b.pub"}]
    assert ask([signed(INDEX, A), signed(BENTO, B), signed(IMAGE, B)], signers=both, minimum=2).met
    found = ask([signed(INDEX, A), signed(INDEX, A), signed(BENTO, A)], signers=both, minimum=2)
    assert found.problems[0].message == "bento fraud:1 has 1 of the 2 signatures that are needed"
    assert found.proven == frozenset()


@pytest.mark.parametrize(
    ("rule", "signer", "good"),
    [
        ({"identity": "a@x", "issuer": HUB}, {"identity": "a@x", "issuer": HUB}, True),
        ({"identity": "a@x", "issuer": HUB}, {"identity": "a@x", "issuer": HUB + "/"}, False),
        ({"identity": "a@x", "issuer": HUB}, {"identity": "A@x", "issuer": HUB}, False),
        ({"identity": "a@x", "issuer": HUB}, {"identity": "a@x", "issuer": None}, False),
        ({"identity_regex": ".*@x", "issuer": HUB}, {"identity": "a@x", "issuer": HUB}, True),
        ({"identity_regex": "@x", "issuer": HUB}, {"identity": "a@x", "issuer": HUB}, False),
        ({"identity_regex": "a@x", "issuer": HUB}, {"identity": "a@xy", "issuer": HUB}, False),
        ({"identity_regex": "a@x", "issuer": HUB}, {"identity": "a@x\n", "issuer": HUB}, False),
        ({"identity_regex": "a@x|b", "issuer": HUB}, {"identity": "evil b", "issuer": HUB}, False),
        ({"identity_regex": ".*", "issuer": HUB}, {"identity": "a" * 5000, "issuer": HUB}, False),
        ({"identity_regex": ".*", "issuer": HUB}, {"identity": None, "issuer": HUB}, False),
        ({"identity_regex": ".*", "issuer": HUB}, {"key": "sha256:cc", "identity": "a", "issuer": HUB}, False),
        (
            {"identity": "a@x", "issuer": HUB, "claims": {"ref": "refs/heads/main"}},
            {"identity": "a@x", "issuer": HUB, "extensions": {"ref": "refs/heads/main", "more": "x"}},
            True,
        ),
        (
            {"identity": "a@x", "issuer": HUB, "claims": {"ref": "refs/heads/main"}},
            {"identity": "a@x", "issuer": HUB, "extensions": {"ref": "refs/heads/try"}},
            False,
        ),
        ({"identity": "a@x", "issuer": HUB, "claims": {"ref": "r"}}, {"identity": "a@x", "issuer": HUB}, False),
        ({"key": "a.pub"}, {"identity": "a@x", "issuer": HUB}, False),
        ({"key": "a.pub"}, {}, False),
    ],
)
def test_identities(rule: dict[str, Any], signer: dict[str, Any], good: bool) -> None:
    assert ask([signed(INDEX, SignerIdentity(**signer))], signers=[rule]).met is good


def test_times() -> None:
    rule = {"signed_after": "2026-05-01T00:00:00Z"}
    assert ask([signed(INDEX, signed_at=MAY)], **rule).met
    old = ask([signed(INDEX, signed_at=MAY.replace(month=4))], **rule)
    assert old.problems[0].message == "bento fraud:1 was signed on 2026-04-01, before 2026-05-01"
    never = ask([signed(INDEX)], **rule)
    assert "without a trusted time" in never.problems[0].message


@pytest.mark.parametrize(
    ("tag", "aliases", "good"),
    [("", {}, True), ("latest", {}, True), ("2", {}, False), ("stable", {}, False), ("latest", {"aliases": []}, False),
     ("stable", {"aliases": ["stable"]}, True), ("latest", {"aliases": ["stable"]}, False),
     ("pr-7", {"aliases": ["pr-*"]}, True), ("2-pr-7", {"aliases": ["pr-*"]}, False)],
)  # fmt: skip
def test_tags(tag: str, aliases: dict[str, Any], good: bool) -> None:
    subject = replace(WHOLE, moved=tag)
    found = ask([signed(INDEX)], subject, **aliases)
    assert found.met is good
    assert good or found.problems[0].message == f"tag {tag} leads to what is signed as fraud:1"
    unsigned = read_policy({"rules": [{"repositories": ["**"], **aliases}]}, ("p",))
    assert judge(unsigned, "p", subject, Findings(), KEYS).met, "without signatures, nothing says which version it is"


@pytest.mark.parametrize(
    ("have", "least", "good"),
    [("1.5", "1.5", True), ("1.5", "1.5.0", True), ("1.10", "1.9", True), ("v2", "1.9", True), ("1.4.9", "1.5", False),
     ("", "1", False), ("9f86d081884c", "1", False), ("2-evil", "1", False), ("１.9", "1", False)],
)  # fmt: skip
def test_versions(have: str, least: str, good: bool) -> None:
    subject = Subject("x", WHOLE.repositories, (Part("bento", "x", BENTO, main=True, version=have),))
    assert ask([signed(BENTO)], subject, minimum_version=least).met is good


def test_safety_classes() -> None:
    assert ask([signed(INDEX)], safety=["data", "program"]).met
    found = ask([signed(INDEX)], safety=["data"])
    assert [problem.message for problem in found.problems] == ["model iris:1 is of class 'program'"]
    unknown = Subject("x", WHOLE.repositories, (Part("model", "x", MODEL, main=True),))
    assert not ask([signed(MODEL)], unknown, safety=["data"]).met
    assert ask([signed(MODEL)], unknown).met


def test_what_is_revoked() -> None:
    for digest in (INDEX, BENTO, MODEL):
        found = ask([signed(INDEX)], top={"revoked": [digest]})
        assert "is revoked" in found.problems[0].message
    only = {"revoked": [BENTO], "rules": [{"repositories": ["other.io/*"]}], "unmatched": "allow"}
    assert not ask([signed(INDEX)], top=only).met


PREDICATE = {
    "buildDefinition": {
        "externalParameters": {"run": {"workflow": "acme/fraud/.github/workflows/release.yml@refs/heads/main"}},
        "resolvedDependencies": [{"name": "a"}, {"name": "source", "uri": "git+https://github.com/acme/fraud"}],
    },
    "runDetails": {"builder": {"id": "https://github.com/acme"}, "n": 1, "yes": True, "a.b": "c"},
}


@pytest.mark.parametrize(
    ("field", "flaw"),
    [
        ({"path": "runDetails.builder.id", "equals": "https://github.com/acme"}, ""),
        (
            {"path": "runDetails.builder.id", "equals": "https://github.com"},
            "has 'https://github.com/acme' at runDetails",
        ),
        ({"path": "runDetails.builder.id", "matches": "https://github.com/.*"}, ""),
        ({"path": "runDetails.builder.id", "matches": "github"}, "has 'https"),
        ({"path": "runDetails.builder.id", "one_of": ["x", "https://github.com/acme"]}, ""),
        ({"path": "buildDefinition.resolvedDependencies.*.uri", "matches": "git[+].*acme/fraud"}, ""),
        ({"path": "buildDefinition.resolvedDependencies.1.name", "equals": "source"}, ""),
        ({"path": "buildDefinition.resolvedDependencies.2.name", "equals": "source"}, "has no field"),
        ({"path": "buildDefinition.resolvedDependencies.-1.name", "equals": "source"}, "has no field"),
        ({"path": ["runDetails", "a.b"], "equals": "c"}, ""),
        ({"path": "runDetails.n", "equals": 1}, ""),
        ({"path": "runDetails.yes", "equals": 1}, "has 'True'"),
        ({"path": "runDetails.n", "equals": True}, "has '1'"),
        ({"path": "runDetails.n", "equals": "1"}, "has '1'"),
        ({"path": "runDetails.builder", "matches": ".*"}, "has no field"),
        ({"path": "nothing", "equals": "x"}, "has no field nothing"),
    ],
)
def test_fields(field: dict[str, Any], flaw: str) -> None:
    wanted = [{"type": "provenance", "fields": [field]}]
    found = ask([signed(INDEX), said(PREDICATE)], attestations=wanted)
    assert found.met is (not flaw)
    assert not flaw or flaw in found.problems[0].message


def test_attestations() -> None:
    wanted = [{"type": "provenance"}]
    absent = ask([signed(INDEX)], attestations=wanted).problems[0]
    assert "is not there" in absent.message
    assert absent.hint == f"bentotool attest --type {PROVENANCE} --predicate FILE {WHOLE.name}"
    policy = read_policy(
        {"rules": [{"repositories": ["**"], "signers": [{"key": "a.pub"}], "attestations": wanted}]}, ("p",)
    )
    rejected = Rejected("sha256:r", BENTO, "it was signed with another key", PROVENANCE)
    by_another = judge(policy, "p", WHOLE, Findings((signed(INDEX),), (rejected,)), KEYS).problems[0]
    assert by_another.message.endswith("is there, and does not count: it was signed with another key")
    assert (
        "signed by nobody who counts"
        in ask([signed(INDEX), said({}, signer=B)], attestations=wanted).problems[0].message
    )
    assert ask([signed(INDEX), said({})], attestations=wanted).met
    assert ask([signed(INDEX), said({}, INDEX)], attestations=wanted).met, "one about the index covers the Bento"
    assert not ask([signed(INDEX), said({}, MODEL)], attestations=wanted).met, "one about a model does not"
    builder = [{"type": "provenance", "signers": [{"key": "b.pub"}]}]
    assert ask([signed(INDEX), said({}, signer=B)], attestations=builder).met
    fields = [{"path": "a", "equals": 1}, {"path": "b", "equals": 1}]
    halves = [signed(INDEX), said({"a": 1}), said({"b": 1})]
    wanted = [{"type": "provenance", "fields": fields}]
    assert not ask(halves, attestations=wanted).met, "one attestation has to say all of it"
    assert ask([*halves, said({"a": 1, "b": 1})], attestations=wanted).met


def test_what_no_rule_is_about() -> None:
    other = Subject("x", ("evil.io/acme/fraud",), WHOLE.parts)
    found = ask([signed(INDEX)], other)
    assert [(problem.message, found.rules) for problem in found.problems] == [
        ("no rule is about evil.io/acme/fraud", ())
    ]
    assert ask([], other, top={"unmatched": "allow"}).met
    both = Subject("x", ("evil.io/acme/fraud", "ghcr.io/acme/fraud"), WHOLE.parts)
    assert not ask([signed(INDEX)], both).met, "every place it came from needs a rule"
    assert not ask([signed(INDEX)], Subject("x", (), WHOLE.parts)).met
    assert not ask([signed(INDEX)], exclude=["ghcr.io/acme/fr*"]).met


def test_every_rule_that_fits_has_to_be_met() -> None:
    strict = {"repositories": ["ghcr.io/acme/fraud"], "signers": [{"key": "b.pub"}]}
    loose = {"repositories": ["**"], "signers": [{"key": "a.pub"}, {"key": "b.pub"}]}
    policy = read_policy({"rules": [loose, strict]}, ("p",))
    assert not judge(policy, "p", WHOLE, Findings((signed(INDEX, A),)), KEYS).met
    assert judge(policy, "p", WHOLE, Findings((signed(INDEX, B),)), KEYS).met
    assert judge(policy, "p", WHOLE, Findings(), KEYS).allowed, "without enforce it passes, with a hint"


def test_why_nothing_verified_is_told() -> None:
    policy = read_policy({"rules": [{"repositories": ["**"], "signers": [{"key": "a.pub"}]}]}, ("p",))
    findings = Findings((), (Rejected("sha256:r", BENTO, "it changed since"),))
    found = judge(policy, "p", ALONE, findings, KEYS)
    assert found.problems[0].message == "bento fraud:1 has no signature that verifies: it changed since"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (
            "ghcr.io/acme/*",
            ["ghcr.io/acme/a", "GHCR.io/acme/a", "ghcr.io:443/acme/a"],
            ["ghcr.io/acme/a/b", "ghcr.io/acme"],
        ),
        ("ghcr.io/acme/**", ["ghcr.io/acme/a/b", "ghcr.io/acme"], ["ghcr.io/acmes/a", "xghcr.io/acme/a"]),
        ("ghcr.io/**/fraud", ["ghcr.io/fraud", "ghcr.io/a/b/fraud"], ["ghcr.io/a/fraud2"]),
        ("**", ["a", "a/b", "h:5000/a"], []),
        ("*", ["fraud"], ["h/fraud"]),
        ("**/fraud", ["fraud", "h/fraud", "h/a/fraud"], ["h/xfraud"]),
        ("h:5000/a-*", ["h:5000/a-b"], ["h/a-b", "h:5000/ab"]),
        ("a.b/c", ["a.b/c"], ["axb/c"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [each for each in yes if not matches_repository(pattern, each)] == []
    assert [each for each in no if matches_repository(pattern, each)] == []


evidence = st.builds(
    signed,
    st.sampled_from([INDEX, BENTO, IMAGE, MODEL, "sha256:other"]),
    st.sampled_from([A, B, SignerIdentity(identity="a@x", issuer=HUB)]),
    predicate_type=st.sampled_from([COSIGN_SIGN, MODEL_SIGNING]),
    signed_at=st.sampled_from([None, MAY]),
)


@given(st.lists(evidence, max_size=8), evidence, st.integers(1, 2), st.booleans())
def test_more_evidence_never_hurts_and_only_the_right_helps(
    some: list[Evidence], more: Evidence, minimum: int, timed: bool
) -> None:
    rule: dict[str, Any] = {"signers": [{"key": "a.pub"}, {"key": "b.pub"}], "minimum": minimum}
    rule |= {"signed_after": "2026-01-01"} if timed else {}
    before, after = ask(some, **rule), ask([*some, more], **rule)
    assert not (before.met and not after.met)
    counts = [
        each
        for each in some
        if each.signer.key and each.predicate_type == COSIGN_SIGN and (each.signed_at or not timed)
    ]

    def who(digests: set[str]) -> int:
        return len({each.signer.key for each in counts if each.subject in digests})

    assert before.met == all(
        who(digests) >= minimum for digests in ({INDEX, BENTO}, {INDEX, IMAGE}, {INDEX, BENTO, MODEL})
    )


words = st.text("ab*./:-", min_size=1, max_size=12)


@given(words, words)
def test_patterns_are_total_and_literal_ones_mean_themselves(pattern: str, repository: str) -> None:
    found = matches_repository(pattern, repository)
    if "*" not in pattern:
        assert found == (pattern.removesuffix(":443") == repository.removesuffix(":443"))
    assert matches_repository("**", repository)
