"""Class 4: names are ids, never paths; what a stranger's manifest or archive names stays below its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from bentotool.cli.main import main
from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceFile
from bentotool.models.archives import import_archive
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.reader import Model
from bentotool.models.store import ModelStore, StoredModel, link_file
from bentotool.oci.archive import REF_NAME, archive_root, write_archive
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.refs import RefStore, check_name, check_version, split_reference
from bentotool.oci.tar import check_entry_name, tar_size

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})


@pytest.fixture(autouse=True)
def _canary(tmp_path: Path) -> Iterator[None]:
    for name in ("secret", "canary"):
        (tmp_path / name).write_bytes(b"alive")
    yield
    assert (tmp_path / "canary").read_bytes() == (tmp_path / "secret").read_bytes() == b"alive"


@pytest.fixture
def models(store: Path) -> ModelStore:
    return ModelStore(Layout(store))


@pytest.fixture
def model(models: ModelStore, tmp_path: Path) -> StoredModel:
    (tmp_path / "w.bin").write_bytes(b"weights")
    taken = take_files(models.layout, "m", [SourceFile(tmp_path / "w.bin", "w.bin")], lambda amount: None)
    return models.add("m", "1", taken.files, DETAILS, layers=taken.layers)


def put(models: ModelStore, manifest: Manifest) -> Descriptor:
    data = manifest.to_bytes()
    return models.layout.put(data, MANIFEST)


def forged(models: ModelStore, model: StoredModel, **annotations: str) -> Descriptor:
    return put(models, replace(model.manifest, annotations={**model.manifest.annotations, **annotations}))


def with_files(models: ModelStore, model: StoredModel, *listings: list[str]) -> Descriptor:
    """The model's manifest with layers that list other names for the same bytes."""
    file = model.files[0]
    layers = []
    for names in listings:
        items = [{"path": name, "size": file.size, "sha256": file.sha256[7:]} for name in names]
        from bentotool.oci.tar import TarEntry

        size = tar_size(TarEntry(name, file.size) for name in names)
        notes = {FILES_ANNOTATION: canonical_json(items).decode()}
        layers.append(Descriptor(model.manifest.layers[0].media_type, f"sha256:{'1' * 64}", size, notes))
    return put(models, replace(model.manifest, layers=tuple(layers)))


def test_names_versions_and_references(corpus: ModuleType) -> None:
    def taken(check: Callable[[str], object], text: str) -> bool:
        try:
            check(text)
        except UsageError:
            return False
        return True

    for text in (*corpus.PATHS, *corpus.CONTROL_CHARACTERS, *corpus.SHELL):
        assert not taken(check_name, text), text
        assert not taken(check_version, text), text
        for reference in (f"m:{text}", f"{text}:1", f"m@{text}", *([] if text == "C:secret" else [text])):
            assert not taken(split_reference, reference), reference


COMMANDS = (
    ("model", "show", "{}"),
    ("model", "path", "m:{}"),
    ("model", "tag", "m:1", "{}"),
    ("model", "tag", "m:1", "{}:1"),
    ("model", "delete", "{}", "--yes"),
    ("model", "delete", "m:{}", "--yes"),
    ("model", "export", "m:{}", "out.tar"),
    ("model", "import-archive", "m.tar", "--name", "{}"),
    ("model", "list", "{}"),
    ("show", "{}"),
    ("path", "{}"),
    ("tag", "{}", "2"),
    ("export", "{}", "out.tar"),
    ("delete", "{}", "--yes"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_refuse_them(
    command: tuple[str, ...],
    corpus: ModuleType,
    model: StoredModel,
    models: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_archive(models.layout, [archive_root(model.descriptor, "model", "m:1")], tmp_path / "m.tar")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    for text in corpus.PATHS:
        if text == "C:secret" and "{}" in command and "--name" not in command:
            continue  # version "secret" of "c"
        status = main([word.replace("{}", text) for word in command])
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, ""), (text, printed)
        assert printed.err.startswith("error: "), printed.err
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert [ref.ref for ref in models.list()] == ["m:1"]


def test_a_version_that_an_archive_gives(
    corpus: ModuleType, models: ModelStore, model: StoredModel, tmp_path: Path
) -> None:
    names = [
        *(text for text in corpus.PATHS if text != "C:secret"),
        "",
        ":",
        "m",
        "m:",
        ":1",
        "m:latest",
        f"m@sha256:{'0' * 64}",
        "m:1@sha256:x",
    ]
    for name in [*names, *(f"m:{text}" for text in corpus.PATHS)]:
        root = replace(archive_root(model.descriptor, "model", "m:1"), annotations={
            REF_NAME: name, "io.bentotool.kind": "model"
        })  # fmt: skip
        write_archive(models.layout, [root], tmp_path / "x.tar")
        other = ModelStore(Layout(tmp_path / "other"))
        with pytest.raises(VerificationError):
            import_archive(other, tmp_path / "x.tar")
        assert other.list() == []


def test_a_main_file_stays_below_the_model(corpus: ModuleType, models: ModelStore, model: StoredModel) -> None:
    for text in corpus.PATHS:
        if ok_as_entry(text):
            continue
        with pytest.raises(UnsafeError):
            models.adopt("x", "1", forged(models, model, **{"io.bentotool.main-file": text}).digest)
    assert [ref.ref for ref in models.list()] == ["m:1"]


def ok_as_entry(text: str) -> bool:
    """``secret;x`` is an odd name for a file, and no way out."""
    try:
        return bool(check_entry_name(text))
    except UnsafeError:
        return False


def test_what_a_loader_is_given_stays_below_the_folder(corpus: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for text in ("../secret", "/etc/passwd", str(tmp_path / "secret"), "a/../../secret", ".."):
        with pytest.raises(NotFoundError):
            _ = Model("m:1", "", folder, {"main_file": text}).main_path
        with pytest.raises(NotFoundError):
            Model("m:1", "", folder, {}).path_of(text)


@pytest.mark.parametrize(
    "names",
    [
        ["models/m/../../../canary"],
        ["/canary"],
        ["models/m/a", "models/m/A"],
        ["models/other/a"],
        ["models/m/a", "models/m/a/b"],
        ["models/m/a\\..\\b"],
        ["models/m/" + "d/" * 200 + "x"],
    ],
)
def test_files_of_a_manifest(models: ModelStore, model: StoredModel, names: list[str]) -> None:
    with pytest.raises((UnsafeError, VerificationError)):
        models.adopt("m", "2", with_files(models, model, names).digest)


def test_two_layers_cannot_write_one_file(models: ModelStore, model: StoredModel) -> None:
    for second in ("models/m/w.bin", "models/m/W.BIN", "models/m/w.bin/x"):
        with pytest.raises(UnsafeError):
            models.adopt("m", "2", with_files(models, model, ["models/m/w.bin"], [second]).digest)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A second file of the same name would otherwise be copied into the first one's blob."""
    (tmp_path / "blob").write_bytes(b"first")
    (tmp_path / "other").write_bytes(b"second")
    link_file(tmp_path / "blob", tmp_path / "view")
    with pytest.raises(FileExistsError):
        link_file(tmp_path / "other", tmp_path / "view")
    assert (tmp_path / "blob").read_bytes() == b"first"


@pytest.mark.parametrize("prefix", ["", "..", "/", "models", "models/..", "../../x", "models/m/../.."])
def test_a_prefix_takes_nothing_out(models: ModelStore, model: StoredModel, prefix: str) -> None:
    digest = forged(models, model, **{"io.bentotool.model.prefix": prefix}).digest
    try:
        folder = models.materialise(models.adopt("x", "1", digest))
    except BentotoolError:
        return
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["w.bin"]
    assert folder.is_relative_to(models.layout.root)


@pytest.mark.parametrize(
    "digest",
    ["../../../canary", "sha256:../canary", "sha256:" + "0" * 63, f"sha512:{'0' * 128}", f"sha256:{'Z' * 64}", 5],
)
def test_digests_in_documents(models: ModelStore, model: StoredModel, digest: object) -> None:
    config = {"mediaType": "x", "digest": digest, "size": 2}
    data = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    with pytest.raises(VerificationError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "null", "{}", '{"descriptor": 5}', "\xff", "[" * 100_000, "",
        '{"descriptor": {"mediaType": "x", "digest": "sha256:../../canary", "size": 1}, "created": "", "size": 0}',
        '{"descriptor": {"mediaType": "x", "digest": "x", "size": -1}, "created": "", "size": 0}',
        '{"descriptor": {"mediaType": "x", "digest": 1, "size": 1e400}, "created": "", "size": "x"}',
    ],
)  # fmt: skip
def test_reference_files(models: ModelStore, model: StoredModel, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One damaged entry never breaks ``list``, and leads nowhere."""
    (models.layout.root / "refs" / "models" / "m" / "2.json").write_text(text, encoding="latin-1")
    assert main(["model", "list", "--json"]) == 0
    printed = capsys.readouterr()
    assert [item["tag"] for item in json.loads(printed.out)] == ["m:1"]
    assert "2.json is damaged" in printed.err
    assert main(["model", "show", "m:2"]) == 4
    assert "2.json" in capsys.readouterr().err


def test_folders_and_links_among_references(models: ModelStore, model: StoredModel, tmp_path: Path) -> None:
    refs = models.layout.root / "refs" / "models"
    for name in ("..%2f", "a b", "UPPER", ".hidden"):
        (refs / name).mkdir()
        (refs / name / "1.json").write_text("{}")
    (refs / "m" / "folder.json").mkdir()
    (refs / "m" / "-x.json").write_text("{}")
    assert [ref.ref for ref in RefStore(models.layout).list("models")] == ["m:1"]
    with pytest.raises(VerificationError):
        RefStore(models.layout).get("models", "m:folder")


def test_a_view_replaced_by_another_is_still_the_stores(models: ModelStore, model: StoredModel) -> None:
    """A folder of files is read-only, named by its manifest's digest, and made from verified names."""
    folder = models.materialise(model)
    assert folder.name == model.digest[7:]
    assert not (folder / "w.bin").stat().st_mode & 0o222


LABELS = ("a\nb", "a\x00b", "a\x1bb", "", "a\u2028b", "\udc80", "a\u202eb")


def test_labels_and_facts(tmp_path: Path, models: ModelStore, load: Callable[[str], ModuleType]) -> None:
    from bentotool.models.importing import import_files

    for key in LABELS:
        for given in ({"labels": {key: "x"}}, {"metadata": {key: "x"}}):
            with pytest.raises(UsageError):
                import_files(models, [], name="m", plugins=None, **given)  # type: ignore[arg-type]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("\udc80", {1, 2}, float("nan"), deep):
        with pytest.raises(UsageError, match="JSON"):
            import_files(models, [], name="m", plugins=None, metadata={"a": value})  # type: ignore[arg-type]


def test_a_manifest_is_never_larger_than_can_be_read(models: ModelStore, model: StoredModel) -> None:
    details = replace(DETAILS, metadata={"a": "x" * (5 << 20)})
    with pytest.raises(UsageError, match="manifest"):
        models.add("big", "1", model.files, details)
    with pytest.raises(ConflictError):
        models.add("m", "1", model.files, replace(DETAILS, metadata={"a": "b"}))
