from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.errors import UnsafeError, UsageError
from bentotool.models.importing import local_files, name_for


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


@pytest.fixture
def revision(tmp_path: Path) -> Path:
    """A revision of ``org/net`` as a hub's cache keeps it."""
    repository = tmp_path / "models--org--net"
    put(repository, "blobs/0123", "refs/main", "other")
    folder = repository / "snapshots" / "abc"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").symlink_to("../../blobs/0123")
    (folder / "sub" / "tokens.txt").symlink_to("../../../blobs/0123")
    return folder


def test_a_revision_in_a_hubs_cache_is_a_folder_like_any_other(revision: Path) -> None:
    assert [file.name for file in local_files(revision)] == ["model.onnx", "sub/tokens.txt"]
    assert local_files(revision)[0].path == revision.parent.parent.resolve() / "blobs" / "0123"
    assert name_for(revision) == "org--net"


def test_its_links_lead_to_blobs_alone(revision: Path) -> None:
    (revision / "readme.txt").symlink_to("../../other")
    with pytest.raises(UnsafeError, match=r"readme\.txt is a link to .*other, outside the model"):
        local_files(revision)


def test_a_whole_repository_of_a_hubs_cache_is_not_one_model(revision: Path) -> None:
    with pytest.raises(UsageError, match="not one revision") as caught:
        local_files(revision.parent.parent)
    assert str(revision.resolve()) in str(caught.value.hint)
    assert "hf://org/net" in str(caught.value.hint)


def test_a_link_has_the_name_that_was_given(revision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_for(revision / "model.onnx") == "model"
    (revision.parent / "newest").symlink_to(revision, target_is_directory=True)
    assert name_for(revision.parent / "newest") == "org--net"
    (revision / "Current.onnx").symlink_to("model.onnx")
    assert name_for(revision / "Current.onnx") == "current"
    monkeypatch.chdir(revision / "sub")
    assert name_for(Path()) == "sub"
