"""Whether an artifact meets a policy: decisions over what was verified before, which read nothing and ask nobody.

A signature covers the manifest whose digest it names, and through it every byte and manifest that this one lists by
digest. So a part of an artifact is covered by its own signatures and by those of whatever holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from bentotool.trust.evidence import Evidence, Findings, SignerIdentity
from bentotool.trust.fieldpaths import flaw_of, matches_whole, numbers_of, says
from bentotool.trust.policyschema import SAFETY, Policy, Rule, SignerRule
from bentotool.trust.statements import COSIGN_SIGN

__all__ = ["Judged", "Matcher", "Part", "Problem", "Subject", "counts", "judge", "matches_repository", "signers_of"]


@dataclass(frozen=True)
class Part:
    """One manifest of an artifact.

    Args:
        kind: ``index``, ``bento``, ``image`` or ``model``.
        name: for people.
        holds: digests of the manifests that it lists or names, and so covers.
        main: whether it is what was asked for; attestations and versions are about this one.
        needed: whether it has to be covered; an index that only lists what is needed has not.
        safety: class of a model; empty where none is stated.
        version: that the artifact states of itself.
    """

    kind: str
    name: str
    digest: str
    holds: frozenset[str] = frozenset()
    main: bool = False
    needed: bool = True
    safety: str = ""
    version: str = ""


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Args:
        name: as the user called it.
        repositories: ``HOST/REPOSITORY`` where it lies or came from; for what was made here its name alone.
        moved: tag that it was asked for by, where that is not the version that it states; else empty.
    """

    name: str
    repositories: tuple[str, ...]
    parts: tuple[Part, ...]
    moved: str = ""

    def carriers(self, digest: str) -> frozenset[str]:
        """Digests whose signatures cover a part: its own, and those of all that hold it."""
        found = {digest}
        while more := {part.digest for part in self.parts if part.holds & found} - found:
            found |= more
        return frozenset(found)


@dataclass(frozen=True)
class Problem:
    """What is missing.

    Args:
        rule: name of the rule; empty for what no rule is about.
        about: name of the part.
    """

    rule: str
    about: str
    message: str
    hint: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"rule": self.rule, "about": self.about, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Judged:
    """The outcome for one policy.

    Args:
        rules: names of those that are about the artifact.
        proven: digests of the parts that every such rule found covered by a signature; none where no rule asks for any.
    """

    policy: str
    enforce: bool
    rules: tuple[str, ...]
    problems: tuple[Problem, ...]
    proven: frozenset[str] = frozenset()
    signers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return not self.problems

    @property
    def allowed(self) -> bool:
        return self.met or not self.enforce

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "policy": self.policy,
            "enforce": self.enforce,
            "met": self.met,
            "allowed": self.allowed,
            "rules": list(self.rules),
            "signers": {rule: list(names) for rule, names in self.signers.items()},
            "problems": [problem.to_dict() for problem in self.problems],
        }


@dataclass(frozen=True)
class Matcher:
    """Who a signer of a policy is, with its key read.

    Args:
        fingerprint: ``sha256:<hex>`` of the key, as evidence has it; empty for an identity.
    """

    rule: SignerRule
    fingerprint: str = ""

    def fits(self, signer: SignerIdentity) -> bool:
        """Whether somebody who signed is the one that is meant."""
        if self.fingerprint:
            return signer.key == self.fingerprint
        rule, identity = self.rule, signer.identity or ""
        if signer.key is not None or not identity or not rule.issuer or signer.issuer != rule.issuer:
            return False
        if any(signer.extensions.get(name) != value for name, value in rule.claims.items()):
            return False
        if rule.identity:
            return identity == rule.identity
        return bool(rule.identity_regex) and matches_whole(rule.identity_regex, identity)

    def __str__(self) -> str:
        rule = self.rule
        if self.fingerprint:
            return f"key {rule.key or self.fingerprint[:19] + '…'}"
        return f"{rule.identity or f'/{rule.identity_regex}/'} (issuer {rule.issuer})"


def matches_repository(pattern: str, repository: str) -> bool:
    """Whether a pattern means a repository: ``*`` is any part of its path, ``**`` any number of parts, also none."""
    pieces = re.split(r"(/\*\*(?:/|$)|\*\*/|\*\*|\*)", _plain(pattern))
    made = "".join(_piece(piece) for piece in pieces)
    return re.fullmatch(made, _plain(repository)) is not None


def _piece(piece: str) -> str:
    known = {"*": "[^/]*", "**": ".*", "**/": "(?:.*/)?", "/**/": "/(?:.*/)?", "/**": "(?:/.*)?"}
    return known.get(piece) or re.escape(piece)


def _plain(repository: str) -> str:
    """One spelling of a repository: the host in lower case, without the port that https has anyway."""
    host, slash, path = repository.partition("/")
    return f"{host.lower().removesuffix(':443')}{slash}{path}"


def judge(
    policy: Policy,
    name: str,
    subject: Subject,
    findings: Findings,
    keys: Mapping[str, str],
) -> Judged:
    """Decide whether an artifact meets a policy.

    Every rule that is about one of its repositories has to be met: a further rule can only ask for more.

    Args:
        name: of the policy, for people.
        keys: fingerprint of each key that the policy names, by what stands at ``key`` or ``key_pem``.
    """
    problems = [
        Problem("", part.name, f"{part.kind} {part.name} is revoked ({part.digest[:19]}…)", "take a newer one")
        for part in subject.parts
        if part.digest in policy.revoked
    ]
    found = [
        (rule.name or f"rule {place}", rule) for place, rule in enumerate(policy.rules, 1) if _about(rule, subject)
    ]
    for repository in subject.repositories or ("",):
        if policy.unmatched == "deny" and not any(_about_one(rule, repository) for _, rule in found):
            where = repository or subject.name
            hint = "add it to the repositories of a rule, or set unmatched: allow"
            problems.append(Problem("", subject.name, f"no rule is about {where}", hint))
    signers: dict[str, tuple[str, ...]] = {}
    covered = [part.digest for part in subject.parts if part.needed] if found else []
    for title, rule in found:
        check = _Check(title, rule, subject, findings, keys)
        problems += check.problems()
        signers[title] = check.who()
        covered = [digest for digest in covered if rule.signers and check.signed(digest)]
    names = tuple(title for title, _ in found)
    return Judged(name, policy.enforce, names, tuple(problems), frozenset(covered), signers)


def counts(policy: Policy, subject: Subject, keys: Mapping[str, str], found: Evidence) -> bool:
    """Whether evidence is by somebody whom a rule about an artifact names.

    Args:
        keys: as for :func:`judge`.
    """
    named = signers_of(policy, subject)
    return any(Matcher(each, keys.get(each.key or each.key_pem, "")).fits(found.signer) for each in named)


def signers_of(policy: Policy, subject: Subject) -> list[SignerRule]:
    """Those whose signatures could matter for an artifact; none where no rule asks for any."""
    rules = [rule for rule in policy.rules if _about(rule, subject)]
    found = [each for rule in rules for each in rule.signers]
    return found + [each for rule in rules for wanted in rule.attestations for each in wanted.signers]


def _about(rule: Rule, subject: Subject) -> bool:
    return any(_about_one(rule, repository) for repository in subject.repositories)


def _about_one(rule: Rule, repository: str) -> bool:
    if any(matches_repository(pattern, repository) for pattern in rule.exclude):
        return False
    return any(matches_repository(pattern, repository) for pattern in rule.repositories)


@dataclass(frozen=True)
class _Check:
    """One rule on one artifact."""

    title: str
    rule: Rule
    subject: Subject
    findings: Findings
    keys: Mapping[str, str]

    def _matcher(self, rule: SignerRule) -> Matcher:
        return Matcher(rule, self.keys.get(rule.key or rule.key_pem, "") if rule.key or rule.key_pem else "")

    def _fits(self, rule: SignerRule, signer: SignerIdentity) -> bool:
        return self._matcher(rule).fits(signer)

    def problems(self) -> list[Problem]:
        return [*self._signatures(), *self._named(), *self._attestations(), *self._versions(), *self._safety()]

    def who(self) -> tuple[str, ...]:
        """Those who signed, of the signers that count."""
        return tuple(sorted({str(each.signer) for part in self.subject.parts for each in self._good(part.digest)}))

    def signed(self, digest: str) -> bool:
        return len(self._different(self._good(digest), self.rule.signers)) >= self.rule.minimum

    def _good(self, digest: str) -> list[Evidence]:
        carriers, rule = self.subject.carriers(digest), self.rule
        return [
            each
            for each in self.findings.evidence
            if each.kind == "signature"
            and each.predicate_type == COSIGN_SIGN  # another says something of files, not of the whole manifest
            and each.subject in carriers
            and self._counts(each, rule.signers)
        ]

    def _counts(self, each: Evidence, signers: Sequence[SignerRule]) -> bool:
        after = self.rule.signed_after
        if after is not None and (each.signed_at is None or each.signed_at < after):
            return False
        return any(self._fits(signer, each.signer) for signer in signers)

    def _different(self, evidence: Iterable[Evidence], signers: Sequence[SignerRule]) -> set[tuple[Any, ...]]:
        """Those who signed, each once: a key is one, and so is an identity, however many rules name it."""
        return {
            (each.signer.key,) if each.signer.key else (each.signer.identity, each.signer.issuer)
            for each in evidence
            if any(self._fits(signer, each.signer) for signer in signers)
        }

    def _signatures(self) -> Iterator[Problem]:
        if not self.rule.signers:
            return
        missing = [part for part in self.subject.parts if part.needed and not self.signed(part.digest)]
        for part in missing:
            if not any(part.digest in other.holds for other in missing):  # a signature of that one is what lacks
                yield Problem(self.title, part.name, self._unsigned(part), self._way_out(part))

    def _unsigned(self, part: Part) -> str:
        what = f"{part.kind} {part.name}"
        good = self._different(self._good(part.digest), self.rule.signers)
        if good:
            return f"{what} has {len(good)} of the {self.rule.minimum} signatures that are needed"
        carriers = self.subject.carriers(part.digest)
        others = [each for each in self.findings.evidence if each.subject in carriers and each.kind == "signature"]
        right = [each for each in others if any(self._fits(one, each.signer) for one in self.rule.signers)]
        if right and self.rule.signed_after:
            times = [each.signed_at for each in right if each.signed_at]
            when = f"on {max(times):%Y-%m-%d}, before" if times else "without a trusted time, which has to be after"
            return f"{what} was signed {when} {self.rule.signed_after:%Y-%m-%d}"
        if right:
            return f"{what} has only a signature of its files, not of its manifest"
        if others:
            return f"{what} is signed by {others[0].signer}, who is not among the signers"
        reason = next((each.reason for each in self.findings.rejected if each.subject in carriers), "")
        return f"{what} has no signature that verifies: {reason}" if reason else f"{what} is not signed"

    def _way_out(self, part: Part) -> str:
        wanted = ", ".join(str(self._matcher(each)) for each in self.rule.signers[:3])
        more = f" and {len(self.rule.signers) - 3} more" if len(self.rule.signers) > 3 else ""
        return f"it has to be signed by {wanted}{more}: bentotool sign {self.subject.name}"

    def _named(self) -> Iterator[Problem]:
        """Whether the tag may mean what is signed: an older version is just as well signed."""
        tag = self.subject.moved
        if not tag or not self.rule.signers or any(fnmatchcase(tag, each) for each in self.rule.aliases):
            return
        stated = next((part.name for part in self.subject.parts if part.main), self.subject.parts[0].name)
        hint = f"an older version in its place? Where the tag is meant to be another name: aliases: [{tag}] in the rule"
        yield Problem(self.title, stated, f"tag {tag} leads to what is signed as {stated}", hint)

    def _attestations(self) -> Iterator[Problem]:
        for part in self.subject.parts:
            if not part.main:
                continue
            carriers = self.subject.carriers(part.digest)
            for wanted in self.rule.attestations:
                signers = wanted.signers or self.rule.signers
                found = [
                    each
                    for each in self.findings.evidence
                    if each.kind == "attestation" and each.predicate_type == wanted.type and each.subject in carriers
                ]
                what = f"{part.kind} {part.name}"
                good = [each for each in found if self._counts(each, signers)]
                if not good:
                    state = "is signed by nobody who counts" if found else self._absent(wanted.type, carriers)
                    hint = f"bentotool attest --type {wanted.type} --predicate FILE {self.subject.name}"
                    yield Problem(self.title, part.name, f"{what}: attestation {wanted.type} {state}", hint)
                elif not any(all(says(each.predicate, one) for one in wanted.fields) for each in good):
                    flaw = next(one for one in wanted.fields if not says(good[-1].predicate, one))
                    yield Problem(
                        self.title, part.name, f"{what}: attestation {wanted.type} {flaw_of(good[-1].predicate, flaw)}"
                    )

    def _absent(self, predicate_type: str, carriers: frozenset[str]) -> str:
        """Why there is no proof of an attestation: there is none, or one that proves nothing."""
        claims = (one for one in self.findings.rejected if one.subject in carriers)
        reason = next((one.reason for one in claims if one.predicate_type == predicate_type), "")
        return f"is there, and does not count: {reason}" if reason else "is not there"

    def _versions(self) -> Iterator[Problem]:
        least = self.rule.minimum_version
        for part in self.subject.parts if least else ():
            if part.main:
                have = numbers_of(part.version)
                if have is None or have < (numbers_of(least) or ()):
                    stated = f"states version {part.version[:60]!r}" if part.version else "states no version"
                    what = f"{part.kind} {part.name} {stated}, and {least} is the least"
                    yield Problem(self.title, part.name, what, "take a newer one")

    def _safety(self) -> Iterator[Problem]:
        allowed = self.rule.safety
        if set(SAFETY) <= set(allowed):
            return
        for part in self.subject.parts:
            if part.kind == "model" and part.safety not in allowed:
                stated = f"is of class {part.safety[:40]!r}" if part.safety else "does not state its safety class"
                hint = f"allowed are: {', '.join(allowed)}"
                yield Problem(self.title, part.name, f"model {part.name} {stated}", hint)
