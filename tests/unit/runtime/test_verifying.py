"""Holding a Bento on disk against its digest: names and sizes of every kind, carried wheels, damaged documents."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.build.wheel import make_wheel, open_wheel
from bentotool.errors import VerificationError
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, tar_header
from bentotool.runtime.verifying import _tar_header, check_started, verify_bento

FILES = {
    "app/service.py": b"import bentotool\n",
    "app/empty.txt": b"",
    "app/naïve/Ω.txt": b"unicode",
    "app/" + "long/" * 30 + "name.txt": b"beyond ustar",
    "app/large.bin": bytes(range(256)) * 10_000,
    "bento.json": b"",
}
WEIGHTS = {"w.bin": b"weights" * 200_000, "sub/config.json": b"{}"}


def named(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Tree:
    """A Bento on disk, with what it is checked against."""

    root: Path
    digest: str

    @property
    def documents(self) -> Path:
        return self.root / "signed"

    def put(self, data: bytes) -> str:
        self.documents.mkdir(exist_ok=True)
        (self.documents / named(data)[7:]).write_bytes(data)
        return named(data)

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def check(self) -> int:
        return verify_bento(self.root, self.digest, self.documents, self.root / "site").files

    def refused(self, part: str) -> None:
        with pytest.raises(VerificationError) as caught:
            self.check()
        assert part in caught.value.message
        assert "\n" not in caught.value.message


def carried_wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {
            "tool/__init__.py": "answer = 42\n" * 200_000,
            "tool-1.data/scripts/tool": "#!python\n",
            "tool-1.dist-info/METADATA": "Name: tool\n",
            "tool-1.dist-info/RECORD": "",
        }.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def layer(kind: str, digest: str, **annotations: str) -> dict[str, Any]:
    return {
        "mediaType": f"application/vnd.bentotool.bento.{kind}",
        "digest": digest,
        "size": 1,
        "annotations": annotations,
    }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path / "root", "")
    made.root.mkdir()
    listed = [
        {"path": f"models/m/{name}", "size": len(data), "sha256": named(data)[7:]} for name, data in WEIGHTS.items()
    ]
    model = made.put(json.dumps({"layers": [{"annotations": {"io.bentotool.files": json.dumps(listed)}}]}).encode())
    for name, data in WEIGHTS.items():
        made.write(f"models/m/{name}", data)
    described = json.dumps({"models": [{"name": "m", "path": "models/m", "digest": model}]}).encode()
    code = b""
    for name, data in sorted({**FILES, "bento.json": described}.items(), key=lambda item: item[0].encode()):
        made.write(f"home/bento/{name}", data)
        code += tar_header(TarEntry(f"home/bento/{name}", len(data))) + data + bytes(-len(data) % BLOCK)
    runtime = make_wheel(
        "bentotool_runtime", "1", {"bentotool/__init__.py": b"x = 1\n", "bentotool/page.gz": b"\0" * 3_000_000}
    )
    for name, data in open_wheel(runtime):
        made.write(f"site/{name}", data)
    wheel = carried_wheel()
    made.write("wheels/tool-1-py3-none-any.whl", wheel)
    manifest = {
        "layers": [
            layer("code.v1.tar", named(code + TRAILER)),
            layer("lock.v1+txt", made.put(b"demo==1\n" * 300_000)),
            layer("wheel.v1+zip", named(runtime)),
            layer("api.v1+json", named(b"{}")),
            layer("wheel.v1+zip", named(wheel), **{"org.opencontainers.image.title": "wheels/tool-1-py3-none-any.whl"}),
        ]
    }
    made.digest = made.put(json.dumps(manifest).encode())
    return made


def install(tree: Tree) -> None:
    """As in an image: the wheel's files are installed, and the wheel is a document."""
    wheel = tree.root / "wheels" / "tool-1-py3-none-any.whl"
    tree.put(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".data/" not in name:
                tree.write(f"site/{name}", archive.read(name))
    tree.write("site/tool-1.dist-info/RECORD", b"as the installer writes it\n")
    wheel.unlink()


def test_what_is_as_it_was_signed(tree: Tree) -> None:
    assert tree.check() > len(FILES) + len(WEIGHTS)
    install(tree)
    tree.check()


def test_a_carried_wheel(tree: Tree) -> None:
    wheel = tree.root / "wheels" / "tool-1-py3-none-any.whl"
    content = wheel.read_bytes()
    wheel.write_bytes(content + b"\0")
    tree.refused("wheels/tool-1-py3-none-any.whl differs")
    wheel.write_bytes(content)
    install(tree)
    installed = tree.root / "site" / "tool" / "__init__.py"
    source = installed.read_bytes()
    installed.write_bytes(source[:-3] + b"3\n\n")
    tree.refused("tool/__init__.py of wheels/tool-1-py3-none-any.whl differs")
    installed.unlink()
    tree.refused("is missing")
    installed.write_bytes(source)
    (tree.documents / named(content)[7:]).write_bytes(content[:-1])
    tree.refused("differs from sha256:")


@pytest.mark.parametrize("name", [*FILES, *(f"../../models/m/{name}" for name in WEIGHTS)])
@pytest.mark.parametrize("how", ["byte", "longer", "gone"])
def test_one_file(tree: Tree, name: str, how: str) -> None:
    path = (tree.root / "home" / "bento" / name).resolve()
    content = path.read_bytes()
    changes: dict[str, Callable[[], object]] = {
        "byte": lambda: path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x"),
        "longer": lambda: path.write_bytes(content + b"\0"),
        "gone": path.unlink,
    }
    changes[how]()
    tree.refused("m/" if "models" in name else "the code in")


def test_damaged_documents(tree: Tree) -> None:
    good = tree.digest
    for text in (b"", b"[]", b"{", b"[" * 100_000, b"{}", b'{"layers": 3}', b'{"layers": [[]]}'):
        tree.digest = tree.put(text)
        tree.refused("manifest")
    tree.digest = good
    manifest = json.loads((tree.documents / good[7:]).read_bytes())
    for position in (0, 1, 2):
        less = {"layers": [each for number, each in enumerate(manifest["layers"]) if number != position]}
        tree.digest = tree.put(json.dumps(less).encode())
        tree.refused("does not have one layer of")
    other = json.loads(json.dumps(manifest))
    other["layers"][1]["digest"] = "sha256:../../../etc/passwd"
    tree.digest = tree.put(json.dumps(other).encode())
    tree.refused("is not a sha256 digest")


def test_the_list_of_the_runtime_leads_nowhere_else(tree: Tree) -> None:
    record = tree.root / "site" / "bentotool_runtime-1.dist-info" / "RECORD"
    record.write_text("../../../../etc/passwd,,\n")
    tree.refused("the runtime's list of files is damaged")
    record.unlink()
    tree.refused("has 0 runtimes")


def test_a_project_folder_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_started(None) is None
    monkeypatch.setenv("BENTOTOOL_VERIFY", "sha256:" + "0" * 64)
    with pytest.raises(VerificationError, match="project folder"):
        check_started(None)


@given(st.text("aé/Ω", min_size=1, max_size=300), st.sampled_from([0, 1, 511, 8 << 30, (8 << 30) - 1]))
def test_headers_are_those_of_the_layer(name: str, size: int) -> None:
    assert _tar_header(name, size) == tar_header(TarEntry(name, size))
