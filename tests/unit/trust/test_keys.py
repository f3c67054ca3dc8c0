"""Keys: those of cosign, of OpenSSL and our own."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UsageError
from bentotool.trust.cosignkey import is_cosign_key, open_cosign_key, seal_cosign_key
from bentotool.trust.keys import load_public_key, parse_public_key
from bentotool.trust.privatekeys import FORMS, KINDS, PASSWORD_VARIABLES, load_private_key, make_pair
from bentotool.trust.secretbox import open_box, seal_box

# made by cosign 2.5 with the password "pw"
COSIGN_KEY = b"""-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJ3a2I2SjJCbGRWaVRlNFpuNkVPN0U4ZmVGWWEwR3pR
RFVPSThIQmU3bVowPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJCYW5EOGVXK1RvWi9lemxwREtYeUtEWFRmc2tYY1ZOZiJ9LCJj
aXBoZXJ0ZXh0IjoiNmNZc2picTY5YmVqQUVCVnFKTUlvQllpUFVXTXd2UllNVFpx
NzBpTXc2N2toelBLOXNBR3UzTW4xMGhkOG9nV0VsRWhyMUlXT2lqMDJ1VGE1UGls
L3ZuQkZVSTBFR2JDZk8rZTNHdEp0ZVRRSlB2dlo1QXFmNDR4cXlsSmk1Zld1N0px
ZVh4bUduMmJGOG5oUGQ1WUhRamtqTGpsUHE5V0F5VThjd2xjdVpaQmpZa0NRZzlC
T0VWc1JENlg1RjhuYnJvYWM0KzBHS2hhSVE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
COSIGN_PUB = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQ50qbWlxS4KCnw+W19NBEqJRvKvd
3Dt7RkkZNSKNxwcyVMz3dJL5DlcHWpjLV2h/9oPcLb0G8QnfwGdIBohUew==
-----END PUBLIC KEY-----
"""


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSWORD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.key"
    path.write_bytes(data)
    return path


def pem(key: Any, password: bytes = b"", form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    data: bytes = key.private_bytes(
        Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption()
    )
    return data


def test_secretbox_is_that_of_nacl() -> None:
    """The vector of NaCl's own test, tests/secretbox.c."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4"
        "1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52"
        "f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b"
        "4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
        "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )
    assert seal_box(key, nonce, message) == box
    assert open_box(key, nonce, box) == message
    for place in (0, 20, len(box) - 1):
        assert open_box(key, nonce, box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]) is None


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=200))
def test_no_box_is_opened_that_was_not_sealed(key: bytes, nonce: bytes, box: bytes) -> None:
    assert open_box(key, nonce, box) is None


@pytest.mark.parametrize("label", [b"SIGSTORE", b"COSIGN"])
def test_a_key_of_cosign(tmp_path: Path, label: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, COSIGN_KEY.replace(b"SIGSTORE", label))
    assert load_private_key(path, lambda text: b"pw").public.pem == COSIGN_PUB
    monkeypatch.setenv("COSIGN_PASSWORD", "pw")
    key = load_private_key(path)
    assert key.public.verify(b"data", key.sign(b"data"))
    monkeypatch.setenv("BENTOTOOL_KEY_PASSWORD", "other")
    with pytest.raises(UsageError, match="password of key .* is wrong"):
        load_private_key(path)


def _sealed(**changed: Any) -> bytes:
    body = b"".join(COSIGN_KEY.splitlines()[1:-1])
    document = {**json.loads(base64.b64decode(body)), **changed}
    return (
        b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
        + base64.b64encode(json.dumps(document).encode())
        + b"\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    )


def _kdf(**cost: Any) -> dict[str, Any]:
    return {"name": "scrypt", "params": {"N": 65536, "r": 8, "p": 1, **cost}, "salt": "c2FsdA=="}


@pytest.mark.parametrize(
    "changed",
    [
        {"kdf": _kdf(N=1 << 30)},
        {"kdf": _kdf(r=1 << 20)},
        {"kdf": _kdf(p=1 << 20)},
        {"kdf": _kdf(N=65535)},
        {"kdf": _kdf(N=1)},
        {"kdf": _kdf(N=True)},
        {"kdf": _kdf(N=-2)},
        {"kdf": {**_kdf(), "params": 7}},
        {"kdf": {**_kdf(), "name": "md5"}},
        {"kdf": None},
        {"cipher": {"name": "rot13"}},
        {"cipher": {"name": "nacl/secretbox", "nonce": 7}},
        {"ciphertext": "%"},
    ],
)
def test_a_damaged_key_of_cosign_is_refused_before_it_costs_anything(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = written(tmp_path, _sealed(**changed))
    with pytest.raises(UsageError, match=r"key .*a\.key: it"):
        load_private_key(path, lambda text: b"pw")


@pytest.mark.parametrize("changed", [{"ciphertext": ""}, {"cipher": {"name": "nacl/secretbox", "nonce": "c2hvcnQ="}}])
def test_a_key_of_cosign_with_too_little_in_it_does_not_open(changed: dict[str, Any]) -> None:
    assert open_cosign_key(_sealed(**changed), b"pw") is None


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader_of_keys(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("keys"), b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n" + data)
    for read in (load_private_key, load_public_key):
        with pytest.raises(BentotoolError) as failure:
            read(path)
        assert "\n" not in failure.value.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_new_pair(tmp_path: Path, kind: str, form: str) -> None:
    made = make_pair(tmp_path / "release.key", b"secret", kind, form)
    assert (made.private.name, made.public.name, made.key.kind) == ("release.key", "release.pub", kind)
    assert is_cosign_key(made.private.read_bytes()) == (form == "cosign")
    assert load_public_key(made.public).fingerprint == made.key.fingerprint
    key = load_private_key(made.private, lambda text: b"secret")
    assert load_public_key(made.public).verify(b"x", key.sign(b"x"))
    assert not load_public_key(made.public).verify(b"y", key.sign(b"x"))
    with pytest.raises(UsageError, match="encrypted, and no password"):
        load_private_key(made.private)
    if os.name == "posix":
        assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    before = made.private.read_bytes()
    with pytest.raises(ConflictError, match="already exists"):
        make_pair(tmp_path / "release.key", b"other", kind)
    assert made.private.read_bytes() == before
    assert "secret" not in repr(key)


def test_a_pair_is_not_made_where_the_public_key_would_hit_another(tmp_path: Path) -> None:
    (tmp_path / "release.pub").write_text("of somebody")
    with pytest.raises(ConflictError, match=r"release\.pub already exists"):
        make_pair(tmp_path / "release", b"")
    assert not (tmp_path / "release").exists()
    with pytest.raises(NotFoundError, match="folder .* does not exist"):
        make_pair(tmp_path / "no" / "key", b"")
    for wrong in ({"kind": "rsa"}, {"form": "jwk"}):
        with pytest.raises(UsageError, match="is not known"):
            make_pair(tmp_path / "key", b"", **wrong)


def test_keys_of_openssl(tmp_path: Path) -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
        for data in (pem(key), pem(key, b"pw")):
            found = load_private_key(written(tmp_path, data), lambda text: b"pw")
            assert found.public.verify(b"data", found.sign(b"data"))
        with pytest.raises(UsageError, match="is wrong"):
            load_private_key(written(tmp_path, pem(key, b"pw")), lambda text: b"another")
    old = pem(ec.generate_private_key(ec.SECP256R1()), form=PrivateFormat.TraditionalOpenSSL)
    assert b"EC PRIVATE KEY" in old
    assert load_private_key(written(tmp_path, old)).public.kind == "ecdsa-p256"


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(UsageError, match="neither an EC key on P-256 nor an Ed25519 key"):
            load_private_key(written(tmp_path, pem(key)))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(UsageError, match="neither an EC key on P-256 nor an Ed25519 key"):
            parse_public_key(public)


def test_a_key_of_the_wrong_half_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a public key"):
        load_private_key(written(tmp_path, COSIGN_PUB))
    for data in (COSIGN_KEY, pem(ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(UsageError, match="is a private key"):
            load_public_key(written(tmp_path, data))


def test_files_that_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        load_private_key(tmp_path / "none")
    with pytest.raises(UsageError, match=r"more than|cannot be read"):
        load_private_key(tmp_path)
    with pytest.raises(UsageError, match="more than"):
        load_private_key(written(tmp_path, b"x" * 100_000))
    with pytest.raises(UsageError, match="no private key in PEM"):
        load_private_key(written(tmp_path, b"x"))


def test_a_public_key_has_one_form_however_it_was_written() -> None:
    messy = b"made by hand\r\n" + COSIGN_PUB.replace(b"\n", b"\r\n") + b"\r\n"
    assert parse_public_key(messy).pem == COSIGN_PUB
    assert parse_public_key(messy).fingerprint == parse_public_key(COSIGN_PUB).fingerprint


@given(st.binary(max_size=120))
def test_no_signature_is_taken_that_is_none(signature: bytes) -> None:
    assert not parse_public_key(COSIGN_PUB).verify(b"data", signature)


def test_a_sealed_key_opens_with_its_password_only() -> None:
    sealed = seal_cosign_key(b"der", b"pw")
    assert open_cosign_key(sealed, b"pw") == b"der"
    assert open_cosign_key(sealed, b"pW") is None
