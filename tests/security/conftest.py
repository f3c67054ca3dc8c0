"""The corpora, loaded as files: this folder is no package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"security_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """``load("test_unpack")`` gives a file of this folder as a module."""
    return _load


@pytest.fixture(scope="session")
def corpus() -> ModuleType:
    return _load("corpus")


@pytest.fixture(scope="session")
def traps() -> ModuleType:
    return _load("traps")
