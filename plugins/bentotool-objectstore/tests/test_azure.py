"""``az://`` and ``abfss://``, against Azurite."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import obstore
import pytest
from bentotool_objectstore import transfer
from bentotool_objectstore.address import parse
from bentotool_objectstore.source import ObjectStoreSource
from bentotool_objectstore.stores import open_store

from bentotool.errors import AuthenticationError, NotFoundError, RemoteError, UnsafeError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.oci.retry import RetryPolicy
from bentotool.testing import check_source

ACCOUNT, KEY = "tester", base64.b64encode(b"a key of nobody's, for tests only").decode()
PIECE = 64 << 10
BIG = random.Random(8).randbytes(6 * PIECE + 7)


@pytest.fixture(scope="module")
def azurite(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, account included."""
    program, folder = require_tool("azurite-blob"), tmp_path_factory.mktemp("azurite")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--blobPort", "0", "--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry"],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 50
        while not (found := re.search(rb"listens on (http://127\.0\.0\.1:\d+)", log.read_bytes())):
            assert process.poll() is None
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = f"{found[1].decode()}/{ACCOUNT}"
        _make_container(url, "models")
        yield url
    finally:
        process.kill()
        process.wait(30)


def _make_container(url: str, name: str) -> None:
    """Signed by the account's key, as "Authorize with Shared Key" in the reference of the Blob service says."""
    host, date, path = url.split("/")[2], formatdate(usegmt=True), f"/{ACCOUNT}/{name}"
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
    text = "PUT\n" + "\n" * 11 + "".join(f"{key}:{value}\n" for key, value in sorted(headers.items()))
    text += f"/{ACCOUNT}{path}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
    connection = http.client.HTTPConnection(host, timeout=30)
    authorization = f"SharedKey {ACCOUNT}:{signature}"
    connection.request("PUT", f"{path}?restype=container", headers={**headers, "Authorization": authorization})
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


@pytest.fixture(autouse=True)
def _account(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", PIECE)
    monkeypatch.setattr(transfer, "_PIECE_TRIES", RetryPolicy(attempts=2, base=0.01))
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)


def put(key: str, content: bytes) -> None:
    obstore.put(open_store(parse("az://models")), key, content)


def fetch(uri: str, folder: Path, *, max_bytes: int = 1 << 30, checksum: str | None = None) -> SourceModel:
    folder.mkdir(exist_ok=True)
    return ObjectStoreSource().fetch(SourceRequest(uri, folder, max_bytes, checksum, lambda amount: None))


def contents(model: SourceModel) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in model.files}


def test_blobs_and_prefixes(tmp_path: Path) -> None:
    files = {"model.bin": BIG, "sub/é #%41.txt": b"x", "empty": b""}
    for name, content in files.items():
        put(f"bert/{name}", content)
    put("bert-large/config.json", b"{}")
    assert contents(fetch("az://models/bert", tmp_path / "a")) == files
    right = f"sha256:{hashlib.sha256(BIG).hexdigest()}"
    model = fetch(f"abfss://models@{ACCOUNT}.dfs.core.windows.net/bert/model.bin", tmp_path / "b", checksum=right)
    assert contents(model) == {"model.bin": BIG}
    check_source("objectstore", "az://models/bert", scratch=tmp_path / "c")


def test_by_the_command() -> None:
    put("by/model.bin", BIG)
    command = [sys.executable, "-m", "bentotool", "--json", "model", "import", "az://models/by/model.bin"]
    wrong = subprocess.run([*command, "--checksum", f"sha256:{0:064}"], capture_output=True, timeout=60, check=False)
    assert (wrong.returncode, b"has sha256:" in wrong.stderr) == (4, True)
    # no plugin here knows what these bytes are: it is the last step that says so
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"model.bin" in done.stderr) == (2, True), done.stderr


def test_a_changed_blob_and_one_that_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("v/model.bin", BIG)
    write, calls = transfer._write, iter(range(1000))

    def breaks(file: object, chunk: bytes) -> None:
        if next(calls) == 3:
            put("v/model.bin", BIG[::-1])
            raise OSError(28, "full")
        write(file, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_write", breaks)
        with pytest.raises(Exception, match="no space left"):
            fetch("az://models/v", tmp_path / "f")
    assert contents(fetch("az://models/v", tmp_path / "f")) == {"model.bin": BIG[::-1]}


def test_what_goes_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, azurite: str) -> None:
    put("w/A", b"1")
    put("w/a", b"2")
    with pytest.raises(UnsafeError, match="same file"):
        fetch("az://models/w", tmp_path / "f")
    with pytest.raises(UnsafeError, match="larger than 1 bytes"):
        fetch("az://models/w", tmp_path / "f", max_bytes=1)
    with pytest.raises(NotFoundError, match="nothing at"):
        fetch("az://models/absent", tmp_path / "f")
    with pytest.raises(NotFoundError, match="az://no-such-container does not exist"):
        fetch("az://no-such-container/absent", tmp_path / "f")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite)
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    assert contents(fetch("az://models/w/a", tmp_path / "g")) == {"a": b"2"}
    wrong = base64.b64encode(b"s3cr3t of nobody").decode()
    monkeypatch.setenv("AZURE_STORAGE_KEY", wrong)
    for uri in ("az://models/w/a", "az://models/w/"):
        with pytest.raises(AuthenticationError, match="is refused") as failed:
            fetch(uri, tmp_path / "f")
        assert wrong not in f"{failed.value.message}{failed.value.hint}"
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2021-12-02&sp=rl&sig=s3cr3t")
    with pytest.raises(AuthenticationError, match="is refused") as failed:
        fetch("az://models/w/a", tmp_path / "f")
    assert "s3cr3t" not in f"{failed.value.message}{failed.value.hint}"
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/tester")
    with pytest.raises(RemoteError, match="did not answer") as down:
        fetch("az://models/w/a", tmp_path / "f")
    assert "s3cr3t" not in f"{down.value.message}{down.value.hint}"
