from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
    """``require_package("peft")`` skips the test by that name where the package is not installed."""

    def require(name: str) -> None:
        if importlib.util.find_spec(name) is not None:
            return
        wanted = name not in os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
        if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and wanted:
            pytest.fail(f"needs the package {name}, which is not here", pytrace=False)
        pytest.skip(f"needs the package {name}")

    return require


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's cache, as the hub's client lays it out, with one repository."""
    np, tensors = pytest.importorskip("numpy"), pytest.importorskip("safetensors.numpy")
    home = tmp_path / "hub" / "hub" / "models--acme--tiny"
    snapshot = home / "snapshots" / COMMIT
    for folder in (home / "blobs", home / "refs", snapshot / "sub"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    tensors.save_file({"w": np.ones((2, 3), np.float32)}, home / "blobs" / "aa")
    (home / "blobs" / "bb").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (home / "blobs" / "cc").write_text("x")
    (snapshot / "model.safetensors").symlink_to("../../blobs/aa")
    (snapshot / "config.json").symlink_to("../../blobs/bb")
    (snapshot / "sub" / "vocab.txt").symlink_to("../../../blobs/cc")
    return tmp_path / "hub"
