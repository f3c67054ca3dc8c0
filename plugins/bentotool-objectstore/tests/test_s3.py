"""``s3://``, against moto's server over HTTP."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from bentotool_objectstore import listing, transfer
from bentotool_objectstore.source import ObjectStoreSource

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    NotFoundError,
    RemoteError,
    UnsafeError,
    UsageError,
    VerificationError,
)
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.oci.retry import RetryPolicy
from bentotool.testing import check_plugin, check_source

PIECE = 64 << 10
BIG = random.Random(7).randbytes(40 * PIECE + 123)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", PIECE)
    monkeypatch.setattr(transfer, "_PIECE_TRIES", RetryPolicy(attempts=3, base=0.01, cap=0.05))


class Fetch:
    """One import after another into the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.advanced: list[int] = []

    def __call__(self, uri: str, *, max_bytes: int = 1 << 30, checksum: str | None = None) -> SourceModel:
        self.advanced = []
        request = SourceRequest(uri, self.folder, max_bytes, checksum, self.advanced.append)
        return ObjectStoreSource().fetch(request)


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return Fetch(folder)


def contents(model: SourceModel) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in model.files}


def test_the_plugin_is_well_formed() -> None:
    check_plugin("objectstore")


def test_an_object_is_one_file(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/fraud/model.onnx", BIG)
    door.put(f"/{bucket}/fraud/model.onnx.txt", b"another")
    model = fetch(f"s3://{bucket}/fraud/model.onnx")
    assert (model.name, contents(model)) == ("model", {"model.onnx": BIG})
    assert sum(fetch.advanced) == len(BIG)
    assert len(door.gets) == 41
    assert all(asked.if_match for asked in door.gets)


@pytest.mark.parametrize("uri", ["s3://{}/bert", "s3://{}/bert/", "S3://{}/bert"])
def test_a_prefix_is_all_objects_below_it(door: Any, bucket: str, fetch: Fetch, uri: str) -> None:
    files = {"config.json": b"{}", "sub/deep/weights.bin": BIG, "empty.txt": b"", "a b%41+é#.txt": b"odd"}
    for name, content in files.items():
        door.put(f"/{bucket}/bert/{name}", content)
    for marker in ("bert/", "bert/sub/", "bert/nothing/"):  # as consoles make folders
        door.put(f"/{bucket}/{marker}")
    door.put(f"/{bucket}/bert-large/config.json", b"another")
    model = fetch(uri.format(bucket))
    assert (model.name, contents(model)) == ("bert", files)
    assert sum(fetch.advanced) == sum(map(len, files.values()))


def test_a_whole_bucket_and_an_empty_object(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/nothing")
    model = fetch(f"s3://{bucket}")
    assert (model.name, contents(model)) == (bucket, {"nothing": b""})
    assert contents(fetch(f"s3://{bucket}/nothing")) == {"nothing": b""}


def test_a_checksum_is_for_one_file(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m/model.bin", BIG)
    right = f"sha256:{hashlib.sha256(BIG).hexdigest()}"
    assert contents(fetch(f"s3://{bucket}/m/model.bin", checksum=right)) == {"model.bin": BIG}
    with pytest.raises(VerificationError, match=r"has sha256:[0-9a-f]+, not sha256:0"):
        fetch(f"s3://{bucket}/m/model.bin", checksum=f"sha256:{0:064}")
    assert list(fetch.folder.rglob("*.bin")) == []
    asked = len(door.gets)
    with pytest.raises(UsageError, match="--checksum"):
        fetch(f"s3://{bucket}/m", checksum=right)
    assert len(door.gets) == asked


def test_the_contract_of_a_source(door: Any, bucket: str, tmp_path: Path) -> None:
    door.put(f"/{bucket}/m/model.bin", BIG)
    door.put(f"/{bucket}/m/config.json", b"{}")
    check_source("objectstore", f"s3://{bucket}/m", scratch=tmp_path / "prefix")
    check_source("objectstore", f"s3://{bucket}/m/model.bin", scratch=tmp_path / "file")


@pytest.mark.parametrize(
    "keys",
    [
        ("m/../../escape",),
        ("m/..",),
        ("m/./x",),
        ("m//etc/passwd",),
        ("m/back\\slash",),
        ("m/..\\..\\escape",),
        ("m/C:",),
        ("m/bell\x07",),
        ("m/CON.txt",),
        ("m/trailing.",),
        ("m/.wh.x",),
        ("m/Model.bin", "m/model.bin"),
        ("m/a", "m/a/b"),
        ("m/e\u0301",),
    ],
)
def test_hostile_keys_are_refused_before_anything_is_fetched(
    door: Any, bucket: str, fetch: Fetch, keys: tuple[str, ...]
) -> None:
    for key in ("m/fine", *keys):
        door.put(f"/{bucket}/{key}", b"x")
    with pytest.raises(UnsafeError) as failed:
        fetch(f"s3://{bucket}/m")
    assert "\n" not in failed.value.message
    assert list(fetch.folder.iterdir()) == []
    assert door.gets == []


def test_sizes_and_numbers_are_judged_before_the_first_byte(
    door: Any, bucket: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        door.put(f"/{bucket}/m/{number}", b"12345")
    with pytest.raises(UnsafeError, match="larger than 14 bytes"):
        fetch(f"s3://{bucket}/m", max_bytes=14)
    assert len(fetch(f"s3://{bucket}/m", max_bytes=15).files) == 3
    monkeypatch.setattr(listing, "MAX_OBJECTS", 2)
    with pytest.raises(UnsafeError, match="more than 2 objects"):
        fetch(f"s3://{bucket}/m")


def test_what_came_before_the_connection_broke_is_not_asked_for_again(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m/model.bin", BIG)
    door.rule = lambda asked: "cut" if asked.range and len(door.gets) > 20 else "open"
    with pytest.raises(RemoteError) as failed:
        fetch(f"s3://{bucket}/m")
    assert "goes on" in str(failed.value.hint)
    brought = sum(fetch.advanced)
    assert 12 * PIECE < brought < len(BIG)
    door.asked, door.rule = [], lambda asked: "open"
    assert contents(fetch(f"s3://{bucket}/m")) == {"model.bin": BIG}
    assert sum(asked.length for asked in door.gets) == len(BIG) - brought
    assert sum(fetch.advanced) == len(BIG)
    assert len({asked.if_match for asked in door.gets}) == 1


def test_a_short_break_is_gone_on_from_within_one_import(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m.bin", BIG)
    told = iter(["503 SlowDown", "cut", "cut", "503 SlowDown"])
    door.rule = lambda asked: next(told, "open") if asked.range else "open"
    assert contents(fetch(f"s3://{bucket}/m.bin")) == {"m.bin": BIG}
    assert sum(fetch.advanced) == len(BIG)


def test_a_part_of_another_version_is_not_gone_on_with(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m/model.bin", BIG)
    door.put(f"/{bucket}/m/gone/old.bin", b"old")
    door.rule = lambda asked: "cut" if asked.range and len(door.gets) > 20 else "open"
    with pytest.raises(RemoteError):
        fetch(f"s3://{bucket}/m")
    door.asked, door.rule = [], lambda asked: "open"
    new = BIG[::-1][: 20 * PIECE]
    door.put(f"/{bucket}/m/model.bin", new)
    assert contents(fetch(f"s3://{bucket}/m/model.bin")) == {"model.bin": new}
    assert sum(asked.length for asked in door.gets) == len(new)
    assert [path.name for path in (fetch.folder / "files").rglob("*")] == ["model.bin"]


@pytest.mark.parametrize("deaf", [False, True])
def test_an_object_that_changes_while_it_is_read_is_begun_again(
    door: Any, bucket: str, fetch: Fetch, deaf: bool
) -> None:
    door.put(f"/{bucket}/m/model.bin", BIG)
    door.deaf, new, lock, changed = deaf, BIG[::-1], threading.Lock(), threading.Event()

    def rule(asked: Any) -> str:
        with lock:
            if asked.range and door.gets.index(asked) == 4 and not changed.is_set():
                changed.set()
                door.put(f"/{bucket}/m/model.bin", new)
        return "open"

    door.rule = rule
    assert contents(fetch(f"s3://{bucket}/m")) == {"model.bin": new}
    assert sum(fetch.advanced) == len(BIG)


def test_an_object_that_never_rests_is_given_up(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m", BIG)
    door.rule = lambda asked: "412 PreconditionFailed" if asked.range else "open"
    with pytest.raises(RemoteError, match="changes while it is read"):
        fetch(f"s3://{bucket}/m")


def test_bytes_that_were_damaged_on_this_disk_are_fetched_again(door: Any, bucket: str, fetch: Fetch) -> None:
    door.put(f"/{bucket}/m", BIG)
    (file,) = fetch(f"s3://{bucket}/m").files
    damaged = bytearray(BIG)
    damaged[5 * PIECE + 1] ^= 1
    file.path.write_bytes(damaged + b"more")
    journal = fetch.folder / "journal"
    journal.write_bytes(journal.read_bytes() + b'["m", "x", 1\n[[[\nnull\n["m","x",-1,0,1,0]')
    door.asked = []
    assert contents(fetch(f"s3://{bucket}/m")) == {"m": BIG}
    assert sum(asked.length for asked in door.gets) == PIECE


def test_what_is_not_there_is_said(door: Any, bucket: str, fetch: Fetch) -> None:
    with pytest.raises(NotFoundError, match=f"nothing at s3://{bucket}/absent"):
        fetch(f"s3://{bucket}/absent")
    with pytest.raises(NotFoundError, match="s3://no-such-bucket does not exist"):
        fetch("s3://no-such-bucket/absent")
    assert list(fetch.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "told", "error", "said"),
    [
        ("HEAD", "403 AccessDenied", AuthenticationError, "is refused"),
        ("HEAD", "301 PermanentRedirect", RemoteError, "another region"),
        ("HEAD", "500 InternalError", RemoteError, "answered 500"),
        ("GET", "403 AccessDenied", AuthenticationError, "is refused"),
        ("GET", "403 SignatureDoesNotMatch", AuthenticationError, "is refused"),
        ("GET", "400 ExpiredToken", AuthenticationError, "is refused"),
        ("GET", "301 PermanentRedirect", RemoteError, "another region"),
        ("GET", "400 AuthorizationHeaderMalformed", RemoteError, "another region"),
        ("GET", "503 SlowDown", RemoteError, "answered 503"),
    ],
)
def test_refusals_are_explained_and_tell_no_secret(
    door: Any, bucket: str, fetch: Fetch, method: str, told: str, error: type[BentotoolError], said: str
) -> None:
    door.put(f"/{bucket}/m", BIG)
    door.rule = lambda asked: told if asked.method == method else "open"
    with pytest.raises(error, match=said) as failed:
        fetch(f"s3://{bucket}/m" if method == "HEAD" else f"s3://{bucket}/m/")
    text = f"{failed.value.message} {failed.value.hint}"
    assert failed.value.hint
    assert "\n" not in text
    assert not any(secret in text for secret in ("the-secret", "Signature=", "AKIA"))


def test_a_server_that_is_down(bucket: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="did not answer"):
        fetch(f"s3://{bucket}/m")


def test_a_full_disk_is_named(door: Any, bucket: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    door.put(f"/{bucket}/m", BIG)

    def full(file: object, chunk: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(transfer, "_write", full)
    with pytest.raises(BentotoolError, match="no space left"):
        fetch(f"s3://{bucket}/m")
