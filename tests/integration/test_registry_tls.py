"""Registries behind TLS: a private authority, client certificates, and none that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout


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


def test_any_certificate_is_taken_only_when_asked_and_said(tls_registry: str, run: Any) -> None:
    status, _, noted = run(f"{tls_registry}/insecure:1", "--insecure-skip-tls-verify")
    assert status == 0
    assert "is not checked" in noted


def test_plain_http_and_tls_are_not_mixed_up(tls_registry: str, real_registry: Any, files: Path, run: Any) -> None:
    ca = ("--ca-file", str(files / "ca.pem"))
    assert run(f"{tls_registry}/r:1", "--plain-http", *ca)[0] == 5
    assert run(f"{real_registry.host}/r:1", "--insecure-skip-tls-verify")[0] == 5


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
