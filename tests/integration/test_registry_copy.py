"""Looking at what lies in registries, attaching to it, and copying it between them, without pulling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.errors import NotFoundError, VerificationError
from bentotool.models.store import StoredModel
from bentotool.oci.credentials import Credentials, CredentialStore
from bentotool.oci.descriptor import EMPTY, EMPTY_JSON, Descriptor, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.referrers import attach
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.oci.uploads import UploadSizes
from bentotool.transfer.copy import copy
from bentotool.transfer.remote import inspect, list_remote

NOTE = "application/vnd.test.note"


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a")


@pytest.fixture
def bento(here: Layout, make_model: Callable[..., StoredModel], make_bento: Callable[..., Ref]) -> Ref:
    return make_bento(here, [make_model(here)])


def remote(host: str, name: str) -> RemoteReference:
    return RemoteReference.parse(f"{host}/{name}")


def sign(registry: Registry, repository: str, subject: Descriptor, text: bytes) -> Descriptor:
    """Attach a note, as a signature would be."""
    import io

    layer = Descriptor(NOTE, sha256_bytes(text), len(text))
    config = Descriptor(EMPTY, sha256_bytes(EMPTY_JSON), len(EMPTY_JSON))
    registry.upload_blob(repository, layer, lambda: io.BytesIO(text))
    registry.upload_blob(repository, config, lambda: io.BytesIO(EMPTY_JSON))
    return attach(registry, repository, Manifest(config, (layer,), artifact_type=NOTE, subject=subject).to_bytes())


def test_a_bento_is_described_without_a_pull(real_registry: Any, here: Layout, bento: Ref) -> None:
    target = remote(real_registry.host, "look/svc:v1")
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_bento(here, bento, target, registry)
        top = registry.get_manifest("look/svc", "v1").descriptor
        signature = sign(registry, "look/svc", top, b"one")
        assert sign(registry, "look/svc", top, b"one") == signature  # again: listed once
        other = sign(registry, "look/svc", top, b"two")
        seen = inspect(registry, target).to_dict()
    assert (seen["kind"], seen["tag"], seen["digest"]) == ("bento", "svc:7", pushed.index)
    assert [model["tag"] for model in seen["models"]] == ["iris:1"]
    manifests = [(each["kind"], each["digest"]) for each in seen["manifests"]]
    assert manifests == [("bento", bento.digest), ("model", seen["models"][0]["digest"]), ("index", pushed.index)]
    assert [each["digest"] for each in seen["referrers"]] == [signature.digest, other.digest]
    assert seen["referrers"][0]["artifact_type"] == NOTE


def test_a_model_is_described_with_its_files(real_registry: Any, here: Layout, bento: Ref) -> None:
    model = RefStore(here).get("models", "iris:1")
    with Registry(real_registry.host, push=True) as registry:
        for tag in ("1", "2"):
            transfer.push_model(here, model, remote(real_registry.host, f"look/iris:{tag}"), registry)
        seen = inspect(registry, remote(real_registry.host, "look/iris:2")).to_dict()
        tags = list_remote(registry, "look/iris")
        every = list_remote(registry, "look/iris", every=True)
        with pytest.raises(NotFoundError):
            inspect(registry, remote(real_registry.host, "look/iris:9"))
    assert (seen["kind"], seen["tag"], seen["framework"], seen["safety"]) == ("model", "iris:1", "test", "data")
    assert {file["path"] for file in seen["files"]} >= {"w.bin", "sub/t.bin"}
    # the volume view refers to the model, and this registry lists that only where it knows the API
    assert [each.reference.rpartition(":")[2] for each in tags] == ["1", "2"]
    assert {each.reference.rpartition(":")[2] for each in every} >= {"1", "1-volume", "2", "2-volume"}
    assert {each.kind for each in every if each.reference.endswith("-volume")} == {"image"}


def test_one_damaged_tag_does_not_hide_the_others(faulty: Any, reply: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = Descriptor(EMPTY, faulty.add_blob(EMPTY_JSON), len(EMPTY_JSON))
    faulty.add_manifest(Manifest(config, (), artifact_type=NOTE).to_bytes(), "good")
    faulty.add_manifest(b'{"schemaVersion": 3}', "bad")
    faulty.script["GET", "/v2/r/tags/list"] = [reply(200, b'{"tags": ["good", "bad", "gone"]}')]
    assert main(["list", f"{faulty.host}/r", "--json"]) == 0
    printed = capsys.readouterr()
    kinds = {each["reference"].rpartition(":")[2]: each["kind"] for each in json.loads(printed.out)}
    assert kinds == {"good": "artifact", "bad": "damaged", "gone": "damaged"}
    assert [f"{faulty.host}/r:{tag}" in printed.err for tag in ("good", "bad", "gone")] == [False, True, True]


def test_within_a_registry_nothing_is_sent(real_registry: Any, here: Layout, bento: Ref) -> None:
    source, target = remote(real_registry.host, "from/svc:1"), remote(real_registry.host, "to/svc")
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_bento(here, bento, source, registry)
        top = registry.get_manifest("from/svc", "1").descriptor
        signature = sign(registry, "from/svc", top, b"signed")
        copied = copy(source, registry, target, registry)
        assert copied.digest == pushed.index
        assert (copied.sent, copied.referrers) == (0, 1)
        assert copied.remote.endswith("/to/svc:1")
        assert [each.digest for each in registry.get_referrers("to/svc", top.digest)] == [signature.digest]


def test_to_another_registry_it_streams(
    real_registry: Any, locked_registry: Any, here: Layout, bento: Ref, tmp_path: Path
) -> None:
    source, target = remote(real_registry.host, "stream/svc:1"), remote(locked_registry.host, "stream/svc:2")
    asked = Credentials(locked_registry.username, locked_registry.password)
    store = CredentialStore(lambda *_: asked)
    with (
        Registry(real_registry.host, push=True) as registry,
        Registry(locked_registry.host, push=True, credentials=store) as other,
    ):
        pushed = transfer.push_bento(here, bento, source, registry)
        copied = copy(source, registry, target, other)
        again = copy(source, registry, target, other)
        there = Layout(tmp_path / "b")
        pulled = transfer.pull(there, target, other)
    assert copied.sent == copied.size > 350_000
    assert again.sent == 0
    assert (pulled.digest, pulled.index) == (bento.digest, pushed.index)


def test_a_model_keeps_its_view(real_registry: Any, here: Layout, bento: Ref) -> None:
    model = RefStore(here).get("models", "iris:1")
    with Registry(real_registry.host, push=True) as registry:
        transfer.push_model(here, model, remote(real_registry.host, "view/a:1"), registry)
        copy(remote(real_registry.host, "view/a:1"), registry, remote(real_registry.host, "view/b:x"), registry)
        assert sorted(registry.get_tags("view/b")) == ["x", "x-volume"]


def test_a_broken_source_is_opened_again(faulty: Any, reply: Any, real_registry: Any) -> None:
    data = bytes(range(256)) * 4000
    config = Descriptor(EMPTY, faulty.add_blob(EMPTY_JSON), len(EMPTY_JSON))
    layer = Descriptor(NOTE, faulty.add_blob(data), len(data))
    digest = faulty.add_manifest(Manifest(config, (layer,), artifact_type=NOTE).to_bytes(), "1")
    path = f"/v2/r/blobs/{layer.digest}"
    faulty.script["GET", path] = [reply(200, data, cut=300_000)]
    with Registry(faulty.host) as reading, Registry(real_registry.host, push=True) as writing:
        copied = copy(remote(faulty.host, "r:1"), reading, remote(real_registry.host, "broken/a"), writing)
    assert (copied.digest, copied.sent) == (digest, len(data) + len(EMPTY_JSON))
    assert [each.headers.get("range") for each in faulty.requests("GET", path)] == [None, "bytes=300000-"]


def test_a_source_that_lies_is_found_out(faulty: Any, real_registry: Any) -> None:
    config = Descriptor(EMPTY, faulty.add_blob(EMPTY_JSON), len(EMPTY_JSON))
    layer = Descriptor(NOTE, faulty.add_blob(b"right"), 5)
    faulty.add_manifest(Manifest(config, (layer,), artifact_type=NOTE).to_bytes(), "1")
    in_pieces = UploadSizes(chunk=4, chunked_above=1)
    for wrong, expected in (
        (b"wrong", "other bytes"),
        (b"wrong and longer", "16 bytes there, not 5"),
        (b"", "0 bytes"),
    ):
        for sizes in (UploadSizes(), in_pieces):
            faulty.blobs[layer.digest] = wrong
            # a failure stops a client for good
            with (
                Registry(faulty.host) as reading,
                Registry(real_registry.host, push=True, sizes=sizes) as writing,
                pytest.raises(VerificationError, match=f"{layer.digest} of {faulty.host}/r has {expected}"),
            ):
                copy(remote(faulty.host, "r:1"), reading, remote(real_registry.host, "lies/a"), writing)
    del faulty.blobs[layer.digest]
    for sizes in (UploadSizes(), in_pieces):
        with (
            Registry(faulty.host) as reading,
            Registry(real_registry.host, push=True, sizes=sizes) as writing,
            pytest.raises(NotFoundError, match=f"{faulty.host}/r has no blob {layer.digest}"),
        ):
            copy(remote(faulty.host, "r:1"), reading, remote(real_registry.host, "lies/a"), writing)
    with Registry(real_registry.host) as registry, pytest.raises(NotFoundError):
        registry.get_tags("lies/a")
