"""Registries behind TLS: a private authority, client certificates, and none that can be trusted."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout

IRIS = Path(__file__).parents[2] / "templates" / "quickstart" / "iris.onnx"


@pytest.fixture(scope="module")
def files(certificates: Path) -> Path:
    return certificates


@pytest.fixture(scope="module")
def tls_registry(
    start_registry: Callable[..., Any], files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    tls = f"tls: {{certificate: '{files / 'server.pem'}', key: '{files / 'server.key'}'}}"
    with start_registry(tmp_path_factory.mktemp("tls"), http=tls) as host:
        yield host


@pytest.fixture(scope="module")
def strict_registry(
    start_registry: Callable[..., Any], files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """It takes only clients with a certificate of its authority."""
    names = f"certificate: '{files / 'server.pem'}', key: '{files / 'server.key'}', clientcas: ['{files / 'ca.pem'}']"
    with start_registry(tmp_path_factory.mktemp("strict"), http=f"tls: {{{names}}}") as host:
        yield host


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make_model: Callable[..., StoredModel]
) -> Callable[..., tuple[int, Any, str]]:
    """Pushes the model of a fresh store; gives the status, the JSON of the result or error, and what was noted."""
    layout = Layout(tmp_path / "store")
    make_model(layout)

    def call(remote: str, *arguments: str) -> tuple[int, Any, str]:
        status = main(["model", "push", "iris", remote, "--store", str(layout.root), "--json", "--tls", *arguments])
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith('{"error')]
        return status, json.loads(printed.out or errors[-1]), printed.err

    return call


def test_a_private_authority_is_trusted_when_it_is_named(tls_registry: str, files: Path, run: Any) -> None:
    status, error, _ = run(f"{tls_registry}/r:1")
    assert (status, "--ca-file" in error["error"]["hint"]) == (5, True)
    assert run(f"{tls_registry}/r:1", "--ca-file", str(files / "other-ca.pem"))[0] == 5
    status, pushed, _ = run(f"{tls_registry}/r:1", "--ca-file", str(files / "ca.pem"))
    assert (status, pushed["tag"]) == (0, "iris:1")


def test_the_systems_authorities_are_trusted(
    tls_registry: str, files: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other registry clients do: a company's own authority is in the system's store, and in no package's list."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))  # OpenSSL's name for the system's store
    assert run(f"{tls_registry}/system:1")[0] == 0
    assert run(f"{tls_registry}/system:1", "--ca-file", str(files / "other-ca.pem"))[0] == 5
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "other-ca.pem"))
    assert run(f"{tls_registry}/system:1")[0] == 5


def test_any_certificate_is_taken_only_when_asked_and_said(tls_registry: str, run: Any) -> None:
    status, _, noted = run(f"{tls_registry}/insecure:1", "--insecure-skip-tls-verify")
    assert status == 0
    assert "is not checked" in noted


def test_plain_http_and_tls_are_not_mixed_up(tls_registry: str, real_registry: Any, files: Path, run: Any) -> None:
    ca = ("--ca-file", str(files / "ca.pem"))
    assert run(f"{tls_registry}/r:1", "--plain-http", *ca)[0] == 5
    assert run(f"{real_registry.host}/r:1", "--insecure-skip-tls-verify")[0] == 5


def test_tls_is_named_where_it_was_not_spoken(
    tls_registry: str, tmp_path: Path, make_model: Callable[..., StoredModel], capsys: pytest.CaptureFixture[str]
) -> None:
    """A push begins with HEAD, whose answer says no more than a status."""
    layout = Layout(tmp_path / "store")
    make_model(layout)
    for command in (("model", "push", "iris", f"{tls_registry}/r:1"), ("show", f"{tls_registry}/r:1")):
        assert main([*command, "--store", str(layout.root), "--json"]) == 5
        error = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
        assert error["hint"] == "use --tls", error


def test_a_copy_speaks_tls_with_one_side_alone(
    tls_registry: str, real_registry: Any, files: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = ("--ca-file", str(files / "ca.pem"))
    first, second = f"{real_registry.host}/sides/a:1", f"{tls_registry}/sides/b:1"
    assert run(first, "--plain-http")[0] == 0
    assert main(["copy", first, second, "--to-tls", *ca]) == 0
    assert main(["copy", second, f"{first}-back", "--from-tls", *ca]) == 0
    assert main(["copy", second, f"{first}-back", "--tls", "--to-plain-http", *ca]) == 0
    assert main(["copy", second, f"{first}-back", "--tls", *ca]) == 5
    assert "--to-plain-http" in capsys.readouterr().err


def test_a_client_shows_its_certificate(strict_registry: str, files: Path, run: Any) -> None:
    ca = ("--ca-file", str(files / "ca.pem"))
    assert run(f"{strict_registry}/r:1", *ca)[0] == 5
    pair = ("--client-cert", str(files / "client.pem"), "--client-key", str(files / "client.key"))
    status, pushed, _ = run(f"{strict_registry}/r:1", *ca, *pair)
    assert (status, pushed["tag"]) == (0, "iris:1")
    joined = files / "joined.pem"
    joined.write_bytes((files / "client.pem").read_bytes() + (files / "client.key").read_bytes())
    assert run(f"{strict_registry}/r:1", *ca, "--client-cert", str(joined))[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ca-file", "absent.pem"),
        ("--ca-file", "server.key"),
        ("--client-cert", "client.pem"),
        ("--client-key", "client.key"),
        ("--client-cert", "client.pem", "--client-key", "server.key"),
    ],
)
def test_files_that_are_not_what_they_should_be(arguments: tuple[str, ...], files: Path, run: Any) -> None:
    given = [each if each.startswith("--") else str(files / each) for each in arguments]
    status, error, _ = run("127.0.0.1:1/r:1", *given)
    assert (status, error["error"]["code"]) == (2, "usage")


def test_python_code_has_the_same_options(
    strict_registry: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Any
) -> None:
    require_package("bentotool_onnx")
    from bentotool import models
    from bentotool.errors import RemoteError

    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "mine"))
    made = models.import_model(IRIS, "iris", version="1")
    pair = {"client_cert": files / "client.pem", "client_key": str(files / "client.key")}
    source = f"{strict_registry}/python:1"
    options = [
        "--tls",
        f"--ca-file={files / 'ca.pem'}",
        *(f"--{key.replace('_', '-')}={value}" for key, value in pair.items()),
    ]
    assert main(["model", "push", "iris:1", source, *options]) == 0

    tls = {"plain_http": False}  # on this machine HTTP is the rule
    for wrong in ({}, {"ca_file": files / "ca.pem"}, {"plain_http": True}, {"insecure_skip_tls_verify": True}):
        with pytest.raises(RemoteError):
            models.import_model(f"oci://{source}", **{**tls, **wrong})
    for right in ({"ca_file": files / "ca.pem"}, {"insecure_skip_tls_verify": True}):
        assert models.import_model(f"oci://{source}", **tls, **right, **pair) == made


def test_python_code_has_them_for_the_web_too(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Any
) -> None:
    require_package("bentotool_onnx")
    from bentotool import models
    from bentotool.errors import RemoteError, UnsafeError, UsageError

    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "mine"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(IRIS.parent))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            source = f"https://127.0.0.1:{server.server_port}/iris.onnx"
            with pytest.raises(RemoteError, match="certificate"):
                models.import_model(source)
            with pytest.raises(UnsafeError, match="larger"):
                models.import_model(source, ca_file=files / "ca.pem", max_size=3)
            assert models.import_model(source, ca_file=files / "ca.pem").name == "iris"
        finally:
            server.shutdown()
            thread.join(5)
    with pytest.raises(UsageError, match="is not a file"):
        models.import_model(source, ca_file="absent.pem")
    with pytest.raises(UsageError, match="is one text"):
        models.import_model(source, include="*.onnx")
