"""What registries do wrong, each by itself: it ends verified or with a typed error, and costs a chunk at most.

What a fault costs is told by the simulator's counters of content: bytes received from a push, served to a pull.
"""

from __future__ import annotations

import dataclasses
import email.utils
import json
import random
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    NotFoundError,
    RemoteError,
    UnsafeError,
    VerificationError,
)
from bentotool.oci.credentials import CredentialStore
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.tls import Tls
from bentotool.oci.transport import Timeouts
from bentotool.oci.uploads import UploadSizes

pytestmark = pytest.mark.timeout(20)

QUICK = RetryPolicy(attempts=4, base=0.001, budget=3)
CHUNK = 200_000
DATA = random.Random(7).randbytes(1_000_000)
DIGEST = "sha256:" + "a" * 64


def client(host: str, seconds: float = 3, **options: Any) -> Registry:
    store = CredentialStore(lambda *asked: None, environ={"DOCKER_CONFIG": "/nowhere"})
    options.setdefault("sizes", UploadSizes(CHUNK, CHUNK))
    limits = Timeouts(seconds, seconds)
    return Registry(host, push=True, credentials=store, retry=QUICK, timeouts=limits, **options)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def push(faulty: Any, tmp_path: Path) -> Callable[..., int]:
    """``push()`` sends DATA in pieces, ``push(whole=True)`` at once; checks what arrived and gives what it cost."""
    source = Layout(tmp_path / "source")
    blob = source.put(DATA, "application/octet-stream")

    def send(whole: bool = False, **options: Any) -> int:
        moved: list[int] = []
        if whole:
            options["sizes"] = UploadSizes()
        with client(faulty.host, **options) as registry:
            registry.upload_blob("r", blob, lambda: source.open_layer(blob), advance=moved.append)
        assert faulty.blobs[blob.digest] == DATA
        assert sum(moved) == len(DATA)
        return int(faulty.received) - len(DATA)

    return send


@pytest.fixture
def pull(faulty: Any, layout: Layout) -> Callable[..., int]:
    """Fetches DATA, checks it, and gives the bytes it cost; after a failure nothing of it may be left."""
    blob = Descriptor("application/octet-stream", faulty.add_blob(DATA), len(DATA))

    def fetch(**options: Any) -> int:
        try:
            with client(faulty.host, **options) as registry, layout.layer_sink(blob) as sink:
                registry.download_blob("r", blob, sink)
                sink.commit()
        except BaseException:
            assert not layout.has(blob.digest)
            raise
        assert layout.blob_path(blob.digest).read_bytes() == DATA
        return int(faulty.served) - len(DATA)

    return fetch


def changed(**fields: Any) -> Callable[[Any], Any]:
    """A change of a fault: the normal answer with other fields."""
    return lambda reply: dataclasses.replace(reply, **fields)


def with_headers(**headers: str) -> Callable[[Any], Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda reply: dataclasses.replace(reply, headers={**reply.headers, **named})


# --- dropped connections


@pytest.mark.parametrize("at", [0, 1, 65_536, 500_000, 999_999])
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_drop_at_byte_k_of_a_pull(faulty: Any, fault: Any, pull: Callable[..., int], at: int, reset: bool) -> None:
    faulty.faults = [fault("GET", "/blobs/", change=changed(cut=at, reset=reset))]
    # what a reset connection had in its buffers is lost with it
    assert pull() <= (at if reset else 0)


@pytest.mark.parametrize("at", [0, 1, 65_536, 199_999])
@pytest.mark.parametrize("keeps", [True, False])
def test_drop_at_byte_k_of_a_piece(faulty: Any, fault: Any, push: Callable[..., int], at: int, keeps: bool) -> None:
    faulty.keeps_partial = keeps
    faulty.faults = [fault("PATCH", skip=2, take=at)]
    assert push() <= (0 if keeps else at)
    assert len(faulty.requests("POST")) == 1


@pytest.mark.parametrize("at", [0, 70_000, 999_999])
def test_drop_at_byte_k_of_a_push_in_one_piece(faulty: Any, fault: Any, push: Callable[..., int], at: int) -> None:
    faulty.faults = [fault("PUT", take=at)]
    assert push(whole=True) <= at


def test_every_piece_dropped_once(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    faulty.keeps_partial = False
    faulty.faults = [fault("PATCH", skip=number, take=100_000) for number in range(5)]
    assert push() == 5 * 100_000
    assert len(faulty.requests("PATCH")) == 10


def test_a_push_that_moves_a_little_each_time_ends(faulty: Any, fault: Any, tmp_path: Path) -> None:
    """More breaks than tries in all, and each brings something: a step forward starts a new count."""
    source = Layout(tmp_path / "big")
    blob = source.put(DATA * 12, "application/octet-stream")
    faulty.faults = [fault("PATCH", times=9, take=1_200_000)]
    with client(faulty.host, sizes=UploadSizes(len(DATA) * 12, 1)) as registry:
        registry.upload_blob("r", blob, lambda: source.open_layer(blob))
    assert faulty.received == len(DATA) * 12


def test_an_upload_that_docker_registry_drops_for_a_broken_piece_is_begun_anew(
    faulty: Any, fault: Any, push: Callable[..., int]
) -> None:
    faulty.strict = True
    faulty.faults = [fault("PATCH", skip=3, take=1000)]
    assert push() == 3 * CHUNK + 1000  # that registry keeps no part of it; nothing can be done
    assert len(faulty.requests("POST")) == 2


def test_a_lost_answer_to_the_last_request_costs_nothing(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    faulty.faults = [fault("PUT", change=changed(cut=0, body=b"x"))]
    assert push() == 0


@pytest.mark.parametrize("whole", [False, True])
def test_a_blob_that_arrived_though_the_answer_was_a_failure_is_not_sent_again(
    faulty: Any, fault: Any, push: Callable[..., int], whole: bool
) -> None:
    faulty.faults = [fault("PUT", change=changed(status=502, body=b"<html>"))]
    assert push(whole=whole) == 0


def test_a_registry_that_forgets_again_and_again_is_given_up(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    def forget(reply: Any) -> Any:
        for upload in faulty.uploads.values():
            upload.data.clear()
            upload.pieces.clear()
        return reply

    faulty.faults = [fault("PATCH", times=500, skip=1, change=forget)]
    with pytest.raises(RemoteError):
        push()
    assert faulty.received < 60 * CHUNK


# --- statuses


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_passing_statuses_of_a_push(
    faulty: Any, fault: Any, reply: Any, push: Callable[..., int], status: int, method: str
) -> None:
    faulty.faults = [fault(method, times=2, instead=reply(status, b"<html>", {"Retry-After": "0"}))]
    assert push() <= 2 * CHUNK * (method == "PATCH")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_statuses_of_a_pull(faulty: Any, fault: Any, reply: Any, pull: Callable[..., int], status: int) -> None:
    faulty.faults = [fault("GET", "/blobs/", times=3, instead=reply(status))]
    assert pull() == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(faulty: Any, fault: Any, reply: Any, pull: Callable[..., int], form: str) -> None:
    at = time.time() + 1.2  # a date has whole seconds
    value = "1" if form == "seconds" else email.utils.formatdate(at, usegmt=True)
    faulty.faults = [fault("GET", "/blobs/", instead=reply(429, headers={"Retry-After": value}))]
    began = time.time()
    assert pull() == 0
    assert time.time() >= (began + 1 if form == "seconds" else int(at)) - 0.05


@pytest.mark.parametrize("value", ["86400", email.utils.formatdate(time.time() + 86400, usegmt=True)])
def test_a_retry_after_tomorrow_ends_at_once(
    faulty: Any, fault: Any, reply: Any, pull: Callable[..., int], value: str
) -> None:
    faulty.faults = [fault("GET", "/blobs/", times=9, instead=reply(429, headers={"Retry-After": value}))]
    with pytest.raises(RemoteError, match="429") as caught:
        pull()
    assert caught.value.exit_status == 5


@pytest.mark.parametrize("whole", [False, True], ids=["pieces", "whole"])
def test_413_names_the_size_and_the_cap(
    faulty: Any, fault: Any, reply: Any, push: Callable[..., int], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = b'{"errors": [{"code": "SIZE_INVALID", "message": "larger than 150000 bytes"}]}'
    faulty.faults = [fault("PUT" if whole else "PATCH", "/upload", instead=reply(413, told))]
    monkeypatch.setenv("BENTOTOOL_MAX_BLOB", "2000000")
    with pytest.raises(RemoteError, match="larger than 150000 bytes.*has 1000000 bytes.*2000000 bytes") as caught:
        push(whole=whole)
    assert "BENTOTOOL_UPLOAD_CHUNK" in str(caught.value.hint)
    assert caught.value.details["request"] == (len(DATA) if whole else CHUNK)
    assert faulty.received <= (len(DATA) if whole else CHUNK)


def test_smaller_pieces_pass_a_proxy_that_limits_requests(
    faulty: Any, push: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.largest = 150_000
    with pytest.raises(RemoteError, match="has 1000000 bytes, 200000 of them at once"):
        push()
    faulty.received = 0
    monkeypatch.setenv("BENTOTOOL_UPLOAD_CHUNK", "150000")
    assert push(sizes=None) == 0


def test_an_answer_before_the_body_is_read_is_heard(
    faulty: Any, fault: Any, reply: Any, push: Callable[..., int]
) -> None:
    faulty.faults = [fault("PUT", take=0, instead=reply(403, b'{"errors": [{"message": "read-only"}]}'))]
    with pytest.raises(AuthenticationError, match="read-only"):
        push(whole=True)
    assert len(faulty.requests("PUT")) == 1


# --- slow ones


@pytest.mark.parametrize(
    "slow",
    [{"drip": 0.05}, {"drip_head": 0.05}, {"chunked": -1, "drip": 0.05}],
    ids=["body", "head", "size of a chunk"],
)
def test_a_pull_that_trickles_is_begun_again(
    faulty: Any, fault: Any, pull: Callable[..., int], slow: dict[str, Any]
) -> None:
    faulty.faults = [fault("GET", "/blobs/", skip=1, change=changed(**slow))]
    faulty.faults.append(fault("GET", "/blobs/", change=changed(cut=400_000)))
    assert pull(seconds=0.3) <= len(DATA)
    assert len(faulty.requests("GET", "/blobs/")) == 3


@pytest.mark.parametrize("slow", [{"drip": 0.05}, {"drip_head": 0.05}], ids=["body", "head"])
def test_a_pull_that_always_trickles_ends(
    faulty: Any, fault: Any, pull: Callable[..., int], slow: dict[str, Any]
) -> None:
    faulty.faults = [fault("GET", "/blobs/", times=99, change=changed(**slow))]
    with pytest.raises(RemoteError) as caught:
        pull(seconds=0.15)
    assert caught.value.exit_status == 5


def test_a_push_that_is_taken_slowly_ends_or_goes_on(faulty: Any, fault: Any, tmp_path: Path) -> None:
    source = Layout(tmp_path / "big")
    data = DATA * 16  # more than the system takes by itself
    blob = source.put(data, "application/octet-stream")
    faulty.faults = [fault("PATCH", hold=3)]
    with client(faulty.host, seconds=0.3, sizes=UploadSizes(len(data), 1)) as registry:
        registry.upload_blob("r", blob, lambda: source.open_layer(blob))
    assert faulty.blobs[blob.digest] == data
    faulty.blobs.clear()
    faulty.faults = [fault("PATCH", times=99, hold=3)]
    again = client(faulty.host, seconds=0.15, sizes=UploadSizes(len(data), 1))
    with again as registry, pytest.raises(RemoteError, match="too little within 0.15 seconds"):
        registry.upload_blob("r", blob, lambda: source.open_layer(blob))


def test_a_pause_shorter_than_the_limit_is_no_fault(faulty: Any, fault: Any, tmp_path: Path) -> None:
    """urllib3 would send under the limit of a connect, which is far shorter."""
    source = Layout(tmp_path / "big")
    data = DATA * 16
    blob = source.put(data, "application/octet-stream")
    faulty.faults = [fault("PUT", hold=0.5)]
    store = CredentialStore(lambda *asked: None, environ={"DOCKER_CONFIG": "/nowhere"})
    with Registry(faulty.host, push=True, credentials=store, retry=QUICK, timeouts=Timeouts(0.2, 5)) as registry:
        registry.upload_blob("r", blob, lambda: source.open_layer(blob))
    assert faulty.received == len(data)


@pytest.mark.parametrize("slow", [{"drip": 0.05}, {"drip_head": 0.05}], ids=["body", "head"])
def test_a_token_service_that_trickles_ends(
    faulty: Any, fault: Any, pull: Callable[..., int], slow: dict[str, Any]
) -> None:
    faulty.lifetime = 60
    faulty.faults = [fault("GET", "/token", times=99, change=changed(**slow))]
    with pytest.raises(RemoteError):
        pull(seconds=0.15)


def test_a_body_in_chunks_is_taken(faulty: Any, fault: Any, pull: Callable[..., int]) -> None:
    faulty.faults = [fault("GET", "/blobs/", change=changed(chunked=70_001))]
    assert pull() == 0


# --- lies


def test_wrong_bytes_are_never_kept(faulty: Any, pull: Callable[..., int], layout: Layout) -> None:
    (digest,) = faulty.blobs
    faulty.blobs[digest] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(VerificationError) as caught:
        pull()
    assert caught.value.exit_status == 4
    assert faulty.served == len(DATA)
    assert list(layout.temporary().iterdir()) == []
    with pytest.raises(VerificationError):
        pull()
    (received,) = (layout.root / "quarantine").iterdir()  # the last only, for who wants to look at it
    assert received.read_bytes() == faulty.blobs[digest]
    assert not layout.has(digest)


@pytest.mark.parametrize("ranges", ["ignored", "refused"])
def test_ranges_that_are_ignored_or_refused_with_416(
    faulty: Any, fault: Any, pull: Callable[..., int], ranges: str
) -> None:
    faulty.ranges = ranges
    faulty.faults = [fault("GET", "/blobs/", change=changed(cut=600_000))]
    assert pull() == 600_000  # what came before the break has to come again


def test_a_registry_without_ranges_that_always_breaks_is_given_up(faulty: Any, fault: Any, layout: Layout) -> None:
    data = DATA * 8
    blob = Descriptor("application/octet-stream", faulty.add_blob(data), len(data))
    faulty.ranges = "ignored"
    faulty.faults = [fault("GET", "/blobs/", change=changed(cut=1_100_000 * (n + 1))) for n in range(7)]
    with client(faulty.host) as registry, layout.layer_sink(blob) as sink, pytest.raises(RemoteError):
        registry.download_blob("r", blob, sink)


def test_an_etag_that_changes_between_two_parts_of_the_same_bytes_is_no_matter(
    faulty: Any, fault: Any, pull: Callable[..., int]
) -> None:
    faulty.etags = True
    faulty.faults = [fault("GET", "/blobs/", change=changed(cut=600_000))]
    assert pull() == 0


def test_an_etag_that_changes_with_the_bytes_is_found_out_by_the_digest(
    faulty: Any, fault: Any, pull: Callable[..., int], layout: Layout
) -> None:
    (digest,) = faulty.blobs

    def swap(answer: Any) -> Any:
        faulty.blobs[digest] = bytes(reversed(DATA))
        return dataclasses.replace(answer, cut=600_000)

    faulty.etags = True
    faulty.faults = [fault("GET", "/blobs/", change=swap)]
    with pytest.raises(VerificationError):
        pull()
    assert list(layout.temporary().iterdir()) == []
    faulty.blobs[digest], faulty.served = DATA, 0
    assert pull() == 0


@pytest.mark.parametrize("length", [10, 999_999, 1_000_001, 10**12])
@pytest.mark.parametrize("part", [False, True], ids=["whole", "rest"])
def test_a_content_length_that_lies(faulty: Any, fault: Any, pull: Callable[..., int], length: int, part: bool) -> None:
    faulty.faults = [fault("GET", "/blobs/", change=changed(cut=1000))] if part else []
    faulty.faults.append(fault("GET", "/blobs/", times=9, change=changed(length=length)))
    with pytest.raises(VerificationError, match="bytes in the registry, not 1000000"):
        pull()


def test_a_body_longer_than_it_should_be_is_cut_off(faulty: Any, fault: Any, layout: Layout) -> None:
    blob = Descriptor("application/octet-stream", faulty.add_blob(DATA), len(DATA))
    faulty.faults = [fault("GET", "/blobs/", change=changed(body=DATA + bytes(9_000_000), chunked=50_000))]
    longer = pytest.raises(VerificationError, match="is longer than")
    with client(faulty.host) as registry, layout.layer_sink(blob) as sink, longer:
        registry.download_blob("r", blob, sink)


def test_a_manifest_put_under_another_digest_is_told(faulty: Any, fault: Any) -> None:
    faulty.faults = [fault("PUT", "/manifests/", change=with_headers(Docker_Content_Digest=DIGEST))]
    with client(faulty.host) as registry, pytest.raises(VerificationError) as caught:
        registry.upload_manifest("r", "1", b'{"schemaVersion": 2}', MANIFEST)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("stated", [DIGEST, "sha256:" + "A" * 64, "sha256:../../etc/passwd", "sha256:"])
def test_a_manifest_served_under_a_wrong_digest_is_refused(faulty: Any, fault: Any, stated: str) -> None:
    faulty.add_manifest(json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode(), "1")
    faulty.faults = [fault("GET", "/manifests/", change=with_headers(Docker_Content_Digest=stated))]
    with client(faulty.host) as registry, pytest.raises(VerificationError):
        registry.get_manifest("r", "1")


# --- authentication


def test_a_token_that_runs_out_in_the_middle_of_an_upload(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    faulty.lifetime = 0.3  # seconds, where a real one is 2: everything here is smaller
    faulty.faults = [fault("PATCH", times=9, hold=0.12)]
    cost = push()
    refused = len(faulty.requests("PATCH")) - 5
    assert len(faulty.tokens) >= 2
    assert cost <= refused * CHUNK


def test_a_token_that_is_revoked_in_the_middle_costs_one_chunk(
    faulty: Any, fault: Any, push: Callable[..., int]
) -> None:
    def revoke(answer: Any) -> Any:
        faulty.tokens = dict.fromkeys(faulty.tokens, (0.0, ""))
        return answer

    faulty.lifetime = 60
    faulty.faults = [fault("PATCH", skip=2, change=revoke)]
    assert push() <= CHUNK
    assert len(faulty.requests("GET", "/token")) == 2


@pytest.mark.parametrize("whole", [False, True], ids=["pieces", "whole"])
@pytest.mark.parametrize("early", [False, True], ids=["after the body", "before the body"])
def test_401_on_put(faulty: Any, fault: Any, reply: Any, push: Callable[..., int], whole: bool, early: bool) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{faulty.url}/token"'}
    faulty.faults = [fault("PUT", take=0 if early else None, instead=reply(401, headers=challenge))]
    assert push(whole=whole) <= (len(DATA) if whole and not early else 0)
    assert faulty.requests("PUT")[-1].headers["authorization"] == "Bearer token-0"


def test_one_token_for_each_scope_however_many_threads(faulty: Any, tmp_path: Path) -> None:
    source = Layout(tmp_path / "many")
    blobs = [source.put(random.Random(n).randbytes(5_000), "application/octet-stream") for n in range(12)]
    faulty.lifetime = 60
    failures: list[BaseException] = []
    together = threading.Barrier(len(blobs))
    with client(faulty.host, sizes=UploadSizes(2_000, 2_000), connections=12) as registry:

        def send(blob: Descriptor, repository: str) -> None:
            try:
                together.wait()
                registry.upload_blob(repository, blob, lambda: source.open_layer(blob))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=send, args=(blob, "ab"[n % 2])) for n, blob in enumerate(blobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert failures == []
    assert len(faulty.blobs) == len(blobs)
    asked = sorted(seen.path.partition("scope=")[2] for seen in faulty.requests("GET", "/token"))
    assert asked == ["repository%3Aa%3Apull%2Cpush", "repository%3Ab%3Apull%2Cpush"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<!DOCTYPE html><html>log in here</html>", AuthenticationError),
        (b'{"expires_in": 300}', AuthenticationError),
        (b'{"token": {"token": "x"}}', AuthenticationError),
        (b"\x00\xff\xfe" * 100, AuthenticationError),
        (b'{"token": "' + b"a" * 10_000_000 + b'"}', UnsafeError),
    ],
    ids=["html", "none", "nested", "junk", "10 MB"],
)
def test_a_token_reply_that_is_none(
    faulty: Any, fault: Any, pull: Callable[..., int], body: bytes, error: type[BentotoolError]
) -> None:
    faulty.lifetime = 60
    faulty.faults = [fault("GET", "/token", times=9, change=changed(body=body))]
    with pytest.raises(error) as caught:
        pull()
    assert caught.value.exit_status in (5, 6)
    assert len(faulty.requests("GET", "/token")) == 1


# --- uploads as registries vary them


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_locations_relative_and_rotating(
    faulty: Any, push: Callable[..., int], absolute: bool, rotate: bool, whole: bool
) -> None:
    faulty.absolute, faulty.rotate = absolute, rotate
    assert push(whole=whole) == 0
    if rotate and not whole:
        states = [seen.path.partition("_state=")[2] for seen in faulty.requests("PATCH")]
        assert states == list("01234")
        assert "_state=5&digest=" in faulty.requests("PUT")[0].path


@pytest.mark.parametrize(
    "location", ["http://[::1", "//", "http://a:b/", "file:///etc/passwd", "http://u:p@r/x", "\\\\x"]
)
@pytest.mark.parametrize("method", ["POST", "PATCH", "GET"])
def test_a_location_that_makes_no_sense(
    faulty: Any, fault: Any, push: Callable[..., int], method: str, location: str
) -> None:
    faulty.faults = [fault(method, times=9, change=with_headers(Location=location))]
    if method == "GET":  # the place of an upload, asked for after a break
        faulty.faults.append(fault("PATCH", skip=1, take=10))
    status = 0
    try:
        push()
    except BentotoolError as error:
        status = error.exit_status
    assert status in ((5, 6) if ":" in location else (0, 5))


def test_a_rotated_state_is_asked_for_after_a_break(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    faulty.rotate = True
    faulty.faults = [fault("PATCH", skip=2, take=50_000)]
    assert push() == 0


def test_the_smallest_piece_a_registry_takes_is_kept_to(faulty: Any, fault: Any, push: Callable[..., int]) -> None:
    faulty.minimum = 300_000
    assert push() == 0
    assert [len(seen.body) for seen in faulty.requests("PATCH")] == [300_000, 300_000, 300_000, 100_000]


@pytest.mark.parametrize("status", [405, 501])
def test_a_registry_that_takes_no_pieces_gets_it_whole(
    faulty: Any, fault: Any, reply: Any, push: Callable[..., int], status: int
) -> None:
    faulty.faults = [fault("PATCH", times=99, instead=reply(status, b'{"errors": [{"code": "UNSUPPORTED"}]}'))]
    assert push() == CHUNK
    assert [len(seen.body) for seen in faulty.requests("PUT")] == [len(DATA)]


@pytest.mark.parametrize("minimum", ["-1", "x", "9" * 30, "1e3"])
def test_a_smallest_piece_that_makes_no_sense_is_not_heard(
    faulty: Any, fault: Any, push: Callable[..., int], minimum: str
) -> None:
    faulty.faults = [fault("POST", change=with_headers(OCI_Chunk_Min_Length=minimum))]
    assert push() == 0


# --- lists


@pytest.mark.parametrize("absolute", [False, True])
def test_tags_in_pages(faulty: Any, absolute: bool) -> None:
    for tag in "abcdefg":
        faulty.add_manifest(b"{}", tag)
    faulty.page, faulty.absolute = 3, absolute
    with client(faulty.host) as registry:
        assert registry.get_tags("r") == list("abcdefg")
    assert len(faulty.requests("GET", "/tags/")) == 3


def test_tags_in_pages_of_another_host(faulty: Any, fault: Any, make_faulty: Callable[..., Any]) -> None:
    other = make_faulty()
    link = f'<{other.url}/v2/r/tags/list?last=b>; rel="next"'
    faulty.faults = [fault("GET", "/tags/", change=with_headers(Link=link))]
    with client(faulty.host) as registry, pytest.raises(UnsafeError, match="another host"):
        registry.get_tags("r")
    assert other.seen == []


def test_tags_in_pages_without_end(faulty: Any, fault: Any) -> None:
    link = '</v2/r/tags/list?last=a>; rel="next"'
    faulty.add_manifest(b"{}", "b")
    faulty.faults = [fault("GET", "/tags/", times=10_000, change=with_headers(Link=link))]
    with client(faulty.host) as registry, pytest.raises(VerificationError, match="pages"):
        registry.get_tags("r")


def test_no_referrers_api_is_the_tag_in_its_place(faulty: Any) -> None:
    entry = {"mediaType": MANIFEST, "digest": "sha256:" + "b" * 64, "size": 5, "artifactType": "application/x"}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    with client(faulty.host) as registry:
        assert registry.get_referrers("r", DIGEST) == ()
        faulty.add_manifest(json.dumps(index).encode(), DIGEST.replace(":", "-"), INDEX)
        assert [each.digest for each in registry.get_referrers("r", DIGEST)] == [entry["digest"]]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"manifests": 5}',
        b'{"schemaVersion": 2, "manifests": [{"digest": "../../x", "size": 1, "mediaType": "a/b"}]}',
        b'{"schemaVersion": 2, "manifests": [' + b"[" * 100_000,
        b'{"x": "' + b"a" * 10_000_000 + b'"}',
    ],
    ids=["html", "list", "number", "path", "depth", "10 MB"],
)
def test_a_referrers_api_with_junk(faulty: Any, fault: Any, reply: Any, body: bytes) -> None:
    faulty.faults = [fault("GET", "/referrers/", times=9, instead=reply(200, body, {"Content-Type": INDEX}))]
    with client(faulty.host) as registry, pytest.raises(BentotoolError) as caught:
        registry.get_referrers("r", DIGEST)
    assert caught.value.exit_status in (4, 5, 6)


# --- redirects


def redirect(reply: Any, url: str) -> Any:
    return reply(307, headers={"Location": url})


def test_a_blob_elsewhere_is_fetched_without_credentials_and_continued_there(
    faulty: Any, fault: Any, reply: Any, make_faulty: Callable[..., Any], pull: Callable[..., int]
) -> None:
    other = make_faulty()
    digest = other.add_blob(DATA)
    faulty.lifetime = 60
    challenge = {"WWW-Authenticate": f'Bearer realm="{faulty.url}/token"'}
    away = redirect(reply, f"{other.url}/v2/cdn/blobs/{digest}?sig=1")
    faulty.script["GET", "/v2/r/blobs"] = [reply(401, headers=challenge), away, away]
    other.faults = [fault("GET", change=changed(cut=600_000))]
    pull()
    assert other.served == len(DATA)
    assert faulty.seen[-1].headers["authorization"].startswith("Bearer ")
    assert [seen.headers.get("authorization") for seen in other.seen] == [None, None]


def test_a_redirect_from_tls_to_none_is_refused(
    fault: Any, reply: Any, make_faulty: Callable[..., Any], tmp_path: Path, require_package: Callable[[str], None]
) -> None:
    require_package("trustme")
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    secure, other = make_faulty(tls=context), make_faulty()
    blob = Descriptor("application/octet-stream", secure.add_blob(DATA), len(DATA))
    tls = Tls(ca_file=tmp_path / "ca.pem")
    with client(secure.host, plain_http=False, tls=tls) as registry:
        assert registry.read_blob("r", blob) == DATA
        secure.faults = [fault("GET", instead=redirect(reply, f"{other.url}/v2/r/blobs/{blob.digest}"))]
        with pytest.raises(UnsafeError, match="not encrypted") as caught:
            registry.read_blob("r", blob)
        secure.faults = [fault("POST", change=with_headers(Location=f"{other.url}/upload/1"))]
        source = Layout(tmp_path / "source")
        sent = source.put(b"x" * 300_000, "application/octet-stream")
        with pytest.raises(UnsafeError, match="not encrypted"):
            registry.upload_blob("r", sent, lambda: source.open_layer(sent))
    assert caught.value.exit_status == 6
    assert other.seen == []


def test_a_circle_of_redirects_ends(faulty: Any, fault: Any, reply: Any, pull: Callable[..., int]) -> None:
    (digest,) = faulty.blobs
    faulty.faults = [fault("GET", times=10_000, instead=redirect(reply, f"/v2/r/blobs/{digest}"))]
    with pytest.raises(RemoteError, match="circle"):
        pull()
    assert len(faulty.seen) < 10


def test_a_push_to_where_there_is_nothing_is_told(
    faulty: Any, fault: Any, reply: Any, push: Callable[..., int]
) -> None:
    faulty.faults = [fault("POST", times=9, instead=reply(404))]
    with pytest.raises(RemoteError, match="does not take content") as caught:
        push()
    assert not isinstance(caught.value, NotFoundError)
