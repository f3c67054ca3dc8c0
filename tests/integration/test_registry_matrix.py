"""Every way to a real docker-registry: open or with a password; by HTTP, by TLS, by TLS with a client certificate."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref

USER, PASSWORD = "ada", "s3cret:pass"
Run = Callable[..., "tuple[int, Any]"]


@dataclass(frozen=True)
class Door:
    """A registry, and the options that it takes to be let in."""

    host: str
    locked: bool
    transport: str
    options: tuple[str, ...]


@pytest.fixture(scope="module", params=[f"{a}-{t}" for a in ("open", "locked") for t in ("http", "tls", "mtls")])
def door(
    request: pytest.FixtureRequest, start_registry: Any, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    kind, transport = request.param.split("-")
    http, options = "", ()
    if transport != "http":
        names = {"certificate": "server.pem", "key": "server.key"}
        listed = [f"{key}: '{(certificates / name).as_posix()}'" for key, name in names.items()]
        options = ("--tls", "--ca-file", str(certificates / "ca.pem"))
        if transport == "mtls":
            listed.append(f"clientcas: ['{(certificates / 'ca.pem').as_posix()}']")
            pair = ("--client-cert", certificates / "client.pem", "--client-key", certificates / "client.key")
            options += tuple(map(str, pair))
        http = f"tls: {{{', '.join(listed)}}}"
    auth = request.getfixturevalue("password_file") if kind == "locked" else ""
    with start_registry(tmp_path_factory.mktemp(request.param), auth=auth, http=http) as host:
        yield Door(host, kind == "locked", transport, options)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("pull", …)`` gives the exit status and the JSON document: the result, or the error."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def call(*arguments: object, stdin: str = "") -> tuple[int, Any]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        lines = [line for line in printed.err.splitlines() if line.startswith("{")]
        if status:
            assert not printed.out
            assert PASSWORD not in printed.err
        return status, json.loads(printed.out or lines[-1])

    return call


def test_there_and_back(
    door: Door,
    run: Run,
    make_model: Callable[..., StoredModel],
    make_bento: Callable[..., Ref],
    store: Path,
    tmp_path: Path,
) -> None:
    """login, push, list, show, copy, pull, import, logout."""
    layout = Layout(store)
    model = make_model(layout)
    bento = make_bento(layout, [model])
    host, options = door.host, door.options
    if door.locked:
        refused = run("model", "push", "iris", f"{host}/a/iris:1", *options)[1]["error"]
        assert (refused["code"], refused["hint"]) == ("authentication", f"bentotool login {host}")
        status, answer = run("login", host, "-u", USER, "--password-stdin", *options, stdin="wrong\n")
        assert (status, answer["error"]["code"]) == (5, "authentication")
        assert answer["error"]["hint"] == "check the user name and the password"
        assert not (tmp_path / "docker").exists()
    status, entered = run("login", host, "-u", USER, "--password-stdin", *options, stdin=f"{PASSWORD}\n")
    assert (status, entered["stored"]) == (0, str(tmp_path / "docker" / "config.json"))

    assert run("model", "push", "iris", f"{host}/a/iris:1", *options)[1]["digest"] == model.digest
    assert run("push", "svc", f"{host}/a/svc:7", *options)[1]["digest"] == bento.digest
    assert [each["reference"] for each in run("list", f"{host}/a/svc", *options)[1]] == [f"{host}/a/svc:7"]
    assert run("show", f"{host}/a/iris:1", *options)[1]["digest"] == model.digest
    assert run("copy", f"{host}/a/svc:7", f"{host}/b/svc:7", *options)[0] == 0
    elsewhere = ("--store", tmp_path / "else")
    assert run("pull", f"{host}/b/svc:7", *elsewhere, *options)[1]["digest"] == bento.digest
    assert run("model", "pull", f"{host}/a/iris:1", "--store", tmp_path / "third", *options)[1]["tag"] == "iris:1"

    assert run("logout", host)[1]["forgotten"]
    status, answer = run("pull", f"{host}/b/svc:7", "--store", tmp_path / "fourth", *options)
    assert status == (5 if door.locked else 0)


def test_with_other_options_the_one_that_helps_is_named(
    door: Door, run: Run, certificates: Path, tmp_path: Path
) -> None:
    """The pull of a thing that is not there, which is found out only by those who are let in."""
    config = tmp_path / "docker" / "config.json"
    assert run("login", door.host, "-u", USER, "--password-stdin", *door.options, stdin=PASSWORD)[0] == 0
    assert config.exists()

    def pull(*options: object) -> tuple[int, str, str]:
        status, answer = run("pull", f"{door.host}/none:1", *options)
        return status, answer["error"]["message"], answer["error"]["hint"]

    assert pull(*door.options) == (
        3,
        f"registry {door.host} has no none:1",
        f"its tags: bentotool list {door.host}/none",
    )
    if door.transport == "http":
        status, message, hint = pull("--tls")
        assert (status, message) == (5, f"registry {door.host} does not speak TLS")
        assert "--plain-http" in hint
        return
    status, message, hint = pull()
    assert (status, message, hint) == (5, f"registry {door.host} speaks TLS, and was asked without", "use --tls")
    others: dict[str, tuple[object, ...]] = {"system": (), "other": ("--ca-file", certificates / "other-ca.pem")}
    for given in others.values():
        status, message, hint = pull("--tls", *given)
        assert (status, "not trusted here" in message, "--ca-file" in hint) == (5, True, True)
    if door.transport == "mtls":
        mine = ("--client-cert", certificates / "expired.pem", "--client-key", certificates / "expired.key")
        for shown in ((), mine):
            status, message, hint = pull("--tls", "--ca-file", certificates / "ca.pem", *shown)
            assert (status, "--client-cert" in hint) == (5, True), message


def test_a_certificate_of_the_past_and_one_for_another_name(
    start_registry: Any, certificates: Path, run: Run, tmp_path: Path
) -> None:
    tls = ("--tls", "--ca-file", certificates / "ca.pem")
    for name, wrong in (("expired", "has expired"), ("misnamed", "is for another name")):
        (tmp_path / name).mkdir()
        pair = f"certificate: '{certificates / name}.pem', key: '{certificates / name}.key'"
        with start_registry(tmp_path / name, http=f"tls: {{{pair}}}") as host:
            status, answer = run("pull", f"{host}/none:1", *tls)
            assert (status, answer["error"]["message"]) == (5, f"the TLS certificate of registry {host} {wrong}")
            assert "--insecure-skip-tls-verify" in answer["error"]["hint"]
            assert run("pull", f"{host}/none:1", "--insecure-skip-tls-verify", "--tls")[0] == 3


@pytest.mark.parametrize(
    ("remote", "status", "words"),
    [
        ("127.0.0.1:1/x:1", 5, "did not answer: nothing listens there"),
        ("nothing.invalid/x:1", 5, "did not answer: its name is not known"),
        ("127.0.0.1:65536/x:1", 2, "is not a registry host"),
    ],
)
def test_addresses_where_nothing_is(run: Run, remote: str, status: int, words: str) -> None:
    found, answer = run("pull", remote)
    assert found == status
    assert words in answer["error"]["message"]
    assert answer["error"]["hint"]


def test_names_that_a_registry_does_not_have(
    real_registry: Any, run: Run, make_model: Callable[..., StoredModel], store: Path
) -> None:
    host = real_registry.host
    make_model(Layout(store))
    assert run("model", "push", "iris", f"{host}/matrix/names:1")[0] == 0
    tags = f"its tags: bentotool list {host}/matrix/names"
    for command in (("pull",), ("show",), ("model", "pull")):
        assert run(*command, f"{host}/matrix/names:2")[1]["error"]["hint"] == tags
    assert run("model", "import", f"oci://{host}/matrix/names:2")[1]["error"]["hint"] == tags
    assert run("list", f"{host}/matrix/names")[0] == 0
    status, answer = run("list", f"{host}/matrix/nothing")
    assert (status, answer["error"]["message"]) == (3, f"registry {host} has no matrix/nothing")


def test_a_registry_that_denies(faulty: Any, reply: Any, run: Run) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
    faulty.script["GET", "/v2/r/manifests"] = [reply(403, body)]
    status, answer = run("pull", f"{faulty.host}/r:1")
    assert (status, answer["error"]["code"]) == (5, "authentication")
    assert answer["error"]["message"].endswith("refused access: requested access to the resource is denied")
    assert answer["error"]["hint"] == f"bentotool login {faulty.host}"


@pytest.mark.parametrize(
    ("value", "status"), [("0", 2), ("-1", 2), ("65", 2), ("1000", 2), ("x", 2), ("1", 0), ("64", 0)]
)
def test_how_many_files_at_once(
    real_registry: Any, run: Run, make_model: Callable[..., StoredModel], store: Path, tmp_path: Path, value: str,
    status: int,
) -> None:  # fmt: skip
    make_model(Layout(store))
    remote = f"{real_registry.host}/matrix/jobs:{value.replace('-', '_')}"
    assert run("model", "push", "iris", remote, "--jobs", value)[0] == status
    if status == 0:
        assert run("pull", remote, "-j", value, "--store", tmp_path / "pulled")[0] == 0
    else:
        assert run("model", "import", f"oci://{remote}", "-j", value)[0] == 2
