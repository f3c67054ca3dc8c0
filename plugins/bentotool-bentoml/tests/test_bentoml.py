"""Stores, folders and exports as BentoML 1.4.39 writes them, and as nobody should."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from bentotool_bentoml.source import BentomlSource
from onnx import TensorProto, helper

from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.models import api
from bentotool.testing import check_plugin

DOCUMENT = """\
name: adder
version: mcjbijq6j2yhiusu
module: bentoml.onnx
labels:
  team: vision
  year: 2024
options: {}
metadata:
  accuracy: 0.93
  never: .nan
context:
  framework_name: onnx
  framework_versions:
    onnx: 1.16.0
  bentoml_version: 1.4.39
  python_version: 3.11.7
signatures:
  run:
    batchable: true
    batch_dim:
    - 0
    - 0
api_version: v2
creation_time: '2024-05-01T10:00:00+00:00'
"""


class Canary:
    """What a hostile pickle does: runs a program of the author's choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def adder() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "adder", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of BentoML with one model in one version."""
    home = tmp_path / "bentoml"
    monkeypatch.setenv("BENTOML_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    write_model(home / "models" / "adder" / "mcjbijq6j2yhiusu")
    (home / "models" / "adder" / "latest").write_text("mcjbijq6j2yhiusu")
    return home


def write_model(folder: Path, document: str = DOCUMENT) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(document, encoding="utf-8")
    (folder / "saved_model.onnx").write_bytes(adder())
    (folder / "custom_objects.pkl").write_bytes(pickle.dumps(Canary()))
    return folder


def fetch(tmp_path: Path, uri: str, max_bytes: int = 1 << 30, checksum: str | None = None) -> SourceModel:
    room = tmp_path / "room"
    room.mkdir(exist_ok=True)
    return BentomlSource().fetch(SourceRequest(uri, room, max_bytes, checksum, lambda amount: None))


def test_plugin() -> None:
    check_plugin("bentoml")


@pytest.mark.parametrize("tag", ["adder", "adder:latest", "adder:mcjbijq6j2yhiusu", "adder:mcj", "Adder"])
def test_a_model_of_the_store(home: Path, tag: str) -> None:
    model = api.import_model(f"bentoml:{tag}")
    assert model.tag == "adder:mcjbijq6j2yhiusu"
    assert model.info["framework"] == "onnx"
    assert model.info["safety"] == "data"
    assert model.info["labels"] == {"team": "vision", "year": "2024"}
    metadata = model.info["metadata"]
    assert (metadata["accuracy"], metadata["never"]) == (0.93, "nan")
    assert metadata["signatures"] == {"run": {"batchable": True, "batch_dim": [0, 0]}}
    assert metadata["bentoml"] == {
        "module": "bentoml.onnx",
        "framework_versions": {"onnx": "1.16.0"},
        "bentoml_version": "1.4.39",
        "python_version": "3.11.7",
        "api_version": "v2",
        "creation_time": "2024-05-01T10:00:00+00:00",
        "left_out": ["custom_objects.pkl"],
    }
    assert [path.name for path in model.path.iterdir()] == ["saved_model.onnx"]
    onnx.checker.check_model(onnx.load(model.path / "saved_model.onnx"))
    original = home / "models" / "adder" / "mcjbijq6j2yhiusu" / "saved_model.onnx"
    assert original.stat().st_mode & 0o200, "BentoML's file is not shared, and stays writable"
    assert not (home.parent / "canary").exists()


def test_the_users_words_go_first(home: Path) -> None:
    model = api.import_model("bentoml:adder", "other", version="v1", labels={"team": "sound"}, metadata={"accuracy": 1})
    assert (model.tag, model.info["labels"]["team"], model.info["metadata"]["accuracy"]) == ("other:v1", "sound", 1)


def test_a_version_of_that_name_is_not_replaced(home: Path) -> None:
    api.import_model("bentoml:adder")
    api.import_model("bentoml:adder")
    document = home / "models" / "adder" / "mcjbijq6j2yhiusu" / "model.yaml"
    document.write_text(DOCUMENT.replace("0.93", "0.94"), encoding="utf-8")
    with pytest.raises(ConflictError):
        api.import_model("bentoml:adder")


def test_a_folder(home: Path) -> None:
    write_model(home.parent / "sub" / "folder")
    write_model(home.parent / "here")
    for text in ("bentoml:sub/folder", f"bentoml:{home.parent / 'sub' / 'folder'}", "bentoml:here"):
        assert api.import_model(text).tag == "adder:mcjbijq6j2yhiusu"
    (home.parent / "adder").mkdir()  # a folder of that name, which is no model
    assert api.import_model("bentoml:adder").tag == "adder:mcjbijq6j2yhiusu"


def test_what_is_not_there(home: Path) -> None:
    wrong = {
        "bentoml:nope": (NotFoundError, "it has: adder"),
        "bentoml:adder:zz": (NotFoundError, "it has: mcjbijq6j2yhiusu"),
        "bentoml:./nope": (NotFoundError, "write bentoml:NAME:VERSION"),
        "bentoml:..": (UsageError, "write bentoml:NAME:VERSION"),
        "bentoml:adder:..": (UsageError, "write bentoml:NAME:VERSION"),
        "bentoml:": (UsageError, "write bentoml:NAME:VERSION"),
        f"bentoml:{home}": (UsageError, "give the folder that holds it"),
    }
    for uri, (kind, hint) in wrong.items():
        with pytest.raises(kind) as caught:
            api.import_model(uri)
        assert hint in caught.value.hint
        assert "\n" not in caught.value.message
    write_model(home / "models" / "adder" / "mcjother")
    with pytest.raises(UsageError, match="could be any of mcjbijq6j2yhiusu, mcjother"):
        api.import_model("bentoml:adder:mcj")
    (home / "models" / "adder" / "latest").write_text("../../../etc")
    with pytest.raises(NotFoundError, match="names no version"):
        api.import_model("bentoml:adder")
    with pytest.raises(UsageError, match="checksum"):
        fetch(home, "bentoml:adder:mcjother", checksum="sha256:" + "0" * 64)
    with pytest.raises(UnsafeError, match="larger than 10 bytes"):
        fetch(home, "bentoml:adder:mcjother", max_bytes=10)


def test_a_store_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="has no model adder") as caught:
        api.import_model("bentoml:adder")
    assert "BENTOML_HOME" in caught.value.hint


def test_a_pickle_needs_trust(home: Path) -> None:
    folder = home / "models" / "adder" / "mcjbijq6j2yhiusu"
    (folder / "saved_model.onnx").unlink()
    (folder / "saved_model.pkl").write_bytes(pickle.dumps(Canary()))
    (folder / "model.yaml").write_text(DOCUMENT.replace("bentoml.onnx", "bentoml.sklearn"), encoding="utf-8")
    with pytest.raises(UnsafeError, match="is a pickle"):
        api.import_model("bentoml:adder")
    assert api.import_model("bentoml:adder", trust=True).info["safety"] == "pickle"
    assert not (home.parent / "canary").exists()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "bentomodel": lzma.compress,
    "tar": lambda content: content,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lambda content: lzma.compress(content[:3000]) + lzma.compress(content[3000:]) + bytes(8),
}


def tarred(folder: Path, *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.add(folder, arcname=".")
        for info, content in more:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.parametrize("suffix", PACK)
def test_an_export(home: Path, suffix: str) -> None:
    path = home.parent / f"adder.{suffix}"
    path.write_bytes(PACK[suffix](tarred(home / "models" / "adder" / "mcjbijq6j2yhiusu")))
    model = api.import_model(str(path) if suffix == "bentomodel" else f"bentoml:{path}")
    assert (model.tag, [each.name for each in model.path.iterdir()]) == ("adder:mcjbijq6j2yhiusu", ["saved_model.onnx"])


def test_an_export_as_zip(home: Path) -> None:
    path = Path(shutil.make_archive(str(home.parent / "adder"), "zip", home / "models" / "adder" / "mcjbijq6j2yhiusu"))
    assert api.import_model(f"bentoml:{path}").tag == "adder:mcjbijq6j2yhiusu"
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UnsafeError, match="is a link or device"):
        api.import_model(f"bentoml:{path}")


def test_a_zip_that_climbs(home: Path) -> None:
    path = home.parent / "adder.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(BentotoolError):
        api.import_model(f"bentoml:{path}")
    assert not (home.parent / "outside").exists()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../outside"),
        entry("/outside"),
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.LNKTYPE, "model.yaml"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("MODEL.yaml"),
        entry("a\\b"),
        entry("con"),
    ],
    ids=lambda info: info.name,
)
def test_hostile_exports(home: Path, hostile: tarfile.TarInfo) -> None:
    path = home.parent / "adder.bentomodel"
    path.write_bytes(lzma.compress(tarred(home / "models" / "adder" / "mcjbijq6j2yhiusu", (hostile, b""))))
    with pytest.raises((UnsafeError, UsageError)) as caught:
        api.import_model(path)
    assert "\n" not in caught.value.message
    assert not (home.parent / "outside").exists()


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_and_oversized_exports(home: Path, suffix: str) -> None:
    folder = home / "models" / "adder" / "mcjbijq6j2yhiusu"
    (folder / "zeros.bin").write_bytes(bytes(4 << 20))
    content = PACK[suffix](tarred(folder))
    path = home.parent / f"adder.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnsafeError, match="unpacks to more than"):
        fetch(home.parent, f"bentoml:{path}", max_bytes=1 << 20)
    for damaged in (
        content[: len(content) // 2],
        content[:-600] + b"\xff" * 200,
        b"\x1f\x8b" + content,
        content + b"x",
    ):
        path.write_bytes(damaged)
        try:
            fetch(home.parent, f"bentoml:{path}")
        except BentotoolError as error:
            assert "\n" not in error.message  # noqa: PT017 - a change may fall on what nothing checks
    for damaged in (content[: len(content) // 2], b"", b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(VerificationError, match=f"^adder.{suffix}") as caught:
            fetch(home.parent, f"bentoml:{path}")
        assert caught.value.hint


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "not a mapping"),
        ("- a", "not a mapping"),
        ("a: [", "while parsing"),
        ("name: x", "no name or version"),
        ("name: 3\nversion: v", "no name or version"),
        (DOCUMENT + "x: " + "x" * (1 << 20), "larger than"),
        (DOCUMENT.replace("labels:", "labels: 3\nother:"), "labels is not a mapping"),
        (DOCUMENT + "evil: !!python/object/apply:os.mkdir [canary]\n", "could not determine a constructor"),
        (DOCUMENT + "bomb: " + "[" * 3000, "while parsing|recursion|deep"),
        (
            DOCUMENT + "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
            "more than 10000 values",
        ),
        (DOCUMENT + "me: &me [*me]\n", "more than"),
        ("\0", "unacceptable|special"),
    ],
)
def test_documents_that_are_none(home: Path, document: str, reason: str) -> None:
    (home / "models" / "adder" / "mcjbijq6j2yhiusu" / "model.yaml").write_text(document, encoding="utf-8")
    with pytest.raises(UsageError, match=reason) as caught:
        api.import_model("bentoml:adder")
    assert caught.value.message.startswith("model.yaml is not one of BentoML: ")
    assert "\n" not in caught.value.message
    assert not (home.parent / "canary").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_out_of_a_model(home: Path) -> None:
    folder = home / "models" / "adder" / "mcjbijq6j2yhiusu"
    (home.parent / "secret").write_text(DOCUMENT)
    (folder / "weights").symlink_to(home.parent / "secret")
    with pytest.raises(UnsafeError, match="outside the model"):
        api.import_model("bentoml:adder")
    (folder / "weights").unlink()
    (folder / "model.yaml").unlink()
    (folder / "model.yaml").symlink_to(home.parent / "secret")
    with pytest.raises(UnsafeError, match="outside the model"):
        api.import_model("bentoml:adder")


def test_a_model_of_its_document_alone(home: Path) -> None:
    (home / "models" / "adder" / "mcjbijq6j2yhiusu" / "saved_model.onnx").unlink()
    with pytest.raises(UsageError, match=r"holds no files but its model\.yaml"):
        api.import_model("bentoml:adder")


def test_by_the_command(home: Path) -> None:
    path = home.parent / "adder.bentomodel"
    path.write_bytes(lzma.compress(tarred(home / "models" / "adder" / "mcjbijq6j2yhiusu")))
    for source in ("bentoml:adder", str(path)):
        command = [sys.executable, "-m", "bentotool", "model", "import", source]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "adder:mcjbijq6j2yhiusu" in done.stdout, done.stderr


def test_a_name_that_is_none_here(home: Path) -> None:
    document: Any = DOCUMENT.replace("name: adder", "name: ' A Model!'")
    (home / "models" / "adder" / "mcjbijq6j2yhiusu" / "model.yaml").write_text(document, encoding="utf-8")
    assert api.import_model("bentoml:adder").name == "a-model"
    document = DOCUMENT.replace("version: mcjbijq6j2yhiusu", "version: 'a/../b'")
    (home / "models" / "adder" / "mcjbijq6j2yhiusu" / "model.yaml").write_text(document, encoding="utf-8")
    with pytest.raises(UsageError):
        api.import_model("bentoml:adder")
