from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.errors import UnsafeError
from bentotool.models.importing import local_files


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def test_secrets_and_caches_stay_behind(tmp_path: Path) -> None:
    kept = [".gitattributes", ".gitignore", "environment.yml", "env", "sub/.envoy", "sub/model.onnx", "x.env"]
    put(tmp_path, *kept, ".env", ".env.local", "sub/.env.production", "sub/.ENV", ".netrc", ".pypirc")
    put(tmp_path, ".ssh/id_ed25519", ".aws/credentials", "sub/.aws/config", "sub/id_rsa", ".git-credentials")
    put(tmp_path, ".venv/lib/a.py", ".ipynb_checkpoints/a.ipynb", ".pytest_cache/a", ".mypy_cache/a", ".git/HEAD")
    left_out: list[str] = []
    assert sorted(file.name for file in local_files(tmp_path, left_out)) == sorted(kept)
    assert {".env", ".git/", ".ssh/", "sub/.aws/", "sub/id_rsa", "sub/.env.production"} <= set(left_out)


def test_no_link_brings_a_secret_in(tmp_path: Path) -> None:
    put(tmp_path, "model.onnx", ".aws/credentials")
    (tmp_path / "readme.txt").symlink_to(tmp_path / ".aws" / "credentials")
    with pytest.raises(UnsafeError, match=r"readme\.txt is a link to \.aws/credentials"):
        local_files(tmp_path)
