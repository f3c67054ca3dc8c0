"""``gs://``: the library speaks Google's XML API, whose lists, ranges and conditions are those of S3, so moto answers.

The emulators for Google's store know its JSON API only. What differs is tested as far as it is ours: where the library
looks for credentials and for the server.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from bentotool_objectstore import transfer
from bentotool_objectstore.source import ObjectStoreSource

from bentotool.errors import AuthenticationError, NotFoundError, RemoteError, UnsafeError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.oci.retry import RetryPolicy
from bentotool.testing import check_source

PIECE = 64 << 10
BIG = random.Random(9).randbytes(12 * PIECE + 7)


@pytest.fixture
def gcs(door: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(transfer, "PIECE", PIECE)
    monkeypatch.setattr(transfer, "_PIECE_TRIES", RetryPolicy(attempts=2, base=0.01))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", door.url.removeprefix("http://"))
    door.public = True
    return door


def fetch(uri: str, folder: Path, *, max_bytes: int = 1 << 30) -> SourceModel:
    folder.mkdir(exist_ok=True)
    return ObjectStoreSource().fetch(SourceRequest(uri, folder, max_bytes, None, lambda amount: None))


def contents(model: SourceModel) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in model.files}


def test_objects_and_prefixes(gcs: Any, bucket: str, tmp_path: Path) -> None:
    files = {"model.bin": BIG, "sub/é #%41.txt": b"x", "empty": b""}
    for name, content in files.items():
        gcs.put(f"/{bucket}/bert/{name}", content)
    gcs.put(f"/{bucket}/bert/sub/")
    assert contents(fetch(f"gs://{bucket}/bert", tmp_path / "a")) == files
    assert not any(asked.authorization for asked in gcs.gets)
    check_source("objectstore", f"gs://{bucket}/bert/model.bin", scratch=tmp_path / "c")
    with pytest.raises(UnsafeError, match="larger than"):
        fetch(f"gs://{bucket}/bert", tmp_path / "d", max_bytes=10)
    with pytest.raises(NotFoundError, match="nothing at"):
        fetch(f"gs://{bucket}/absent", tmp_path / "d")
    with pytest.raises(NotFoundError, match="gs://no-such-bucket does not exist"):
        fetch("gs://no-such-bucket/m", tmp_path / "d")


def test_a_broken_transfer_is_gone_on_with(gcs: Any, bucket: str, tmp_path: Path) -> None:
    gcs.put(f"/{bucket}/m", BIG)
    gcs.rule = lambda asked: "cut" if asked.range and gcs.gets.index(asked) > 8 else "open"
    with pytest.raises(RemoteError):
        fetch(f"gs://{bucket}/m", tmp_path / "f")
    gcs.asked, gcs.rule = [], lambda asked: "open"
    assert contents(fetch(f"gs://{bucket}/m", tmp_path / "f")) == {"m": BIG}
    assert 0 < sum(asked.length for asked in gcs.gets) < len(BIG) - 4 * PIECE
    assert all(asked.if_match for asked in gcs.gets)


def test_credentials_come_from_the_file_that_the_environment_names(
    gcs: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gcs.put(f"/{bucket}/m", b"x")
    account = {
        "type": "service_account",
        "gcs_base_url": gcs.url,
        "disable_oauth": True,
        "client_email": "nobody@example.com",
        "private_key": "the-secret-of-nobody",
        "private_key_id": "1",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_BASE_URL", gcs.url)
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    gcs.rule = lambda asked: "403 AccessDenied"
    with pytest.raises(AuthenticationError, match="is refused"):
        fetch(f"gs://{bucket}/m", tmp_path / "f")
    gcs.rule = lambda asked: "open"
    assert contents(fetch(f"gs://{bucket}/m", tmp_path / "f")) == {"m": b"x"}
    for text in ("{", '{"type": "service_account", "private_key": "the-secret-of-nobody"}'):
        (tmp_path / "account.json").write_text(text)
        with pytest.raises(AuthenticationError, match="no credentials") as failed:
            fetch(f"gs://{bucket}/m", tmp_path / "g")
        assert "the-secret" not in f"{failed.value.message}{failed.value.hint}"
