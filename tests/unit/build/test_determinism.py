"""One project, one digest: whoever builds it, wherever, with whatever Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.build.checking import check_build
from bentotool.build.result import BuildOptions
from bentotool.errors import NotFoundError, ServiceLoadError
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins

ROOT = Path(__file__).parents[3]
SERVICE = """
from typing import Literal, Optional, Union
import bentotool

@bentotool.service(labels={"b": "1", "a": "2"}, envs=[{"name": "DEPTH", "value": "3"}])
class Iris:
    "Tells irises apart."

    @bentotool.api
    def predict(
        self, x: float, y: Optional[int] = None, z: Union[int, str, None] = 3, kind: Literal["a", "b"] = "a",
        names: set[str] = {"q", "r", "s"},
    ) -> dict[str, list[float]]:
        '''Guess.

        Args:
            x: a number
        '''
        return {}
"""
_BUILD = """
import sys
from pathlib import Path
from bentotool.build.api import BuildOptions, build_bento
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins
options = BuildOptions(runtime_requirements=("fakestar>=2",), locked=True, platform="linux/amd64")
plugins = load_plugins(found=())
print(build_bento(Path(sys.argv[1]), layout=Layout(Path(sys.argv[2])), plugins=plugins, options=options).digest)
"""
_NEEDS = ["msgspec", "pyyaml", "pathspec", "packaging", "pluggy", "tomli", "typing-extensions", "litestar>=2.18,<3"]


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def written(project: Path) -> Path:
    (project / "service.py").write_text(SERVICE)
    return project


def digest(folder: Path, store: Path, python: str = sys.executable, **environment: str) -> str:
    done = subprocess.run(
        [python, "-c", _BUILD, str(folder), str(store)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def locked(folder: Path) -> Path:
    """The project with its lock."""
    from bentotool.build.api import build_bento

    options = BuildOptions(runtime_requirements=("fakestar>=2",), platform="linux/amd64")
    build_bento(folder, layout=Layout(folder.parent / "first"), plugins=load_plugins(found=()), options=options)
    return folder


def test_the_environment_never_matters(written: Path, tmp_path: Path) -> None:
    folder = locked(written)
    ways: list[dict[str, str]] = [
        {},
        {"PYTHONHASHSEED": "7", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1"},
        {"SOURCE_DATE_EPOCH": "1700000000", "LANG": "tr_TR.UTF-8", "HOME": str(tmp_path), "USER": "someone"},
    ]
    assert len({digest(folder, tmp_path / f"store{i}", **way) for i, way in enumerate(ways)}) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="interpreters are found by their POSIX names")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_the_python_that_builds_never_matters(
    written: Path,
    tmp_path: Path,
    version: str,
    require_tool: Callable[[str], str],
    require_python: Callable[[str], str],
) -> None:
    uv = require_tool("uv")
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip("is this one")
    python = require_python(version)
    home = tmp_path / "python"
    for command in (["venv", "-q", "--python", python, str(home)], ["pip", "install", "-q", *_NEEDS]):
        target = ["--python", str(home / "bin" / "python")] if command[0] == "pip" else []
        done = subprocess.run([uv, *command, *target], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    folder = locked(written)
    assert digest(folder, tmp_path / "other", str(home / "bin" / "python")) == digest(folder, tmp_path / "here")


@given(
    names=st.lists(st.sampled_from(["a.py", "b/c.txt", "b/d.bin", "Z.txt", "ä.txt", "x/y/z.md"]), unique=True),
    umask=st.sampled_from([0o000, 0o022, 0o077]),
    dated=st.integers(0, 2_000_000_000),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_modes_and_times_never_matter(
    names: list[str],
    umask: int,
    dated: int,
    chance: object,
    project: Path,
    builder: Callable[..., object],
    tmp_path: Path,
) -> None:
    digests = set()
    for number in range(2):
        folder = tmp_path / f"way{number}"
        shutil.rmtree(folder, ignore_errors=True)
        before = os.umask(umask if number else 0o022)
        try:
            shutil.copytree(project, folder)
            if number:
                chance.shuffle(names)  # type: ignore[attr-defined]
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True, parents=True)
                (folder / name).write_text(name)
                if number:
                    os.utime(folder / name, (dated, dated))
                    (folder / name).chmod(0o755)
            digests.add(builder(folder).digest)  # type: ignore[attr-defined]
        finally:
            os.umask(before)
    assert len(digests) == 1


def check(folder: Path, store: Path, **options: object) -> object:
    chosen = BuildOptions(runtime_requirements=("fakestar>=2",), platform="linux/amd64", **options)  # type: ignore[arg-type]
    return check_build(folder, layout=Layout(store), plugins=load_plugins(), options=chosen)


def test_check_builds_in_two_ways_and_leaves_nothing(written: Path, store: Path) -> None:
    (written / "words.txt").write_text("few")
    if hasattr(os, "symlink"):
        (written / "link.txt").symlink_to(written / "words.txt")
    before = sorted(written.rglob("*"))
    checked = check(written, store)
    assert checked.equal, checked.differences  # type: ignore[attr-defined]
    assert json.loads(json.dumps(checked.to_dict()))["differences"] == []  # type: ignore[attr-defined]
    assert (sorted(written.rglob("*")), store.exists()) == (before, False)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ('labels={"where": __file__}', "setting labels.where differs"),
        ('labels={"zone": __import__("time").tzname[0]}', "setting labels.zone differs"),
        ('labels={"home": __import__("os").path.expanduser("~")}', "setting labels.home differs"),
    ],
)
def test_check_says_what_differs(written: Path, store: Path, code: str, told: str) -> None:
    (written / "service.py").write_text(SERVICE.replace('labels={"b": "1", "a": "2"}', code))
    checked = check(written, store)
    assert not checked.equal  # type: ignore[attr-defined]
    assert told in checked.differences  # type: ignore[attr-defined]
    assert not [line for line in checked.differences if "bento.json" in line]  # type: ignore[attr-defined]


def test_check_fails_as_a_build_does(written: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        check(tmp_path / "absent", store)
    (written / "service.py").write_text("raise ValueError('no weights')")
    with pytest.raises(ServiceLoadError, match="no weights"):
        check(written, store)
