"""Packages that a Bento carries: folders of the project, wheels, git repositories."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore
from bentotool.build.media import WHEEL
from bentotool.build.wheel import make_wheel
from bentotool.build.wheelfile import normalise_wheel
from bentotool.environments import locked_environment
from bentotool.errors import BentotoolError, BuildError, ConfigError, NotFoundError, UnsafeError, UsageError
from bentotool.serving import plan_launch

QUIET = {"bentofile.yaml": "python: {requirements_txt: r.txt, no_index: true}"}


@pytest.mark.parametrize(
    "line",
    ["./libs/mine", "-e ./libs/mine", "--editable=libs/mine", "mine @ file:libs/mine", "mine @ ./libs/mine",
     "file:./libs/mine", "libs/mine ; sys_platform == 'linux'", "-e mine @ file:libs/mine"],
)  # fmt: skip
def test_a_folder_of_the_project_is_packed(locked: Any, package: Any, line: str) -> None:
    lock = locked({**QUIET, "r.txt": f"{line}\n", **package("libs/mine", "mine")})
    assert lock.pins == ("mine==1.0",)
    assert lock.wheels[0].digest in lock.text
    assert "file:" not in lock.text


def test_two_builds_give_one_digest(tmp_path: Path, locked: Any, package: Any) -> None:
    """The backend writes the time and another order into each wheel."""
    first = locked({**QUIET, "r.txt": "./mine", **package("mine", "mine")})
    built = first.wheels[0].path
    again = tmp_path / "wheels"
    again.rename(tmp_path / "before")
    second = locked({**QUIET, "r.txt": "./mine", **package("mine", "mine")})
    assert (second.wheels[0].digest, second.text) == (first.wheels[0].digest, first.text)
    with zipfile.ZipFile(built.parents[2] / "before" / built.parent.name / built.name) as archive:
        names = archive.namelist()
        assert names[-1].endswith("RECORD")
        assert {item.date_time[0] for item in archive.infolist()} == {1980}
        assert b"Generator: bentotool" in archive.read(next(name for name in names if name.endswith("/WHEEL")))


def test_the_lock_stands_while_the_sources_do(write: Any, builder: Any, package: Any) -> None:
    files = {"service.py": "class Iris: pass\n", **QUIET, "r.txt": "./mine\n", **package("mine", "mine")}
    folder = write(files)
    wheel = make_wheel("fakestar", "2.1", {"fakestar.py": b""})
    (folder / "house").mkdir()
    (folder / "house" / "fakestar-2.1-py3-none-any.whl").write_bytes(wheel)
    (folder / "bentofile.yaml").write_text(QUIET["bentofile.yaml"].replace("}", ", find_links: [house]}"))
    first = builder(folder)
    assert not (folder / "mine" / "build").exists()
    again = builder(folder, locked=True)
    assert (again.digest, again.lock_reused) == (first.digest, True)
    assert len(list((builder.layout.root / "cache" / "wheels").iterdir())) == 1
    (folder / "mine" / "mine.py").write_text("VALUE = 2\n")
    with pytest.raises(UsageError, match="--locked"):
        builder(folder, locked=True)
    assert builder(folder).digest != first.digest


def test_an_edit_of_a_packed_folder_that_is_no_code_is_seen(write: Any, builder: Any, package: Any) -> None:
    files = {"service.py": "class Iris: pass\n", "r.txt": "./libs/mine\n", **package("libs/mine", "mine")}
    config = "python: {requirements_txt: r.txt, no_index: true, wheels: [libs/fakestar-2.1-py3-none-any.whl]}\n"
    folder = write({**files, "bentofile.yaml": f"{config}exclude: [libs/]\n"})
    wheel = folder / "libs" / "fakestar-2.1-py3-none-any.whl"
    wheel.write_bytes(make_wheel("fakestar", "2.1", {"fakestar.py": b""}))
    digests = [builder(folder).digest]
    (folder / "libs" / "mine" / "mine.py").write_text("VALUE = 2\n")
    digests.append(builder(folder).digest)
    (folder / "libs" / "mine" / "backend.py").write_text("# more\n" + (folder / "libs/mine/backend.py").read_text())
    (folder / "libs" / "mine" / "added.txt").write_text("")
    builder(folder)
    wheel.write_bytes(make_wheel("fakestar", "2.1", {"fakestar.py": b"X = 1"}))
    digests.append(builder(folder).digest)
    assert len(set(digests)) == 3
    assert builder(folder).digest == digests[-1]


def test_a_bento_carries_its_wheels_and_installs_from_them(write: Any, builder: Any, package: Any) -> None:
    files = {"service.py": "class Iris: pass\n", **package("mine", "mine", "1.5")}
    folder = write(files)
    for name in ("local", "fakestar"):
        (folder / f"{name}-2.1-py3-none-any.whl").write_bytes(make_wheel(name, "2.1", {f"{name}.py": b"VALUE = 3\n"}))
    text = "python: {packages: [./mine], wheels: [local-2.1-py3-none-any.whl, fakestar-2.1-py3-none-any.whl],"
    (folder / "bentofile.yaml").write_text(
        f"{text} no_index: true, version: '{sys.version_info[0]}.{sys.version_info[1]}'}}"
    )
    result = builder(folder)
    store = BentoStore(builder.layout)
    bento = store.get(result.tag)
    assert sorted(bento.wheels) == [
        "fakestar-2.1-py3-none-any.whl", "local-2.1-py3-none-any.whl", "mine-1.5-py3-none-any.whl",
    ]  # fmt: skip
    assert bento.layer(WHEEL).digest not in {layer.digest for layer in bento.wheels.values()}
    assert [item["name"] for item in bento.config["wheels"]] == ["fakestar", "local", "mine"]
    place = store.materialise(bento) / "wheels"
    python = locked_environment(builder.layout.root / "envs", store.requirements(bento), bento.python, place)
    shown = subprocess.run(
        [str(python), "-c", "import mine, local; print(mine.VALUE, local.VALUE)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert shown.stdout.split() == ["1", "3"]
    launch = plan_launch(result.tag, builder.layout, isolated=True)
    assert launch.python == str(python)
    (place / "mine-1.5-py3-none-any.whl").unlink()
    (place / "other-1.5-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(BentotoolError, match="not what the lock names"):
        locked_environment(builder.layout.root / "envs2", store.requirements(bento), bento.python, place)


def test_sources_of_uv(locked: Any, package: Any) -> None:
    """A member of the workspace that needs another one and a folder; the sources of the members count too."""
    more = "[tool.uv.sources]\ntwo = {workspace = true}\nthree = {path = '../three'}\n"
    root = (
        '[project]\nname = "root"\nversion = "1"\ndependencies = ["one>=1"]\n[tool.bentotool.python]\nno_index = true\n'
    )
    root += "[tool.uv.sources]\none = {workspace = true}\n[tool.uv.workspace]\nmembers = ['packages/*']\n"
    lock = locked(
        {"pyproject.toml": root, **package("packages/one", "one", needs=("two", "three"), more=more),
         **package("packages/two", "two"), **package("packages/three", "three")}
    )  # fmt: skip
    assert lock.pins == ("one==1.0", "three==1.0", "two==1.0")


def test_the_project_itself_is_its_dependencies(gathered: Any) -> None:
    text = '[project]\nname = "root"\nversion = "1"\ndependencies = ["six"]\n'
    text += '[project.optional-dependencies]\nx = ["attrs"]\n'
    found = gathered({"pyproject.toml": text, **QUIET, "r.txt": "-e .[x]\n"})
    assert (found.lines, found.sources) == (("six", "attrs"), ())


def test_a_package_that_does_not_build_says_so(locked: Any, package: Any) -> None:
    files = {**QUIET, "r.txt": "./mine", **package("mine", "mine")}
    with pytest.raises(BuildError, match="no wheel can be built of mine: .*is broken here") as caught:
        locked({**files, "mine/backend.py": "raise SystemExit('it is broken here')\n"})
    assert "\n" not in caught.value.message


def test_a_wheel_for_another_machine_is_refused(locked: Any, package: Any, tmp_path: Path, write: Any) -> None:
    for tag in ("cp312-cp312-macosx_11_0_arm64", "cp311-cp311-manylinux_2_17_x86_64", "py3-none-win_amd64"):
        with pytest.raises(BuildError, match="does not fit linux/amd64 with Python 3.12"):
            locked({**QUIET, "r.txt": "./mine", **package("mine", "mine", tag=tag)})
    for tag in ("cp312-cp312-manylinux_2_17_x86_64", "cp38-abi3-manylinux2014_x86_64", "py2.py3-none-any"):
        assert locked({**QUIET, "r.txt": "./mine", **package("mine", "mine", tag=tag)}).pins


def test_paths_stay_in_the_project(gathered: Any, corpus: ModuleType, tmp_path: Path, package: Any) -> None:
    outside = tmp_path / "outside"
    for name, content in package("outside", "evil").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    written = tmp_path / "written"
    lines = [f"{start}{path}" for start in ("./", "-e ") for path in corpus.PATHS if path.strip("./")]
    for line in (*lines, "../outside", f"evil @ {outside.as_uri()}", f"-e {outside}", "evil @ file:../outside"):
        if any(ord(char) < 32 for char in line):
            continue
        with pytest.raises(BentotoolError):
            gathered({**QUIET, "r.txt": line})
    for toml in ('x = {path = "../outside"}', f'x = {{path = "{outside.as_posix()}"}}', "x = {workspace = true}"):
        with pytest.raises(BentotoolError):
            gathered({"pyproject.toml": f'[project]\nname="d"\ndependencies=["x"]\n[tool.uv.sources]\n{toml}\n'})
    for key in ("../x.whl", "/x.whl", "x.tar.gz"):
        with pytest.raises(BentotoolError):
            gathered({"bentofile.yaml": f"python: {{wheels: ['{key}']}}"})
    if os.name != "nt":
        written.mkdir(exist_ok=True)
        with pytest.raises(UnsafeError):
            gathered_link(gathered, written, outside)


def gathered_link(gathered: Any, written: Path, outside: Path) -> None:
    """A link in the project that leads out of it."""
    from bentotool.build.configfile import load_config
    from bentotool.build.requirements import gather

    (written / "service.py").write_text("")
    (written / "bentofile.yaml").write_text("python: {packages: [./link]}")
    (written / "link").symlink_to(outside, target_is_directory=True)
    gather(load_config(written), (), ())


def test_two_places_for_one_package(gathered: Any, package: Any) -> None:
    with pytest.raises(ConfigError, match="two places: a and b"):
        gathered({**QUIET, "r.txt": "./a\n./b\n", **package("a", "mine"), **package("b", "mine")})
    with pytest.raises(ConfigError, match="holds mine, not other"):
        gathered({**QUIET, "r.txt": "other @ ./a\n", **package("a", "mine")})


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a zip"])
def test_a_wheel_that_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.whl").write_bytes(damage)
    with pytest.raises(BuildError, match="not a wheel"):
        normalise_wheel(tmp_path / "x.whl", tmp_path / "y.whl")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("../evil.py", "")
    with pytest.raises(UnsafeError):
        normalise_wheel(tmp_path / "x.whl", tmp_path / "y.whl")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *rest: object) -> None:
        pass


@pytest.fixture
def repository(
    tmp_path: Path, require_tool: Callable[[str], str], package: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A git repository behind a plain web server: its URL and a function that commits."""
    git = require_tool("git")
    work = tmp_path / "repository"
    for name, content in package("repository/python", "mine").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    run = functools.partial(subprocess.run, cwd=work, check=True, capture_output=True, text=True, timeout=30)

    def commit(message: str) -> str:
        (work / "python" / "mine.py").write_text(f"VALUE = {message!r}\n")
        run([git, "add", "-A"])
        run([git, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message])
        run([git, "update-server-info"])
        return run([git, "rev-parse", "HEAD"]).stdout.strip()

    run([git, "init", "-q", "-b", "main"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(work / ".git")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", commit
    server.shutdown()
    server.server_close()


def test_a_git_dependency_is_packed_at_a_commit(repository: Any, locked: Any, tmp_path: Path) -> None:
    url, commit = repository
    first = commit("first")
    files = {**QUIET, "r.txt": f"mine @ git+{url}/@main#subdirectory=python\n"}
    lock = locked(files)
    assert lock.pins == ("mine==1.0",)
    assert f"# commit: mine {first}\n" in lock.text
    assert url not in lock.text
    second = commit("second")
    assert locked(files, previous=lock, locked=True).commits == {"mine": first}, "the lock stands"
    (tmp_path / "wheels").rename(tmp_path / "gone")
    assert locked(files, previous=lock, locked=True).text == lock.text, "another machine builds the same"
    assert locked(files).commits == {"mine": second}
    pinned = {**QUIET, "r.txt": f"git+{url}/@{first}#egg=mine&subdirectory=python\n"}
    assert locked(pinned).wheels[0].digest == lock.wheels[0].digest
    nameless = {**QUIET, "r.txt": f"git+{url}/@main#subdirectory=python\n"}
    lock = locked(nameless)
    third = commit("third")
    assert locked(nameless, previous=lock, locked=True).commits == {"mine": second}
    assert locked(nameless).commits == {"mine": third}
    with pytest.raises(NotFoundError, match="no branch or tag 'absent'"):
        locked({**QUIET, "r.txt": f"mine @ git+{url}/@absent\n"})
    with pytest.raises(BentotoolError, match="no folder 'elsewhere'"):
        locked({**QUIET, "r.txt": f"mine @ git+{url}/@main#subdirectory=elsewhere\n"})


def test_sources_from_git_and_without_packing(repository: Any, gathered: Any) -> None:
    toml = '[project]\nname = "d"\ndependencies = ["mine>=1"]\n[tool.uv.sources]\n'
    toml += 'mine = {git = "https://h/x.git", tag = "v1", subdirectory = "python"}\n'
    source = gathered({"pyproject.toml": toml}).sources[0]
    assert (source.place, source.ref, source.subdirectory) == ("https://h/x.git", "v1", "python")
    with pytest.raises(ConfigError, match="pack_git_packages"):
        gathered({"pyproject.toml": toml + "[tool.bentotool.python]\npack_git_packages = false\n"})
    with pytest.raises(UnsafeError):
        gathered({"pyproject.toml": toml.replace("https://", "https://user:s3cret@")})


def test_a_wheel_that_is_not_there_is_said_with_its_key(locked: Any) -> None:
    files = {"bentofile.yaml": "python: {no_index: true, wheels: [libs/mine-1.0-py3-none-any.whl]}"}
    with pytest.raises(NotFoundError) as caught:
        locked(files)
    said = "bentofile.yaml → python → wheels → 0: no file 'libs/mine-1.0-py3-none-any.whl' in the project"
    assert caught.value.message == said
