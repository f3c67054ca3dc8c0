"""Fixtures of every test. Standard library and pytest only: the runtime-only environment uses this file too."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REQUIRE_ALL = "BENTOTOOL_TEST_REQUIRE_ALL"
"""When 1, a missing tool or package fails the test that needs it instead of skipping it."""
WITHOUT = "BENTOTOOL_TEST_WITHOUT"
"""Packages that this environment lacks on purpose, separated by spaces; their tests always skip."""

WITHOUT_TOOLS = "BENTOTOOL_TEST_WITHOUT_TOOLS"
"""The same for programs."""

_PLACES = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "APPDATA", "DOCKER_CONFIG")
_SETTINGS = (
    "BENTOTOOL_BENTO", "BENTOTOOL_DISABLE_PLUGINS", "BENTOTOOL_PLUGIN_SCAN", "BENTOTOOL_POLICY", "BENTOTOOL_VERIFY",
    "NO_COLOR", "FORCE_COLOR",
)  # fmt: skip
_UNSET = (*_PLACES, *_SETTINGS)


def _absent(what: str, *, on_purpose: bool = False) -> None:
    if os.environ.get(REQUIRE_ALL) == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here, and {REQUIRE_ALL}=1", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """``require_tool("docker-registry")`` gives the program's path, or skips the test by that name."""

    def require(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            _absent(f"the program {name}", on_purpose=name in os.environ.get(WITHOUT_TOOLS, "").split())
        return str(found)

    return require


@pytest.fixture(scope="session")
def require_package() -> Callable[[str], None]:
    """``require_package("onnxruntime")`` skips the test by that name where the package is not installed."""

    def require(name: str) -> None:
        if importlib.util.find_spec(name) is None:
            _absent(f"the package {name}", on_purpose=name in os.environ.get(WITHOUT, "").split())

    return require


@pytest.fixture(scope="session")
def require_python() -> Callable[[str], str]:
    """``require_python("3.12")`` gives an interpreter of that version that runs, or skips the test by its name."""

    def require(version: str) -> str:
        name = f"python{version}"
        shim = shutil.which(name)
        # a version manager's shim stands for one that is installed and perhaps not chosen
        managed = sorted(Path(shim).parents[1].glob(f"versions/{version}.*/bin/python")) if shim else []
        for path in filter(None, (shim, *map(str, managed))):
            if subprocess.run([path, "-c", ""], capture_output=True, timeout=60, check=False).returncode == 0:
                return path
        _absent(f"the program {name}", on_purpose=name in os.environ.get(WITHOUT_TOOLS, "").split())
        raise AssertionError  # it does not come back

    return require


@pytest.fixture(scope="session", autouse=True)
def _children_take_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and programs started by it inherit that; a handler they do not."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)  # pytest itself goes on as it was started
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def _empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _hermetic(tmp_path: Path, _empty_home: Path) -> Iterator[None]:
    """Every test has its own store and an empty home, and fails if it leaves something in either environment."""
    before = _tracked_environment()
    with pytest.MonkeyPatch.context() as patch:  # its own, so that the test's is undone before the check below
        _keep_package_settings(patch, _empty_home.with_name("cache"))
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(_empty_home))
        for name in _UNSET:
            patch.delenv(name, raising=False)
        patch.setenv("BENTOTOOL_STORE", str(tmp_path / "store"))
        patch.setenv("COLUMNS", "80")
        yield
    left = sorted(item.name for item in _empty_home.iterdir())
    for name in left:
        _remove(_empty_home / name)
    assert not left, f"the test wrote to the home folder: {left}"
    after = _tracked_environment()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"the test leaked environment variables: {sorted(changed)}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, for what writes there by design (``login``)."""
    folder = tmp_path / "own-home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of this test's store; ``BENTOTOOL_STORE`` names it. It does not exist yet."""
    return tmp_path / "store"


def _tracked_environment() -> dict[str, str]:
    ignored = ("PYTEST_", "COV_", "HYPOTHESIS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ignored)}


def _keep_package_settings(patch: pytest.MonkeyPatch, spare_cache: Path) -> None:
    """pip and uv keep the person's indexes and caches, although the home is another."""
    real = Path(os.environ.get("HOME") or os.environ.get("USERPROFILE") or ".")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or real / ".config")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or real / ".cache")
    files = {"PIP_CONFIG_FILE": config / "pip" / "pip.conf", "UV_CONFIG_FILE": config / "uv" / "uv.toml"}
    for name, path in files.items():
        if name not in os.environ and path.exists():
            patch.setenv(name, str(path))
    for name in ("pip", "uv"):
        variable = f"{name.upper()}_CACHE_DIR"
        if variable not in os.environ:
            patch.setenv(variable, str(cache / name if (cache / name).exists() else spare_cache / name))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
