"""Class 2 and 4 on import: whatever lies in a folder, or happens to it meanwhile, ends in success or in one line."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bentotool.cli.main import main
from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.interfaces import SourceFile
from bentotool.models import importing
from bentotool.models.importing import local_files
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.checking import verify_store
from bentotool.oci.layout import Layout

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
posix = pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "w.bin").write_bytes(b"weights")
    return made


def refusal(source: Path, kind: type[BentotoolError] = UnsafeError) -> str:
    with pytest.raises(kind) as caught:
        local_files(source)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint
    return caught.value.message


def round_trip(folder: Path, store: Path) -> list[str]:
    """Import and give out again."""
    models = ModelStore(Layout(store))
    taken = take_files(models.layout, "m", local_files(folder), lambda amount: None)
    view = models.materialise(models.add("m", "1", taken.files, DETAILS, layers=taken.layers))
    names = sorted(path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file())
    assert all((view / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert verify_store(models.layout).faults == ()
    return names


# --- kinds of files ---------------------------------------------------------------------------------------------------


@posix
def test_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert refusal(folder) == "pipe is not a regular file"
    assert "not a regular file" in refusal(folder / "pipe")


@posix
def test_a_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # its name may have no more than a hundred bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("sock")
        assert refusal(folder) == "sock is not a regular file"


@posix
def test_a_device(folder: Path) -> None:
    assert "not a regular file" in refusal(Path(os.devnull))
    (folder / "null").symlink_to(os.devnull)
    assert "outside the model" in refusal(folder)


@posix
@pytest.mark.parametrize(
    ("links", "said"),
    [
        ({"a": "b", "b": "a"}, "leads nowhere"),
        ({"a": "a"}, "leads nowhere"),
        ({"a": "missing"}, "leads nowhere"),
        ({"a": "."}, "not a regular file"),
        ({"a": ".."}, "outside the model"),
        ({"a": "b", "b": "c", "c": "../secret"}, "outside the model"),
        ({"a": "../model-evil"}, "outside the model"),
        ({"a": "/etc/passwd"}, "outside the model"),
    ],
)
def test_links(folder: Path, tmp_path: Path, links: dict[str, str], said: str) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "model-evil").write_text("x")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert said in refusal(folder)


@posix
def test_a_folder_that_cannot_be_read(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    try:
        if os.access(folder / "closed", os.R_OK):
            pytest.skip("this user may read everything")
        assert "cannot be read" in refusal(folder, UsageError)
    finally:
        (folder / "closed").chmod(0o700)


@pytest.mark.parametrize("failing", ["open", "scandir", "stat"])
def test_what_the_system_refuses_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """As for another user's file: root, who runs many a test, may read it."""

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "w.bin"))

    files = local_files(folder)

    def act() -> None:
        if failing == "scandir":
            local_files(folder)
        take_files(Layout(tmp_path / "store"), "m", files, lambda amount: None)

    with monkeypatch.context() as patch:
        patch.setattr(Path if failing == "stat" else os, failing, refuse)
        with pytest.raises(UsageError, match=r"w\.bin cannot be read: Permission denied"):
            act()
    assert not list(tmp_path.glob("store/tmp/*"))


# --- names ------------------------------------------------------------------------------------------------------------

FINE = (
    "é.txt",
    "日本語.bin",
    "👩‍🔬.bin",
    "a b.txt",
    "-rf",
    "$HOME",
    "~x",
    "a%2fb",
    "{{7}}",
    "x" * 200,
    "'",
    "#",
    ";",
)
CLASHES = (("Straße", "STRASSE"), ("a", "A"), ("ﬁ.bin", "FI.bin"))


@pytest.mark.parametrize("name", FINE)
def test_odd_names_come_back_as_they_were(folder: Path, store: Path, name: str) -> None:
    (folder / name).write_bytes(b"odd")
    assert round_trip(folder, store) == sorted([name, "w.bin"])


@posix
@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\x1b[2Jb", "a\x7fb", "e\u0301.txt", "a\u2028b", b"\xff.bin", "a:b", "a\\b", "CON", "a.", "a ", "*"],
)
def test_names_that_cannot_travel_are_refused(folder: Path, name: str | bytes) -> None:
    raw = name if isinstance(name, bytes) else name.encode()
    try:
        os.close(os.open(os.fsencode(folder) + b"/" + raw, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system refuses the name itself")
    message = refusal(folder)
    assert message.isprintable()


@posix
@pytest.mark.parametrize("names", CLASHES)
def test_names_that_are_one_elsewhere_are_refused(folder: Path, names: tuple[str, str]) -> None:
    for name in names:
        (folder / name).write_text(name)
    if len(list(folder.iterdir())) == 3:  # where case counts
        assert "the same file" in refusal(folder)


@posix
def test_a_name_for_people_hides_nothing(folder: Path, capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """A name that turns the text around it is shown by its code."""
    (folder / "evil\u202etxt.exe").write_text("x")
    models = ModelStore(Layout(store))
    taken = take_files(models.layout, "m", local_files(folder), lambda amount: None)
    models.add("m", "1", taken.files, DETAILS, layers=taken.layers)
    assert main(["model", "show", "m"]) == 0
    shown = capsys.readouterr().out
    assert "\u202e" not in shown
    assert "evil\\u202etxt.exe" in shown


# --- many and deep ----------------------------------------------------------------------------------------------------


def nest(folder: Path, depth: int) -> None:
    """Folders in one another; by descriptors, because their path is longer than a path may be."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("deep.bin", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def unnest(folder: Path) -> None:
    """Remove them by pulling the inner ones out: what cleans up after tests calls itself once for each."""
    spare, number = folder / "spare", 0
    spare.mkdir()
    inner = folder / "d"
    while inner.is_dir():
        number += 1
        out = spare / str(number)
        inner.rename(out)
        inner = out / "d"
    (spare / str(number) / "deep.bin").unlink()


@posix
@pytest.mark.parametrize("depth", [90, 400, 5000])
def test_deep_folders(folder: Path, store: Path, depth: int) -> None:
    nest(folder, depth)
    try:
        if depth == 90:
            assert len(round_trip(folder, store)) == 2
        else:
            assert "folders" in refusal(folder)
    finally:
        unnest(folder)


def test_more_files_than_a_manifest_can_list(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_MAX_FILES", 20)
    for number in range(30):
        (folder / f"{number}.bin").touch()
    assert "more than 20 files" in refusal(folder, UsageError)
    files = [SourceFile(folder / "w.bin", f"{number:06}.bin") for number in range(100_000)]
    with pytest.raises(UsageError, match="100000 files are more"):
        take_files(Layout(tmp_path / "store"), "m", files, lambda amount: None)
    assert not (tmp_path / "store").exists()


def test_thousands_of_small_files(folder: Path, store: Path) -> None:
    for number in range(2000):
        (folder / f"{number}.bin").write_bytes(b"%d" % (number % 7))
    assert len(round_trip(folder, store)) == 2001


# --- what changes meanwhile -------------------------------------------------------------------------------------------

SIZE = 3 << 20


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE - 10)
        file.write(b"other")
    os.utime(path, ns=(1, 1))


def vanish(path: Path) -> None:
    path.unlink()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replace_by_other(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"o" * SIZE)
    os.replace(other, path)


@posix
@pytest.mark.parametrize("change", [grow, shrink, empty, rewrite, vanish, replace_by_link, replace_by_other])
@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_file_that_changes(folder: Path, tmp_path: Path, change: Callable[[Path], None], moment: str) -> None:
    """What comes into the store is what the file was at one time, or nothing."""
    original = bytes(range(256)) * (SIZE // 256)
    path = folder / "big.bin"
    path.write_bytes(original)
    files = local_files(folder)
    layout = Layout(tmp_path / "store")
    done: list[bool] = []

    def advance(amount: int) -> None:
        if not done and amount > 100:
            done.append(True)
            change(path)

    if moment == "before":
        change(path)
        done.append(True)
    said = ""
    try:
        take_files(layout, "m", files, advance)
    except BentotoolError as error:
        said = error.message
    after = path.read_bytes() if path.exists() and not path.is_symlink() else original
    assert said.endswith(("changed while it was imported", "No such file or directory")) or moment == "before"
    assert said.count("big.bin") == (change is vanish or change is replace_by_link or moment == "meanwhile")
    assert {blob.read_bytes() for blob in layout.blobs.glob("*")} <= {original, after, b"weights"}
    assert done
    assert not list(layout.temporary().iterdir())
    assert verify_store(layout).faults == ()


@posix
@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_folder_exchanged_for_a_link(folder: Path, tmp_path: Path, moment: str) -> None:
    """The class of "checked here, opened there": what lies elsewhere under the same name does not come in."""
    inner, elsewhere = folder / "inner", tmp_path / "elsewhere"
    for place, content in ((inner, b"model"), (elsewhere, b"secret")):
        place.mkdir()
        (place / "x.bin").write_bytes(content * SIZE)
    files = local_files(folder)
    layout = Layout(tmp_path / "store")

    def exchange(amount: int) -> None:
        if not inner.is_symlink():
            inner.rename(tmp_path / "gone")
            inner.symlink_to(elsewhere)

    if moment == "before":
        exchange(0)
    with pytest.raises(BentotoolError, match="changed while"):
        take_files(layout, "m", files, exchange)
    assert not [path for path in layout.blobs.glob("*") if path.read_bytes().startswith(b"secret")]


@posix
def test_a_file_exchanged_for_a_pipe_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    files = local_files(folder)
    (folder / "w.bin").unlink()
    os.mkfifo(folder / "w.bin")
    with pytest.raises(BentotoolError, match="changed while"):
        take_files(Layout(tmp_path / "store"), "m", files, lambda amount: None)
