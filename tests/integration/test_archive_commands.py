"""Archives and progress as a user meets them: pipes, compression, a real terminal, an interrupt."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.layout import Layout

PROGRAM = (sys.executable, "-m", "bentotool")
SIZE = 12 << 20
posix = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of POSIX")


def add_model(folder: Path, store: Path, safety: str = "data", size: int = SIZE) -> str:
    weights = folder / "w.bin"
    weights.write_bytes(os.urandom(size // 2) + bytes(size - size // 2))
    layout = Layout(store)
    taken = take_files(layout, "m", [SourceFile(weights, "w.bin")], lambda amount: None)
    details = ModelDetails("test", "raw", safety, "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
    return ModelStore(layout).add("m", "1", taken.files, details, layers=taken.layers).digest


@pytest.fixture
def model(tmp_path: Path, store: Path) -> str:
    return add_model(tmp_path, store)


def run(*words: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=50, check=False)


def test_an_archive_goes_through_a_pipe(model: str, tmp_path: Path) -> None:
    out = run("model", "export", "m", "-")
    assert out.returncode == 0, out.stderr
    assert run("model", "export", "m", tmp_path / "m.tar").returncode == 0
    assert out.stdout == (tmp_path / "m.tar").read_bytes()
    assert b"wrote" in out.stderr
    other = ("--store", tmp_path / "other")
    taken = run("model", "import-archive", "-", "--json", *other, stdin=out.stdout)
    assert json.loads(taken.stdout)["digest"] == model
    assert json.loads(run("store", "verify", "--json", *other).stdout)["ok"] is True
    assert not list((tmp_path / "other" / "tmp").iterdir())


def test_an_archive_is_compressed_by_suffix_or_when_asked(
    require_package: Callable[[str], None], model: str, tmp_path: Path
) -> None:
    require_package("zstandard")
    wrote = json.loads(run("model", "export", "m", tmp_path / "m.tar.zst", "--json").stdout)
    piped = run("model", "export", "m", "-", "--zstd").stdout
    assert piped == (tmp_path / "m.tar.zst").read_bytes()
    assert wrote["archive_size"] == len(piped) < SIZE * 0.6
    assert run("model", "export", "m", tmp_path / "m.tar").returncode == 0
    for number, stdin in enumerate((None, piped)):
        other = ("--store", tmp_path / f"other-{number}")
        source = "-" if stdin else tmp_path / "m.tar.zst"
        taken = run("model", "import-archive", source, "--json", *other, stdin=stdin)
        assert json.loads(taken.stdout)["digest"] == model, taken.stderr
    again = run("model", "export", "m", tmp_path / "again.tar", *other)
    assert again.returncode == 0
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "m.tar").read_bytes()
    limited = run("model", "import-archive", tmp_path / "m.tar.zst", "--max-size", "1MB", "--store", tmp_path / "third")
    assert limited.returncode == 6
    assert b"--max-size" in limited.stderr
    assert not list(tmp_path.glob("third/blobs/*/*"))


def test_what_cannot_be_written_is_said(model: str, tmp_path: Path) -> None:
    for words, status, said in (
        (("-", "--json"), 2, b"--json"),
        ((tmp_path,), 2, b"m-1.tar"),
        ((tmp_path / "none" / "m.tar",), 3, b"does not exist"),
    ):
        done = run("model", "export", "m", *words)
        assert (done.returncode, done.stdout) == (status, b"")
        assert said in done.stderr


def test_a_pickle_comes_in_with_trust_only(tmp_path: Path, store: Path) -> None:
    add_model(tmp_path, store, "pickle", size=100)
    assert run("model", "export", "m", tmp_path / "m.tar").returncode == 0
    other = ("--store", tmp_path / "other")
    refused = run("model", "import-archive", tmp_path / "m.tar", "--json", *other)
    assert refused.returncode == 6
    error = json.loads(refused.stderr)["error"]
    assert (error["code"], "m:1 is a pickle" in error["message"], "--trust" in error["hint"]) == ("unsafe", True, True)
    assert not list(tmp_path.glob("other/blobs/*/*"))
    taken = run("model", "import-archive", tmp_path / "m.tar", "--trust", "--json", *other)
    assert json.loads(taken.stdout)["safety"] == "pickle"


def test_progress_is_json_lines_beside_one_document(model: str, tmp_path: Path) -> None:
    done = run("model", "export", "m", tmp_path / "m.tar", "--json")
    assert json.loads(done.stdout)["digest"] == model
    last = json.loads(done.stderr.splitlines()[-1])["progress"]
    assert last["done"] == last["total"] == (tmp_path / "m.tar").stat().st_size
    assert run("model", "export", "m", tmp_path / "b.tar", "--json", "-q").stderr == b""
    assert run("model", "export", "m", tmp_path / "c.tar").stderr == b""


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
def test_python_reads_what_it_wrote(
    require_package: Callable[[str], None], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from bentotool import models
    from bentotool.errors import ConflictError, UsageError

    require_package("zstandard")
    archive = models.export_model("m:1", tmp_path / f"m{suffix}")
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "other"))
    taken = models.import_model(archive)
    assert (taken.tag, taken.digest) == ("m:1", model)
    assert (taken.path / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
    assert models.import_model(archive, "n", version="2").tag == "n:2"
    with pytest.raises(UsageError, match="its own"):
        models.import_model(archive, labels={"a": "b"})
    add_model(tmp_path, tmp_path / "third")
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "third"))
    with pytest.raises(ConflictError):
        models.import_model(archive)


def test_python_asks_for_trust_too(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool import models
    from bentotool.errors import UnsafeError

    add_model(tmp_path, store, "pickle", size=100)
    archive = models.export_model("m", tmp_path)
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "other"))
    with pytest.raises(UnsafeError, match="m:1 is a pickle"):
        models.import_model(archive)
    assert models.import_model(archive, trust=True).tag == "m:1"


class Terminal:
    """A program whose stderr is a pseudo-terminal."""

    def __init__(self, master: int, program: subprocess.Popen[bytes]) -> None:
        self._master, self.program, self.drawn = master, program, b""

    def read_until(self, text: bytes) -> None:
        end = time.monotonic() + 40
        while text not in self.drawn:
            assert time.monotonic() < end, self.drawn
            if select.select([self._master], [], [], 1)[0]:
                try:
                    self.drawn += os.read(self._master, 4096)
                except OSError:  # Linux says so when the program is gone
                    break
        assert text in self.drawn, self.drawn

    def rest(self) -> bytes:
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], 0.5)[0] and (data := os.read(self._master, 4096)):
                self.drawn += data
        return self.drawn


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    import pty

    monkeypatch.setenv("TERM", "xterm")
    with contextlib.ExitStack() as stack:

        def start(*words: object) -> Terminal:
            master, slave = pty.openpty()
            stack.callback(os.close, master)
            command = [*PROGRAM, *map(str, words)]
            program = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave))
            stack.callback(program.kill)
            os.close(slave)
            return Terminal(master, program)

        yield start


@posix
def test_a_terminal_shows_a_bar_and_is_left_clean(model: str, tmp_path: Path, terminal: Callable[..., Any]) -> None:
    shown = terminal("model", "export", "m", "-")
    assert shown.program.stdout.read(2 << 20)
    shown.read_until(b"12.6 MB")
    shown.program.stdout.read()
    assert shown.program.wait(40) == 0
    drawn = shown.rest()
    assert b"export m:1" in drawn
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h") == 1
    assert b"wrote" in drawn[drawn.rindex(b"\x1b[?25h") :]


@posix
def test_an_interrupt_leaves_a_clean_terminal_and_no_file(
    model: str, tmp_path: Path, terminal: Callable[..., Any]
) -> None:
    """It comes while the program waits for the reader of its output, which is in the middle of the work."""
    shown = terminal("model", "export", "m", "-")
    assert shown.program.stdout.read(2 << 20)
    shown.read_until(b"12.6 MB")
    shown.program.send_signal(signal.SIGINT)
    assert shown.program.wait(40) == 130
    drawn = shown.rest()
    assert drawn.rindex(b"\x1b[?25l") < drawn.rindex(b"\x1b[?25h")
    assert drawn.rstrip().endswith(b"interrupted")
    assert b"Traceback" not in drawn


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_no_partial_file(model: str, tmp_path: Path, number: int, status: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    held = f"""
import sys, time
from bentotool.__main__ import run
from bentotool.oci import archive
archive._Output.write = lambda self, data: (print("writing", flush=True), time.sleep(60))
sys.argv = ["bentotool", "model", "export", "m", {str(folder / "m.tar")!r}]
run()
"""
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"writing\n"
        assert [path.suffix for path in folder.iterdir()] == [".tmp"]
        program.send_signal(number)
        assert program.wait(40) == status
    assert list(folder.iterdir()) == []
    # nothing can clean after a kill: the next export does
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"writing\n"
        program.kill()
    assert len(list(folder.iterdir())) == 1
    assert run("model", "export", "m", folder / "m.tar").returncode == 0
    assert [path.name for path in folder.iterdir()] == ["m.tar"]


def test_other_tools_read_what_was_compressed(
    require_package: Callable[[str], None], require_tool: Callable[[str], str], model: str, tmp_path: Path
) -> None:
    require_package("zstandard")
    zstd = require_tool("zstd")
    assert run("model", "export", "m", tmp_path / "m.tar.zst").returncode == 0
    subprocess.run([zstd, "-q", "-d", str(tmp_path / "m.tar.zst")], check=True, timeout=40)
    with tarfile.open(tmp_path / "m.tar") as opened:
        assert f"blobs/sha256/{model[7:]}" in opened.getnames()
    subprocess.run([zstd, "-q", "-19", "--rm", "-f", "-T0", str(tmp_path / "m.tar")], check=True, timeout=40)
    other = ("--store", tmp_path / "other")
    taken = run("model", "import-archive", tmp_path / "m.tar.zst", "--json", *other)
    assert json.loads(taken.stdout)["digest"] == model


@posix
def test_an_export_never_takes_the_place_of_what_is_no_file(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for more in ((), ("--force",)):
        done = run("model", "export", "m", tmp_path / "pipe", *more)
        assert (done.returncode, b"pipe is not a regular file" in done.stderr) == (2, True)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.tar").symlink_to("pipe")
    assert run("model", "export", "m", tmp_path / "link.tar", "--force").returncode == 2
    (tmp_path / "real.tar").write_bytes(b"mine")
    (tmp_path / "newest.tar").symlink_to("real.tar")
    assert run("model", "export", "m", tmp_path / "newest.tar", "--force").returncode == 0
    assert not (tmp_path / "newest.tar").is_symlink()  # whoever put the link there does not choose what is overwritten
    assert (tmp_path / "real.tar").read_bytes() == b"mine"


def test_what_is_no_archive_is_said_so(model: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08:\x7f" + os.urandom(2000))
    refused = run("model", "import-archive", tmp_path / "net.onnx")
    assert refused.returncode == 4
    assert refused.stderr.startswith(b"error: net.onnx is not an archive that bentotool export wrote\n")
    assert b"bentotool model import" in refused.stderr


def test_a_damaged_archive_is_named(model: str, tmp_path: Path) -> None:
    assert run("model", "export", "m", tmp_path / "m.tar").returncode == 0
    with (tmp_path / "m.tar").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"damage")
    refused = run("model", "import-archive", tmp_path / "m.tar", "--store", tmp_path / "other")
    assert refused.returncode == 4
    assert b" of m.tar is damaged: " in refused.stderr
