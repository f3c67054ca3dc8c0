"""A push that is killed or interrupted goes on when the same command is given again."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.models.store import StoredModel
from bentotool.oci.credentials import CredentialStore
from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.sessions import Session, UploadJournal
from bentotool.oci.uploads import UploadSizes

SIZE = 3_000_000
CHUNK = 1_000_000
BLOB = "application/octet-stream"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def model(store: Path, make_model: Callable[..., StoredModel]) -> StoredModel:
    return make_model(Layout(store), files={"big.bin": random.Random(5).randbytes(SIZE), "config.json": b"{}"})


def push(faulty: Any, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bentotool", "--json", "--store", str(store), "model", "push", "iris"]
    environment = {**os.environ, "DOCKER_CONFIG": "/nowhere", "BENTOTOOL_UPLOAD_CHUNK": str(CHUNK)}
    # A parent that ignores ctrl-C would have its children ignore it too.
    heed = None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None
    return subprocess.Popen(
        [*command, f"{faulty.host}/r:1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed,
    )


def stop_in_second_piece(faulty: Any, fault: Any, store: Path, how: str = "kill") -> None:
    """Push, and end the process when the registry has a piece and a half."""
    stuck = fault("PATCH", skip=1, pause_at=CHUNK // 2, take=CHUNK // 2)
    faulty.faults = [stuck]
    with push(faulty, store) as first:
        try:
            assert stuck.paused.wait(30)
            first.send_signal(signal.SIGINT) if how == "interrupt" else first.kill()
            first.communicate(timeout=30)
        finally:
            stuck.go.set()
    assert first.returncode == (130 if how == "interrupt" else first.returncode) != 0
    deadline = time.monotonic() + 20
    while len(faulty.requests("PATCH")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "1" not in faulty.manifests


def finish(faulty: Any, store: Path, model: StoredModel) -> dict[str, Any]:
    second = push(faulty, store)
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    result: dict[str, Any] = json.loads(output)
    assert result["digest"] == model.digest
    assert model.digest in faulty.manifests
    source = Layout(store)
    for part in (*model.manifest.layers, model.manifest.config):
        with source.open_layer(part) as stream:
            assert faulty.blobs[part.digest] == stream.read()
    assert list((store / "tmp").iterdir()) == []
    return result


def starts(faulty: Any) -> list[int]:
    return [int(seen.headers["content-range"].partition("-")[0]) for seen in faulty.requests("PATCH")]


@pytest.mark.parametrize("keeps", [True, False], ids=["half a piece counts", "whole pieces count"])
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_stopped_push_goes_on(
    faulty: Any, fault: Any, store: Path, model: StoredModel, how: str, keeps: bool
) -> None:
    if how == "interrupt" and sys.platform == "win32":
        pytest.skip("a process there has no SIGINT of its own")
    faulty.rotate, faulty.keeps_partial = True, keeps
    stop_in_second_piece(faulty, fault, store, how)
    (note,) = (store / "tmp").glob("upload-*")
    if os.name == "posix":
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert "_state=1" in note.read_text()
    before = faulty.received
    result = finish(faulty, store, model)
    reached = CHUNK + (CHUNK // 2 if keeps else 0)
    assert starts(faulty)[:3] == [0, CHUNK, reached]
    everything = sum(len(data) for data in faulty.blobs.values())
    # The config and the view's may have arrived before the stop.
    assert faulty.received - before <= everything - reached
    assert result["sent"] <= everything - reached


def test_a_session_that_is_gone_is_begun_anew(faulty: Any, fault: Any, store: Path, model: StoredModel) -> None:
    stop_in_second_piece(faulty, fault, store)
    faulty.uploads.clear()
    finish(faulty, store, model)
    assert starts(faulty)[:3] == [0, CHUNK, 0]


def test_a_session_with_other_bytes_is_found_out_and_begun_anew(
    faulty: Any, fault: Any, store: Path, model: StoredModel
) -> None:
    stop_in_second_piece(faulty, fault, store)
    for upload in faulty.uploads.values():
        upload.data[:10] = bytes(10)
    finish(faulty, store, model)
    assert starts(faulty).count(0) == 2


def test_a_session_of_yesterday_is_not_asked_for(faulty: Any, fault: Any, store: Path, model: StoredModel) -> None:
    stop_in_second_piece(faulty, fault, store)
    (note,) = (store / "tmp").glob("upload-*")
    document = json.loads(note.read_text())
    note.write_text(json.dumps({**document, "begun": document["begun"] - 86_400}))
    finish(faulty, store, model)
    assert faulty.requests("GET", "/upload") == []


def test_a_note_that_names_another_host_is_judged(faulty: Any, fault: Any, store: Path, model: StoredModel) -> None:
    stop_in_second_piece(faulty, fault, store)
    (note,) = (store / "tmp").glob("upload-*")
    note.write_text(json.dumps({**json.loads(note.read_text()), "location": "http://169.254.169.254/latest"}))
    finish(faulty, store, model)
    assert starts(faulty).count(0) == 2


CHILD = """
import os, signal, sys
from pathlib import Path
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry
from bentotool.oci.sessions import UploadJournal
from bentotool.oci.uploads import UploadSizes

host, store, digest, size, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
layout, blob = Layout(store), Descriptor("application/octet-stream", digest, size)


class Deadly:
    def __init__(self):
        self.stream = layout.open_layer(blob)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stream.close()

    def seek(self, *where):
        return self.stream.seek(*where)

    def readinto(self, buffer):
        if self.stream.tell() >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.stream.readinto(buffer[: last - self.stream.tell()])


with Registry(host, push=True, sizes=UploadSizes(1_000_000, 1_000_000)) as registry:
    registry.upload_blob("resumed/blob", blob, Deadly, journal=UploadJournal(layout.temporary))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(("last", "reached"), [(2_000_000, 2_000_000), (2_300_000, 0)], ids=["between", "within"])
def test_docker_registry_goes_on_between_two_pieces(real_registry: Any, store: Path, last: int, reached: int) -> None:
    """Of a piece that broke off it keeps what came, and then refuses the upload; it is begun anew."""
    layout = Layout(store)
    blob = layout.put(random.Random(last).randbytes(SIZE), BLOB)
    script = [sys.executable, "-c", CHILD, real_registry.host, str(store), blob.digest, str(SIZE), str(last)]
    assert subprocess.run(script, check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(list((store / "tmp").glob("upload-*"))) == 1
    moved: list[int] = []
    with Registry(real_registry.host, push=True, sizes=UploadSizes(CHUNK, CHUNK)) as registry:
        journal = UploadJournal(layout.temporary)
        sent = registry.upload_blob(
            "resumed/blob", blob, lambda: layout.open_layer(blob), journal=journal, advance=moved.append
        )
        assert registry.blob_exists("resumed/blob", blob.digest)
    assert sent == SIZE - reached
    assert sum(moved) == SIZE
    assert list((store / "tmp").iterdir()) == []


def test_two_pushes_of_one_blob_have_a_session_each(faulty: Any, store: Path) -> None:
    layout = Layout(store)
    blob = layout.put(random.Random(6).randbytes(SIZE), BLOB)
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def send() -> None:
        credentials = CredentialStore(lambda *asked: None, environ={"DOCKER_CONFIG": "/nowhere"})
        retry = RetryPolicy(attempts=2, base=0.001)
        sizes = UploadSizes(100_000, 100_000)
        try:
            with Registry(faulty.host, push=True, credentials=credentials, retry=retry, sizes=sizes) as registry:
                registry.blob_exists("r", blob.digest)
                together.wait(10)
                journal = UploadJournal(layout.temporary)
                registry.upload_blob("r", blob, lambda: layout.open_layer(blob), journal=journal)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert blob.digest in faulty.blobs
    assert list(layout.temporary().iterdir()) == []


def journal_of(layout: Layout) -> UploadJournal:
    return UploadJournal(layout.temporary)


def test_a_note_is_found_by_its_key_alone(store: Path) -> None:
    journal = journal_of(Layout(store))
    session = Session.now("http://r/upload/1?_state=s", 5)
    with journal.claim("a") as record:
        assert record.found is None
        record.note(session)
    with journal.claim("b") as other:
        assert other.found is None
    with journal.claim("a") as again:
        assert again.found == session
        with journal.claim("a") as second:  # while the first is at work
            assert second.found is None
            second.forget()
        again.note(session.moved("x"))
        again.note(session.moved("y"))
    with journal.claim("a") as last:
        assert last.found == session.moved("y")
        last.forget()
    with journal.claim("a") as gone:
        assert gone.found is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"key": "a"}', '{"key": "a", "location": "x", "begun": "1e"}']
)
def test_a_note_that_cannot_be_read_is_none(store: Path, text: str) -> None:
    journal = journal_of(Layout(store))
    with journal.claim("a") as record:
        record.note(Session.now("x", 0))
    (note,) = (store / "tmp").iterdir()
    note.write_text(text)
    with journal.claim("a") as record:
        assert record.found is None


def test_without_a_folder_nothing_is_noted(tmp_path: Path) -> None:
    def refuse() -> Path:
        raise PermissionError

    with UploadJournal(refuse).claim("a") as record:
        record.note(Session.now("x", 0))
        assert record.found is None
