"""Signing what lies in a store, and telling what its signatures prove."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import RemoteError, UsageError, VerificationError
from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore
from bentotool.oci.attached import Attachment, attach, referrers
from bentotool.oci.descriptor import MANIFEST, Manifest
from bentotool.oci.layout import Layout
from bentotool.signspec import Certified, SignerIdentity
from bentotool.trust.bundle import BUNDLE, key_bundle
from bentotool.trust.dsse import IN_TOTO, Envelope, pae
from bentotool.trust.evidence import Findings, Object
from bentotool.trust.judging import Asked, judge
from bentotool.trust.modelsigning import files_named
from bentotool.trust.objects import stored_model_object
from bentotool.trust.places import StorePlace
from bentotool.trust.predicatetypes import predicate_type, read_predicate, short_predicate
from bentotool.trust.privatekeys import FileKey, load_private_key, make_pair
from bentotool.trust.readers import StoreReader
from bentotool.trust.signers import KeySigner
from bentotool.trust.signing import ClaimOptions, Signed, attestation, claims_of, sign_claims
from bentotool.trust.statements import COSIGN_SIGN, MODEL_SIGNING, Statement, Subject
from bentotool.trust.verifying import gather


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[FileKey]:
    folder = tmp_path_factory.mktemp("keys")
    kinds = ("ecdsa-p256", "ed25519", "ecdsa-p256")
    return [load_private_key(make_pair(folder / f"{n}.key", b"", kind).private) for n, kind in enumerate(kinds)]


@pytest.fixture
def layout(store: Path) -> Layout:
    return Layout(store)


def model(layout: Layout, name: str = "iris", data: bytes = b"weights") -> Object:
    files = [
        ModelFile(each, len(data), layout.put(data, "application/octet-stream").digest)
        for each in ("model.onnx", "a/b.txt", "a-b.txt")
    ]
    details = ModelDetails("onnx", "onnx", "data", "model.onnx", {"inputs": [], "outputs": []}, (), {}, {})
    return stored_model_object(layout, ModelStore(layout).add(name, "1", files, details).digest)


def signed(layout: Layout, objects: Sequence[Object], key: FileKey, **options: Any) -> list[Signed]:
    place = StorePlace(layout)
    claims = list(claims_of(place, objects, ClaimOptions(**options)))
    return list(sign_claims(place, claims, KeySigner(key, key.public)))


def found(layout: Layout, objects: Sequence[Object], *keys: FileKey) -> Findings:
    return gather(objects, [key.public for key in keys], None, StoreReader(layout))


def put(layout: Layout, about: Object, bundle: bytes, kind: str = BUNDLE, media_type: str = BUNDLE) -> str:
    return attach(layout, about.digest, kind, [Attachment(bundle, media_type)]).digest


def stated(key: FileKey, statement: bytes, kind: str = IN_TOTO) -> bytes:
    return key_bundle(Envelope(kind, statement, (key.sign(pae(kind, statement)),)), key.public.hint)


def about(one: Object, predicate_type: str = COSIGN_SIGN) -> bytes:
    return Statement((Subject("x", one.digest[7:]),), predicate_type, {}).to_bytes()


@pytest.mark.parametrize("which", [0, 1])
def test_a_model_is_signed_and_verified(layout: Layout, keys: list[FileKey], which: int) -> None:
    one, key = model(layout), keys[which]
    assert [(each.predicate_type, each.new) for each in signed(layout, [one], key)] == [
        (COSIGN_SIGN, True),
        (MODEL_SIGNING, True),
    ]
    findings = found(layout, [one], key, keys[2])
    assert {each.kind for each in findings.evidence} == {"signature"}
    assert {each.signer.key for each in findings.evidence} == {key.public.fingerprint}
    assert not findings.rejected
    verdict = judge([one], findings, Asked(frozenset({key.public.fingerprint})).counts)
    assert verdict.satisfied
    assert not judge([one], findings, Asked(frozenset({keys[2].public.fingerprint})).counts).satisfied


def test_the_referrer_is_as_cosign_has_it(layout: Layout, keys: list[FileKey], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    one = model(layout)
    digest = signed(layout, [one], keys[1])[0].referrer
    manifest = Manifest.from_bytes(layout.read(digest))
    assert json.loads(layout.read(digest))["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert manifest.artifact_type == manifest.layers[0].media_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert manifest.annotations == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
        "org.opencontainers.image.created": "1970-01-01T00:00:01Z",
    }
    assert manifest.subject is not None
    assert (manifest.subject.digest, manifest.subject.media_type) == (one.digest, MANIFEST)
    bundle = json.loads(layout.read(manifest.layers[0].digest))
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": keys[1].public.hint}}
    assert bundle["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"


def test_a_second_signature_of_the_same_key_is_not_piled_up(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    first = signed(layout, [one], keys[0])
    again = signed(layout, [one], keys[0])
    assert [each.referrer for each in again] == [each.referrer for each in first]
    assert not any(each.new for each in again)
    assert all(each.new for each in signed(layout, [one], keys[1]))
    assert [each.new for each in signed(layout, [one], keys[0], annotations={"stage": "prod"})] == [True, False]
    assert len(referrers(layout, one.digest)) == 5


def test_the_statement_about_the_files_of_a_model(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    signed(layout, [one], keys[0])
    (statement,) = (each for each in found(layout, [one], keys[0]).evidence if each.predicate_type == MODEL_SIGNING)
    named = files_named(statement.predicate)
    assert named is not None
    # in the order of paths by their parts, as model-signing sorts them
    assert list(named) == ["a/b.txt", "a-b.txt", "model.onnx"]
    assert statement.predicate["serialization"]["method"] == "files"
    assert files_named({"resources": [{"name": "x"}]}) is None


def test_a_statement_about_other_files_proves_nothing(layout: Layout, keys: list[FileKey]) -> None:
    one, other = model(layout), model(layout, "other", b"other weights")
    signed(layout, [other], keys[0])
    for each in referrers(layout, other.digest):
        put(layout, one, layout.read(each.manifest.layers[0].digest))
    findings = found(layout, [one], keys[0])
    assert not findings.evidence
    assert {each.reason for each in findings.rejected} == {f"it speaks of another artifact, not of {one.digest}"}


def test_an_attestation_is_no_signature(layout: Layout, keys: list[FileKey]) -> None:
    one, place = model(layout), StorePlace(layout)
    claim = attestation([one], "https://example.com/scan/v1", {"passed": True})
    for new in (True, False):
        assert [each.new for each in sign_claims(place, [claim], KeySigner(keys[0], keys[0].public))] == [new]
    findings = found(layout, [one], keys[0])
    assert [(each.kind, each.predicate) for each in findings.evidence] == [("attestation", {"passed": True})]
    counts = Asked(frozenset({keys[0].public.fingerprint})).counts
    verdict = judge([one], findings, counts)
    assert not verdict.satisfied
    assert verdict.objects[0].reason == "attestations are attached, and no signature"
    signed(layout, [one], keys[0])
    findings = found(layout, [one], keys[0])
    assert judge([one], findings, counts, ["https://example.com/scan/v1"]).satisfied
    assert judge([one], findings, counts, ["https://example.com/other"]).missing == ("https://example.com/other",)


def test_an_attestation_that_no_bundle_holds_is_refused(layout: Layout) -> None:
    with pytest.raises(UsageError, match="more than the"):
        attestation([model(layout)], "https://example.com/v1", {"x": "y" * (7 << 20)})


def test_annotations_have_to_be_signed(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    signed(layout, [one], keys[0], annotations={"stage": "prod"})
    findings = found(layout, [one], keys[0])
    for wanted, satisfied in (({}, True), ({"stage": "prod"}, True), ({"stage": "test"}, False), ({"x": "y"}, False)):
        asked = Asked(frozenset({keys[0].public.fingerprint}), annotations=frozenset(wanted.items()))
        assert judge([one], findings, asked.counts).satisfied == satisfied


def test_what_was_changed_proves_nothing(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    good = json.loads(stated(keys[0], about(one)))
    other = json.loads(stated(keys[2], about(one)))
    payload = base64.b64encode(about(one, "https://example.com/other")).decode()
    forged = {**good, "dsseEnvelope": {**good["dsseEnvelope"], "payload": payload}}
    hinted = {**other, "verificationMaterial": good["verificationMaterial"]}
    for bad in (forged, hinted):
        put(layout, one, json.dumps(bad).encode())
    findings = found(layout, [one], keys[0])
    assert not findings.evidence
    assert [each.reason for each in findings.rejected] == [
        "it was signed with another key than those given, or changed since"
    ] * 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda key, one: b"\x00\xff not json", "not valid JSON"),
        (lambda key, one: b"{}", "is of type"),
        (lambda key, one: stated(key, about(one), "text/plain"), "payload is of type 'text/plain'"),
        (lambda key, one: stated(key, b"[]"), "not a JSON object"),
        (lambda key, one: stated(key, b'{"_type":"x"}'), "no in-toto statement"),
    ],
)
def test_a_foreign_bundle_is_rejected_with_its_reason(
    layout: Layout, keys: list[FileKey], make: Callable[[FileKey, Object], bytes], said: str
) -> None:
    one = model(layout)
    signed(layout, [one], keys[0])
    digest = put(layout, one, make(keys[0], one))
    findings = found(layout, [one], keys[0])
    assert len(findings.evidence) == 2
    (rejected,) = findings.rejected
    assert (rejected.referrer, rejected.subject) == (digest, one.digest)
    assert said in rejected.reason


def test_a_referrer_without_one_bundle_is_rejected(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    put(layout, one, b"{}", BUNDLE, "text/plain")
    bundles = [Attachment(stated(keys[0], about(one)), BUNDLE), Attachment(stated(keys[1], about(one)), BUNDLE)]
    attach(layout, one.digest, BUNDLE, bundles)
    assert sorted(each.reason for each in found(layout, [one], keys[0]).rejected) == [
        "it carries 0 bundles, not one",
        "it carries 2 bundles, not one",
    ]


def test_what_is_no_bundle_is_left_alone(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    put(layout, one, b"{}", "application/spdx+json", "application/spdx+json")
    assert found(layout, [one], keys[0]) == Findings()


def test_a_thousand_bundles_are_no_more_than_a_thousand(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    signed(layout, [one], keys[0])
    for number in range(200):
        put(layout, one, b"%d" % number)
    findings = found(layout, [one], keys[0])
    assert (len(findings.evidence), len(findings.rejected)) == (2, 200)


def test_bundles_that_are_many_bytes_are_not_all_read(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    for number in range(10):
        put(layout, one, b" " * (8 << 20) if number == 0 else b" " * ((8 << 20) - number))
    reasons = [each.reason for each in found(layout, [one], keys[0]).rejected]
    assert sum("no more are read" in each for each in reasons) == 2


def test_a_bundle_that_is_gone_is_rejected(layout: Layout, keys: list[FileKey]) -> None:
    one = model(layout)
    signed(layout, [one], keys[0])
    for each in referrers(layout, one.digest):
        layout.blob_path(each.manifest.layers[0].digest).unlink()
    findings = found(layout, [one], keys[0])
    assert not findings.evidence
    assert all("is not in the store" in each.reason for each in findings.rejected)


class Certificates:
    """A verifier as a plugin may have one."""

    def __init__(self, answer: Certified | Exception) -> None:
        self.answer = answer

    def verify(self, bundle: bytes) -> Certified:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


ADA = SignerIdentity(identity="ada@example.com", issuer="https://issuer.example", extensions={"ref": "main"})
WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def certified(layout: Layout, key: FileKey) -> Object:
    one = model(layout)
    document = json.loads(stated(key, about(one)))
    put(layout, one, json.dumps({**document, "verificationMaterial": {"certificate": {"rawBytes": ""}}}).encode())
    return one


def test_a_certificate_is_for_a_plugin(layout: Layout, keys: list[FileKey]) -> None:
    one = certified(layout, keys[0])
    (rejected,) = found(layout, [one], keys[0]).rejected
    assert rejected.reason == "it was signed with a certificate, and no identity was given"
    verifier = Certificates(Certified(IN_TOTO, about(one), ADA, WHEN))
    findings = gather([one], [], verifier, StoreReader(layout))
    (evidence,) = findings.evidence
    assert (evidence.signer, evidence.signed_at) == (ADA, WHEN)
    assert evidence.to_dict()["signed_at"] == "2026-01-01T00:00:00Z"
    for identity, issuer, satisfied in (
        (ADA.identity, ADA.issuer, True),
        (ADA.identity, "https://issuer.example/", False),
        ("eve@example.com", ADA.issuer, False),
        (ADA.identity, None, False),
        (None, None, False),
    ):
        assert judge([one], findings, Asked(identity=identity, issuer=issuer).counts).satisfied == satisfied


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (VerificationError("the chain is broken"), "the chain is broken"),
        (KeyError("x"), "could not be verified: KeyError"),
        (RecursionError("deep\nhole"), "could not be verified: RecursionError: deep hole"),
        (Certified(IN_TOTO, b"{}", SignerIdentity(identity="a"), None), "names no identity and issuer"),
        (Certified(IN_TOTO, b"{}", SignerIdentity(key="sha256:x"), None), "names no identity and issuer"),
        (Certified("text/plain", b"{}", ADA, None), "payload is of type"),
        (Certified(IN_TOTO, b"{}", ADA, None), "no in-toto statement"),
    ],
)
def test_what_a_verifier_says_is_checked(
    layout: Layout, keys: list[FileKey], answer: Certified | Exception, said: str
) -> None:
    one = certified(layout, keys[0])
    findings = gather([one], [], Certificates(answer), StoreReader(layout))
    assert not findings.evidence
    assert said in findings.rejected[0].reason


def test_a_service_that_does_not_answer_is_no_verdict(layout: Layout, keys: list[FileKey]) -> None:
    one = certified(layout, keys[0])
    with pytest.raises(RemoteError):
        gather([one], [], Certificates(RemoteError("no answer")), StoreReader(layout))


def test_nothing_is_satisfied_by_nothing() -> None:
    assert not judge([], Findings(), lambda each: True).satisfied


def test_names_of_predicates(tmp_path: Path) -> None:
    assert predicate_type("spdxjson") == predicate_type("spdx") == "https://spdx.dev/Document"
    assert predicate_type("https://example.com/x") == "https://example.com/x"
    assert short_predicate("https://spdx.dev/Document") == "spdx"
    assert short_predicate("https://example.com/x") == "https://example.com/x"
    for bad in ("scan", "", "https://example.com/ x", COSIGN_SIGN, MODEL_SIGNING):
        with pytest.raises(UsageError):
            predicate_type(bad)
    path = tmp_path / "p.json"
    statement = '{"_type": "x", "predicateType": "y"}'
    for text in ("[]", "{", statement, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": -Infinity}', '{"a": "\\ud800"}'):
        path.write_text(text)
        with pytest.raises(UsageError):
            read_predicate(path)
    path.write_text('{"a": 1}')
    assert read_predicate(path) == {"a": 1}


def test_a_holder_of_a_key_is_not_believed(keys: list[FileKey]) -> None:
    from bentotool.errors import PluginError

    class Odd:
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def public_key(self) -> bytes:
            return keys[0].public.pem

        def sign(self, data: bytes) -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    for answer in (b"junk", b"", None, OSError("the vault\nis closed"), keys[2].sign(b"x")):
        with pytest.raises(PluginError, match=r"is not one of its public key|OSError: the vault is closed"):
            KeySigner(Odd(answer), keys[0].public).bundle(b"x")
