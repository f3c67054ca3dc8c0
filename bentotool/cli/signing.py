"""What the commands that sign and verify share: who signs, and what of an artifact is meant."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from bentotool.cli.options import GlobalOptions, signing_params
from bentotool.cli.registries import open_registry
from bentotool.cli.remote import is_remote
from bentotool.cli.state import State
from bentotool.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.refs import Ref
    from bentotool.oci.registry import Registry
    from bentotool.trust.evidence import Object
    from bentotool.trust.places import Place
    from bentotool.trust.signers import StatementSigner
    from bentotool.trust.signing import Signed

__all__ = [
    "Target",
    "annotations_of",
    "ask_password",
    "find_ref",
    "open_target",
    "show_signed",
    "sign_stored",
    "signer_of",
    "signs",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def signs(function: _Function) -> _Function:
    """Give a command the options that :func:`signer_of` goes by, beside those that it has."""
    before = getattr(function, "more_params", None)

    def more(options: GlobalOptions) -> list[Any]:
        return [*signing_params(options), *(before(options) if before else ())]

    function.more_params = more  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class _Artifact:
    """What ``bentotool_signing_identity`` is told."""

    name: str
    version: str
    tag: str
    digest: str


@dataclass(frozen=True)
class Target:
    """What a reference means, opened.

    Args:
        facts: as commands print them: of the store ``name``, ``version``, ``tag``, ``digest`` and ``size``; of a
            registry ``reference``, ``digest`` and ``size``.
        ref: in the store.
        registry, remote: in a registry.
    """

    title: str
    facts: dict[str, Any]
    objects: tuple[Object, ...]
    place: Place
    ref: Ref | None = None
    registry: Registry | None = None
    remote: RemoteReference | None = None


def find_ref(state: State, reference: str, *, model: bool = False) -> Ref:
    """A Bento of the store, or else a model.

    Args:
        model: whether only a model is meant.

    Raises:
        NotFoundError: there is neither.
    """
    from bentotool.oci.refs import RefStore

    refs = RefStore(state.layout)
    if model:
        return refs.get("models", reference)
    try:
        return refs.get("bentos", reference)
    except NotFoundError as error:
        try:
            return refs.get("models", reference)
        except NotFoundError:
            raise error from None


@contextmanager
def open_target(state: State, reference: str, *, model: bool = False, writes: bool = False) -> Iterator[Target]:
    """What a reference means: something of the store, or ``HOST/REPOSITORY[:TAG]``.

    Args:
        model: whether a model of the store is meant, where a Bento has the name too.
        writes: whether something will be attached to it.

    Raises:
        NotFoundError: there is no such thing.
        VerificationError: it is damaged.
    """
    if not is_remote(reference):
        yield _stored(state, find_ref(state, reference, model=model), writes=writes)
        return
    if model:
        raise UsageError("--model is for what lies in the store", hint="leave it out: a registry says what it has")
    from bentotool.oci.reference import RemoteReference
    from bentotool.trust.objects import remote_objects
    from bentotool.trust.places import RegistryPlace

    remote = RemoteReference.parse(reference)
    with open_registry(state, remote.registry, push=writes) as registry:
        objects = remote_objects(registry, remote)
        facts = {"reference": str(remote), "digest": objects[0].digest, "size": objects[0].size}
        place = RegistryPlace(registry, remote.repository)
        yield Target(str(remote), facts, objects, place, registry=registry, remote=remote)


def _stored(state: State, ref: Ref, *, writes: bool = False, index: str | None = None) -> Target:
    from bentotool.trust.objects import stored_bento_objects, stored_model_object
    from bentotool.trust.places import StorePlace

    layout = state.layout
    if ref.kind == "bentos":
        if writes:
            from bentotool.transfer.images import keep_tag_index

            index = index or keep_tag_index(layout, ref.digest).digest
        objects = stored_bento_objects(layout, ref.digest, index)
    else:
        objects = (stored_model_object(layout, ref.digest),)
    facts = {"name": ref.name, "version": ref.tag, "tag": ref.ref, "digest": ref.digest, "size": ref.size}
    return Target(ref.ref, facts, objects, StorePlace(layout), ref=ref)


def ask_password(state: State) -> Callable[[str], bytes | None]:
    """Asks a person for a password, where there is one to ask."""

    def ask(question: str) -> bytes | None:
        if state.json or not sys.stdin.isatty():
            return None
        from getpass import getpass

        return getpass(f"{question}: ").encode()

    return ask


def signer_of(state: State, target: Target) -> StatementSigner:
    """Who signs: as the options say, else as a plugin says for this artifact, else without a key.

    Raises:
        UsageError: nobody can.
    """
    from bentotool.signspec import SigningRequest
    from bentotool.trust.signers import KEYLESS, open_signer

    options = state.options.signing
    request = SigningRequest(
        key=options.key,
        identity_token=options.identity_token,
        trust_config=options.trust_config,
        interactive=sys.stdin.isatty() and not state.json,
        note=state.console.note,
    )
    if request.key is not None and request.identity_token is not None:
        raise UsageError("--key and --identity-token exclude each other", hint="sign with a key, or without one")
    if request.key is None and request.identity_token is None:
        facts = target.facts
        name, _, version = target.objects[0].name.partition(":")
        artifact = _Artifact(
            facts.get("name", name), facts.get("version", version), facts.get("tag", target.title), facts["digest"]
        )
        named = state.plugins.call("bentotool_signing_identity", artifact=artifact)
        request = replace(request, key=str(named[0]) if named and named[0] != KEYLESS else None)
    return open_signer(state.plugins, request, ask_password(state))


def annotations_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """What ``--annotation KEY=VALUE`` says.

    Raises:
        UsageError: one is not of that form.
    """
    found = dict[str, str]()
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"--annotation {pair!r} is not KEY=VALUE")
        found[key] = value
    return found


def sign_stored(state: State, ref: Ref, index: str | None = None) -> tuple[StatementSigner, list[Signed]]:
    """Sign what was built, or is about to be pushed.

    Args:
        index: of a Bento, the digest of the index that is meant.

    Raises:
        BentotoolError: it cannot be signed.
    """
    from bentotool.trust.signing import ClaimOptions, claims_of, sign_claims

    target = _stored(state, ref, writes=True, index=index)
    signer = signer_of(state, target)
    claims = list(claims_of(target.place, target.objects, ClaimOptions()))
    return signer, list(sign_claims(target.place, claims, signer))


def show_signed(state: State, title: str, signer: str, signed: Sequence[Signed]) -> None:
    """Tell a person what was signed."""
    from bentotool.trust.predicatetypes import short_predicate

    new = sum(each.new for each in signed)
    state.console.line(f"signed {title} with {signer}" if new else f"{title} is signed already with {signer}")
    rows = [
        (
            each.about.kind,
            each.about.name,
            short_predicate(each.predicate_type),
            state.console.digest(each.about.digest),
            state.console.digest(each.referrer),
            "" if each.new else "as before",
        )
        for each in signed
    ]
    state.console.table(("of", "name", "what", "digest", "referrer", ""), rows)
