"""``bentotool verify``: who signed what of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bentotool.cli.names import bento_names
from bentotool.cli.registries import asks_registry
from bentotool.cli.remote import is_remote
from bentotool.cli.signing import Target, annotations_of, open_target
from bentotool.cli.state import State, current
from bentotool.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bentotool.signspec import CertificateVerifier
    from bentotool.trust.evidence import Evidence
    from bentotool.trust.judging import ObjectVerdict, Verdict
    from bentotool.trust.keys import PublicKey

__all__ = ["verify"]

_ALIAS_HINT = "an older version in its place? Where the tag is meant to be another name for it, add --alias"
Policy = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="In place of those: who signs what, as a file.")
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="An attestation of this type has to be there too (repeatable)."),
]
Annotations = Annotated[
    list[str] | None,
    typer.Option("-a", "--annotation", metavar="KEY=VALUE", help="What a signature has to say (repeatable)."),
]


@asks_registry
def verify(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="A Bento or model of the store: NAME[:VERSION]; or HOST/REPOSITORY[:TAG], without a pull.",
            autocompletion=bento_names,
        ),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Public key that counts: a file, or SCHEME:… (repeatable)."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--identity", metavar="ID", help="Mail address or URI of a certificate that counts.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="Who vouched for --identity: the OIDC issuer.")
    ] = None,
    trust_config: Annotated[
        Path | None, typer.Option("--trust-config", metavar="FILE", help="Roots of trust for certificates, as a file.")
    ] = None,
    policy: Policy = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch no roots of trust.")] = False,
    kind: Types = None,
    annotation: Annotations = None,
    model: Annotated[bool, typer.Option("--model", help="REF is a model, where a Bento has that name too.")] = False,
    alias: Annotated[
        bool, typer.Option("--alias", help="The tag of REF is another name for the version, such as stable.")
    ] = False,
    content: Annotated[
        bool, typer.Option("--content/--no-content", help="Of the store: compare every byte with its digest too.")
    ] = True,
) -> None:
    """Check who signed a Bento or model, here or in a registry"""
    state = current()
    from bentotool.trust.judging import Asked, judge
    from bentotool.trust.predicatetypes import predicate_type
    from bentotool.trust.verifying import gather

    if policy is not None:
        if key or identity or issuer or kind or annotation or trust_config:
            raise UsageError("--policy says all of it", hint="leave the other options out, or --policy")
        _by_policy(state, reference, policy, model=model, content=content, offline=offline, alias=alias)
        return
    _check_asked(key, identity, issuer)
    types = [predicate_type(each) for each in kind or ()]
    keys = _keys(state, key)
    certificates = _certificates(state, trust_config, offline=offline) if identity else None
    said = frozenset(annotations_of(annotation).items())
    asked = Asked(frozenset(each.fingerprint for each in keys), identity, issuer, said)
    with open_target(state, reference, model=model) as target:
        findings = gather(target.objects, keys, certificates, target.place.reader)
        verdict = judge(target.objects, findings, asked.counts, types)
        misnamed = "" if alias else _misnamed(target)
        damaged = _damaged(state, target) if content and verdict.satisfied and not misnamed else ""
    _result(state, target, verdict, damaged, misnamed)


def _by_policy(
    state: State, reference: str, policy: Path, *, model: bool, content: bool, offline: bool, alias: bool
) -> None:
    from bentotool.cli.policies import judge_reference, refuse_unmet, show_judged
    from bentotool.trust.policyfile import load_policy

    found = judge_reference(state, reference, (load_policy(policy),), model=model, offline=offline, alias=alias)
    if not state.json:
        show_judged(state, found)
        for each in found.objects:
            _show(state, each, covered=found.covers(each))
    refuse_unmet(state, found, strict=True)
    if not is_remote(reference):  # of a registry the policy judges the tag, and nothing but manifests is read
        with open_target(state, reference, model=model) as target:
            if misnamed := "" if alias else _misnamed(target):
                raise VerificationError(misnamed, hint=_ALIAS_HINT, details=found.to_dict())
            if content and (damaged := _damaged(state, target)):
                raise _damage(found.title, damaged, found.to_dict())
    state.console.result(found.to_dict(), lambda: _verified(state, found.title, remote=is_remote(reference)))


def _check_asked(key: Sequence[str] | None, identity: str | None, issuer: str | None) -> None:
    if not key and not identity:
        raise UsageError(
            "nothing says whose signatures count: anybody can sign",
            hint="--key FILE, --identity ID --issuer URL, or --policy FILE; what is attached: bentotool show REF",
        )
    if bool(identity) != bool(issuer):
        missing, given = ("--issuer", "--identity") if identity else ("--identity", "--issuer")
        raise UsageError(
            f"{given} counts with {missing} only", hint="an identity is worth as much as who vouches for it"
        )


def _keys(state: State, names: Sequence[str] | None) -> list[PublicKey]:
    from bentotool.trust.signers import open_public_key

    return [open_public_key(state.plugins, each) for each in names or ()]


def _certificates(state: State, trust_config: Path | None, *, offline: bool) -> CertificateVerifier:
    from bentotool.signspec import VerifierRequest
    from bentotool.trust.signers import open_certificates

    return open_certificates(state.plugins, VerifierRequest(trust_config, offline))


def _misnamed(target: Target) -> str:
    """Why a reference may mean another version than it says, although all that it leads to is signed."""
    from bentotool.trust.objects import moved_tag

    signed = target.objects[0].name
    if target.ref is not None:
        return "" if signed == target.ref.ref else f"{target.ref.ref} is signed as {signed}"
    if target.remote is None or moved_tag(target.remote, signed) in ("", "latest"):
        return ""
    return f"{target.remote} leads to what is signed as {signed}"


def _damaged(state: State, target: Target) -> str:
    """What in the store is not what its digest says; empty where all is, or a registry is meant."""
    if target.ref is None:
        return ""
    from bentotool.oci.reach import Reach, reach

    found = Reach()
    for each in target.objects:
        reach(state.layout, each.digest, found)
    if found.damaged:
        digest, reason = next(iter(found.damaged.items()))
        return f"{digest}: {reason}"
    total = sum(max(size, 0) for size in found.blobs.values())
    with state.console.progress(total, f"check {target.title}") as progress:
        for digest in sorted(found.blobs):
            if not state.layout.verify_blob(digest, progress.advance):
                return f"{digest} is missing, or not what its digest says"
    return ""


def _result(state: State, target: Target, verdict: Verdict, damaged: str, misnamed: str) -> None:
    from bentotool.trust.judging import check_verdict

    def show() -> None:
        for each in verdict.objects:
            _show(state, each)

    if not verdict.satisfied:
        if not state.json:
            show()
        hint = f"what is attached: bentotool show {target.title}; sign it: bentotool sign --key FILE {target.title}"
        check_verdict(verdict, target.title, hint)
    if misnamed:
        raise VerificationError(
            misnamed,
            hint=_ALIAS_HINT,
            details=verdict.to_dict(),
        )
    if damaged:
        raise _damage(target.title, damaged, verdict.to_dict())

    def verified() -> None:
        show()
        _verified(state, target.title, remote=target.ref is None)

    state.console.result({**target.facts, **verdict.to_dict()}, verified)


def _verified(state: State, title: str, *, remote: bool) -> None:
    state.console.line(f"{title} is verified")
    if remote:
        state.console.line("the files below these digests were not read: a pull compares every byte")


def _damage(title: str, damaged: str, details: Mapping[str, object]) -> VerificationError:
    return VerificationError(
        f"{title} is signed, and damaged in the store: {damaged}",
        hint="run: bentotool store verify --repair, then import or pull it again",
        details=details,
    )


def _show(state: State, verdict: ObjectVerdict, *, covered: bool = False) -> None:
    """One object and who signed it.

    Args:
        covered: whether a signature of what holds it is enough.
    """
    console, about = state.console, verdict.about
    mark = "ok" if verdict.signed else "NOT SIGNED"
    why = "ok, by the signature of what holds it" if covered and not verdict.signed else ""
    why = why or f"{mark}{verdict.reason and ': ' + verdict.reason}"
    console.line(f"{about.kind} {about.name} {about.digest}: {why}")
    for each in verdict.evidence:
        console.line(f"  {_told(each)}")
    for each in verdict.others:
        console.line(f"  not asked for: {_told(each)}")
    for bad in verdict.rejected:
        console.detail(f"  worth nothing: {bad.referrer or 'the list of referrers'}: {bad.reason}")


def _told(found: Evidence) -> str:
    from bentotool.trust.moments import stated
    from bentotool.trust.predicatetypes import short_predicate

    when = f" at {stated(found.signed_at)}" if found.signed_at else ""
    said = "".join(f" {key}={value}" for key, value in sorted(found.annotations.items()))
    return f"{short_predicate(found.predicate_type)} by {found.signer}{when}{said}"
