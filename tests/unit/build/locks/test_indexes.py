from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build import uvrun
from bentotool.errors import BentotoolError, ConfigError, RemoteError, UnsafeError

Files = dict[str, str]


def _pyproject(
    needs: str, public: str, corp: str, *, sources: str = 'corp = {index = "corp"}', explicit: str = "true"
) -> Files:
    text = f'[project]\nname = "demo"\nversion = "1"\ndependencies = {needs}\n[tool.uv.sources]\n{sources}\n'
    text += f'[[tool.uv.index]]\nname = "corp"\nurl = "{corp}"\nexplicit = {explicit}\n'
    return {"pyproject.toml": text + f'[[tool.uv.index]]\nname = "public"\nurl = "{public}"\ndefault = true\n'}


def test_a_package_pinned_to_one_index_is_never_asked_of_another(new_index: Any, locked: Any) -> None:
    """The dependency confusion: the public index has a newer ``corp``."""
    public = new_index().add("tiny").add("corp", "9.0")
    corp = new_index().add("corp", "1.0").add("tiny", "8.0")
    lock = locked(_pyproject('["tiny", "corp"]', public.url, corp.url))
    assert lock.pins == ("corp==1.0", "tiny==1.0")
    assert "corp" not in public.names()
    assert "tiny" not in corp.names()
    assert "127.0.0.1" not in lock.text


def test_nor_where_another_package_needs_it(new_index: Any, locked: Any) -> None:
    """uv's own sources count for direct dependencies alone."""
    public = new_index().add("tiny", needs=("corp>=0.5",)).add("corp", "9.0").add("inner", "9.0")
    corp = new_index().add("corp", "1.0", ("inner",)).add("inner", "1.0")
    sources = 'corp = {index = "corp"}\ninner = {index = "corp"}\nunused = {index = "corp"}'
    lock = locked(_pyproject('["tiny"]', public.url, corp.url, sources=sources))
    assert lock.pins == ("corp==1.0", "inner==1.0", "tiny==1.0")
    assert not public.names() & {"corp", "inner", "unused"}
    assert corp.names() == {"corp", "inner"}


def test_what_the_lock_or_a_wheel_gives_is_asked_of_no_index(new_index: Any, locked: Any, package: Any) -> None:
    public = new_index().add("tiny", needs=("corp", "mine")).add("corp", "9.0").add("mine", "9.0").add("odd", "2.0")
    corp = new_index().add("corp", "8.0").add("mine", "8.0")
    files = _pyproject('["tiny", "corp", "mine"]', public.url, corp.url)
    extra = "[tool.uv]\noverride-dependencies = ['corp==9.0', 'odd==2.0']\n"
    extra += "[tool.bentotool.python]\npackages = ['./mine']\n"
    extra += f"indexes = [{{name = 'corp', url = '{corp.url}', packages = ['mine', 'corp']}}]\n"
    pins = [("corp", "1.0"), ("tiny", "1.0")]
    text = 'lock-version = "1.0"\n'
    for name, version in pins:
        text += f'[[packages]]\nname = "{name}"\nversion = "{version}"\n'
        text += f'wheels = [{{name = "{name}-{version}-py3-none-any.whl", hashes = {{sha256 = "{"1" * 64}"}}}}]\n'
    project = files["pyproject.toml"] + extra
    lock = locked({"pyproject.toml": project, "pylock.toml": text, **package("mine", "mine")})
    assert lock.pins == ("corp==1.0", "mine==1.0", "tiny==1.0")
    assert not public.asked
    assert not corp.asked


def test_indexes_of_the_configuration(new_index: Any, locked: Any) -> None:
    public = new_index().add("tiny").add("corp", "9.0")
    corp = new_index().add("corp", "1.0")
    text = "python:\n  packages: [tiny, corp]\n  indexes:\n"
    text += f"  - {{name: corp, url: '{corp.url}', explicit: true, packages: [Corp]}}\n"
    text += f"  - {{name: public, url: '{public.url}', default: true}}\n"
    lock = locked({"bentofile.yaml": text})
    assert lock.pins == ("corp==1.0", "tiny==1.0")
    assert "corp" not in public.names()


def test_a_pin_to_an_index_that_is_not_there(gathered: Any) -> None:
    with pytest.raises(ConfigError, match="'nowhere', which is not defined"):
        gathered({"pyproject.toml": '[project]\nname="d"\n[tool.uv.sources]\nx = {index = "nowhere"}\n'})
    for bad in ("{name: 'a b', url: 'https://h/s'}", "{name: a, url: 'ftp://h'}", "{url: 'https://h/s'}"):
        with pytest.raises(ConfigError):
            gathered({"bentofile.yaml": f"python: {{indexes: [{bad}]}}"})
    with pytest.raises(UnsafeError):
        gathered({"bentofile.yaml": "python: {indexes: [{name: a, url: 'https://u:p@h/s'}]}"})


CANARY = "s3cret-canary-0815"


def _without_a_trace(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("way", ["variables", "netrc", "keyring"])
def test_credentials_leave_no_trace(
    new_index: Any, project: Path, builder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    index = new_index().add("tiny").add("fakestar", "2.1")
    index.login = f"me:{CANARY}"
    config = "service: service:Iris\npython:\n  packages: [tiny]\n"
    config += f"  indexes: [{{name: corp, url: '{index.url}', default: true}}]\n"
    (project / "bentofile.yaml").write_text(config)
    arguments: list[str] = []
    start = uvrun.subprocess.run

    def watched(command: list[str], **options: Any) -> Any:
        arguments.extend(command)
        return start(command, **options)

    monkeypatch.setattr(uvrun.subprocess, "run", watched)
    if way == "variables":
        monkeypatch.setenv("UV_INDEX_CORP_USERNAME", "me")
        monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", CANARY)
    elif way == "keyring":
        if os.name == "nt" or sys.platform == "win32":
            pytest.skip("a shell script stands for keyring")
        program = tmp_path / "bin" / "keyring"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {CANARY}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        monkeypatch.setenv("UV_KEYRING_PROVIDER", "subprocess")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # uv keeps a lock there
        monkeypatch.setenv("UV_INDEX_CORP_USERNAME", "me")
    else:
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login me password {CANARY}\n")
        monkeypatch.setenv("NETRC", str(netrc))
    result = builder(project)
    assert result.packages == 2
    _without_a_trace(project)
    _without_a_trace(builder.layout.root)
    assert arguments
    assert not [text for text in arguments if CANARY in text or "127.0.0.1" in text]
    shown = capfd.readouterr()
    assert CANARY not in shown.out + shown.err + "".join(builder.notes) + str(result.to_dict())


def test_refused_credentials_are_not_shown(new_index: Any, locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index = new_index().add("tiny")
    index.login = "me:other"
    monkeypatch.setenv("UV_INDEX_CORP_USERNAME", "me")
    monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", CANARY)
    text = f"python: {{packages: [tiny], indexes: [{{name: corp, url: '{index.url}', default: true}}]}}"
    with pytest.raises(RemoteError, match="refused the credentials") as caught:
        locked({"bentofile.yaml": text})
    assert CANARY not in str(caught.value.to_dict())
    assert "UV_INDEX" in str(caught.value.hint)


def test_an_index_of_the_environment_does_not_replace_the_projects(
    new_index: Any, locked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = new_index().add("tiny"), new_index().add("tiny", "9.0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", other.url)
    assert locked({"bentofile.yaml": f"python: {{packages: [tiny], index_url: '{mine.url}'}}"}).pins == ("tiny==1.0",)
    assert not other.asked


def test_what_was_published_later_is_left_out(new_index: Any, locked: Any, gathered: Any) -> None:
    index = new_index().add("tiny", "1.0", time="2024-01-01T00:00:00Z").add("tiny", "2.0", time="2025-06-01T00:00:00Z")
    base = f"python:\n  packages: [tiny]\n  index_url: '{index.url}'\n"
    newest = locked({"bentofile.yaml": base})
    dated = locked({"bentofile.yaml": base + "  exclude_newer: 2025-01-01\n"})
    assert (newest.pins, dated.pins) == (("tiny==2.0",), ("tiny==1.0",))
    assert newest.inputs != dated.inputs
    for bad in ("soon", "2025-13-01", "1", "P", "[2025-01-01]", "5"):
        with pytest.raises(ConfigError):
            gathered({"bentofile.yaml": f"python: {{exclude_newer: {bad}}}"})
    assert gathered({"bentofile.yaml": "python: {exclude_newer: 2025-01-01}"}).exclude_newer == "2025-01-02T00:00:00Z"
    assert gathered({"bentofile.yaml": "python: {exclude_newer: 7 days}"}).exclude_newer == "7 days"
    for toml in ('exclude-newer = "2025-01-01T00:00:00Z"', "exclude-newer = 2025-01-01T00:00:00Z"):
        assert gathered({"pyproject.toml": f'[project]\nname="d"\n[tool.uv]\n{toml}\n'}).exclude_newer.startswith(
            "2025"
        )


@pytest.mark.skipif(os.name == "nt" or sys.platform == "win32", reason="a proxy variable stands for the cut network")
def test_offline_with_a_wheelhouse(
    locked: Callable[..., Any], wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    text = f"python: {{packages: [tiny], find_links: ['{wheelhouse.as_posix()}']}}"
    assert locked({"bentofile.yaml": text}, offline=True).pins == ("tiny==2.0", "tinydep==1.5")


def test_the_older_settings_of_uv(gathered: Any, tmp_path: Path) -> None:
    text = "[tool.uv]\nindex-url = 'https://h/a'\nextra-index-url = ['https://h/b']\n"
    text += "find-links = ['house']\nno-index = true\n"
    found = gathered({"pyproject.toml": text, "bentofile.yaml": "python: {packages: [six]}"}).indexes
    assert [(item.url, item.default) for item in found.used()] == [("https://h/b", False), ("https://h/a", True)]
    assert found.find_links == (str(tmp_path / "written" / "house"),)
    assert found.no_index
    for bad in ("index-url = 'https://u:p@h/a'", "find-links = ['../x']", "no-index = 'yes'", "index-url = 3"):
        with pytest.raises(BentotoolError):
            gathered({"pyproject.toml": f"[tool.uv]\n{bad}\n"})
