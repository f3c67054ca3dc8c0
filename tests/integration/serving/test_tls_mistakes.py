"""What is wrong about TLS ends the start as wrong usage: never is something else served than was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.errors import ConfigError, UsageError
from bentotool.runtime.tls import tls_context, tls_of
from bentotool.sdk.service import Service
from bentotool.sdk.transport_options import TlsOptions

LIMIT = 60
SERVICE = """
import bentotool

@bentotool.service({options})
class Guarded:
    @bentotool.api
    async def name(self) -> str:
        return "guarded"
"""
TOOL, RUNTIME = ("-m", "bentotool", "serve"), ("-m", "bentotool.runtime")


def made(**options: Any) -> Service[Any]:
    @bentotool.service(**options)
    class Guarded:
        @bentotool.api
        def name(self) -> str:
            return "guarded"

    return Guarded


@pytest.fixture(scope="module")
def files(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of ``certificates``, and some that are none."""
    from cryptography.hazmat.primitives import serialization as forms

    folder = Path(shutil.copytree(certificates, tmp_path_factory.mktemp("tls") / "files"))
    key = forms.load_pem_private_key((folder / "server.key").read_bytes(), None)
    pem, plain = (forms.Encoding.PEM, forms.PrivateFormat.PKCS8)
    (folder / "locked.key").write_bytes(key.private_bytes(pem, plain, forms.BestAvailableEncryption(b"right")))
    (folder / "empty.pem").write_text("")
    (folder / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "folder").mkdir()
    return folder


def variables(files: Path, values: dict[str, str]) -> dict[str, str]:
    paths = ("CERTFILE", "KEYFILE", "CA_CERTS")
    return {f"BENTOTOOL_SSL_{key}": str(files / name) if key in paths else name for key, name in values.items()}


@pytest.mark.parametrize(
    ("changed", "words", "hint"),
    [
        ({"CERTFILE": "absent"}, "absent: no such file", "--ssl-certfile FILE, or BENTOTOOL_SSL_CERTFILE=FILE"),
        ({"KEYFILE": "absent"}, "absent: no such file", "--ssl-keyfile FILE"),
        ({"CERTFILE": "folder"}, "is no file", "--ssl-certfile"),
        ({"CERTFILE": "server.key", "KEYFILE": "server.pem"}, "holds no certificate", "changed places"),
        ({"CERTFILE": "damaged.pem"}, "damaged.pem with .*server.key: ", "damaged"),
        ({"KEYFILE": "client.key"}, "client.key does not belong to .*server.pem", "the key that it was made for"),
        ({"KEYFILE": "ca.pem"}, "holds no private key", "--ssl-keyfile is a PEM file"),
        ({"KEYFILE": ""}, "no private key: .*server.pem holds the certificate alone", "--ssl-keyfile FILE"),
        ({"KEYFILE": "locked.key"}, "locked.key is locked", "BENTOTOOL_SSL_KEYFILE_PASSWORD"),
        (
            {"KEYFILE": "locked.key", "KEYFILE_PASSWORD": "x"},
            "password does not open .*locked.key",
            "correct BENTOTOOL",
        ),
        ({"KEYFILE": "locked.key", "KEYFILE_PASSWORD": "x" * 2000}, "password does not open", "correct BENTOTOOL"),
        ({"CA_CERTS": "absent"}, "absent: no such file", "--ssl-ca-certs FILE"),
        ({"CA_CERTS": "empty.pem"}, "empty.pem holds no certificate", "--ssl-ca-certs"),
        ({"CA_CERTS": "damaged.pem"}, "damaged.pem: ", "--ssl-ca-certs"),
        ({"CIPHERS": "nonsense"}, "ciphers 'nonsense': no cipher can be selected", "openssl ciphers"),
        ({"CERT_REQS": "many"}, "not a number", ""),
        ({"CERT_REQS": "3"}, "--ssl-cert-reqs .*: 3 is not 0, 1 or 2", ""),
        ({"CERT_REQS": "2"}, "nothing says whose are good", "--ssl-ca-certs FILE"),
        ({"CERT": "server.pem"}, "there is no BENTOTOOL_SSL_CERT", "BENTOTOOL_SSL_CERTFILE"),
    ],
)
def test_what_cannot_be(files: Path, changed: dict[str, str], words: str, hint: str) -> None:
    given = {key: name for key, name in {"CERTFILE": "server.pem", "KEYFILE": "server.key", **changed}.items() if name}
    with pytest.raises(UsageError, match=words) as raised:
        tls_context(tls_of(made(), variables(files, given)) or TlsOptions(""))
    assert raised.value.code == "usage", "what the supervisor takes for wrong usage"
    assert hint in (raised.value.hint or "")
    assert given.get("KEYFILE_PASSWORD", "right") not in raised.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [("KEYFILE", "server.key"), ("CA_CERTS", "ca.pem"), ("CERT_REQS", "0"), ("CIPHERS", "AES"), ("VERSION", "2")],
)
def test_anything_without_a_certificate_is_refused(files: Path, key: str, value: str) -> None:
    given = variables(files, {key: value})
    for service in (made(), made(ssl={"enabled": True}), made(ssl={"enabled": False, "certfile": "server.pem"})):
        with pytest.raises(UsageError, match="TLS needs a certificate"):
            tls_of(service, given)
    whole = tls_of(made(ssl={"enabled": True, "certfile": str(files / "server.pem")}), variables(files, {key: value}))
    assert whole is not None, "the service has it"


def test_what_stays_in_the_clear() -> None:
    assert tls_of(made(), {}) is None
    assert tls_of(made(ssl={"enabled": False, "certfile": "x"}), {}) is None
    cluster = {"BENTOTOOL_SSL_SERVICE_HOST": "10.0.0.1", "BENTOTOOL_SSL_PORT": "tcp://10.0.0.1:80"}  # Kubernetes' own
    assert tls_of(made(), {**cluster, "BENTOTOOL_SSL_CERTFILE": ""}) is None


@pytest.mark.parametrize("table", [{"certfile": "x"}, {"enabled": "no"}, {"enabled": True, "cert_reqs": 7}])
def test_a_service_says_whether_it_wants_tls(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ssl"):
        made(ssl=table)


def test_callers_certificates_are_asked_for_as_was_said(files: Path) -> None:
    base = {"CERTFILE": "server.pem", "KEYFILE": "server.key", "CA_CERTS": "ca.pem"}
    for given, wanted in (({}, 2), ({"CERT_REQS": "0"}, 0), ({"CERT_REQS": "1"}, 1), ({"CERT_REQS": "2"}, 2)):
        options = tls_of(made(), variables(files, {**base, **given}))
        assert options is not None
        assert tls_context(options).verify_mode == wanted


@pytest.mark.parametrize(
    ("program", "options", "environment"),
    [
        (TOOL, ("--ssl-keyfile", "server.key"), {}),
        (TOOL, ("--ssl-ca-certs", "ca.pem", "--ssl-cert-reqs", "2"), {}),
        (TOOL, ("--ssl-certfile", ""), {}),
        (TOOL, ("--ssl-certfile", "server.pem", "--ssl-keyfile", "client.key"), {}),
        (RUNTIME, (), {"BENTOTOOL_SSL_KEYFILE": "server.key"}),
        (RUNTIME, (), {"BENTOTOOL_SSL_CERTFILE": "absent.pem"}),
    ],
)
def test_a_server_does_not_start(
    files: Path, tmp_path: Path, program: tuple[str, ...], options: tuple[str, ...], environment: dict[str, str]
) -> None:
    (tmp_path / "service.py").write_text(SERVICE.format(options=""))
    command = [sys.executable, *program, str(tmp_path), "--port", "0", *options]
    values = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, env=values, cwd=files)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
