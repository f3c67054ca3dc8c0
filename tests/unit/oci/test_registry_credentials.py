"""Where credentials come from, and that they stay secret."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from bentotool.errors import AuthenticationError, ConfigError
from bentotool.oci.credentials import Credentials, CredentialStore, config_files
from bentotool.oci.reference import RemoteReference


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth-file.json"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper called ``fake`` that keeps what it is given in a file."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    program, kept = tmp_path / "bin" / "docker-credential-fake", tmp_path / "kept"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$1" in\nstore|erase) cat > "{kept}.$1" ;;\n'
        f'get) read name; [ -f "{kept}" ] || exit 1; echo "$name" >> "{kept}.asked"; cat "{kept}" ;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return kept


def test_files_are_asked_in_order(tmp_path: Path, environ: dict[str, str]) -> None:
    assert [path.relative_to(tmp_path).as_posix() for path in config_files(environ)] == [
        "docker/config.json",
        "auth-file.json",
        "run/containers/auth.json",
        "config/containers/auth.json",
    ]
    store = CredentialStore(environ=environ)
    assert store.find("r.example") is None
    for index, path in reversed(list(enumerate(config_files(environ)))):
        write(path, {"auths": {"r.example": auth(f"user{index}", "p:w")}})
        assert store.find("r.example") == Credentials(f"user{index}", "p:w")


def test_the_home_folder_is_asked_when_nothing_else_is_named() -> None:
    containers = Path.home() / ".config" / "containers" / "auth.json"
    assert list(config_files({})) == [Path.home() / ".docker" / "config.json", containers]


def test_the_hook_comes_first(docker: Path, environ: dict[str, str]) -> None:
    write(docker, {"auths": {"r.example": auth("file", "x")}})
    asked: list[object] = []

    def hook(registry: str, repository: str, actions: tuple[str, ...]) -> Credentials | None:
        asked.append((registry, repository, actions))
        return Credentials("hook", "x") if repository == "mine" else None

    store = CredentialStore(hook, environ)
    assert store.find("r.example", "mine", ("pull", "push")) == Credentials("hook", "x")
    assert store.find("r.example", "other") == Credentials("file", "x")
    assert asked == [("r.example", "mine", ("pull", "push")), ("r.example", "other", ("pull",))]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"identitytoken": "idt", **auth("u", "p")}, Credentials(identity_token="idt")),
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({}, None),
        ({"auth": ""}, None),
    ],
)
def test_kinds_of_entries(docker: Path, environ: dict[str, str], entry: object, found: Credentials | None) -> None:
    write(docker, {"auths": {"r.example": entry}})
    assert CredentialStore(environ=environ).find("r.example") == found


def test_docker_hub_has_a_key_of_its_own(docker: Path, environ: dict[str, str]) -> None:
    write(docker, {"auths": {"https://index.docker.io/v1/": auth("u", "p")}})
    assert CredentialStore(environ=environ).find("docker.io") == Credentials("u", "p")
    assert CredentialStore(environ=environ).find("docker.io.example") is None


def test_an_entry_for_a_part_of_a_registry_goes_before_one_for_all(docker: Path, environ: dict[str, str]) -> None:
    entries = {"r.example": auth("all", "p"), "r.example/team": auth("team", "p"), "r.example/team/a": auth("a", "p")}
    write(docker, {"auths": entries})
    find = CredentialStore(environ=environ).find
    asked = {"team/a": "a", "team/a/b": "a", "team/ab": "team", "team": "team", "teams/a": "all", "": "all"}
    assert {repository: getattr(find("r.example", repository), "username", "") for repository in asked} == asked


def test_docker_hubs_short_names_find_docker_hubs_credentials(
    docker: Path, environ: dict[str, str], helper: Path
) -> None:
    store = CredentialStore(environ=environ)
    hub = "https://index.docker.io/v1/"
    helper.write_text('{"Username": "helped", "Secret": "s"}')
    for config, user in (
        ({"auths": {hub: auth("u", "p")}}, "u"),
        ({"auths": {"docker.io": auth("podman", "p")}}, "podman"),
        ({"credHelpers": {hub: "fake"}}, "helped"),
        ({"credHelpers": {"docker.io": "fake"}}, "helped"),
    ):
        write(docker, config)
        for name in ("nginx", "library/nginx", "docker.io/nginx", "index.docker.io/library/nginx:1"):
            remote = RemoteReference.parse(name)
            assert (remote.registry, remote.repository) == ("docker.io", "library/nginx")
            found = store.find(remote.registry, remote.repository)
            assert found is not None
            assert found.username == user
    assert set((helper.with_name("kept.asked")).read_text().split()) == {hub}


def test_helpers_go_before_entries(docker: Path, environ: dict[str, str], helper: Path) -> None:
    write(docker, {"auths": {"r.example": auth("file", "x")}, "credHelpers": {"r.example": "fake"}})
    store = CredentialStore(environ=environ)
    assert store.find("r.example") == Credentials("file", "x")  # the helper knows nothing
    helper.write_text('{"Username": "helped", "Secret": "s"}')
    assert store.find("r.example") == Credentials("helped", "s")
    helper.write_text('{"Username": "<token>", "Secret": "idt"}')
    assert store.find("r.example") == Credentials(identity_token="idt")
    helper.write_text("<html>")
    with pytest.raises(AuthenticationError, match="no valid answer"):
        store.find("r.example")


def test_an_empty_entry_asks_the_store(docker: Path, environ: dict[str, str], helper: Path) -> None:
    write(docker, {"auths": {"r.example": {}}, "credsStore": "fake"})
    helper.write_text('{"Username": "u", "Secret": "s"}')
    assert CredentialStore(environ=environ).find("r.example") == Credentials("u", "s")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "-x", "a\nb", 5])
def test_a_helper_is_a_name_and_never_a_path(docker: Path, environ: dict[str, str], name: object) -> None:
    write(docker, {"credsStore": name, "auths": {"r.example": auth("u", "p")}})
    assert CredentialStore(environ=environ).find("r.example") == Credentials("u", "p")


def test_login_is_kept_private_and_the_rest_of_the_file_stays(docker: Path, environ: dict[str, str]) -> None:
    write(docker, {"auths": {"other.example": auth("o", "p")}, "proxies": {"default": {}}})
    store = CredentialStore(environ=environ)
    assert store.save("r.example", Credentials("u", "p:w")) == str(docker)
    assert store.find("r.example") == Credentials("u", "p:w")
    document = json.loads(docker.read_text())
    assert document["proxies"] == {"default": {}}
    assert set(document["auths"]) == {"other.example", "r.example"}
    if sys.platform != "win32":
        assert stat.S_IMODE(docker.stat().st_mode) == 0o600
    assert store.erase("r.example")
    assert not store.erase("r.example")
    assert store.find("r.example") is None
    assert store.find("other.example") == Credentials("o", "p")


def test_login_goes_to_the_helper_where_there_is_one(docker: Path, environ: dict[str, str], helper: Path) -> None:
    write(docker, {"credsStore": "fake"})
    store = CredentialStore(environ=environ)
    assert store.save("r.example", Credentials("u", "s3cret")) == "credential helper fake"
    stored = json.loads(helper.with_name("kept.store").read_text())
    assert stored == {"ServerURL": "r.example", "Username": "u", "Secret": "s3cret"}
    assert "s3cret" not in docker.read_text()
    helper.write_text('{"Username": "u", "Secret": "s3cret"}')
    assert store.erase("r.example")
    assert helper.with_name("kept.erase").read_text() == "r.example"


def test_a_helper_that_is_missing_cannot_keep(docker: Path, environ: dict[str, str]) -> None:
    write(docker, {"credsStore": "does-not-exist"})
    assert CredentialStore(environ=environ).find("r.example") is None
    with pytest.raises(AuthenticationError, match="docker-credential-does-not-exist is not installed"):
        CredentialStore(environ=environ).save("r.example", Credentials("u", "p"))


def test_a_helper_that_is_missing_is_named_where_it_is_this_registrys(docker: Path, environ: dict[str, str]) -> None:
    """Asking on without it would end in "log in", for somebody who is."""
    write(docker, {"credHelpers": {"r.example": "does-not-exist"}})
    store = CredentialStore(environ=environ)
    assert store.find("other.example") is None
    with pytest.raises(AuthenticationError, match="docker-credential-does-not-exist is not installed"):
        store.find("r.example")


@pytest.mark.parametrize("text", ['{"auths": {"r": {"auth": "czNjcmV0"', "[]", '{"auths": []}', '{"auths": "s3cret"}'])
def test_a_damaged_file_is_named_and_not_quoted(docker: Path, environ: dict[str, str], text: str) -> None:
    docker.parent.mkdir()
    docker.write_text(text)
    with pytest.raises(ConfigError) as caught:
        CredentialStore(environ=environ).find("r.example")
    assert str(docker) in caught.value.message
    assert "s3cret" not in caught.value.message
    assert "czNj" not in caught.value.message


def test_a_damaged_entry_is_not_quoted(docker: Path, environ: dict[str, str]) -> None:
    write(docker, {"auths": {"r.example": {"auth": "!!czNjcmV0"}}})
    with pytest.raises(ConfigError, match="not base64") as caught:
        CredentialStore(environ=environ).find("r.example")
    assert "czNj" not in caught.value.message


def test_secrets_do_not_show() -> None:
    assert "s3cret" not in repr(Credentials("u", "s3cret", "s3cret-token"))
