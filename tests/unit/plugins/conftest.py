"""Plugins made for one test: a module and its dist-info folder on ``sys.path``."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentotool.plugin_scan import scan
from bentotool.plugins import Plugins

_numbers = itertools.count()

HEADER = """
from bentotool.hookspecs import hookimpl
from bentotool.interfaces import *
"""


class PluginFactory:
    """Writes plugins into one folder; ``plugins()`` gives a manager that sees these and no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.modules: list[str] = []

    def add(self, name: str, source: str, *, distribution: str = "", target: str = "", header: bool = True) -> str:
        module = f"plugin_{next(_numbers)}_{name}"
        text = (HEADER if header else "") + textwrap.dedent(source)
        (self.folder / f"{module}.py").write_text(text, encoding="utf-8")
        self.entry_point(name, (target or "{module}").format(module=module), distribution or f"dist-{name}")
        self.modules.append(module)
        return module

    def entry_point(self, name: str, target: str, distribution: str) -> Path:
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[bentotool]\n{name} = {target}\n", encoding="utf-8")
        return info

    def plugins(self, *disabled: str) -> Plugins:
        return Plugins(scan([str(self.folder)]), disabled=disabled, warn=self.warnings.append)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFactory]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    factory = PluginFactory(folder)
    yield factory
    for module in factory.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def framework_source() -> Callable[..., str]:
    """Source of a plugin with one framework, whose implementation lies in the same module."""

    def source(
        name: str = "text", *, suffixes: str = '(".txtmodel",)', detect: str = "", confidence: float = 0.5
    ) -> str:
        body = detect or f"return Match({name!r}, 'txt', {confidence}, files[0].name)"
        return f"""
class Text:
    def detect(self, files):
        {body}
    def describe(self, files):
        return ModelInfo({name!r}, "txt", main_file=files[0].name)
    def save(self, obj, directory, **options):
        (directory / "model.txtmodel").write_text(str(obj), encoding="utf-8")

def load(path, **options):
    return open(path, encoding="utf-8").read()

@hookimpl
def bentotool_frameworks():
    return [FrameworkDecl({name!r}, __name__ + ":Text", "Text", loader=__name__, suffixes={suffixes})]
"""

    return source
