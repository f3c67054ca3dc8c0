"""Models as other tools publish them, in a real registry, imported and pulled by the real commands."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout

ONNX = (Path(__file__).parents[2] / "templates" / "quickstart" / "iris.onnx").read_bytes()
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CNCF = "application/vnd.cncf.model"
KIT = "application/vnd.kitops.modelkit"
DOCKER = "application/vnd.docker.ai"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Repository:
    """A repository of a registry, written to by plain HTTP."""

    def __init__(self, host: str, name: str) -> None:
        self.name, self.ref = name, f"{host}/{name}"
        self._url = f"http://{host}/v2/{name}"

    def blob(self, data: bytes, media_type: str, notes: dict[str, str] | None = None) -> dict[str, Any]:
        started = requests.post(f"{self._url}/blobs/uploads/", timeout=10)
        put = requests.put(started.headers["Location"], params={"digest": digest_of(data)}, data=data, timeout=10)
        assert put.status_code == 201, put.text
        found = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        return {**found, "annotations": notes} if notes else found

    def put(self, document: dict[str, Any], tag: str, media_type: str = MANIFEST) -> str:
        data = json.dumps(document).encode()
        answer = requests.put(
            f"{self._url}/manifests/{tag}", data=data, headers={"Content-Type": media_type}, timeout=10
        )
        assert answer.status_code == 201, answer.text
        return digest_of(data)

    def size(self, digest: str) -> int:
        answer = requests.get(f"{self._url}/manifests/{digest}", headers={"Accept": MANIFEST}, timeout=10)
        return len(answer.content)

    def modelpack(
        self, layers: list[dict[str, Any]], about: dict[str, Any] | None = None, tag: str = "1.0", **more: Any
    ) -> str:
        config = {
            "descriptor": {"createdAt": "2025-01-01T00:00:00Z", **(about or {})},
            "config": {"architecture": "linear", "format": "onnx", "paramSize": "1k"},
            "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
        }
        described = self.blob(json.dumps(config).encode(), f"{CNCF}.config.v1+json")
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": f"{CNCF}.manifest.v1+json"}
        return self.put({**document, "config": described, "layers": layers, **more}, tag)


@pytest.fixture
def repository(real_registry: Any, request: pytest.FixtureRequest) -> Repository:
    return Repository(real_registry.host, "foreign/" + digest_of(request.node.name.encode())[7:19])


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], require_package: Callable[[str], None]
) -> Callable[..., tuple[int, Any, str]]:
    """``run("pull", …)`` gives the exit status, the JSON document (of the result or the error), and the notes."""
    require_package("bentotool_onnx")

    def call(*arguments: object) -> tuple[int, Any, str]:
        status = main([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        notes, _, last = printed.err.strip().rpartition("\n")
        return status, json.loads(printed.out if status == 0 else last), notes if status else printed.err

    return call


@pytest.fixture
def take(run: Callable[..., tuple[int, Any, str]], repository: Repository) -> Callable[..., dict[str, Any]]:
    def call(*options: object, tag: str = "1.0") -> dict[str, Any]:
        status, model, _ = run("model", "import", f"oci://{repository.ref}:{tag}", *options)
        assert status == 0, model
        return dict(model)

    return call


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """As Go's archive/tar writes it: folders first, no owner names, whole seconds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid = len(data), 1000
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def compress(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def metadata_of(name: str, size: int) -> str:
    facts = {"name": name, "mode": 420, "uid": 0, "gid": 0, "size": size, "mtime": "2025-01-01T00:00:00Z"}
    return json.dumps({**facts, "typeflag": 48})


def files_of(store: Path, model: dict[str, Any]) -> dict[str, bytes]:
    return {each["path"]: (store / "blobs" / "sha256" / each["digest"][7:]).read_bytes() for each in model["files"]}


def clean(store: Path) -> bool:
    """Nothing was kept, and nothing unfinished is left."""
    return not list(store.glob("blobs/sha256/*")) and not [p for p in store.glob("tmp/*") if p.name != ".lock"]


@pytest.mark.parametrize("how", ["raw", "tar", "tar+gzip", "tar+zstd"])
def test_modelpack(
    repository: Repository,
    run: Callable[..., Any],
    take: Callable[..., Any],
    store: Path,
    how: str,
    require_package: Callable[[str], None],
) -> None:
    form, _, compression = how.partition("+")
    if compression == "zstd":
        require_package("zstandard")
    files = {"net/model.onnx": ONNX, "net/labels.txt": b"a\nb\n", "README.md": b"# hi"}
    kinds = {"net/model.onnx": "weight", "net/labels.txt": "weight.config", "README.md": "doc"}
    layers = [
        repository.blob(
            data if form == "raw" else compress(tar({name: data}), compression),
            f"{CNCF}.{kinds[name]}.v1.{how}",
            {
                "org.cncf.model.filepath": name,
                "org.cncf.model.file.metadata+json": metadata_of(name.rpartition("/")[2], len(data)),
            },
        )
        for name, data in files.items()
    ]
    about = {
        "name": "Iris Net", "version": "2.1", "licenses": ["MIT"], "description": "Tells\nirises apart.",
        "authors": ["Ada"], "sourceURL": "https://example.org/iris",
    }  # fmt: skip
    remote_digest = repository.modelpack(layers, about)
    model = take()
    assert model["tag"] == "iris-net:2.1"
    assert files_of(store, model) == files
    assert (model["framework"], model["safety"]) == ("onnx", "data")
    facts = model["metadata"]
    assert (facts["license"], facts["description"], facts["authors"]) == ("MIT", "Tells irises apart.", ["Ada"])
    assert (facts["source"], facts["source_digest"]) == (f"oci://{repository.ref}:1.0", remote_digest)
    assert facts["source_format"] == "ModelPack artifact"
    assert run("store", "verify")[0] == 0


def test_bundles_and_small_differences_of_modelpack(
    repository: Repository, take: Callable[..., Any], store: Path
) -> None:
    """cnai names, a title as the path, a folder in one tar, an image layer, a file under its last name alone."""
    layers = [
        repository.blob(ONNX, "application/vnd.cnai.model.weight.v1.raw", {"org.opencontainers.image.title": "m.onnx"}),
        repository.blob(
            tar({"tok/a.json": b"{}", "tok/b.json": b"[]"}),
            f"{CNCF}.weight.config.v1.tar",
            {"org.cncf.model.filepath": "tok"},
        ),
        repository.blob(tar({"extra.txt": b"e"}), "application/vnd.oci.image.layer.v1.tar"),
        repository.blob(
            tar({"c.json": b"1"}),
            f"{CNCF}.weight.config.v1.tar",
            {
                "org.cncf.model.filepath": "deep/er/c.json",
                "org.cncf.model.file.metadata+json": metadata_of("c.json", 1),
            },
        ),
    ]
    repository.modelpack(layers)
    model = take()
    assert files_of(store, model) == {
        "m.onnx": ONNX, "tok/a.json": b"{}", "tok/b.json": b"[]", "extra.txt": b"e", "deep/er/c.json": b"1",
    }  # fmt: skip
    assert model["tag"] == f"{repository.name.rpartition('/')[2]}:1.0"  # it names itself not; the tag is its version


KITFILE: dict[str, Any] = {
    "manifestVersion": "1.0.0",
    "package": {"name": "Iris Kit", "version": "3.0.0", "description": "irises", "authors": ["Ada"], "license": "MIT"},
    "model": {"name": "iris", "path": "./models/model.onnx", "framework": "pickle", "license": "Apache-2.0"},
    "docs": [{"path": "README.md"}],
    "code": [{"path": "src"}],
}


def kit_layers(repository: Repository, compression: str) -> dict[str, dict[str, Any]]:
    suffix = f"+{compression}" if compression else ""
    contents = {"model": {"models/model.onnx": ONNX}, "docs": {"README.md": b"# r"}, "code": {"src/a.py": b"pass"}}
    return {
        kind: repository.blob(compress(tar(files), compression), f"{KIT}.{kind}.v1.tar{suffix}")
        for kind, files in contents.items()
    }


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_modelkit(repository: Repository, take: Callable[..., Any], store: Path, compression: str) -> None:
    layers = kit_layers(repository, compression)
    kitfile = json.loads(json.dumps(KITFILE))
    kitfile["model"] |= {"digest": layers["model"]["digest"], "diffId": "sha256:" + "0" * 64}
    kitfile["docs"][0] |= {"digest": layers["docs"]["digest"]}
    kitfile["code"][0] |= {"digest": layers["code"]["digest"]}
    config = repository.blob(json.dumps(kitfile).encode(), f"{KIT}.config.v1+json")
    # KitOps before 1.0 left out mediaType and artifactType.
    digest = repository.put(
        {
            "schemaVersion": 2,
            "config": config,
            "layers": list(layers.values()),
            "annotations": {"ml.kitops.modelkit.cli-version": "1.2.0"},
        },
        "1.0",
    )
    model = take()
    assert model["tag"] == "iris-kit:3.0.0"
    assert files_of(store, model) == {"models/model.onnx": ONNX, "README.md": b"# r", "src/a.py": b"pass"}
    facts = model["metadata"]
    assert (facts["license"], facts["source_digest"], facts["source_format"]) == ("MIT", digest, "KitOps ModelKit")
    # What it says of its framework is kept as its word, and changes nothing.
    assert (facts["stated_framework"], model["framework"], model["safety"]) == ("pickle", "onnx", "data")


def test_modelkit_of_old_whose_archives_start_at_the_last_name(
    repository: Repository, take: Callable[..., Any], store: Path
) -> None:
    layers = [
        repository.blob(gzip.compress(tar({"model.onnx": ONNX})), f"{KIT}.model.v1.tar+gzip"),
        repository.blob(gzip.compress(tar({"src/a.py": b"pass"})), f"{KIT}.code.v1.tar+gzip"),
        repository.blob(gzip.compress(tar({"README.md": b"# r"})), f"{KIT}.docs.v1.tar+gzip"),
    ]
    config = repository.blob(json.dumps(KITFILE).encode(), f"{KIT}.config.v1+json")
    repository.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}, "1.0")
    assert files_of(store, take()) == {"models/model.onnx": ONNX, "README.md": b"# r", "src/a.py": b"pass"}


def test_modelkit_of_raw_files_and_as_modelpack(repository: Repository, take: Callable[..., Any], store: Path) -> None:
    raw = repository.blob(gzip.compress(ONNX), f"{KIT}.model.v1.raw+gzip")
    kitfile = {**KITFILE, "model": {**KITFILE["model"], "digest": raw["digest"]}, "docs": [], "code": []}
    config = repository.blob(json.dumps(kitfile).encode(), f"{KIT}.config.v1+json")
    kit = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": f"{KIT}.manifest.v1+json"}
    repository.put({**kit, "config": config, "layers": [raw]}, "kit")
    assert files_of(store, take(tag="kit")) == {"models/model.onnx": ONNX}
    layers = [
        repository.blob(
            tar({"models/model.onnx": ONNX}), f"{CNCF}.weight.v1.tar", {"org.cncf.model.filepath": "models/model.onnx"}
        ),
        repository.blob(json.dumps(KITFILE).encode(), f"{KIT}.config.v1+json"),
    ]
    repository.modelpack(layers, tag="pack", annotations={"ml.kitops.modelkit.kitfile": json.dumps(KITFILE)})
    model = take("--name", "again", tag="pack")
    assert files_of(store, model) == {"models/model.onnx": ONNX}
    assert (model["tag"], model["metadata"]["license"]) == ("again:3.0.0", "MIT")


def test_a_modelkit_that_only_refers_to_another(repository: Repository, run: Callable[..., Any]) -> None:
    kitfile = {"manifestVersion": "1.0.0", "model": {"path": "example.org/base/model:1"}}
    config = repository.blob(json.dumps(kitfile).encode(), f"{KIT}.config.v1+json")
    repository.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}, "1.0")
    status, answer, _ = run("model", "import", f"oci://{repository.ref}:1.0")
    assert status == 2
    assert answer["error"]["hint"] == "bentotool model import oci://example.org/base/model:1"


def safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(8)


def test_docker_models(
    repository: Repository, take: Callable[..., Any], store: Path, require_package: Callable[[str], None]
) -> None:
    require_package("bentotool_huggingface")
    config = {"config": {"format": "safetensors", "architecture": "llama", "parameters": "1B"}, "descriptor": {}}
    old = repository.blob(json.dumps(config).encode(), f"{DOCKER}.model.config.v0.1+json")
    first, second = safetensors(), safetensors().replace(b"w", b"v", 1)
    layers = [
        repository.blob(first, f"{DOCKER}.safetensors"),
        repository.blob(second, f"{DOCKER}.safetensors"),
        repository.blob(tar({"config.json": b'{"model_type": "llama"}'}), f"{DOCKER}.vllm.config.tar"),
        repository.blob(b"MIT", f"{DOCKER}.license"),
    ]
    repository.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": old, "layers": layers}, "1.0")
    model = take("--name", "old")
    assert files_of(store, model) == {
        "model-00001-of-00002.safetensors": first,
        "model-00002-of-00002.safetensors": second,
        "config.json": b'{"model_type": "llama"}',
        "LICENSE": b"MIT",
    }
    assert model["metadata"]["source_format"] == "Docker model"
    assert model["metadata"]["parameters"] == "1B"
    new = repository.blob(json.dumps(config).encode(), f"{DOCKER}.model.config.v0.2+json")
    named = [
        repository.blob(data, media_type, {"org.cncf.model.filepath": name})
        for name, data, media_type in (
            ("text/model.safetensors", first, f"{DOCKER}.safetensors"),
            ("text/config.json", b"{}", f"{DOCKER}.model.file"),
        )
    ]
    repository.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": new, "layers": named}, "2.0")
    assert set(files_of(store, take("--name", "new", tag="2.0"))) == {"text/model.safetensors", "text/config.json"}


def one_file(repository: Repository, data: bytes = ONNX, name: str = "model.onnx") -> dict[str, Any]:
    return repository.blob(data, f"{CNCF}.weight.v1.raw", {"org.cncf.model.filepath": name})


@pytest.mark.parametrize("command", [("pull",), ("model", "pull")])
def test_pull_imports_what_another_tool_pushed(
    repository: Repository, run: Callable[..., Any], store: Path, command: tuple[str, ...]
) -> None:
    digest = repository.modelpack([one_file(repository)], {"name": "net"})
    status, pulled, notes = run(*command, f"{repository.ref}:1.0")
    assert status == 0, pulled
    assert (pulled["kind"], pulled["tag"], pulled["source_digest"]) == ("model", "net:1.0", digest)
    assert pulled["digest"] != digest
    assert "packed in another form" in notes
    assert digest in notes
    again = run(*command, f"{repository.ref}:1.0")[1]
    assert (again["digest"], again["fetched"], pulled["fetched"]) == (pulled["digest"], 0, len(ONNX))
    renamed = run(*command, f"{repository.ref}@{digest}", "--as", "mine:7")[1]
    assert renamed["tag"] == "mine:7"
    repository.modelpack([one_file(repository), one_file(repository, b"new", "n.txt")], {"name": "net"})
    status, answer, _ = run(*command, f"{repository.ref}:1.0")
    assert (status, answer["error"]["code"]) == (1, "conflict")
    assert "--as" in answer["error"]["hint"]
    assert not list(store.glob("tmp/*"))


def test_an_index_of_one_model(repository: Repository, take: Callable[..., Any], run: Callable[..., Any]) -> None:
    digests = [repository.modelpack([one_file(repository)], {"name": name}, tag=name) for name in ("a", "b")]
    image = repository.blob(b"{}", "application/vnd.oci.image.config.v1+json")
    other = repository.put({"schemaVersion": 2, "mediaType": MANIFEST, "config": image, "layers": []}, "image")

    def index(*wanted: str, **notes: str) -> dict[str, Any]:
        entries = [
            {"mediaType": MANIFEST, "digest": each, "size": repository.size(each), "annotations": notes}
            for each in wanted
        ]
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}

    repository.put(index(other, digests[0]), "one", INDEX)
    assert take(tag="one")["metadata"]["source_digest"] == digests[0]
    assert run("pull", f"{repository.ref}:one")[1]["source_digest"] == digests[0]
    repository.put(index(*digests), "two", INDEX)
    status, answer, _ = run("model", "import", f"oci://{repository.ref}:two")
    assert status == 2
    assert all(each in answer["error"]["hint"] for each in digests)
    repository.put(index(other), "none", INDEX)
    assert run("model", "import", f"oci://{repository.ref}:none")[0] == 4
    repository.put(index(other, **{"io.bentotool.kind": "bento"}), "bento", INDEX)
    assert "bentotool pull" in run("model", "import", f"oci://{repository.ref}:bento")[1]["error"]["hint"]
    assert run("model", "import", f"oci://{repository.ref}:image")[0] == 2
    assert run("pull", f"{repository.ref}:image")[0] == 4


def test_a_pickle_is_refused_whatever_the_manifest_says(
    repository: Repository, run: Callable[..., Any], store: Path, require_package: Callable[[str], None]
) -> None:
    require_package("bentotool_picklable")
    notes = {"io.bentotool.safety": "data", "io.bentotool.name": "nice", "io.bentotool.framework": "onnx"}
    layer = one_file(repository, b"\x80\x04K\x01.", "model.pkl")
    repository.modelpack([layer], {"name": "nice"}, annotations=notes)
    for command in (("model", "import", f"oci://{repository.ref}:1.0"), ("pull", f"{repository.ref}:1.0")):
        status, answer, _ = run(*command)
        assert (status, answer["error"]["code"]) == (6, "unsafe")
        assert clean(store)
    assert run("model", "import", f"oci://{repository.ref}:1.0", "--trust")[1]["safety"] == "pickle"


def hostile(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
        archive.addfile(entry, io.BytesIO(b"x"))
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["tar", "tar+gzip"])
@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../canary", tarfile.REGTYPE, ""),
        ("/tmp/bentotool-canary", tarfile.REGTYPE, ""),
        ("out", tarfile.SYMTYPE, "../.."),
        ("out", tarfile.LNKTYPE, "/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_hostile_layers(
    repository: Repository, run: Callable[..., Any], store: Path, how: str, name: str, kind: bytes, target: str
) -> None:
    canary = store.parent / "canary"
    canary.write_bytes(b"alive")
    data = compress(hostile(name, kind, target), how.partition("+")[2])
    repository.modelpack([one_file(repository), repository.blob(data, f"{CNCF}.weight.v1.{how}")])
    for command in (("model", "import", f"oci://{repository.ref}:1.0"), ("model", "pull", f"{repository.ref}:1.0")):
        status, answer, _ = run(*command)
        assert (status, answer["error"]["code"]) == (6, "unsafe")
        assert clean(store)
    assert sorted(path.name for path in store.parent.iterdir()) == ["canary", "store"]
    assert canary.read_bytes() == b"alive"


@pytest.mark.parametrize("path", ["../canary", "/tmp/canary", "a/../../canary", "C:\\canary", "con", "a\nb", ".wh.a"])
def test_hostile_file_paths(repository: Repository, run: Callable[..., Any], store: Path, path: str) -> None:
    repository.modelpack([one_file(repository), one_file(repository, b"x", path)])
    assert run("model", "import", f"oci://{repository.ref}:1.0")[0] == 6
    assert clean(store)


def zstd_bomb() -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(bytes(300 << 20))


def broken_layers() -> dict[str, Callable[[], tuple[str, bytes]]]:
    packed = gzip.compress(tar({"m.onnx": ONNX}))
    return {
        "truncated gzip": lambda: ("tar+gzip", packed[:-20]),
        "gzip with more after it": lambda: ("tar+gzip", packed + b"more"),
        "no gzip": lambda: ("tar+gzip", tar({"m.onnx": ONNX})),
        "gzip bomb": lambda: ("tar+gzip", gzip.compress(tar({"m.onnx": bytes(200 << 20)}), 9)),
        "truncated zstd": lambda: ("tar+zstd", compress(tar({"m.onnx": ONNX}), "zstd")[:-20]),
        "zstd bomb": lambda: ("tar+zstd", zstd_bomb()),
        "truncated tar": lambda: ("tar", tar({"m.onnx": ONNX})[:700]),
        "tar without its end": lambda: ("tar", tar({"m.onnx": b""}).rstrip(b"\0").ljust(512, b"\0")),
        "unknown type": lambda: ("tar+brotli", b"x"),
    }


@pytest.mark.parametrize("what", broken_layers())
def test_broken_layers(
    repository: Repository, run: Callable[..., Any], store: Path, what: str, require_package: Callable[[str], None]
) -> None:
    if "zstd" in what:
        require_package("zstandard")
    kind, data = broken_layers()[what]()
    repository.modelpack([repository.blob(data, f"{CNCF}.weight.v1.{kind}")])
    status, answer, _ = run("model", "import", f"oci://{repository.ref}:1.0")
    expected = (6, "unsafe") if "bomb" in what else (4, "verification_failed")
    assert (status, answer["error"]["code"]) == expected, answer
    assert f"oci://{repository.ref}:1.0" in answer["error"]["message"]  # what was typed, not only a layer's digest
    assert clean(store)


def test_limits(repository: Repository, run: Callable[..., Any], store: Path) -> None:
    packed = repository.blob(gzip.compress(tar({"model.onnx": ONNX + bytes(5000)})), f"{CNCF}.weight.v1.tar+gzip")
    repository.modelpack([packed], tag="packed")
    repository.modelpack([one_file(repository)], tag="raw")
    lying = {"org.cncf.model.filepath": "m.onnx", "org.cncf.model.file.metadata+json": metadata_of("m.onnx", 5)}
    repository.modelpack([repository.blob(tar({"m.onnx": ONNX}), f"{CNCF}.weight.v1.tar", lying)], tag="lying")
    for tag, size in (("packed", packed["size"] + 100), ("packed", 100), ("raw", 100)):
        status, answer, _ = run("model", "import", f"oci://{repository.ref}:{tag}", "--max-size", size)
        assert status == 6, answer
        assert "--max-size" in answer["error"]["hint"]
    assert run("model", "import", f"oci://{repository.ref}:lying")[0] == 4
    assert clean(store)


def test_zstd_without_its_library(
    repository: Repository, run: Callable[..., Any], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    repository.modelpack([repository.blob(b"x", f"{CNCF}.weight.v1.tar+zstd")])
    status, answer, _ = run("model", "import", f"oci://{repository.ref}:1.0")
    assert (status, answer["error"]["code"]) == (1, "missing_dependency")
    assert "bentotool[zstd]" in answer["error"]["hint"]
    assert clean(store)


def test_what_a_killed_import_left_is_removed(repository: Repository, run: Callable[..., Any], store: Path) -> None:
    repository.modelpack([one_file(repository)])
    source = f"oci://{repository.ref}:1.0"
    left = store / "tmp" / f"fetch-{hashlib.sha256(source.encode()).hexdigest()[:32]}-{'0' * 16}" / "model-1" / "files"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    assert run("model", "import", source)[0] == 0
    assert not list(store.glob("tmp/*"))


def test_python_code_imports_too(repository: Repository, run: Callable[..., Any], store: Path) -> None:
    from bentotool import models

    repository.modelpack([one_file(repository)], {"name": "net"})
    assert models.import_model(f"oci://{repository.ref}:1.0").tag == "net:1.0"


def test_checksum_is_the_digest_of_the_manifest(repository: Repository, run: Callable[..., Any]) -> None:
    digest = repository.modelpack([one_file(repository)])
    source = f"oci://{repository.ref}:1.0"
    assert run("model", "import", source, "--checksum", "sha256:" + "0" * 64)[0] == 4
    assert run("model", "import", source, "--checksum", digest)[0] == 0


def test_a_registry_that_lies(
    faulty: Any, run: Callable[..., Any], store: Path, require_package: Callable[[str], None]
) -> None:
    config = faulty.add_blob(b"{}")
    for tag, (stated, served) in {
        "swapped": (ONNX, b"x" * len(ONNX)), "short": (ONNX, ONNX[:-1]), "long": (ONNX, ONNX + b"x"),
    }.items():  # fmt: skip
        digest = digest_of(stated)
        faulty.blobs[digest] = served
        layer = {"mediaType": f"{CNCF}.weight.v1.raw", "digest": digest, "size": len(stated)}
        layer["annotations"] = {"org.cncf.model.filepath": "model.onnx"}
        described = {"mediaType": f"{CNCF}.config.v1+json", "digest": config, "size": 2}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [layer]}
        faulty.add_manifest(json.dumps(document).encode(), tag)
        for command in (("model", "import", f"oci://{faulty.host}/a/b:{tag}"), ("pull", f"{faulty.host}/a/b:{tag}")):
            assert run(*command)[0] == 4
            assert clean(store)


def test_a_private_registry(
    locked_registry: Any, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., StoredModel],
) -> None:  # fmt: skip
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    layout = Layout(tmp_path / "own")
    onnx = make_model(layout, "iris", "1", {"w.onnx": ONNX})
    host = locked_registry.host
    remote = f"{host}/private/model:1"
    assert run("model", "import", f"oci://{remote}")[0] == 5
    monkeypatch.setattr("sys.stdin", io.StringIO(locked_registry.password))
    assert run("login", host, "--username", locked_registry.username, "--password-stdin")[0] == 0
    assert run("model", "push", onnx.tag, remote, "--store", layout.root)[0] == 0
    assert run("model", "import", f"oci://{remote}")[1]["tag"] == "iris:1"
    assert run("model", "import", f"oci://{remote}", "--tls")[0] == 5


def test_our_own_model_is_the_same_model(
    real_registry: Any, run: Callable[..., Any], store: Path, tmp_path: Path
) -> None:
    source = tmp_path / "iris.onnx"
    source.write_bytes(ONNX)
    words = ("--label", "team=a", "--metadata", "accuracy=0.9", "--version", "1")
    model = run("model", "import", source, *words)[1]
    remote = f"{real_registry.host}/own/iris:1"
    assert run("model", "push", "iris:1", remote)[0] == 0
    elsewhere = ("--store", tmp_path / "else")
    for name in (
        f"oci://{remote}",
        f"oci:{store}:models/iris:1",
        f"oci:{store}:iris/1",
        f"oci:{store}@{model['digest']}",
    ):
        assert run("model", "import", name, *elsewhere)[1]["digest"] == model["digest"]
    assert run("model", "import", f"oci:{store}", *elsewhere)[0] == 3
    assert run("model", "import", f"oci:{store}:nothing", *elsewhere)[0] == 3
    assert run("model", "import", f"oci:{tmp_path}/nothing:x", *elsewhere)[0] == 3
    assert run("model", "import", f"oci:{tmp_path}:x", *elsewhere)[0] == 2


def test_what_oras_pushes_and_copies(
    repository: Repository, run: Callable[..., Any], take: Callable[..., Any], store: Path, tmp_path: Path,
    require_tool: Callable[[str], str],
) -> None:  # fmt: skip
    oras = require_tool("oras")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.onnx").write_bytes(ONNX)
    (tmp_path / "config.json").write_bytes(json.dumps({"descriptor": {"name": "by-oras"}}).encode())
    pushed = [oras, "push", "--plain-http", "--artifact-type", f"{CNCF}.manifest.v1+json"]
    pushed += ["--config", f"config.json:{CNCF}.config.v1+json", f"{repository.ref}:1.0"]
    subprocess.run([*pushed, f"sub/model.onnx:{CNCF}.weight.v1.raw"], cwd=tmp_path, capture_output=True, check=True)
    model = take()
    assert (model["tag"], files_of(store, model)) == ("by-oras:1.0", {"sub/model.onnx": ONNX})
    copy = [oras, "cp", "--from-plain-http", f"{repository.ref}:1.0", "--to-oci-layout", f"{tmp_path / 'copy'}:here"]
    subprocess.run(copy, capture_output=True, check=True)
    for name in (f"oci:{tmp_path / 'copy'}", f"oci:{tmp_path / 'copy'}:here"):
        copied = run("model", "import", name, "--name", "copied")[1]
        assert files_of(store, copied) == {"sub/model.onnx": ONNX}
        assert copied["metadata"]["source_digest"] == model["metadata"]["source_digest"]
        assert "source" not in copied["metadata"]


@pytest.mark.parametrize("command", [("model", "import"), ("model", "pull"), ("pull",)])
def test_files_and_folders_pushed_by_oras_as_they_are(
    repository: Repository, run: Callable[..., Any], store: Path, tmp_path: Path, require_tool: Callable[[str], str],
    command: tuple[str, ...],
) -> None:  # fmt: skip
    oras, folder = require_tool("oras"), tmp_path / "work"
    files = {"model.onnx": ONNX, "tok/a.json": b"{}", "tok/deep/b.json": b"[]", "doc/README.md": b"# hi"}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "config.bin").write_bytes(b"anything at all")
    (folder / "notes.json").write_text(json.dumps({"$manifest": {"team": "a"}, "model.onnx": {"by": "hand"}}))
    given = ["model.onnx:application/onnx", "tok", "doc/README.md", "--annotation-file", "notes.json"]
    for tag, options in (
        ("plain", []),
        ("typed", ["--artifact-type", "application/vnd.acme.model"]),
        ("config", ["--config", "config.bin:application/vnd.acme.config"]),
    ):
        push = [oras, "push", "--plain-http", *options, f"{repository.ref}:{tag}", *given]
        subprocess.run(push, cwd=folder, capture_output=True, check=True)
        remote = f"{repository.ref}:{tag}"
        if command == ("model", "import"):
            status, model, _ = run(*command, f"oci://{remote}", "--name", tag)
            assert model["metadata"]["source_format"] == "artifact of files"
        else:
            status, model, _ = run(*command, remote, "--as", tag)
            model = run("model", "show", tag)[1]
        assert status == 0
        assert (model["framework"], files_of(store, model)) == ("onnx", files)
    assert not list(store.glob("tmp/*"))


def gguf() -> bytes:
    key, value = b"general.architecture", b"llama"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry


def test_modelkits_and_docker_models_pushed_by_oras(
    repository: Repository, run: Callable[..., Any], store: Path, tmp_path: Path, require_tool: Callable[[str], str],
    require_package: Callable[[str], None],
) -> None:  # fmt: skip
    """oras adds a title to each layer, which is the name of the archive or of the blob, not of the model's file."""
    require_package("bentotool_huggingface")
    oras = require_tool("oras")
    docker = {"config": {"format": "gguf", "architecture": "llama"}, "descriptor": {}}
    parts = {
        "kitfile.json": json.dumps(KITFILE).encode(), "model.tar": tar({"models/model.onnx": ONNX}),
        "docs.tgz": gzip.compress(tar({"README.md": b"# r"})), "docker.json": json.dumps(docker).encode(),
        "weights.gguf": gguf(), "LICENSE": b"MIT",
    }  # fmt: skip
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    kit = [f"model.tar:{KIT}.model.v1.tar", f"docs.tgz:{KIT}.docs.v1.tar+gzip"]
    model_runner = [f"weights.gguf:{DOCKER}.gguf.v3", f"LICENSE:{DOCKER}.license"]
    for tag, config, layers in (
        ("kit", f"kitfile.json:{KIT}.config.v1+json", kit),
        ("docker", f"docker.json:{DOCKER}.model.config.v0.1+json", model_runner),
    ):
        push = [oras, "push", "--plain-http", "--config", config, f"{repository.ref}:{tag}", *layers]
        subprocess.run(push, cwd=tmp_path, capture_output=True, check=True)
    expected = {
        "kit": ("onnx", {"models/model.onnx": ONNX, "README.md": b"# r"}),
        "docker": ("huggingface", {"weights.gguf": gguf(), "LICENSE": b"MIT"}),
    }
    for tag, found in expected.items():
        status, model, _ = run("model", "import", f"oci://{repository.ref}:{tag}", "--name", f"imported-{tag}")
        assert status == 0, model
        assert (model["framework"], files_of(store, model)) == found
        status, pulled, _ = run("model", "pull", f"{repository.ref}:{tag}", "--as", f"pulled-{tag}")
        assert status == 0, pulled
        assert files_of(store, run("model", "show", pulled["tag"])[1]) == found[1]


def test_hostile_files_in_the_form_of_oras(repository: Repository, run: Callable[..., Any], store: Path) -> None:
    """A folder with a link out of it, a file that goes out of it, one with more bytes than stated, a pickle."""
    title, unpack = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
    empty = repository.blob(b"{}", "application/vnd.oci.empty.v1+json")

    def put(data: bytes, name: str, **notes: str) -> tuple[int, str]:
        layer = repository.blob(data, "application/octet-stream", {title: name, **notes})
        model = repository.blob(ONNX, "application/octet-stream", {title: "model.onnx"})
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.acme"}
        repository.put({**document, "config": empty, "layers": [model, layer]}, "bad")
        status, answer, _ = run("model", "import", f"oci://{repository.ref}:bad")
        assert clean(store)
        return status, answer["error"]["code"]

    assert put(b"x", "../canary") == (6, "unsafe")
    assert put(gzip.compress(hostile("../canary")), "tok", **{unpack: "true"}) == (6, "unsafe")
    assert put(gzip.compress(hostile("tok/a", tarfile.SYMTYPE, "/etc")), "tok", **{unpack: "true"}) == (6, "unsafe")
    assert put(b"no gzip", "tok", **{unpack: "true"}) == (4, "verification_failed")
    assert not (store.parent / "canary").exists()


@pytest.mark.parametrize("command", [("push", "--format", "raw"), ("push",)])
def test_what_we_push_is_what_oras_pulls(
    repository: Repository, run: Callable[..., Any], tmp_path: Path, require_tool: Callable[[str], str],
    command: tuple[str, ...],
) -> None:  # fmt: skip
    oras, source, out = require_tool("oras"), tmp_path / "net", tmp_path / "out"
    files = {"model.onnx": ONNX, "tok/a.json": b"{}", "README.md": b"# hi", "empty.txt": b""}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    assert run("model", "import", source, "--version", "1")[0] == 0
    assert run("model", command[0], "net:1", f"{repository.ref}:1", *command[1:])[0] == 0
    subprocess.run([oras, "pull", "--plain-http", f"{repository.ref}:1", "-o", out], capture_output=True, check=True)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if len(command) > 1:
        assert found == files
        return
    unpacked: dict[str, bytes] = {}
    for data in found.values():
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            unpacked |= {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    assert unpacked == {f"models/net/{name}": data for name, data in files.items()}


def test_archives_of_layouts(
    repository: Repository, run: Callable[..., Any], store: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    skopeo = require_tool("skopeo")
    digest = repository.modelpack([one_file(repository)], {"name": "net"})
    archive = tmp_path / "by-skopeo.tar"
    copy = [skopeo, "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false"]
    subprocess.run(
        [*copy, f"docker://{repository.ref}:1.0", f"oci-archive:{archive}:a/b:1"], capture_output=True, check=True
    )
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    for source in (f"oci:{archive}", f"oci:{archive}:a/b:1", f"oci:{packed}"):
        model = run("model", "import", source)[1]
        assert (model["tag"], model["metadata"]["source_digest"]) == (f"net:{model['version']}", digest)
    assert not list(store.glob("tmp/*"))
    bad = {"evil.tar": hostile("../canary"), "none.tar": b"x" * 600, "half.tar": archive.read_bytes()[:900]}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        assert run("model", "import", f"oci:{tmp_path / name}")[0] in (4, 6)
    assert not (tmp_path / "canary").exists()


def test_an_exported_archive_of_raw_files(
    run: Callable[..., Any], tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    oras = require_tool("oras")
    source = tmp_path / "net"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "model.onnx").write_bytes(ONNX)
    (source / "README.md").write_bytes(b"# hi")
    model = run("model", "import", source, "--version", "1")[1]
    archive = tmp_path / "raw.tar"
    assert run("model", "export", "net:1", archive, "--format", "raw")[0] == 0
    subprocess.run([oras, "pull", "--oci-layout", f"{archive}:net/1", "-o", tmp_path / "out"], check=True)
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "sub/model.onnx", "README.md",
    }  # fmt: skip
    assert (tmp_path / "out" / "sub" / "model.onnx").read_bytes() == ONNX
    elsewhere = ("--store", tmp_path / "else")
    status, answer, _ = run("model", "import-archive", archive, *elsewhere)
    assert (status, answer["error"]["hint"]) == (4, "use: bentotool model import oci:raw.tar")
    assert run("model", "import", f"oci:{archive}", *elsewhere)[1]["digest"] == model["digest"]
    assert run("model", "export", "net:1", tmp_path / "x.tar", "--format", "zip")[0] == 2
    # The archive for ourselves holds the layers as tar files, which oras gives by the digest.
    assert run("model", "export", "net:1", tmp_path / "tar.tar")[0] == 0
    whole = f"{tmp_path / 'tar.tar'}@{model['digest']}"
    subprocess.run([oras, "pull", "--oci-layout", whole, "-o", tmp_path / "tars"], check=True)
    with tarfile.open(tmp_path / "tars" / "sub" / "model.onnx.tar") as layer:
        assert layer.getnames() == ["models/net/sub/model.onnx"]


def test_files_copied_to_a_registry_by_oras_are_the_same_model(
    real_registry: Any, run: Callable[..., Any], store: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    oras = require_tool("oras")
    source = tmp_path / "net.onnx"
    source.write_bytes(ONNX)
    model = run("model", "import", source, "--version", "1", "--label", "team=a")[1]
    remote = f"{real_registry.host}/raw/net:1"
    copy = [oras, "cp", "--from-oci-layout", f"{store}:net/1", "--to-plain-http", remote]
    subprocess.run(copy, capture_output=True, check=True)
    subprocess.run([oras, "pull", "--plain-http", remote, "-o", tmp_path / "out"], capture_output=True, check=True)
    assert (tmp_path / "out" / "net.onnx").read_bytes() == ONNX
    pulled = run("pull", remote, "--store", tmp_path / "else")[1]
    assert (pulled["tag"], pulled["digest"]) == ("net:1", model["digest"])
