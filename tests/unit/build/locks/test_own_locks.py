"""uv.lock and pylock.toml as uv itself writes them, and as nobody should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bentotool.build.uvrun import uv_program
from bentotool.errors import BentotoolError, BuildError, ConfigError, UsageError

PROJECT = """
[project]
name = "Demo_App"
version = "1"
requires-python = ">=3.10"
dependencies = ["bentotool", "tiny>=1", "maconly; sys_platform == 'darwin'", "oldpy; python_version < '3.12'"]
[project.optional-dependencies]
gpu = ["fast"]
[dependency-groups]
test = ["checker", {include-group = "base"}]
base = ["tinydep"]
[tool.bentotool]
[[tool.uv.index]]
name = "mine"
url = "%s"
default = true
"""


@pytest.fixture(scope="module")
def index(new_index: Callable[[], Any]) -> Any:
    index = new_index().add("tiny", "1.0", ("tinydep>=1",)).add("tiny", "2.0", ("tinydep>=1",)).add("tinydep", "1.5")
    for name in ("maconly", "oldpy", "fast", "checker", "typer"):
        index.add(name)
    return index.add("bentotool", "0.1", ("typer",)).add("runstar", "2.0", ("tinydep",))


@pytest.fixture(scope="module")
def made(index: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A project with the lock that uv makes of it, and the same as pylock.toml."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "pyproject.toml").write_text(PROJECT % index.url)
    environment = {**os.environ, "UV_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "UV_PYTHON_DOWNLOADS": "never"}
    export = ["export", "--no-emit-project", "--format", "pylock.toml", "-o", "pylock.toml"]
    for arguments in (["lock"], export):
        command = [uv_program(), *arguments, "-q", "--python", sys.executable]
        subprocess.run(command, cwd=folder, check=True, timeout=60, env=environment)
    index.files = {name: data for name, data in index.files.items() if name.startswith("runstar")}
    return {name: (folder / name).read_text() for name in ("pyproject.toml", "uv.lock", "pylock.toml")}


@pytest.fixture
def files(index: Any, made: dict[str, str]) -> dict[str, str]:
    index.asked.clear()
    return dict(made)


def _hashes(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "--hash" in line]


def test_a_uv_lock_is_taken_for_the_target(files: dict[str, str], index: Any, locked: Any, gathered: Any) -> None:
    files = {name: text for name, text in files.items() if name != "pylock.toml"}
    lock = locked(files, runtime=("runstar>=2",))
    assert lock.pins == ("runstar==2.0", "tiny==2.0", "tinydep==1.5")
    assert index.names() == {"runstar"}, "what the lock pins is asked of nobody"
    assert all(line.removeprefix("--hash=") in files["uv.lock"] for line in _hashes(lock.text)[1:])
    assert [pin.name for pin in gathered(files, platform="linux/arm64").pinned] == ["tiny", "tinydep"]
    text = "[tool.bentotool]\npython = {extras = ['GPU'], groups = ['test'], version = '3.11'}\n"
    chosen = {**files, "pyproject.toml": files["pyproject.toml"].replace("[tool.bentotool]\n", text)}
    assert [pin.name for pin in gathered(chosen).pinned] == ["checker", "fast", "oldpy", "tiny", "tinydep"]


def test_a_pylock_says_the_same(files: dict[str, str], locked: Any, gathered: Any) -> None:
    del files["uv.lock"]
    assert locked(files).pins == ("tiny==2.0", "tinydep==1.5", "typer==1.0")  # the graph of typer is not in it
    both = {**files, "uv.lock": "damaged"}
    text = both["pyproject.toml"].replace("[tool.bentotool]", "[tool.bentotool.python]\nlock_file = 'pylock.toml'")
    assert len(gathered({**both, "pyproject.toml": text}).pinned) == 3
    none = text.replace("'pylock.toml'", "'none'")
    assert not gathered({**both, "pyproject.toml": none}).pinned


def test_the_configuration_that_names_packages_is_not_joined_by_a_lock(files: dict[str, str], gathered: Any) -> None:
    assert not gathered({**files, "bentofile.yaml": "python: {packages: [six]}"}).pinned
    assert gathered({**files, "bentofile.yaml": "labels: {a: b}"}).pinned
    assert gathered({**files, "bentofile.yaml": "python: {packages: [six], lock_file: uv.lock}"}).pinned


def test_a_lock_that_excludes_the_runtime_names_both(files: dict[str, str], locked: Any) -> None:
    with pytest.raises(BuildError, match=r"uv\.lock pins tiny==2\.0, and the Bento's runtime needs tiny>=3") as caught:
        locked(files, runtime=("tiny>=3",))
    assert "uv lock --upgrade-package tiny" in str(caught.value.hint)
    with pytest.raises(BuildError, match="tinydep"):
        locked(
            {**files, "requirements.txt": "", "bentofile.yaml": "python: {packages: [tinydep<1], lock_file: uv.lock}"}
        )


def test_a_lock_that_is_out_of_date(files: dict[str, str], gathered: Any) -> None:
    notes: list[str] = []
    assert gathered(files, locked=True, note=notes.append)
    assert not notes
    for old, new in (('"tiny>=1"', '"tiny>=1.0.1"'), ('"tiny>=1"', '"tiny>=1", "newcomer"'), ('"tiny>=1", ', "")):
        changed = {**files, "pyproject.toml": files["pyproject.toml"].replace(old, new)}
        gathered(changed, note=notes.append)
        assert "uv.lock is out of date" in notes.pop()
        with pytest.raises(UsageError, match="--locked"):
            gathered(changed, locked=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1\n", "version = 2\n"),
        ('name = "demo-app"', 'name = "other"'),
        ('virtual = "."', 'virtual = "elsewhere"'),
        ("[[package]]", "[package]"),
        ("sha256:", "md5:"),
        ('registry = "', 'strange = "'),
        ('requires-python = ">=3.10"', 'requires-python = ">=3.13"'),
        ('requires-python = ">=3.10"', 'requires-python = "soon"'),
        ("sys_platform == 'darwin'", "sys_platform == "),
        ('{ name = "tinydep" }', '{ name = "absent" }'),
        ('version = "1.5"', 'version = "one"'),
    ],
)
def test_a_uv_lock_of_another_form_is_an_error(files: dict[str, str], gathered: Any, old: str, new: str) -> None:
    assert old in files["uv.lock"]
    with pytest.raises(ConfigError):
        gathered({**files, "uv.lock": files["uv.lock"].replace(old, new)})


@pytest.mark.parametrize(
    "text",
    ["", "x = ", 'lock-version = "2.0"', 'lock-version = 1', 'lock-version = "1.0"\nrequires-python = ">3.13"',
     'lock-version = "1.0"\nenvironments = ["sys_platform == \'win32\'"]',
     'lock-version = "1.0"\npackages = [1]', 'lock-version = "1.0"\n[[packages]]\nversion = "1"',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\nmarker = "nonsense"',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\n[packages.vcs]\ntype = "hg"\nurl = "x"',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\ndirectory = {path = "../out"}',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\ndirectory = {path = "/etc"}',
     'lock-version = "1.0"\n[[packages]]\nname = "a"\narchive = {url = "https://u:p@h/a.whl", hashes = {sha256 = "%s"}}'
     % ("0" * 64),
     'lock-version = "1.0"\n[[packages]]\nname = "a"\narchive = {url = "file:///a.whl", hashes = {sha256 = "%s"}}'
     % ("0" * 64)],
)  # fmt: skip
def test_a_pylock_of_another_form_is_an_error(gathered: Any, text: str) -> None:
    with pytest.raises(BentotoolError):
        gathered({"pylock.toml": text})


def test_archives_and_packages_without_a_wheel(gathered: Any, locked: Any) -> None:
    text = (
        'lock-version = "1.0"\n[[packages]]\nname = "a"\n[packages.archive]\nurl = "https://h/a-1-py3-none-any.whl"\n'
    )
    text += f'hashes = {{sha256 = "{"1" * 64}"}}\n[[packages]]\nname = "b"\nversion = "2"\n'
    text += f'sdist = {{name = "b-2.tar.gz", hashes = {{sha256 = "{"2" * 64}"}}}}\n'
    found = gathered({"pylock.toml": text})
    assert [pin.line for pin in found.pinned] == ["a @ https://h/a-1-py3-none-any.whl", "b==2"]
    assert [pin.has_wheel for pin in found.pinned] == [True, False]
    lock = locked({"pylock.toml": text, "bentofile.yaml": "python: {no_index: true}"})
    assert lock.pins == ("a @ https://h/a-1-py3-none-any.whl", "b==2")
    assert lock.built == ("b",)
    assert "# source: b\n" in lock.text


def test_a_script_block_counts(gathered: Any) -> None:
    block = "# /// script\n# requires-python = '>=3.11'\n# dependencies = [\n#   'six',\n# ]\n#\n# [tool.uv]\n"
    block += "# exclude-newer = '2025-01-01'\n# ///\nraise SystemExit('never run')\n"
    found = gathered({"service.py": block, "bentofile.yaml": "python: {packages: [attrs]}"})
    assert found.lines == ("attrs", "six")
    assert found.exclude_newer == "2025-01-02T00:00:00Z"
    with pytest.raises(ConfigError, match="requires-python"):
        gathered({"service.py": block, "bentofile.yaml": "python: {version: '3.10'}"})
    for bad in (block + block, block.replace("'six'", "6"), block.replace("= [", "= {")):
        with pytest.raises(ConfigError):
            gathered({"service.py": bad})
