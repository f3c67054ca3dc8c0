"""Environments made from a lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.environments import locked_environment
from bentotool.errors import BentotoolError


def test_a_python_that_uv_cannot_get_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package
) -> None:
    require_package("uv")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(BentotoolError) as caught:
        locked_environment(tmp_path / "envs", "", "3.99")
    assert caught.value.message == "python 3.99 is not installed"
    assert caught.value.hint == "install it or set python.version in bentofile.yaml and build again"
    assert not list((tmp_path / "envs").iterdir())
