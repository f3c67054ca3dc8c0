"""What ``verify --policy`` and ``policy check`` share: an artifact judged, and told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bentotool.cli.registries import open_registry
from bentotool.cli.remote import is_remote
from bentotool.cli.signing import find_ref
from bentotool.cli.state import State
from bentotool.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from bentotool.trust.judging import ObjectVerdict
    from bentotool.trust.parts import Judgeable
    from bentotool.trust.policy import Judged
    from bentotool.trust.policyfile import PolicyFile

__all__ = ["JudgedArtifact", "judge_reference", "refuse_unmet", "show_judged"]


@dataclass(frozen=True)
class JudgedArtifact:
    """What some policies say of an artifact.

    Args:
        facts: as commands print them.
        objects: who signed each; of one policy, and where that asks for signatures.
    """

    title: str
    facts: dict[str, Any]
    where: tuple[str, ...]
    judged: tuple[Judged, ...]
    objects: tuple[ObjectVerdict, ...] = ()

    @property
    def met(self) -> bool:
        return all(each.met for each in self.judged)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        policies = [each.to_dict() for each in self.judged]
        found = {**self.facts, "repositories": list(self.where), "verified": self.met, "policies": policies}
        if self.objects:
            found["objects"] = [{**each.to_dict(), "covered": self.covers(each)} for each in self.objects]
        return found

    def covers(self, verdict: ObjectVerdict) -> bool:
        """Whether an object is covered by a signature that counts: its own, or that of what holds it."""
        return verdict.signed or any(verdict.about.digest in each.proven for each in self.judged)


def judge_reference(
    state: State,
    reference: str,
    policies: Sequence[PolicyFile],
    *,
    model: bool = False,
    offline: bool = False,
    alias: bool = False,
) -> JudgedArtifact:
    """Hold what a reference means against some policies. Nothing is fetched but manifests and signatures.

    Args:
        offline: whether no roots of trust may be fetched.
        alias: whether the tag of a registry may be another name for the version.

    Raises:
        NotFoundError, VerificationError: it is not there, or damaged.
        RemoteError: the registry, or a service that verification needs, does not answer.
    """
    if not is_remote(reference):
        artifact, facts = _stored(state, reference, model=model)
        return _judged(state, artifact, facts, policies, offline)
    if model:
        raise UsageError("--model is for what lies in the store", hint="leave it out: a registry says what it has")
    from bentotool.oci.reference import RemoteReference
    from bentotool.trust.parts import remote_artifact

    remote = RemoteReference.parse(reference)
    with open_registry(state, remote.registry) as registry:
        top = registry.get_manifest(remote.repository, remote.digest or remote.tag or "latest").descriptor
        facts = {"reference": str(remote), "digest": top.digest, "size": top.size}
        artifact = remote_artifact(registry, remote, top)
        if alias:
            artifact = replace(artifact, subject=replace(artifact.subject, moved=""))
        return _judged(state, artifact, facts, policies, offline)


def _stored(state: State, reference: str, *, model: bool) -> tuple[Judgeable, dict[str, Any]]:
    from bentotool.build.bentos import BentoStore
    from bentotool.trust.parts import stored_bento, stored_model

    ref = find_ref(state, reference, model=model)
    facts = {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size}
    if ref.kind == "bentos":
        return stored_bento(state.layout, BentoStore(state.layout).get(ref.ref)), facts
    return stored_model(state.layout, state.models.get(ref.ref)), facts


def _judged(
    state: State, artifact: Judgeable, facts: dict[str, Any], policies: Sequence[PolicyFile], offline: bool
) -> JudgedArtifact:
    from bentotool.trust.enforcing import findings_of
    from bentotool.trust.judging import judge as weigh
    from bentotool.trust.policy import counts, judge, signers_of

    subject = artifact.subject
    judged: list[Judged] = []
    objects: tuple[ObjectVerdict, ...] = ()
    for policy in policies:
        findings = findings_of(policy, artifact, state.plugins, offline=offline)
        judged.append(judge(policy.policy, policy.name, subject, findings, policy.fingerprints))
        if len(policies) == 1 and signers_of(policy.policy, subject):
            named = partial(counts, policy.policy, subject, policy.fingerprints)
            objects = weigh(artifact.objects, findings, named).objects
    return JudgedArtifact(subject.name, facts, subject.repositories, tuple(judged), objects)


def show_judged(state: State, found: JudgedArtifact) -> None:
    """Tell a person: which rules are about it, who signed, and what is missing."""
    console = state.console
    console.line(f"{found.title} {found.facts['digest']}, of {', '.join(found.where)}")
    for each in found.judged:
        verdict = "met" if each.met else "NOT MET" if each.enforce else "not met, and not enforced"
        console.line(f"policy {each.policy}: {verdict}")
        if not each.rules:
            console.line("  no rule is about it")
        for rule in each.rules:
            mine = [problem for problem in each.problems if problem.rule == rule]
            by = "".join(f"; signed by {name}" for name in each.signers.get(rule, ()))
            console.line(f"  {rule}: {'NOT MET' if mine else 'met'}{by}")
            for problem in mine:
                console.line(f"    {problem.message}{f' ({problem.hint})' if problem.hint else ''}")
        for problem in each.problems:
            if not problem.rule:
                console.line(f"  {problem.message}{f' ({problem.hint})' if problem.hint else ''}")


def refuse_unmet(state: State, found: JudgedArtifact, *, strict: bool) -> None:
    """Refuse what does not meet a policy, after telling why.

    Args:
        strict: whether a policy that is not enforced counts too.

    Raises:
        VerificationError: naming the first thing that is missing.
    """
    bad = [each for each in found.judged if not (each.met if strict else each.allowed)]
    if not bad:
        return
    first = bad[0].problems[0]
    more = f" (and {len(bad[0].problems) - 1} more)" if len(bad[0].problems) > 1 else ""
    rule = f", rule {first.rule!r}" if first.rule else ""
    raise VerificationError(
        f"{found.title} does not meet policy {bad[0].policy}{rule}: {first.message}{more}",
        hint=first.hint or None,
        details=found.to_dict(),
    )
