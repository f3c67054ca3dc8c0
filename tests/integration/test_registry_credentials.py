"""Where the credentials for a real registry come from: which place goes before which, and helpers that misbehave."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bentotool.oci.credentials
from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout

RIGHT, WRONG = ("ada", "s3cret:pass"), ("ada", "wr0ng")
Run = Callable[..., "tuple[int, Any]"]


def auths(host: str, pair: tuple[str, str]) -> dict[str, Any]:
    return {"auths": {host: {"auth": base64.b64encode(":".join(pair).encode()).decode()}}}


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("pull", …)`` gives the exit status and the JSON document: the result, or the error."""

    def call(*arguments: object) -> tuple[int, Any]:
        status = main([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        assert not any(secret in printed.out + printed.err for secret in (RIGHT[1], WRONG[1]))
        return status, json.loads(printed.out or printed.err)

    return call


@pytest.fixture
def push(run: Run, locked_registry: Any, make_model: Callable[..., StoredModel], store: Path) -> Callable[[], Any]:
    """``push()`` gives None where a model went to the registry that asks for a password, else the error."""
    make_model(Layout(store))

    def call() -> Any:
        status, answer = run("model", "push", "iris", f"{locked_registry.host}/team/iris:1")
        assert status == (5 if "error" in answer else 0)
        return answer.get("error")

    return call


@pytest.fixture
def places(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The files, the first to be asked first; ``DOCKER_CONFIG`` replaces the one of the home folder."""
    found = {
        "DOCKER_CONFIG": tmp_path / "docker" / "config.json",
        "REGISTRY_AUTH_FILE": tmp_path / "auth-file.json",
        "docker": home / ".docker" / "config.json",
        "XDG_RUNTIME_DIR": tmp_path / "run" / "containers" / "auth.json",
        "config": home / ".config" / "containers" / "auth.json",
    }
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(found["REGISTRY_AUTH_FILE"]))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return found


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """``helper("fake", script)`` puts the program ``docker-credential-fake`` on PATH; gives what it was asked."""
    if sys.platform == "win32":
        pytest.skip("a helper there is an .exe")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        program, asked = folder / f"docker-credential-{name}", tmp_path / f"{name}.asked"
        body = f"""
import json, os, sys, time
kept = {str(tmp_path / f"{name}.kept")!r}
verb, text = sys.argv[1], sys.stdin.read()
with open({str(asked)!r}, "a") as file:
    file.write(verb + " " + text.strip()[:40] + "\\n")
{script}
"""
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(0o755)
        return asked

    return make


def answers(pair: tuple[str, str]) -> str:
    return f"print(json.dumps({{'Username': {pair[0]!r}, 'Secret': {pair[1]!r}}}))"


KEEPS = """
if verb == "store":
    open(kept, "w").write(text)
elif verb == "erase":
    os.remove(kept)
elif os.path.exists(kept):
    print(open(kept).read())
else:
    print("credentials not found in native keychain")
    sys.exit(1)
"""


def test_each_place_is_read_and_goes_before_the_next(
    places: dict[str, Path], push: Callable[[], Any], locked_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = locked_registry.host
    assert push()["message"] == f"registry {host} asks for a user name and password"
    order = [name for name in places if name != "docker"]
    monkeypatch.setenv("DOCKER_CONFIG", str(places["DOCKER_CONFIG"].parent))
    for name in reversed(order):
        write(places[name], auths(host, RIGHT))
        assert push() is None, name
        write(places[name], auths(host, WRONG))
        assert push()["message"] == f"registry {host} refused the credentials in {places[name]}"
    monkeypatch.delenv("DOCKER_CONFIG")
    places["REGISTRY_AUTH_FILE"].unlink()
    write(places["docker"], auths(host, RIGHT))  # before those of containers, which are wrong
    assert push() is None
    write(places["docker"], auths("elsewhere.example", WRONG))  # and what it says of others is of no concern
    write(places["XDG_RUNTIME_DIR"], auths(f"{host}/team", RIGHT))
    assert push() is None


def test_a_plugin_goes_before_files(
    places: dict[str, Path],
    push: Callable[[], Any],
    locked_registry: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    host, site = locked_registry.host, tmp_path / "site"
    write(places["docker"], auths(host, WRONG))
    information = site / "vault_plugin-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-plugin\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[bentotool]\nvault = vault_plugin\n")
    (site / "vault_plugin.py").write_text(
        "from bentotool.interfaces import Credentials\nfrom bentotool.hookspecs import hookimpl\n"
        "@hookimpl\ndef bentotool_registry_credentials(registry, repository, actions):\n"
        f"    if registry == {host!r} and repository == 'team/iris' and 'push' in actions:\n"
        f"        return Credentials(*{RIGHT!r})\n"
    )
    assert push() is not None
    monkeypatch.syspath_prepend(str(site))
    assert push() is None


def test_helpers_go_before_entries_and_the_registrys_own_before_the_store(
    places: dict[str, Path], push: Callable[[], Any], locked_registry: Any, helper: Callable[[str, str], Path]
) -> None:
    host, config = locked_registry.host, places["docker"]
    asked = helper("right", answers(RIGHT))
    helper("wrong", answers(WRONG))
    helper("none", "print('credentials not found in native keychain'); sys.exit(1)")
    write(config, {**auths(host, WRONG), "credsStore": "right"})
    assert push() is None
    assert set(asked.read_text().splitlines()) == {f"get {host}"}
    write(config, {**auths(host, RIGHT), "credsStore": "wrong"})
    assert push()["message"] == f"registry {host} refused the credentials in {config}"
    write(config, {"credHelpers": {host: "right"}, "credsStore": "wrong"})
    assert push() is None
    write(config, {"credHelpers": {"other.example": "wrong"}, "credsStore": "right"})
    assert push() is None
    for silent in ("none", "not-installed"):
        write(config, {**auths(host, RIGHT), "credsStore": silent})
        assert push() is None
    # A store that knows nothing leaves the word to the next file.
    write(config, {"credsStore": "none"})
    write(places["config"], auths(host, RIGHT))
    assert push() is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("time.sleep(60)", "docker-credential-odd did not answer"),
        ("print('<html>')", "docker-credential-odd gave no valid answer"),
        ("print('[]')", "docker-credential-odd gave no valid answer"),
        ('print(\'{"Username": "ada"}\')', "docker-credential-odd gave no valid answer"),
        ("sys.stdout.buffer.write(bytes(range(128, 256)))", "docker-credential-odd gave no valid answer"),
        (
            "print('the key ring is locked'); sys.exit(1)",
            "docker-credential-odd failed to get the credentials: the key ring is locked",
        ),
        ("1 / 0", "docker-credential-odd failed to get the credentials: Traceback"),
    ],
)
def test_helpers_that_misbehave_are_named(
    places: dict[str, Path],
    push: Callable[[], Any],
    helper: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    words: str,
) -> None:
    monkeypatch.setattr(bentotool.oci.credentials, "_HELPER_TIMEOUT", 0.5 if "sleep" in script else 60)
    helper("odd", script)
    write(places["docker"], {"credsStore": "odd"})
    error = push()
    assert error["code"] == "authentication"
    assert words in error["message"]
    assert "docker-credential-odd" in error["hint"]


def test_login_and_logout_with_a_helper(
    places: dict[str, Path],
    push: Callable[[], Any],
    run: Run,
    locked_registry: Any,
    helper: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, config = locked_registry.host, places["docker"]
    helper("kept", KEEPS.replace("open(kept).read()", "json.dumps(json.loads(open(kept).read()))"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    write(config, {"credsStore": "kept"})
    monkeypatch.setattr(sys, "stdin", io.StringIO(RIGHT[1]))
    status, entered = run("login", host, "-u", RIGHT[0], "--password-stdin")
    assert (status, entered["stored"]) == (0, "credential helper kept")
    assert RIGHT[1] not in config.read_text()
    assert push() is None
    assert run("logout", host) == (0, {"registry": host, "forgotten": True})
    assert run("logout", host) == (0, {"registry": host, "forgotten": False})
    assert push() is not None
    write(config, {"credsStore": "absent"})
    monkeypatch.setattr(sys, "stdin", io.StringIO(RIGHT[1]))
    status, answer = run("login", host, "-u", RIGHT[0], "--password-stdin")
    assert (status, answer["error"]["message"]) == (
        5,
        "credential helper docker-credential-absent is not installed",
    )


@pytest.mark.parametrize("kept", ["entry", "helper"])
def test_an_identity_token_is_exchanged_and_never_sent_to_the_registry(
    places: dict[str, Path],
    faulty: Any,
    reply: Any,
    run: Run,
    helper: Callable[[str, str], Path],
    kept: str,
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{faulty.host}/token",service="s"'}
    faulty.script["GET", "/v2/r/tags"] = [reply(401, headers=challenge), reply(200, b'{"tags": []}')]
    faulty.script["POST", "/token"] = [reply(200, b'{"access_token": "short-lived"}')]
    if kept == "entry":
        write(places["docker"], {"auths": {faulty.host: {"auth": "YWRhOg==", "identitytoken": "long-lived"}}})
    else:
        helper("id", answers(("<token>", "long-lived")))
        write(places["docker"], {"credHelpers": {faulty.host: "id"}})
    assert run("list", f"{faulty.host}/r") == (0, [])
    (exchange,) = faulty.requests("POST", "/token")
    body = exchange.body.decode() if isinstance(exchange.body, bytes) else str(exchange.body)
    assert "grant_type=refresh_token" in body
    assert "refresh_token=long-lived" in body
    headers = [each.headers.get("authorization") for each in faulty.requests("GET", "/v2/r/tags")]
    assert headers == [None, "Bearer short-lived"]
