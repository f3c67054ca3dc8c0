from __future__ import annotations

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
