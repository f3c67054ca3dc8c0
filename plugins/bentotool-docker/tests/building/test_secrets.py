"""What a build is told of package indexes and certificates: as secrets, from where pip and uv have it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bentotool_docker.secrets import write_secrets

from bentotool.build.tomlfile import parse_toml
from bentotool.errors import BentotoolError, BuildError, NotFoundError

REST: Any = {"tag": "iris:1", "build_env": {}, "build_only": (), "conda": {}, "locked_for": "linux/amd64"}
SAME: Any = SimpleNamespace(platform="linux/amd64", **REST)
OTHER: Any = SimpleNamespace(platform="linux/arm64", **REST)
PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, and none of the variables."""
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")) or name.lower().endswith("_proxy") or name in ("NETRC", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "secrets").mkdir()
    return home


def sourced(path: Path) -> dict[str, str]:
    """What a shell makes of assignments."""
    done = subprocess.run(
        ["sh", "-c", 'set -a; . "$1"; set +a; exec "$2" -c "import os, json; print(json.dumps(dict(os.environ)))"',
         "sh", str(path), sys.executable],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nothing_where_nothing_is_set(tmp_path: Path) -> None:
    found = write_secrets(tmp_path / "secrets", SAME)
    assert "bentotool-netrc" not in found
    assert "bentotool-uv" not in found
    assert "bentotool-ca" not in found


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell and modes")
def test_values_are_quoted_and_files_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "https://ada:$(touch x)'\"\\`;@index/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", odd)
    monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", "a b\nc")
    monkeypatch.setenv("UV_CACHE_DIR", "/not/there")
    found = write_secrets(tmp_path / "secrets", SAME)
    told = sourced(found["bentotool-index"])
    assert told["UV_DEFAULT_INDEX"] == odd
    assert told["UV_INDEX_CORP_PASSWORD"] == "a b\nc"
    assert "UV_CACHE_DIR" not in found["bentotool-index"].read_text()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found.values())


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_mirror_of_pip_alone_is_uvs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror/simple\nextra-index-url = file:///x https://two/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    told = sourced(write_secrets(tmp_path / "secrets", SAME)["bentotool-index"])
    assert told["UV_DEFAULT_INDEX"] == told["PIP_INDEX_URL"] == "https://mirror/simple"
    assert told["UV_INDEX"] == "https://two/simple"


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_uvs_own_settings_win_over_pips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip/simple")
    monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
    told = sourced(write_secrets(tmp_path / "secrets", SAME)["bentotool-index"])
    assert told["UV_INDEX_URL"] == "https://uv/simple"
    assert "UV_DEFAULT_INDEX" not in told


def test_uvs_settings_but_those_of_this_machine(nothing_set: Path, tmp_path: Path) -> None:
    folder = nothing_set / ".config" / "uv"
    folder.mkdir(parents=True)
    (folder / "uv.toml").write_text('cache-dir = "/x"\n[[index]]\nname = "corp"\nurl = "https://index/simple"\n')
    (nothing_set / (".netrc" if os.name == "posix" else "_netrc")).write_text("machine index login ada password canary")
    found = write_secrets(tmp_path / "secrets", OTHER)
    settings = parse_toml(found["bentotool-uv"].read_text(), "uv.toml")
    assert settings["index"] == [{"name": "corp", "url": "https://index/simple"}]
    assert "cache-dir" not in settings
    assert settings["dependency-metadata"][0]["name"] == "litestar"
    assert "canary" in found["bentotool-netrc"].read_text()


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system = tmp_path / "own.pem", tmp_path / "system.pem"
    own.write_text(PEM + "# own")
    system.write_text(PEM + "# system")
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    places = [tmp_path / name for name in "abc"]
    for place in places:
        place.mkdir()
    assert "bentotool-ca" not in write_secrets(places[0], SAME)
    assert "# own" in write_secrets(places[1], SAME, str(own))["bentotool-ca"].read_text()
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert "# system" in write_secrets(places[2], SAME)["bentotool-ca"].read_text()
    with pytest.raises(NotFoundError, match="--ca-bundle"):
        write_secrets(tmp_path, SAME, str(tmp_path / "none"))
    (tmp_path / "empty").write_text("")
    with pytest.raises(BentotoolError, match="holds no certificate"):
        write_secrets(tmp_path, SAME, str(tmp_path / "empty"))


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_variables_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"TOKEN": "", "MODE": "it's $HOME; two", "LATER": ""}
    plan: Any = SimpleNamespace(platform="linux/amd64", **{**REST, "build_env": values, "build_only": ("TOKEN",)})
    monkeypatch.delenv("LATER", raising=False)
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(BuildError, match=r"needs a variable TOKEN \(envs, stage: build\), which has no value"):
        write_secrets(tmp_path / "secrets", plan)
    monkeypatch.setenv("TOKEN", "canary")
    monkeypatch.setenv("MODE", "not this one")
    told = sourced(write_secrets(tmp_path / "secrets", plan)["bentotool-env"])
    assert (told["TOKEN"], told["MODE"]) == ("canary", "it's $HOME; two")
    assert "LATER" not in told


def test_settings_of_conda_where_it_is_used(nothing_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONDARC", "MAMBARC"):
        monkeypatch.delenv(name, raising=False)
    (nothing_set / ".condarc").write_text("channel_alias: https://ada:canary@conda.example")
    plan: Any = SimpleNamespace(platform="linux/amd64", **{**REST, "conda": {"dependencies": ["gdal"]}})
    places = [tmp_path / name for name in "ab"]
    for place in places:
        place.mkdir()
    assert "bentotool-conda" not in write_secrets(places[0], SAME)
    assert "canary" in write_secrets(places[1], plan)["bentotool-conda"].read_text()
