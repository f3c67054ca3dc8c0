"""Policies in force, held against what is about to be used: before anything is fetched, unpacked, started or applied.

Every way to these calls one of the functions below, the Python API too. Where no policy is in force, that costs a look
at one variable and two files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.errors import BentotoolError, UsageError, VerificationError
from bentotool.trust.named import policy_is_named

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.models.store import StoredModel
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.layout import Layout
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry
    from bentotool.plugins import Plugins
    from bentotool.signspec import CertificateVerifier
    from bentotool.trust.evidence import Findings
    from bentotool.trust.parts import Judgeable
    from bentotool.trust.policy import Judged
    from bentotool.trust.policyfile import PolicyFile

__all__ = [
    "Passed",
    "check_folder",
    "check_pull",
    "check_stored_bento",
    "check_stored_model",
    "findings_of",
    "in_force",
    "judge_artifact",
]

_Note = Callable[[str], None]


@dataclass(frozen=True)
class Passed:
    """What was let through.

    Args:
        runtime_check: whether a policy wants servers to check every byte when they start.
        signed: whether a policy found it covered by signatures.
    """

    runtime_check: bool = False
    signed: bool = False


def in_force(project: Path | None = None) -> tuple[PolicyFile, ...]:
    """As :func:`bentotool.trust.policyfile.policies_in_force`, importing nothing where nobody names a policy."""
    if not policy_is_named(project):
        return ()
    from bentotool.trust.policyfile import policies_in_force

    return policies_in_force(project)


def check_pull(
    registry: Registry,
    remote: RemoteReference,
    top: Descriptor,
    *,
    platforms: Sequence[str] = (),
    plugins: Plugins | None = None,
    note: _Note = lambda text: None,
) -> Passed:
    """Hold what is about to be pulled against the policies in force.

    Args:
        top: what the reference points to; this very digest is what may be fetched afterwards.

    Raises:
        VerificationError: a policy refuses it.
        ConfigError: a policy cannot be read.
    """
    from bentotool.trust.parts import remote_artifact

    return _check(lambda: remote_artifact(registry, remote, top, platforms), str(remote), None, plugins, note)


def check_stored_bento(
    layout: Layout,
    bento: StoredBento,
    *,
    project: Path | None = None,
    plugins: Plugins | None = None,
    note: _Note = lambda text: None,
) -> Passed:
    """Hold a Bento of the store, about to be served, put into an image or deployed, against the policies in force.

    Raises:
        VerificationError: a policy refuses it.
        ConfigError: a policy cannot be read.
    """
    from bentotool.trust.parts import stored_bento

    return _check(lambda: stored_bento(layout, bento), bento.tag, project, plugins, note)


def images_pass(layout: Layout, bento: StoredBento, images: Sequence[Descriptor], plugins: Plugins | None) -> bool:
    """Whether images of the store may be used as they are; where not, they can be made from the Bento again.

    Those that were made here are not signed, and those that were pulled may be anybody's.
    """
    from bentotool.trust.parts import stored_bento

    policies = [policy for policy in in_force() if policy.policy.enforce]
    if not policies or not images:
        return True
    artifact = stored_bento(layout, bento, images)
    return all(judge_artifact(policy, artifact, plugins).met for policy in policies)


def check_stored_model(
    layout: Layout, model: StoredModel, *, plugins: Plugins | None = None, note: _Note = lambda text: None
) -> Passed:
    """The same of a model of the store that is about to be served.

    Raises:
        VerificationError, ConfigError: as for a Bento.
    """
    from bentotool.trust.parts import stored_model

    return _check(lambda: stored_model(layout, model), model.tag, None, plugins, note)


def check_folder(what: str, *, why: str, hint: str, note: _Note = lambda text: None) -> None:
    """Refuse what has no digest that anybody could have signed, such as an unpacked Bento, where a policy is enforced.

    Args:
        why: it cannot be judged.

    Raises:
        VerificationError: a policy is enforced.
    """
    for policy in in_force():
        if policy.policy.enforce:
            raise VerificationError(f"policy {policy.name} refuses {what}: {why}", hint=hint)
        note(f"policy {policy.name} would refuse {what}: {why}; it does with enforce: true")


def judge_artifact(
    policy: PolicyFile, artifact: Judgeable, plugins: Plugins | None, *, offline: bool = False
) -> Judged:
    """Verify what a policy needs to know of an artifact, and judge it.

    Args:
        offline: whether no roots of trust may be fetched; they never are for what lies in the store.

    Raises:
        VerificationError: identities have to be checked, and nothing here can.
        RemoteError: a registry or a service that verification needs does not answer.
    """
    from bentotool.trust.policy import judge

    findings = findings_of(policy, artifact, plugins, offline=offline)
    return judge(policy.policy, policy.name, artifact.subject, findings, policy.fingerprints)


def findings_of(policy: PolicyFile, artifact: Judgeable, plugins: Plugins | None, *, offline: bool = False) -> Findings:
    """Verify what a policy needs to know of an artifact; as :func:`judge_artifact`, which weighs it too."""
    from bentotool.trust.evidence import Findings
    from bentotool.trust.policy import signers_of
    from bentotool.trust.verifying import gather

    findings = Findings()
    signers = signers_of(policy.policy, artifact.subject)
    if signers:
        known = any(each.issuer for each in signers)
        certificates = _certificates(policy, plugins, offline=offline or artifact.local) if known else None
        findings = gather(artifact.objects, policy.keys, certificates, artifact.place.reader)
    return findings


def _certificates(policy: PolicyFile, plugins: Plugins | None, *, offline: bool) -> CertificateVerifier:
    from bentotool.plugins import load_plugins
    from bentotool.signspec import VerifierRequest
    from bentotool.trust.signers import open_certificates

    request = VerifierRequest(policy.trust_config, offline)
    try:
        return open_certificates(plugins or load_plugins(), request)
    except UsageError as error:
        message = f"policy {policy.name} names identities, and they cannot be checked: {error.message}"
        raise VerificationError(message, hint=error.hint) from None


def _check(
    read: Callable[[], Judgeable], name: str, project: Path | None, plugins: Plugins | None, note: _Note
) -> Passed:
    policies = in_force(project)
    if not policies:
        return Passed()
    passed, artifact = Passed(), None
    for policy in policies:
        rules = policy.policy
        try:
            artifact = artifact or read()
            judged = judge_artifact(policy, artifact, plugins)
        except BentotoolError as error:
            if rules.enforce:
                raise
            note(f"policy {policy.name} could not be held against {name}: {error.message}")
            continue
        if judged.problems:
            _tell(judged, name, note)
        passed = replace(
            passed,
            runtime_check=passed.runtime_check or rules.runtime_check,
            signed=passed.signed or bool(judged.met and judged.proven),
        )
    return passed


def _tell(judged: Judged, name: str, note: _Note) -> None:
    first = judged.problems[0]
    more = f" (and {len(judged.problems) - 1} more)" if len(judged.problems) > 1 else ""
    rule = f" by rule {first.rule!r}" if first.rule else ""
    if not judged.allowed:
        message = f"policy {judged.policy} refuses {name}{rule}: {first.message}{more}"
        hint = first.hint or f"bentotool policy check {name} says what is missing"
        raise VerificationError(message, hint=hint, details={"policy": judged.to_dict()})
    note(f"policy {judged.policy} would refuse {name}{rule}: {first.message}{more}; it does with enforce: true")
