"""A project, a wheelhouse of tiny wheels and a store: a build needs no network and starts no web framework."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from bentotool.build import planning
from bentotool.build.api import BuildOptions, BuildResult, build_bento
from bentotool.build.probe import Probe
from bentotool.build.wheel import make_wheel
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins


@pytest.fixture(scope="session")
def corpus() -> ModuleType:
    path = Path(__file__).parents[2] / "security" / "corpus.py"
    spec = importlib.util.spec_from_file_location("corpus", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny`` needs ``tinydep``; ``fakestar`` stands for the web framework."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    for name, version, needs in (
        ("tiny", "1.0", ["tinydep>=1"]),
        ("tiny", "2.0", ["tinydep>=1"]),
        ("tinydep", "1.5", []),
        ("fakestar", "2.1", []),
    ):
        content = make_wheel(name, version, {f"{name}.py": b"VALUE = 1\n"}, needs)
        (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(content)
    return folder


@pytest.fixture
def project(tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    folder = tmp_path / "project"
    return make_project(folder, wheelhouse)


def make_project(folder: Path, wheelhouse: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "service.py").write_bytes(b"class Iris:\n    pass\n")
    (folder / "lib").mkdir()
    (folder / "lib" / "more.py").write_bytes(b"X = 1\n")
    config = "service: service:Iris\npython:\n  packages: [tiny]\n  no_index: true\n"
    config += f"  find_links: ['{wheelhouse.as_posix()}']\n"
    (folder / "bentofile.yaml").write_bytes(config.encode())
    return folder


@dataclass
class Builder:
    """Builds with a probe that imports nothing; ``probe`` can be replaced."""

    layout: Layout
    notes: list[str] = field(default_factory=list)
    probe: Probe = field(default_factory=lambda: Probe("service:Iris", "iris", openapi={"openapi": "3.1.0"}))

    def __call__(self, project: Path, **options: object) -> BuildResult:
        chosen = BuildOptions(runtime_requirements=("fakestar>=2",), **{"platform": "linux/amd64", **options})  # type: ignore[arg-type]
        plugins = load_plugins()
        return build_bento(project, layout=self.layout, plugins=plugins, options=chosen, note=self.notes.append)


@pytest.fixture
def builder(store: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder(Layout(store))
    monkeypatch.setattr(planning, "probe_service", lambda *args, **kwargs: made.probe)
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(**{"bentofile.yaml": text})`` makes a project of files."""

    def make(files: dict[str, str]) -> Path:
        folder = tmp_path / "written"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", newline="\n")
        return folder

    return make
