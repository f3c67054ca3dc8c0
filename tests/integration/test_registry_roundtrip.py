"""Push and pull against a real docker-registry."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.errors import AuthenticationError, ConflictError, NotFoundError, UsageError
from bentotool.models.choice import Choice
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.credentials import Credentials, CredentialStore
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Manifest
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.oci.uploads import UploadSizes


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a")


@pytest.fixture
def there(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "b")


def remote(registry: Any, name: str) -> RemoteReference:
    return RemoteReference.parse(f"{registry.host}/{name}")


def ref_of(layout: Layout, model: StoredModel) -> Ref:
    return RefStore(layout).get("models", model.tag)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_model_comes_back_with_the_same_digest_and_bytes(
    real_registry: Any, here: Layout, there: Layout, make_model: Callable[..., StoredModel]
) -> None:
    model = make_model(here)
    target = remote(real_registry, "roundtrip/model:1")
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_model(here, ref_of(here, model), target, registry)
        again = transfer.push_model(here, ref_of(here, model), target, registry)
        assert sorted(registry.get_tags("roundtrip/model")) == ["1", "1-volume"]
        view = json.loads(registry.get_manifest("roundtrip/model", "1-volume").data)
    assert pushed.digest == model.digest
    assert pushed.moved > 350_000
    assert again.moved == 0
    assert view["subject"]["digest"] == model.digest
    assert "artifactType" not in view
    assert [layer["digest"] for layer in view["layers"]] == [layer.digest for layer in model.manifest.layers]
    with Registry(real_registry.host) as registry:
        pulled = transfer.pull(there, target, registry)
        unmoved = transfer.pull(there, target, registry)
    assert (pulled.digest, pulled.tag, unmoved.moved) == (model.digest, "iris:1", 0)
    ours = ModelStore(here).materialise(model)
    theirs = ModelStore(there).materialise(ModelStore(there).get("iris:1"))
    assert tree(ours) == tree(theirs)


@pytest.mark.parametrize("chunk", [1000, 4096, 100_000])
def test_chunks_may_end_inside_a_file_of_a_virtual_layer(
    real_registry: Any, here: Layout, there: Layout, make_model: Callable[..., StoredModel], chunk: int
) -> None:
    model = make_model(here)
    target = remote(real_registry, f"roundtrip/chunks{chunk}:1")
    with Registry(real_registry.host, push=True, sizes=UploadSizes(chunk, 1)) as registry:
        transfer.push_model(here, ref_of(here, model), target, registry)
    with Registry(real_registry.host) as registry:
        assert transfer.pull(there, target, registry).digest == model.digest


def test_a_bento_brings_its_models_and_keeps_its_digest(
    real_registry: Any,
    here: Layout,
    there: Layout,
    make_model: Callable[..., StoredModel],
    make_bento: Callable[..., Ref],
) -> None:
    models = [make_model(here), make_model(here, "wine", "2", {"w.bin": b"wine" * 1000, "config.json": b"{}"})]
    bento = make_bento(here, models)
    target = remote(real_registry, "roundtrip/bento:v1")
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_bento(here, bento, target, registry)
        top = registry.get_manifest("roundtrip/bento", "v1")
    assert top.descriptor.media_type == INDEX
    assert top.descriptor.digest == pushed.index
    entries = json.loads(top.data)["manifests"]
    assert [entry["annotations"]["io.bentotool.kind"] for entry in entries] == ["bento", "model", "model"]
    assert not any("artifactType" in entry for entry in entries)
    with Registry(real_registry.host) as registry:
        pulled = transfer.pull(there, target, registry)
    assert (pulled.digest, pulled.index, pulled.models) == (bento.digest, pushed.index, ("iris:1", "wine:2"))
    assert pulled.size == pushed.size == RefStore(there).get("bentos", "svc").size
    assert RefStore(there).get("bentos", "svc").digest == bento.digest
    assert ModelStore(there).get("wine:2").digest == models[1].digest
    # What was pulled can be pushed on, and its index is the same again.
    with Registry(real_registry.host, push=True) as registry:
        onward = transfer.push_bento(
            there, RefStore(there).get("bentos", "svc:7"), remote(real_registry, "roundtrip/onward:x"), registry
        )
    assert onward.index == pushed.index
    # Everything is known to be in the other repository, so all of it is mounted.
    assert onward.moved == 0


def test_models_known_elsewhere_are_mounted(
    real_registry: Any, here: Layout, make_model: Callable[..., StoredModel], make_bento: Callable[..., Ref]
) -> None:
    model = make_model(here, files={"w.bin": b"mounted" * 100_000})
    with Registry(real_registry.host, push=True) as registry:
        transfer.push_model(here, ref_of(here, model), remote(real_registry, "mount/model:1"), registry)
        pushed = transfer.push_bento(here, make_bento(here, [model]), remote(real_registry, "mount/bento:1"), registry)
    assert 0 < pushed.moved < 50_000


def test_large_blobs_go_in_pieces(real_registry: Any, here: Layout) -> None:
    data = bytes(range(256)) * 5000
    blob = here.put(data, "application/octet-stream")
    moved: list[int] = []
    with Registry(real_registry.host, push=True, sizes=UploadSizes(chunk=300_000, chunked_above=500_000)) as registry:
        sent = registry.upload_blob("pieces/blob", blob, lambda: here.open_layer(blob), advance=moved.append)
        assert sent == sum(moved) == len(data)
        assert registry.read_blob("pieces/blob", blob) == data


def test_other_tools_read_and_mirror_a_bento(
    real_registry: Any,
    require_tool: Callable[[str], str],
    here: Layout,
    make_model: Callable[..., StoredModel],
    make_bento: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    skopeo = require_tool("skopeo")
    bento = make_bento(here, [make_model(here)])
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_bento(here, bento, remote(real_registry, "mirror/a:1"), registry)
    source = f"docker://{real_registry.host}/mirror/a:1"
    raw = subprocess.run([skopeo, "inspect", "--raw", "--tls-verify=false", source], capture_output=True, check=True)
    assert f"sha256:{hashlib.sha256(raw.stdout).hexdigest()}" == pushed.index
    subprocess.run(
        [
            skopeo,
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            source,
            f"docker://{real_registry.host}/mirror/b:1",
        ],
        capture_output=True,
        check=True,
    )
    with Registry(real_registry.host) as registry:
        assert registry.get_manifest("mirror/b", "1").descriptor.digest == pushed.index
        mirrored = transfer.pull(Layout(tmp_path / "c"), remote(real_registry, "mirror/b:1"), registry)
    assert mirrored.digest == bento.digest


def test_names_that_are_taken_are_kept(
    real_registry: Any, here: Layout, there: Layout, make_model: Callable[..., StoredModel]
) -> None:
    model = make_model(here, "taken", "1", {"w.bin": b"ours"})
    other = make_model(there, "taken", "1", {"w.bin": b"theirs"})
    target = remote(real_registry, "names/taken")
    with Registry(real_registry.host, push=True) as registry:
        transfer.push_model(here, ref_of(here, model), target, registry)
        with pytest.raises(ConflictError, match="already in the store"):
            transfer.pull(there, target, registry)
        assert ModelStore(there).get("taken:1").digest == other.digest
        renamed = transfer.pull(there, target, registry, rename="fresh:9")
        assert (renamed.tag, renamed.digest) == ("fresh:9", model.digest)
        exact = transfer.pull(there, target.with_digest(model.digest), registry, rename="exact")
        assert exact.tag == "exact:1"
        with pytest.raises(UsageError, match="is a model"):
            transfer.pull(there, target, registry, expect="bento")
        with pytest.raises(UsageError, match="not to a digest"):
            transfer.push_model(here, ref_of(here, model), target.with_digest(model.digest), registry)


def test_a_name_taken_by_another_model_does_not_stop_a_bento(
    real_registry: Any,
    here: Layout,
    there: Layout,
    make_model: Callable[..., StoredModel],
    make_bento: Callable[..., Ref],
) -> None:
    model = make_model(here)
    make_model(there, files={"w.bin": b"another"})
    target = remote(real_registry, "names/bento:1")
    with Registry(real_registry.host, push=True) as registry:
        transfer.push_bento(here, make_bento(here, [model]), target, registry)
        pulled = transfer.pull(there, target, registry)
    assert pulled.models == (f"iris:1-{model.digest[7:19]}",)


def test_what_is_not_there_is_not_found(real_registry: Any, there: Layout) -> None:
    with Registry(real_registry.host) as registry, pytest.raises(NotFoundError, match="no nothing/here:1"):
        transfer.pull(there, remote(real_registry, "nothing/here:1"), registry)


def test_a_password_is_asked_for_and_used(
    locked_registry: Any, here: Layout, there: Layout, make_model: Callable[..., StoredModel]
) -> None:
    model = make_model(here)
    target = remote(locked_registry, "private/model:1")

    def client(password: str, **options: Any) -> Registry:
        found = Credentials(locked_registry.username, password) if password else None
        return Registry(
            locked_registry.host,
            credentials=CredentialStore(lambda *asked: found, environ={"DOCKER_CONFIG": "/nowhere"}),
            **options,
        )

    with client(locked_registry.password, push=True) as registry:
        registry.ping()
        transfer.push_model(here, ref_of(here, model), target, registry)
    with client(locked_registry.password) as registry:
        assert transfer.pull(there, target, registry).digest == model.digest
    for wrong in ("", "wrong"):
        with client(wrong) as registry, pytest.raises(AuthenticationError) as caught:
            transfer.pull(there, target, registry)
        assert caught.value.hint == f"bentotool login {locked_registry.host}"


def test_many_pushes_of_overlapping_models_at_once(
    real_registry: Any, here: Layout, make_model: Callable[..., StoredModel]
) -> None:
    shared = b"shared" * 50_000
    models = [make_model(here, f"m{n}", "1", {"a.bin": shared, "b.bin": bytes([n]) * 1000}) for n in range(6)]
    errors: list[BaseException] = []

    def push(model: StoredModel) -> None:
        try:
            with Registry(real_registry.host, push=True) as registry:
                transfer.push_model(
                    here, ref_of(here, model), remote(real_registry, "many/models:" + model.name), registry
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    with Registry(real_registry.host) as registry:
        for model in models:
            assert registry.get_manifest("many/models", model.name).descriptor.digest == model.digest


def test_referrers_are_found_through_the_tag(real_registry: Any, here: Layout) -> None:
    config = here.put(b"{}", "application/vnd.oci.empty.v1+json")
    subject = Descriptor(MANIFEST, "sha256:" + "a" * 64, 10)
    manifest = Manifest(config, (), artifact_type="application/x-test", subject=subject).to_bytes()
    entry = {"mediaType": MANIFEST, "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}", "size": len(manifest)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**entry, "artifactType": "application/x-test"}]}
    with Registry(real_registry.host, push=True) as registry:
        assert registry.get_referrers("refs/x", subject.digest) == ()
        registry.upload_blob("refs/x", config, lambda: here.open_layer(config))
        registry.upload_manifest("refs/x", entry["digest"], manifest, MANIFEST)
        registry.upload_manifest("refs/x", "sha256-" + "a" * 64, json.dumps(index).encode(), INDEX)
        assert len(registry.get_referrers("refs/x", subject.digest, "application/x-test")) == 1
        assert registry.get_referrers("refs/x", subject.digest, "application/x-other") == ()


def test_a_model_goes_out_file_by_file_and_comes_back_as_itself(
    real_registry: Any,
    here: Layout,
    there: Layout,
    make_model: Callable[..., StoredModel],
    require_tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    model = make_model(here)
    target = remote(real_registry, "raw/model:1")
    with Registry(real_registry.host, push=True) as registry:
        pushed = transfer.push_model(here, ref_of(here, model), target, registry, raw=True)
        pulled = transfer.pull(there, target, registry)
    assert pushed.source_digest == model.digest != pushed.digest
    assert (pulled.digest, pulled.source_digest) == (model.digest, pushed.digest)
    with Registry(real_registry.host) as registry:
        assert registry.get_tags("raw/model") == ["1"]
    folder = tmp_path / "oras"
    folder.mkdir()
    subprocess.run(
        [require_tool("oras"), "pull", "--plain-http", str(target)],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert tree(folder) == tree(ModelStore(here).materialise(model))


def test_a_part_of_a_model_is_a_model_of_its_own(
    real_registry: Any,
    here: Layout,
    there: Layout,
    make_model: Callable[..., StoredModel],
    require_package: Callable[[str], None],
) -> None:
    require_package("bentotool_picklable")
    import pickle

    files = {"w.pkl": pickle.dumps([1.0, 2.0]), "big.bin": b"x" * 300_000, "README.md": b"# hi"}
    make_model(here, files=files)
    target = remote(real_registry, "part/model:1")
    with Registry(real_registry.host, push=True) as registry:
        transfer.push_model(here, RefStore(here).get("models", "iris:1"), target, registry)
        part = transfer.pull(there, target, registry, choice=Choice(include=("w.*",), exclude=("README*",)), trust=True)
        with pytest.raises(UsageError, match="no file of the model") as caught:
            transfer.pull(there, target, registry, choice=Choice(include=("*.gguf",)), trust=True)
        assert caught.value.hint == "it has README.md, big.bin, w.pkl"
        with pytest.raises(UsageError) as caught:
            transfer.pull(there, target, registry, choice=Choice(include=("big.bin",)), trust=True)
        assert "--include and --exclude" in str(caught.value.hint)
    model = ModelStore(there).get("iris")
    assert [file.path for file in model.files] == ["w.pkl"]
    assert part.version == model.version != "1"
    assert list(there.temporary().iterdir()) == []
