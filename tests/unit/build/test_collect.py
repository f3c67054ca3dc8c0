from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.build.collect import collect, read_unchanged, secrets_by_name
from bentotool.build.contain import open_inside, read_inside
from bentotool.errors import BentotoolError, BuildError, NotFoundError, UnsafeError

Write = Callable[[dict[str, str]], Path]


def names(folder: Path, *args: list[str]) -> list[str]:
    return [file.name for file in collect(folder, *args)]


def test_patterns_and_the_built_in_list(write: Write) -> None:
    kept = {"service.py": "", "a/data.csv": "", "a/b/deep.py": "", "sub/bento.lock": "", ".hidden": ""}
    dropped = {
        ".git/config": "", ".venv/x.py": "", "venv/y.py": "", "a/__pycache__/z.pyc": "", "m.pyc": "", ".DS_Store": "",
        "bento.lock": "",
    }  # fmt: skip
    folder = write({**kept, **dropped})
    assert names(folder) == sorted(kept)
    assert names(folder, ["*.py"]) == ["a/b/deep.py", "service.py"]
    assert names(folder, ["*"], ["a/", ".*"]) == ["service.py", "sub/bento.lock"]
    assert names(folder, ["*"], ["a/*", "!a/data.csv", ".*", "sub"]) == ["a/data.csv", "service.py"]


def test_bentoignore_counts_from_its_own_folder(write: Write) -> None:
    folder = write({"a/.bentoignore": "/x.txt\n*.log\n", "a/x.txt": "", "a/b/x.txt": "", "a/b/y.log": "", "z.log": ""})
    assert names(folder) == ["a/.bentoignore", "a/b/x.txt", "z.log"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    folder = write({"real.txt": "content", "sub/x": ""})
    (folder / "link.txt").symlink_to("real.txt")
    assert {file.name: file.digest for file in collect(folder)}["link.txt"] == collect(folder)[1].digest
    (folder / "out.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="outside the project"):
        collect(folder)
    assert "out.txt" not in names(folder, ["*"], ["out.txt"])
    (folder / "out.txt").unlink()
    (folder / "folder").symlink_to("sub")
    with pytest.raises(UnsafeError, match="link to a folder"):
        collect(folder)
    (folder / "folder").unlink()
    (folder / "loop").symlink_to("loop")
    with pytest.raises(BentotoolError):
        collect(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(write: Write) -> None:
    folder = write({"service.py": ""})
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnsafeError, match="not a regular file"):
        collect(folder)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the file system has no such names")
@pytest.mark.parametrize(
    "pair", [("a\nb", "x"), ("A.py", "a.py"), ("e\u0301.py", "\u00e9.py"), ("a\\b", "x"), ("aux.py", "x"), ("q?", "x")]
)
def test_names_that_are_not_portable(write: Write, pair: tuple[str, str]) -> None:
    with pytest.raises(UnsafeError):
        collect(write(dict.fromkeys(pair, "")))


def test_a_file_that_changes_is_noticed(write: Write) -> None:
    folder = write({"service.py": "one"})
    (file,) = collect(folder)
    assert b"".join(read_unchanged(folder, file)) == b"one"
    for changed in ("two", "longer than before", ""):
        write({"service.py": changed})
        with pytest.raises(BuildError, match="changed during the build"):
            list(read_unchanged(folder, file))


def test_patterns_stay_inside(write: Write) -> None:
    for pattern in ("../x", "a/../../x", "..", "..\\x"):
        with pytest.raises(UnsafeError):
            names(write({"service.py": ""}), [pattern])


def test_path_fields_never_leave_the_folder(write: Write, tmp_path: Path, corpus: ModuleType) -> None:
    (tmp_path / "secret").write_text("canary")
    folder = write({"service.py": ""})
    for path in corpus.PATHS:
        with pytest.raises(BentotoolError):
            read_inside(folder, path, ("field",), limit=100)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_folder_exchanged_for_a_link_is_noticed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"sub/data": "mine"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "data").write_text("canary")
    resolve = os.path.realpath

    def swap(path: Path, **options: bool) -> str:
        found = resolve(path, **options)
        if str(path).endswith("data"):
            (folder / "sub").rename(folder / "old")
            (folder / "sub").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(os.path, "realpath", swap)
    with pytest.raises(UnsafeError):
        open_inside(folder, "sub/data")


def test_a_store_in_the_project_is_not_code(write: Write) -> None:
    folder = write({"service.py": "", "my [store]/blobs/x": "", "my s/x": ""})
    assert [file.name for file in collect(folder, store=folder / "my [store]")] == ["my s/x", "service.py"]


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(
        st.text("abc_é", min_size=1, max_size=6).map(lambda name: name + ".py"), st.binary(max_size=50), min_size=1
    ),
    order=st.randoms(use_true_random=False),
)
def test_order_and_place_never_matter(files: dict[str, bytes], order: object) -> None:
    found = []
    for shuffle in (False, True):
        names = sorted(files)
        if shuffle:
            order.shuffle(names)  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                path = Path(folder) / name[0] / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(files[name])
            found.append(collect(Path(folder)))
    assert found[0] == found[1]
    assert [file.name for file in found[0]] == sorted((file.name for file in found[0]), key=str.encode)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX") or os.name == "nt", reason="no sockets among files here")
def test_what_is_no_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("here.sock")
        with pytest.raises(UnsafeError, match="'here.sock' is not a regular file"):
            collect(tmp_path)
    (tmp_path / "here.sock").unlink()
    (tmp_path / "gone").symlink_to("nothing")
    with pytest.raises(NotFoundError, match="'gone' is a link to nothing"):
        collect(tmp_path)


def test_the_key_that_names_an_absent_file_is_named(tmp_path: Path) -> None:
    where = ("bentofile.yaml", "python", "requirements_txt")
    with pytest.raises(NotFoundError, match=r"^bentofile.yaml → python → requirements_txt: no file 'r.txt'"):
        read_inside(tmp_path, "r.txt", where, limit=10)
    with pytest.raises(NotFoundError, match="^no file 'bentofile.yaml'"):
        read_inside(tmp_path, "bentofile.yaml", ("bentofile.yaml",), limit=10)


def test_files_that_hold_secrets_by_their_names(write: Write) -> None:
    folder = write({".env": "", "a/.env.prod": "", ".env.example": "", "a/.netrc": "", "env.py": "", "x/id_rsa": ""})
    found = collect(folder)
    assert secrets_by_name(found, ["*"]) == (".env", "a/.env.prod", "a/.netrc", "x/id_rsa")
    assert secrets_by_name(found, ["*", ".env", "/a/.env.prod", "id_rsa"]) == ("a/.netrc",)
