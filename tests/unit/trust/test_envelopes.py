"""Envelopes, statements and bundles: what is written is read again, and what is anything else is refused in a line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.errors import VerificationError
from bentotool.trust.bundle import BUNDLE, BUNDLE_LIMIT, Bundle, key_bundle
from bentotool.trust.dsse import IN_TOTO, Envelope, pae
from bentotool.trust.statements import COSIGN_SIGN, Statement, Subject

HEX = "ab" * 32
_KEYS = [
    "mediaType", "verificationMaterial", "publicKey", "hint", "certificate", "dsseEnvelope", "payload", "payloadType",
    "signatures", "sig", "_type", "subject", "digest", "sha256", "predicateType", "predicate", "tlogEntries",
]  # fmt: skip
_TEXTS = st.sampled_from([BUNDLE, IN_TOTO, "https://in-toto.io/Statement/v1", HEX, "e30=", "", "\ud800", "x" * 300])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6),
    max_leaves=24,
)


def bundle(**changed: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(key_bundle(Envelope(IN_TOTO, b"{}", (b"s",)), "hint"))
    return {**document, **changed}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def refusal(read: Callable[[Any], object], value: object) -> str:
    """Why something is refused; empty where it is taken."""
    try:
        read(value)
    except VerificationError as error:
        return error.message
    return ""


def test_what_is_signed_is_that_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=80))
def test_a_bundle_is_read_as_it_was_written(payload: bytes, signature: bytes) -> None:
    found = Bundle.from_bytes(key_bundle(Envelope(IN_TOTO, payload, (signature,)), "abc"))
    assert (found.envelope.payload, found.envelope.signatures, found.hint) == (payload, (signature,), "abc")
    assert (found.certified, found.logged) == (False, False)


@given(ANYTHING)
def test_no_json_is_taken_that_is_no_bundle(value: object) -> None:
    for read in (Bundle.from_bytes, Statement.from_bytes):
        assert "\n" not in refusal(read, encoded(value))


@given(st.dictionaries(st.sampled_from(_KEYS), ANYTHING, max_size=4))
def test_no_part_of_a_bundle_is_believed(parts: dict[str, Any]) -> None:
    assert "\n" not in refusal(Bundle.from_bytes, encoded(bundle(**parts)))
    assert "\n" not in refusal(Envelope.from_dict, {**bundle()["dsseEnvelope"], **parts})


@given(st.binary(max_size=300))
def test_no_bytes_are_taken_that_are_no_bundle(data: bytes) -> None:
    with pytest.raises(VerificationError):
        Bundle.from_bytes(data)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (bundle(mediaType="application/vnd.dev.sigstore.bundle.v9+json"), "is of type"),
        (bundle(verificationMaterial=[]), "no verificationMaterial"),
        (bundle(verificationMaterial={}), "whether a key or a certificate"),
        (bundle(verificationMaterial={"publicKey": {}, "certificate": {}}), "whether a key or a certificate"),
        ({**bundle(), "dsseEnvelope": {**bundle()["dsseEnvelope"], "signatures": []}}, "1 to 16 signatures"),
        ({**bundle(), "dsseEnvelope": {**bundle()["dsseEnvelope"], "payload": "%%"}}, "not base64"),
        ({**bundle(), "dsseEnvelope": {**bundle()["dsseEnvelope"], "signatures": [{"sig": ""}]}}, "has 0 bytes"),
        ({**bundle(), "dsseEnvelope": {**bundle()["dsseEnvelope"], "signatures": [{}]}}, "not a text in base64"),
    ],
)
def test_what_is_wrong_with_a_bundle_is_said(document: dict[str, Any], said: str) -> None:
    with pytest.raises(VerificationError, match=said):
        Bundle.from_bytes(encoded(document))


def test_a_bundle_that_signs_a_file_is_no_statement() -> None:
    document = bundle()
    del document["dsseEnvelope"]
    with pytest.raises(VerificationError, match="signs a file"):
        Bundle.from_bytes(encoded({**document, "messageSignature": {}}))


def test_a_bundle_is_bounded() -> None:
    with pytest.raises(VerificationError, match="more than the"):
        Bundle.from_bytes(b" " * (BUNDLE_LIMIT + 1))
    with pytest.raises(VerificationError, match="not valid JSON"):
        Bundle.from_bytes(b"[" * 100_000)


def test_a_name_that_stands_twice_is_refused() -> None:
    """One reader would take the first, another the last."""
    data = key_bundle(Envelope(IN_TOTO, b"{}", (b"s",)), "h")
    with pytest.raises(VerificationError, match="stands twice"):
        Bundle.from_bytes(data.replace(b'{"dsseEnvelope"', b'{"mediaType":"x","dsseEnvelope"', 1))


def test_a_statement_is_read_as_it_was_written() -> None:
    made = Statement((Subject("iris:1", HEX, {"stage": "prod"}),), COSIGN_SIGN, {"a": [1]})
    assert Statement.from_bytes(made.to_bytes()) == made
    assert made.about("cd" * 32) is None
    assert made.about("cd" * 32, HEX) == made.subjects[0]


def test_a_statement_of_cosign_has_no_name_of_its_subject() -> None:
    document = json.loads(Statement((Subject("", HEX),), COSIGN_SIGN, {}).to_bytes())
    assert document["subject"] == [{"digest": {"sha256": HEX}}]
    assert Statement.from_bytes(encoded({**document, "predicate": None})).predicate == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"_type": "x"}, "no in-toto statement"),
        ({"subject": []}, "1 to 1000 subjects"),
        ({"subject": [{"digest": {"sha256": HEX}}] * 1001}, "1 to 1000 subjects"),
        ({"subject": [{"name": "x"}]}, "no digest"),
        ({"predicateType": ""}, "no predicateType"),
        ({"predicate": "x"}, "not a JSON object"),
    ],
)
def test_what_is_wrong_with_a_statement_is_said(changed: dict[str, Any], said: str) -> None:
    document = json.loads(Statement((Subject("a", HEX),), COSIGN_SIGN, {}).to_bytes())
    with pytest.raises(VerificationError, match=said):
        Statement.from_bytes(encoded({**document, **changed}))


@pytest.mark.parametrize("digest", [HEX.upper(), HEX[:-1], HEX + "\n", 7, None, f"sha256:{HEX}"])
def test_a_digest_that_is_none_names_nothing(digest: object) -> None:
    document = json.loads(Statement((Subject("a", HEX),), COSIGN_SIGN, {}).to_bytes())
    found = Statement.from_bytes(encoded({**document, "subject": [{"digest": {"sha256": digest}}]}))
    assert found.about(HEX, "", str(digest)) is None


def test_base64_is_strict() -> None:
    text = base64.b64encode(b"payload").decode()
    for bad in (text + "\n", " " + text, text[:-2], text.replace("=", "-")):
        with pytest.raises(VerificationError, match="base64"):
            Envelope.from_dict({"payloadType": IN_TOTO, "payload": bad, "signatures": [{"sig": "cw=="}]})
