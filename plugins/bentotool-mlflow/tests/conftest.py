from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own store, and runs outside any Bento."""
    store = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("BENTOTOOL_STORE", str(store))
    for name in ("BENTOTOOL_BENTO", "BENTOTOOL_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return store


@pytest.fixture(scope="session")
def require_package() -> Callable[[str], None]:
    """``require_package("onnx")`` skips the test by that name where the package is not installed."""

    def require(name: str) -> None:
        if importlib.util.find_spec(name) is not None:
            return
        wanted = name not in os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
        if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and wanted:
            pytest.fail(f"needs the package {name}, which is not here", pytrace=False)
        pytest.skip(f"needs the package {name}")

    return require
