"""A registry that is broken or hostile: every case ends verified, or with the right error, and nothing half kept."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    NotFoundError,
    RemoteError,
    UnsafeError,
    VerificationError,
)
from bentotool.models.store import StoredModel
from bentotool.oci.credentials import Credentials, CredentialStore
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.transport import Timeouts
from bentotool.oci.uploads import UploadSizes

QUICK = RetryPolicy(attempts=4, base=0.001, budget=5)
SECRET = Credentials("ada", "s3cret")
BLOB = "application/octet-stream"


def client(host: str, credentials: Credentials | None = None, **options: Any) -> Registry:
    store = CredentialStore(lambda *asked: credentials, environ={"DOCKER_CONFIG": "/nowhere"})
    return Registry(host, credentials=store, retry=QUICK, timeouts=Timeouts(2, 2), **options)


def blob_of(faulty: Any, data: bytes) -> Descriptor:
    return Descriptor(BLOB, faulty.add_blob(data), len(data))


def fetch(registry: Registry, layout: Layout, blob: Descriptor) -> bytes:
    with layout.layer_sink(blob) as sink:
        registry.download_blob("r", blob, sink)
        sink.commit()
    return layout.blob_path(blob.digest).read_bytes()


def left_over(layout: Layout) -> list[Path]:
    return [path for folder in ("blobs", "tmp") for path in (layout.root / folder).rglob("*") if path.is_file()]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def published(faulty: Any, tmp_path: Path, make_model: Callable[..., StoredModel]) -> StoredModel:
    """A model that the faulty registry serves as ``r:1``."""
    source = Layout(tmp_path / "source")
    model = make_model(source)
    for part in (*model.manifest.layers, model.manifest.config):
        with source.open_layer(part) as stream:
            faulty.add_blob(stream.read())
    faulty.add_manifest(source.read(model.digest), "1")
    return model


def test_no_answer_is_told_at_once(layout: Layout) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    started = time.monotonic()
    with Registry(host) as registry, pytest.raises(RemoteError, match=f"registry {host} did not answer") as caught:
        transfer.pull(layout, RemoteReference.parse(f"{host}/r:1"), registry)
    assert caught.value.exit_status == 5
    assert caught.value.hint
    assert time.monotonic() - started < 5  # a retry would take longer than that; not a measure of speed
    assert not layout.root.exists()


def test_a_silent_registry_ends_by_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        registry = Registry(host, timeouts=Timeouts(1, 0.2), retry=QUICK)
        with registry, pytest.raises(RemoteError, match="did not answer"):
            registry.ping()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_retried(faulty: Any, reply: Any, status: int) -> None:
    blob = blob_of(faulty, b"data")
    faulty.script["GET", "/v2/r/blobs"] = [reply(status, b"<html>"), reply(status, headers={"Retry-After": "0"})]
    with client(faulty.host) as registry:
        assert registry.read_blob("r", blob) == b"data"
    assert len(faulty.requests("GET")) == 3


def test_lasting_trouble_ends_after_a_few_tries(faulty: Any, reply: Any) -> None:
    faulty.script["GET", "/v2/"] = [reply(503, b'{"errors": [{"message": "down\\u001b[2J"}]}')] * 50
    with client(faulty.host) as registry, pytest.raises(RemoteError, match=r"status 503: down\[2J"):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) == QUICK.attempts


def test_a_wait_that_is_too_long_is_not_waited(faulty: Any, reply: Any) -> None:
    faulty.script["GET", "/v2/"] = [reply(429, headers={"Retry-After": "86400"})]
    with client(faulty.host) as registry, pytest.raises(RemoteError, match="429"):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413])
def test_a_refusal_is_not_retried(faulty: Any, reply: Any, status: int) -> None:
    faulty.script["GET", "/v2/"] = [reply(status)]
    with client(faulty.host) as registry, pytest.raises(BentotoolError):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) == 1


@pytest.mark.parametrize("cut", [0, 1, 70_000, 199_999])
def test_a_broken_download_goes_on_where_it_broke(faulty: Any, reply: Any, layout: Layout, cut: int) -> None:
    data = bytes(range(250)) * 800
    blob = blob_of(faulty, data)
    faulty.script["GET", "/v2/r/blobs"] = [reply(200, data, cut=cut)]
    with client(faulty.host) as registry:
        assert fetch(registry, layout, blob) == data
    ranges = [seen.headers.get("range") for seen in faulty.requests("GET")]
    assert ranges == [None, f"bytes={cut}-" if cut else None]


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, {}), (416, {}), (206, {"Content-Range": "bytes 0-9/10"}), (206, {})],
    ids=["ignored", "refused", "wrong place", "unstated"],
)
def test_a_registry_that_cannot_continue_is_read_from_the_start(
    faulty: Any, reply: Any, layout: Layout, status: int, headers: dict[str, str]
) -> None:
    data = b"0123456789" * 10_000
    blob = blob_of(faulty, data)
    second = reply(status, data if status == 200 else b"", headers)
    faulty.script["GET", "/v2/r/blobs"] = [reply(200, data, cut=5_000), second]
    with client(faulty.host) as registry:
        assert fetch(registry, layout, blob) == data


def test_a_layer_of_many_files_needs_few_open_at_once(
    tmp_path: Path, layout: Layout, make_model: Callable[..., StoredModel]
) -> None:
    resource = pytest.importorskip("resource")
    source = Layout(tmp_path / "source")
    files = {f"{number}.bin": b"%d" % number if number % 7 else b"" for number in range(120)}
    (layer,) = make_model(source, files=files).manifest.layers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with source.open_layer(layer) as stream:
        data = stream.read()
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with layout.layer_sink(layer) as sink:
            sink.write(data)
            sink.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert layout.has_layer(layer)


def test_other_bytes_are_never_kept(faulty: Any, layout: Layout) -> None:
    blob = blob_of(faulty, b"good bytes")
    faulty.blobs[blob.digest] = b"evil bytes"
    with client(faulty.host) as registry:
        with pytest.raises(VerificationError, match="expected sha256"):
            fetch(registry, layout, blob)
        with pytest.raises(VerificationError, match="other bytes"):
            registry.read_blob("r", blob)
    assert left_over(layout) == []


@pytest.mark.parametrize("length", [3, 4_000_000_000])
def test_a_false_length_is_refused_before_a_byte_is_kept(faulty: Any, reply: Any, layout: Layout, length: int) -> None:
    blob = blob_of(faulty, b"good bytes")
    faulty.script["GET", "/v2/r/blobs"] = [reply(200, b"good bytes", length=length)]
    with client(faulty.host) as registry, pytest.raises(VerificationError, match="bytes in the registry, not 10"):
        fetch(registry, layout, blob)
    assert left_over(layout) == []


def test_one_flipped_bit_publishes_nothing(faulty: Any, layout: Layout, published: StoredModel) -> None:
    largest = max(published.manifest.layers, key=lambda layer: layer.size)
    damaged = bytearray(faulty.blobs[largest.digest])
    damaged[5_000] ^= 1
    faulty.blobs[largest.digest] = bytes(damaged)
    with client(faulty.host) as registry, pytest.raises(VerificationError) as caught:
        transfer.pull(layout, RemoteReference.parse(f"{faulty.host}/r:1"), registry)
    assert caught.value.exit_status == 4
    assert RefStore(layout).list("models") == []
    assert not any(layout.has(digest) for digest in (published.digest, largest.digest))
    assert list(layout.temporary().iterdir()) == []


def test_a_stop_in_the_middle_leaves_nothing_and_the_next_pull_goes_on(
    faulty: Any, layout: Layout, published: StoredModel
) -> None:
    remote = RemoteReference.parse(f"{faulty.host}/r:1")
    with client(faulty.host) as registry:

        class Interrupted:
            def __enter__(self) -> Interrupted:
                return self

            def __exit__(self, *exception: object) -> None: ...

            def advance(self, amount: int) -> None:
                raise KeyboardInterrupt

            def part(self, name: str, total: int) -> Interrupted:
                return self

        with pytest.raises(KeyboardInterrupt):
            transfer.pull(layout, remote, registry, progress=lambda total, label: Interrupted())
        assert registry.stop.is_set()
    assert RefStore(layout).list("models") == []
    assert list(layout.temporary().iterdir()) == []
    with client(faulty.host) as registry:
        assert transfer.pull(layout, remote, registry).digest == published.digest


def test_a_manifest_is_what_its_digest_says(faulty: Any) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()
    wrong = "sha256:" + "0" * 64
    faulty.manifests[wrong] = (MANIFEST, body)
    with client(faulty.host) as registry, pytest.raises(VerificationError, match="other bytes"):
        registry.get_manifest("r", wrong)


@pytest.mark.parametrize(
    ("media_type", "document", "stated", "message"),
    [
        (INDEX, {"mediaType": MANIFEST}, None, "is served as"),
        ("text/html", {}, None, "not supported"),
        ("application/vnd.docker.distribution.manifest.v2+json", {}, None, "not supported"),
        (MANIFEST, {"layers": [], "manifests": []}, None, "both"),
        (MANIFEST, {}, "sha256:" + "1" * 64, "states"),
    ],
)
def test_a_manifest_of_doubtful_kind_is_refused(
    faulty: Any, reply: Any, media_type: str, document: dict[str, Any], stated: str | None, message: str
) -> None:
    headers = {"Content-Type": media_type} | ({"Docker-Content-Digest": stated} if stated else {})
    faulty.script["GET", "/v2/r/manifests/1"] = [reply(200, json.dumps(document).encode(), headers)]
    with client(faulty.host) as registry, pytest.raises(VerificationError, match=message):
        registry.get_manifest("r", "1")


def test_a_manifest_has_a_largest_size(faulty: Any) -> None:
    faulty.add_manifest(b'{"x": "' + b"a" * (4 << 20) + b'"}', "1")
    with client(faulty.host) as registry, pytest.raises(UnsafeError, match="more than the 4194304"):
        registry.get_manifest("r", "1")


def test_a_bento_must_list_its_models(
    faulty: Any, layout: Layout, tmp_path: Path, make_model: Callable[..., StoredModel], make_bento: Callable[..., Ref]
) -> None:
    source = Layout(tmp_path / "source")
    bento = make_bento(source, [make_model(source)])
    with client(faulty.host, push=True) as registry:
        transfer.push_bento(source, bento, RemoteReference.parse(f"{faulty.host}/r:1"), registry)
        _, data = faulty.manifests["1"]
        index = json.loads(data)
        index["manifests"] = index["manifests"][:1]
        faulty.add_manifest(json.dumps(index).encode(), "1", INDEX)
        with pytest.raises(VerificationError, match="which its index does not list"):
            transfer.pull(layout, RemoteReference.parse(f"{faulty.host}/r:1"), registry)
    assert RefStore(layout).list("bentos") == []


def test_what_is_no_model_is_not_pulled(faulty: Any, layout: Layout) -> None:
    empty = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": []}
    faulty.add_manifest(json.dumps(manifest).encode(), "1")
    faulty.add_manifest(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode(), "2", INDEX)
    with client(faulty.host) as registry:
        for tag in "12":
            with pytest.raises(VerificationError, match="neither a model nor a Bento"):
                transfer.pull(layout, RemoteReference.parse(f"{faulty.host}/r:{tag}"), registry)


def challenge(reply: Any, realm: str) -> Any:
    return reply(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:all:*"'})


def test_a_token_is_fetched_with_the_least_scope_and_renewed(faulty: Any, reply: Any) -> None:
    realm = f"http://{faulty.host}/token"
    blob = blob_of(faulty, b"data")
    faulty.script["GET", "/v2/r/blobs"] = [challenge(reply, realm), reply(200, b"data"), challenge(reply, realm)]
    faulty.script["GET", "/token"] = [reply(200, b'{"token": "one"}'), reply(200, b'{"access_token": "two"}')]
    with client(faulty.host, SECRET) as registry:
        assert registry.read_blob("r", blob) == b"data"
        assert registry.read_blob("r", blob) == b"data"
    asked = faulty.requests("GET", "/token")
    assert [seen.path for seen in asked] == ["/token?service=s&scope=repository%3Ar%3Apull"] * 2
    assert all(seen.headers["authorization"] == SECRET.basic for seen in asked)
    used = [seen.headers.get("authorization") for seen in faulty.requests("GET", "/blobs/")]
    assert used == [None, "Bearer one", "Bearer one", "Bearer two"]


def test_an_identity_token_is_exchanged(faulty: Any, reply: Any) -> None:
    faulty.script["GET", "/v2/r/manifests"] = [challenge(reply, f"http://{faulty.host}/token")]
    faulty.script["POST", "/token"] = [reply(200, b'{"access_token": "t"}')]
    with client(faulty.host, Credentials(identity_token="id")) as registry, pytest.raises(NotFoundError):
        registry.get_manifest("r", "1")
    (asked,) = faulty.requests("POST", "/token")
    assert b"grant_type=refresh_token&refresh_token=id" in asked.body
    assert "authorization" not in asked.headers


def test_a_token_service_elsewhere_without_tls_gets_nothing(
    faulty: Any, make_faulty: Callable[[], Any], reply: Any
) -> None:
    other = make_faulty()
    faulty.script["GET", "/v2/"] = [challenge(reply, f"http://{other.host}/token")]
    with client(faulty.host, SECRET) as registry, pytest.raises(UnsafeError, match="without encryption") as caught:
        registry.get_manifest("r", "1")
    assert other.seen == []
    assert caught.value.exit_status == 6


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "http://user:pw@{}/token", "gopher://x", "", "http://[::1/t"])
def test_a_strange_token_service_is_refused(faulty: Any, reply: Any, realm: str) -> None:
    faulty.script["GET", "/v2/"] = [challenge(reply, realm.format(faulty.host))]
    with client(faulty.host, SECRET) as registry, pytest.raises(UnsafeError):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>log in</html>", AuthenticationError),
        (b"{}", AuthenticationError),
        (b'{"token": "a\\r\\nX: y"}', AuthenticationError),
        (b'{"token": 5}', AuthenticationError),
        (b"[]", AuthenticationError),
        (b'{"token": "' + b"a" * 70_000 + b'"}', UnsafeError),
    ],
)
def test_a_strange_token_is_refused(faulty: Any, reply: Any, body: bytes, error: type[BentotoolError]) -> None:
    faulty.script["GET", "/v2/"] = [challenge(reply, f"http://{faulty.host}/token")]
    faulty.script["GET", "/token"] = [reply(200, body)]
    with client(faulty.host) as registry, pytest.raises(error):
        registry.get_manifest("r", "1")


def test_credentials_that_stay_refused_end_the_tries(faulty: Any, reply: Any) -> None:
    faulty.script["GET", "/v2/"] = [reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'}) for _ in range(9)]
    with client(faulty.host, SECRET) as registry, pytest.raises(AuthenticationError, match="refused the credentials"):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_host_sees_no_credentials(faulty: Any, make_faulty: Callable[[], Any], reply: Any, status: int) -> None:
    other = make_faulty()
    blob = blob_of(other, b"data")
    basic = reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    redirect = reply(status, headers={"Location": f"http://{other.host}/v2/cdn/blobs/{blob.digest}"})
    faulty.script["GET", "/v2/r/blobs"] = [basic, redirect]
    with client(faulty.host, SECRET) as registry:
        assert registry.read_blob("r", blob) == b"data"
    assert faulty.seen[-1].headers["authorization"] == SECRET.basic
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_another_host_cannot_ask_for_credentials(faulty: Any, make_faulty: Callable[[], Any], reply: Any) -> None:
    other = make_faulty()
    blob = blob_of(other, b"data")
    faulty.script["GET", "/v2/r/blobs"] = [reply(307, headers={"Location": f"http://{other.host}/v2/x"})]
    other.script["GET", "/v2/"] = [reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})]
    with client(faulty.host, SECRET) as registry, pytest.raises(AuthenticationError):
        registry.read_blob("r", blob)
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_an_upload_elsewhere_carries_no_credentials(
    faulty: Any, make_faulty: Callable[[], Any], reply: Any, layout: Layout
) -> None:
    other = make_faulty()
    blob = layout.put(b"data", BLOB)
    basic = reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    faulty.script["HEAD", "/v2/"] = [basic]
    faulty.script["POST", "/v2/"] = [reply(202, headers={"Location": f"http://{other.host}/upload?sig=a%2Fb&empty="})]
    with client(faulty.host, SECRET, push=True) as registry:
        assert registry.upload_blob("r", blob, lambda: layout.open_layer(blob)) == 4
    (seen,) = other.seen
    assert seen.body == b"data"
    assert seen.path.startswith("/upload?sig=a%2Fb&empty=&digest=sha256%3A")
    assert "authorization" not in seen.headers


def test_redirects_end(faulty: Any, reply: Any) -> None:
    faulty.script["GET", "/v2/"] = [reply(302, headers={"Location": "/v2/r/manifests/1"}) for _ in range(50)]
    with client(faulty.host) as registry, pytest.raises(RemoteError, match="circle"):
        registry.get_manifest("r", "1")
    assert len(faulty.seen) < 10


def test_a_failed_upload_starts_again_with_the_whole_body(faulty: Any, reply: Any, layout: Layout) -> None:
    data = b"upload" * 1000
    blob = layout.put(data, BLOB)
    moved: list[int] = []
    faulty.script["PUT", "/upload"] = [reply(503), reply(500)]
    with client(faulty.host, push=True) as registry:
        registry.upload_blob("r", blob, lambda: layout.open_layer(blob), advance=moved.append)
    assert faulty.blobs[blob.digest] == data
    assert [len(seen.body) for seen in faulty.requests("PUT")] == [len(data)] * 3
    assert sum(moved) == len(data)
    assert len(faulty.requests("POST")) == 3


def test_a_token_may_end_in_the_middle_of_an_upload(faulty: Any, reply: Any, layout: Layout) -> None:
    blob = layout.put(b"x" * 5000, BLOB)
    faulty.script["PUT", "/upload"] = [
        reply(401, headers={"WWW-Authenticate": f'Bearer realm="http://{faulty.host}/token"'})
    ]
    faulty.script["GET", "/token"] = [reply(200, b'{"token": "fresh"}')]
    moved: list[int] = []
    with client(faulty.host, SECRET, push=True) as registry:
        registry.upload_blob("r", blob, lambda: layout.open_layer(blob), advance=moved.append)
    assert [seen.headers.get("authorization") for seen in faulty.requests("PUT")] == [None, "Bearer fresh"]
    assert sum(moved) == 5000


def test_an_empty_blob_states_its_length(faulty: Any, layout: Layout) -> None:
    blob = layout.put(b"", BLOB)
    with client(faulty.host, push=True) as registry:
        registry.upload_blob("r", blob, lambda: layout.open_layer(blob))
    (seen,) = faulty.requests("PUT")
    assert seen.headers["content-length"] == "0"
    assert "transfer-encoding" not in seen.headers


def test_a_chunked_upload_asks_where_to_go_on(faulty: Any, fault: Any, layout: Layout) -> None:
    data = bytes(range(100)) * 100
    blob = layout.put(data, BLOB)
    moved: list[int] = []
    faulty.faults = [fault("PATCH", skip=1, take=1000)]
    with client(faulty.host, push=True, sizes=UploadSizes(4000, 1)) as registry:
        registry.upload_blob("r", blob, lambda: layout.open_layer(blob), advance=moved.append)
    patches = faulty.requests("PATCH")
    assert [seen.headers["content-range"] for seen in patches] == ["0-3999", "4000-7999", "5000-8999", "9000-9999"]
    assert len(faulty.requests("GET", "/upload")) == 1
    assert sum(moved) == len(data)
    assert faulty.blobs[blob.digest] == data


def test_a_blob_that_is_there_is_not_sent(faulty: Any, layout: Layout) -> None:
    blob = layout.put(b"data", BLOB)
    faulty.add_blob(b"data")
    with client(faulty.host, push=True) as registry:
        assert registry.upload_blob("r", blob, lambda: layout.open_layer(blob)) == 0
    assert faulty.requests("POST") == []


@pytest.mark.parametrize("status", [403, 405])
def test_storage_that_refuses_head_is_no_reason_to_stop(faulty: Any, reply: Any, layout: Layout, status: int) -> None:
    blob = layout.put(b"data", BLOB)
    faulty.script["HEAD", "/v2/"] = [reply(status)]
    with client(faulty.host, push=True) as registry:
        assert registry.upload_blob("r", blob, lambda: layout.open_layer(blob)) == 4


@pytest.mark.parametrize("status", [202, 403, 404])
def test_a_mount_that_is_not_possible_becomes_an_upload(faulty: Any, reply: Any, layout: Layout, status: int) -> None:
    blob = layout.put(b"data", BLOB)
    faulty.script["POST", "/v2/r/blobs/uploads/?mount"] = [reply(status, headers={"Location": "/upload/9"})]
    with client(faulty.host, push=True) as registry:
        assert registry.upload_blob("r", blob, lambda: layout.open_layer(blob), mount_from=["r", "other"]) == 4
    assert faulty.requests("POST")[0].path.endswith(f"?mount={blob.digest}&from=other")
    assert faulty.blobs[blob.digest] == b"data"


def test_tags_come_in_pages(faulty: Any, reply: Any) -> None:
    link = {"Link": '</v2/r/tags/list?last=b&n=2>; rel="next"'}
    faulty.script["GET", "/v2/r/tags"] = [reply(200, b'{"tags": ["a", "b"]}', link), reply(200, b'{"tags": ["c"]}')]
    with client(faulty.host) as registry:
        assert registry.get_tags("r") == ["a", "b", "c"]


def test_endless_tags_end(faulty: Any, reply: Any) -> None:
    link = {"Link": '</v2/r/tags/list?last=b>; rel="next"'}
    faulty.script["GET", "/v2/r/tags"] = [reply(200, b'{"tags": ["a"]}', link) for _ in range(400)]
    with client(faulty.host) as registry, pytest.raises(VerificationError, match="pages"):
        registry.get_tags("r")


def test_referrers_come_from_the_api_where_there_is_one(faulty: Any, reply: Any) -> None:
    entry = {"mediaType": MANIFEST, "digest": "sha256:" + "b" * 64, "size": 5, "artifactType": "application/x"}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    faulty.script["GET", "/v2/r/referrers/"] = [reply(200, index, {"Content-Type": INDEX}) for _ in range(2)]
    with client(faulty.host) as registry:
        assert len(registry.get_referrers("r", "sha256:" + "a" * 64)) == 1
        assert registry.get_referrers("r", "sha256:" + "a" * 64, "application/y") == ()


def test_a_stop_ends_a_wait(faulty: Any, reply: Any) -> None:
    stop = threading.Event()
    faulty.script["GET", "/v2/"] = [reply(503, headers={"Retry-After": "60"})]
    threading.Timer(0.2, stop.set).start()
    with Registry(faulty.host, stop=stop) as registry, pytest.raises(RemoteError, match="stopped"):
        registry.get_manifest("r", "1")


def test_a_blob_that_is_damaged_in_the_registry_is_not_taken_for_pushed(faulty: Any, reply: Any) -> None:
    """Registries keep what they have under a digest, so nothing but an error tells that the tag could not be pulled."""
    data = b"whole"
    blob = blob_of(faulty, data)

    def push() -> int:
        with client(faulty.host, push=True) as registry:
            return registry.upload_blob("r", blob, lambda: io.BytesIO(data))

    for length in (0, len(data)):  # some state no length
        faulty.on_head = lambda seen, length=length: reply(200, length=length)
        assert push() == 0
    faulty.on_head = lambda seen: reply(200, length=3)
    with pytest.raises(VerificationError, match=f"{faulty.host}/r has 3 bytes, not 5, for blob {blob.digest}"):
        push()


@pytest.mark.parametrize("raw", [False, True])
def test_what_is_damaged_or_lost_there_is_named(
    faulty: Any, layout: Layout, tmp_path: Path, make_model: Callable[..., StoredModel], raw: bool
) -> None:
    """Two digests alone tell nobody which registry to mend, or which file."""
    source = Layout(tmp_path / "source")
    make_model(source)
    target = RemoteReference.parse(f"{faulty.host}/team/iris:1")
    with client(faulty.host, push=True) as registry:
        transfer.push_model(source, RefStore(source).get("models", "iris:1"), target, registry, raw=raw)
    large = max((digest for digest in faulty.blobs), key=lambda digest: len(faulty.blobs[digest]))
    kept = faulty.blobs[large]
    faulty.blobs[large] = b"x" * len(kept)
    with client(faulty.host) as registry, pytest.raises(VerificationError, match=f"{faulty.host}/team/iris: "):
        transfer.pull(layout, target, registry, trust=True)
    del faulty.blobs[large]
    with client(faulty.host) as registry, pytest.raises(NotFoundError, match=f"team/iris lacks its blob {large}"):
        transfer.pull(layout, target, registry, trust=True)
