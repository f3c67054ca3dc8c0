"""What the commands that sign and verify share: who signs, and what of an artifact is meant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bentotool.cli.options import GlobalOptions, signing_params
from bentotool.cli.registries import open_registry
from bentotool.cli.remote import is_remote
from bentotool.cli.state import State
from bentotool.errors import BentotoolError, NotFoundError, UsageError

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.refs import Ref
    from bentotool.oci.registry import Registry
    from bentotool.signspec import SigningRequest
    from bentotool.trust.evidence import Object
    from bentotool.trust.places import Place
    from bentotool.trust.signers import StatementSigner
    from bentotool.trust.signing import Signed

__all__ = [
    "Target",
    "annotations_of",
    "ask_password",
    "find_ref",
    "legacy_tags",
    "named_signer",
    "open_target",
    "show_signed",
    "sign_built",
    "sign_stored",
    "signed_facts",
    "signer_of",
    "signs",
]

KEY_VARIABLE = "BENTOTOOL_SIGNING_KEY"
TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"  # noqa: S105 - its name
_MOST_TOKEN = 64 << 10
_MOST_PATH = 500
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


def _request(state: State) -> SigningRequest:
    from bentotool.signspec import SigningRequest

    options = state.options.signing
    key, token = options.key, options.identity_token
    if key is not None and token is not None:
        raise UsageError("--key and --identity-token exclude each other", hint="sign with a key, or without one")
    if token is None:
        key = key or os.environ.get(KEY_VARIABLE) or None
    if key is None:
        token = token or os.environ.get(TOKEN_VARIABLE) or None
    return SigningRequest(
        key=key,
        identity_token=_token(token) if token else None,
        trust_config=options.trust_config,
        interactive=sys.stdin.isatty() and not state.json,
        note=state.console.note,
    )


def _token(text: str) -> str:
    """A token, or what is in the file of that name: a command line can be read by others."""
    path = Path(text)
    try:
        if len(text) < _MOST_PATH and path.is_file():
            with path.open(encoding="utf-8") as file:
                return file.read(_MOST_TOKEN).strip()
    except (OSError, ValueError):  # no path, but a token
        pass
    return text


def named_signer(state: State) -> StatementSigner | None:
    """Who signs as far as it is known now, for commands that do something long before; None where a plugin decides.

    Raises:
        UsageError, NotFoundError: the key that is named cannot be used, or nobody can sign.
    """
    from bentotool.trust.signers import open_signer

    request = _request(state)
    asked = any("bentotool_signing_identity" in each.hooks for each in state.plugins.states())
    if request.key is None and (asked or any(each.keyless for each in state.plugins.signers().values())):
        return None
    return open_signer(state.plugins, request, ask_password(state))


def signer_of(state: State, target: Target) -> StatementSigner:
    """Who signs: as the options say, else as a plugin says for this artifact, else without a key.

    Raises:
        UsageError: nobody can.
    """
    from bentotool.trust.signers import KEYLESS, open_signer

    request = _request(state)
    if request.key is None and request.identity_token is None:
        name, _, version = target.objects[0].name.partition(":")
        own = {"name": name, "version": version, "tag": target.title}
        facts = {key: str(target.facts.get(key, own[key])) for key in own}
        artifact = _Artifact(**facts, digest=target.facts["digest"])
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
            raise UsageError(f"--annotation {pair!r} is not KEY=VALUE", hint="--annotation stage=production")
        found[key] = value
    return found


def sign_stored(
    state: State, ref: Ref, signer: StatementSigner | None = None, index: str | None = None
) -> tuple[StatementSigner, list[Signed]]:
    """Sign what was built, or is about to be pushed.

    Args:
        signer: None: :func:`signer_of` decides.
        index: of a Bento, the digest of the index that is meant.

    Raises:
        BentotoolError: it cannot be signed.
    """
    from bentotool.trust.signing import ClaimOptions, claims_of, sign_claims

    target = _stored(state, ref, writes=True, index=index)
    signer = signer or signer_of(state, target)
    claims = list(claims_of(target.place, target.objects, ClaimOptions()))
    return signer, list(sign_claims(target.place, claims, signer))


def legacy_tags(target: Target, signer: StatementSigner, annotations: Mapping[str, str]) -> list[str]:
    """Sign everything in a registry in the old way too; the tags.

    Raises:
        UsageError: what is meant is in no registry, or the signer has no key.
    """
    from bentotool.trust.simplesigning import sign_simply

    if target.registry is None or target.remote is None:
        raise UsageError(
            "--legacy-sig is a tag, which a store does not have", hint="bentotool sign --legacy-sig HOST/REPOSITORY:TAG"
        )
    return [sign_simply(target.registry, target.remote, each.digest, signer, annotations) for each in target.objects]


def signed_facts(signer: StatementSigner, signed: Sequence[Signed]) -> dict[str, Any]:
    """What was signed, as commands print it as JSON."""
    return {"signer": signer.identity, "signed": [each.to_dict() for each in signed]}


def sign_built(
    state: State, document: dict[str, Any], signer: StatementSigner | None, show: Callable[[], None]
) -> Callable[[], None]:
    """Sign the Bento that a build's result speaks of.

    Args:
        document: of the build; gets ``signer`` and ``signed``.
        show: tells a person of the build.

    Returns:
        what tells a person of both.

    Raises:
        BentotoolError: it cannot be signed; its details say which Bento was built.
    """
    built = {key: document[key] for key in ("name", "version", "tag", "digest", "size")}
    try:
        ref = find_ref(state, f"{document['name']}@{document['digest']}")
        by, signed = sign_stored(state, ref, signer)
    except BentotoolError as error:
        error.details.setdefault("built", built)
        raise
    document.update(signed_facts(by, signed))

    def both() -> None:
        show()
        show_signed(state, document["tag"], by.identity, signed, brief=True)

    return both


def show_signed(state: State, title: str, signer: str, signed: Sequence[Signed], *, brief: bool = False) -> None:
    """Tell a person what was signed; in one line where that is not what they asked for."""
    from bentotool.trust.predicatetypes import short_predicate

    new = sum(each.new for each in signed)
    state.console.line(f"signed {title} with {signer}" if new else f"{title} is signed already with {signer}")
    if brief:
        return
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
