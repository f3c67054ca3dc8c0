"""Bundles that were changed, put together from others, or made elsewhere prove nothing."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from bentotool_sigstore.certificates import signer_of
from bentotool_sigstore.signers import Sigstore

from bentotool.errors import VerificationError
from bentotool.signspec import VerifierRequest

Document = dict[str, Any]
Change = Callable[[Document, Document], object]


def _entry(bundle: Document) -> Document:
    found: Document = bundle["verificationMaterial"]["tlogEntries"][0]
    return found


def _flip(holder: Any, name: str) -> None:
    data = bytearray(base64.b64decode(holder[name]))
    data[len(data) // 2] ^= 1
    holder[name] = base64.b64encode(bytes(data)).decode()


def _reread(bundle: Document, **values: Any) -> None:
    """Say something else in the statement that was signed."""
    said = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps({**said, **values}).encode()).decode()


CHANGES: dict[str, Change] = {
    "payload": lambda b, _: _reread(b, predicateType="https://slsa.dev/provenance/v1"),
    "payload type": lambda b, _: b["dsseEnvelope"].update(payloadType="text/plain"),
    "payload of another": lambda b, o: b["dsseEnvelope"].update(payload=o["dsseEnvelope"]["payload"]),
    "envelope of another": lambda b, o: b.update(dsseEnvelope=o["dsseEnvelope"]),
    "signature": lambda b, _: _flip(b["dsseEnvelope"]["signatures"][0], "sig"),
    "no signature": lambda b, _: b["dsseEnvelope"]["signatures"].clear(),
    "two signatures": lambda b, o: b["dsseEnvelope"]["signatures"].extend(o["dsseEnvelope"]["signatures"]),
    "certificate": lambda b, _: _flip(b["verificationMaterial"]["certificate"], "rawBytes"),
    "certificate of another": lambda b, o: b["verificationMaterial"].update(
        certificate=o["verificationMaterial"]["certificate"]
    ),
    "no certificate": lambda b, _: b["verificationMaterial"].pop("certificate"),
    "no log entry": lambda b, _: b["verificationMaterial"]["tlogEntries"].clear(),
    "two log entries": lambda b, o: b["verificationMaterial"]["tlogEntries"].append(_entry(o)),
    "log entry of another": lambda b, o: b["verificationMaterial"].update(tlogEntries=[_entry(o)]),
    "body of the entry": lambda b, _: _flip(_entry(b), "canonicalizedBody"),
    "log index": lambda b, _: _entry(b)["inclusionProof"].update(logIndex="0"),
    "proof of inclusion": lambda b, _: _entry(b).pop("inclusionProof"),
    "root of the log": lambda b, _: _flip(_entry(b)["inclusionProof"], "rootHash"),
    "checkpoint": lambda b, _: _entry(b)["inclusionProof"]["checkpoint"].update(
        envelope=_entry(b)["inclusionProof"]["checkpoint"]["envelope"].replace("\n2", "\n3").replace("\n3\n", "\n4\n")
        + "x"
    ),
    "checkpoint of another": lambda b, o: _entry(b)["inclusionProof"].update(
        checkpoint=_entry(o)["inclusionProof"]["checkpoint"]
    ),
    "media type": lambda b, _: b.update(mediaType="application/json"),
    "nothing that tells the time": lambda b, _: (
        _entry(b).pop("inclusionPromise", None),
        b["verificationMaterial"].pop("timestampVerificationData"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_bundle(name: str, sign: Any, verify: Any, instance: Any, version: str) -> None:
    bundle = json.loads(sign(version=version))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"a" * 64, b"d" * 64)
    other = json.loads(sign(payload, version, instance.token("other@example.com")))
    assert verify(json.dumps(bundle).encode()).signer.identity == "dev@example.com"
    CHANGES[name](bundle, other)
    with pytest.raises(VerificationError) as caught:
        verify(json.dumps(bundle).encode())
    assert caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("what", ["integratedTime", "logId"])
def test_what_the_log_promised_is_signed(what: str, sign: Any, verify: Any) -> None:
    bundle = json.loads(sign())
    entry = _entry(bundle)
    if what == "logId":
        _flip(entry["logId"], "keyId")
    else:
        entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)
    with pytest.raises(VerificationError, match="promise"):
        verify(json.dumps(bundle).encode())


def test_timestamps_of_another_signature(sign: Any, verify: Any, instance: Any) -> None:
    bundle, other = json.loads(sign(version="_v2")), json.loads(sign(version="_v2"))
    stamps = other["verificationMaterial"]["timestampVerificationData"]
    bundle["verificationMaterial"]["timestampVerificationData"] = stamps
    with pytest.raises(VerificationError, match="time"):
        verify(json.dumps(bundle).encode())


def test_roots_of_another_instance(sign: Any, stand_ins: Any, tmp_path: Any, version: str) -> None:
    other = stand_ins.StandIn(tmp_path)
    other.close()
    with pytest.raises(VerificationError):
        Sigstore().verifier(VerifierRequest(tmp_path / "trusted_root.json", offline=True)).verify(sign(version=version))


def test_a_certificate_used_after_its_time(sign: Any, verify: Any, instance: Any) -> None:
    """A stolen key of a certificate that has expired: the log says when it was used."""
    from datetime import timedelta

    from bentotool_sigstore import signing

    with pytest.MonkeyPatch.context() as patch, instance.trouble("rekor", early=timedelta(hours=-1)):
        patch.setattr(signing, "certified", lambda *_: None)  # the check that signing itself ends with
        bundle = sign()
    with pytest.raises(VerificationError, match="not valid at the time"):
        verify(bundle)


def _damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at, what = rng.randrange(len(data)), rng.randrange(3)
        if what == 0:
            del data[at : at + rng.randint(1, 200)]
        elif what == 1:
            data[at] = rng.randrange(256)
        else:
            data[at:at] = data[: rng.randint(1, 50)]
    return bytes(data)


def test_damaged_bundles_are_refused_in_one_line(sign: Any, verify: Any) -> None:
    whole, rng = sign(), random.Random(9)
    signed, refused = base64.b64decode(json.loads(whole)["dsseEnvelope"]["payload"]), []
    for _ in range(150):
        try:
            # where it still verifies, what was changed is no part of what is believed
            assert verify(_damaged(whole, rng)).payload == signed
        except VerificationError as error:
            refused.append(error.message)
    assert len(refused) > 100
    assert not [said for said in refused if "\n" in said or len(said) > 400]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 200_000, b'{"mediaType":1}'])
def test_what_is_no_bundle(data: bytes, verify: Any) -> None:
    with pytest.raises(VerificationError):
        verify(data)


# --- whom a certificate names -----------------------------------------------------------------------------------------


def _certificate(names: list[Any], extensions: dict[int, bytes]) -> Any:
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key, at = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    built = (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([]))
        .subject_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at)
        .not_valid_after(at + timedelta(minutes=10))
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for number, value in extensions.items():
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
        built = built.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return built.sign(key, hashes.SHA256())


def _utf8(text: str) -> bytes:
    data = text.encode()
    return bytes([0x0C, len(data)]) + data


def _mail(text: str) -> Any:
    from cryptography.x509 import RFC822Name

    return RFC822Name(text)


def test_both_forms_of_the_issuer() -> None:
    old = signer_of(_certificate([_mail("a@b.c")], {1: b"https://i"}))
    new = signer_of(_certificate([_mail("a@b.c")], {8: _utf8("https://i"), 20: _utf8("push")}))
    assert (old.issuer, new.issuer, new.extensions) == ("https://i", "https://i", {"buildTrigger": "push"})


def test_a_user_name() -> None:
    from cryptography.x509 import ObjectIdentifier, OtherName

    name = OtherName(ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), _utf8("ada!example.com"))
    assert signer_of(_certificate([name], {8: _utf8("https://i")})).identity == "ada!example.com"


@pytest.mark.parametrize(
    ("names", "extensions", "says"),
    [
        (["a@b.c", "d@e.f"], {8: _utf8("https://i")}, "2 identities"),
        ([], {8: _utf8("https://i")}, "0 identities"),
        (["a@b.c"], {}, "no issuer"),
        (["a@b.c"], {8: b""}, "no text"),
        (["a@b.c"], {8: b"\x0c\x05abc"}, "no text"),
        (["a@b.c"], {8: _utf8("https://i") + b"x"}, "no text"),
        (["a@b.c"], {8: b"\x0c\x84\xff\xff\xff\xffx"}, "no text"),
        (["a@b.c"], {8: b"\x0c\x02\xff\xff"}, "no text"),
        (["a@b.c"], {1: b"https://other", 8: _utf8("https://i")}, "two issuers"),
    ],
)
def test_a_certificate_that_does_not_say_who(names: list[str], extensions: dict[int, bytes], says: str) -> None:
    with pytest.raises(VerificationError, match=says):
        signer_of(_certificate([_mail(each) for each in names], extensions))
