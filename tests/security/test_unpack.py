"""Hostile archives (class 2): refused or harmless, and nothing outside the folder ever changes."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, VerificationError
from bentotool.oci.gzip import Gunzipped
from bentotool.oci.unpack import MAX_ENTRIES, FileSink, TarSink, Unpacker

END = bytes(1024)


def header(
    name: bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    link: bytes = b"",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    mode: bytes = b"0000644\0",
    broken: bool = False,
) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:124] = mode, b"0000000\x000000000\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[136:148], block[148:156], block[156:157] = b"00000000000\0", b" " * 8, kind
    block[157 : 157 + len(link)] = link
    block[257 : 257 + len(magic)] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % ((sum(block) + broken) & 0o777777)
    return bytes(block)


def entry(name: bytes, data: bytes = b"x", kind: bytes = b"0", **fields: object) -> bytes:
    return header(name, len(data), kind, **fields) + data + bytes(-len(data) % 512)  # type: ignore[arg-type]


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    data = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return entry(b"PaxHeader", data, kind)


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    return header(name, 0, kind, target)


FILE = entry(b"ok.bin")
NAMES = {
    "parent": b"../canary", "two up": b"a/../../canary", "dot parent": b"./../canary", "absolute": b"/tmp/canary",
    "many slashes": b"//tmp/canary", "drive": b"C:\\canary", "drive without slash": b"C:canary",
    "drive, forward": b"C:/canary", "unc": b"\\\\host\\share\\canary", "backslash parent": b"..\\canary",
    "inner backslash": b"a\\..\\..\\canary", "empty": b"", "dot": b".", "dot slash": b"./", "inner dot": b"a/./b",
    "empty part": b"a//b", "trailing slash": b"a/", "newline": b"a\nb", "escape": b"a\x1b[2Jb", "delete": b"a\x7f",
    "not utf-8": b"\xff\xfe", "overlong utf-8": b"\xc0\xae\xc0\xae/canary", "line separator": "a\u2028b".encode(),
    "nfd": "e\u0301".encode(), "whiteout": b".wh.canary", "opaque": b"a/.wh..wh..opq", "device of windows": b"con",
    "device with suffix": b"aux.txt", "stream": b"a:b", "trailing dot": b"a.", "trailing space": b"a ",
    "wildcard": b"a*b", "tilde parent": b"~/../canary", "dots alone": b"..",
}  # fmt: skip
ARCHIVES = {
    **{f"name: {what}": entry(name) for what, name in NAMES.items()},
    **{f"folder: {what}": header(NAMES[what], 0, b"5") for what in ("parent", "dot parent", "absolute", "drive")},
    "prefix out": entry(b"canary", prefix=b".."),
    "prefix absolute": entry(b"canary", prefix=b"/tmp"),
    "link out": link(b"out", b".."),
    "link out, then a file through it": link(b"out", b"..") + entry(b"out/canary"),
    "file, then a link of its name": entry(b"out") + link(b"out", b".."),
    "chain of links": link(b"a", b"b") + link(b"b", b"..") + entry(b"a/canary"),
    "link to an absolute name": link(b"out", b"/etc/passwd"),
    "link inside": FILE + link(b"also.bin", b"ok.bin"),
    "hard link out": link(b"out", b"../canary", b"1"),
    "hard link, absolute": link(b"out", b"/etc/passwd", b"1"),
    "hard link, relative to here": link(b"out", b"pyproject.toml", b"1"),
    "character device": header(b"null", 0, b"3"),
    "block device": header(b"sda", 0, b"4"),
    "fifo": header(b"pipe", 0, b"6"),
    "contiguous file": entry(b"c", kind=b"7"),
    "unknown type": entry(b"u", kind=b"Z"),
    "gnu sparse": header(b"s", 0, b"S", magic=b"ustar  \0"),
    "gnu folder listing": header(b"d", 0, b"D", magic=b"ustar  \0"),
    "gnu volume": header(b"v", 0, b"V", magic=b"ustar  \0"),
    "gnu multi-volume": header(b"m", 0, b"M", magic=b"ustar  \0"),
    "gnu long name out": entry(b"././@LongLink", b"../" * 60 + b"canary\0", b"L") + FILE,
    "gnu long name with nul": entry(b"././@LongLink", b"a\0b\0", b"L") + FILE,
    "gnu long link": entry(b"././@LongLink", b"../canary\0", b"K") + link(b"l", b"x"),
    "pax path out": pax(("path", "../canary")) + FILE,
    "pax path absolute": pax(("path", "/tmp/canary")) + FILE,
    "pax path with nul": pax(("path", "a\0../canary")) + FILE,
    "pax linkpath": pax(("linkpath", "../canary")) + FILE,
    "pax sparse": pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "../canary")) + FILE,
    "pax real size": pax(("SCHILY.realsize", "99999999")) + FILE,
    "pax charset": pax(("hdrcharset", "ISO-IR 8859 1 1998")) + FILE,
    "pax path twice": pax(("path", "a"), ("path", "../canary")) + FILE,
    "two pax headers": pax(("path", "a")) + pax(("path", "../canary")) + FILE,
    "pax and long name": pax(("path", "a")) + entry(b"././@LongLink", b"../canary\0", b"L") + FILE,
    "global pax path": pax(("path", "../canary"), kind=b"g") + FILE,
    "pax size negative": pax(("size", "-1")) + FILE,
    "pax size huge": pax(("size", "9" * 30)) + FILE,
    "pax length lies": entry(b"PaxHeader", b"99 path=../canary\n", b"x") + FILE,
    "pax length zero": entry(b"PaxHeader", b"0 path=a\n", b"x") + FILE,
    "pax without newline": entry(b"PaxHeader", b"9 path=ab", b"x") + FILE,
    "pax oversized": header(b"PaxHeader", 1 << 30, b"x"),
    "pax alone": pax(("path", "a")),
    "duplicate": FILE + FILE,
    "case-fold clash": entry(b"A.bin") + entry(b"a.bin"),
    "unicode case-fold clash": entry("Straße".encode()) + entry(b"STRASSE"),
    "file and folder": entry(b"a") + entry(b"a/b"),
    "folder and file": entry(b"a/b") + entry(b"a"),
    "folder entry over a file": entry(b"a") + header(b"A/", 0, b"5"),
    "folder with content": entry(b"d/", b"x", b"5"),
    "negative size": header(b"n", b"\xff" * 12),
    "size beyond the disk": header(b"n", b"\x80" + b"\x7f" * 11),
    "size not octal": header(b"n", b"9999999999\0\0"),
    "size beyond the archive": header(b"n", 5000) + b"x" * 512,
    "wrong checksum": header(b"a", broken=True),
    "unknown magic": header(b"a", magic=b"tarust\x0000"),
    "not a tar": b"PK\x03\x04" + bytes(2000),
    "one zero block, then more": FILE + bytes(512) + FILE,
    "something after the end": FILE + END + b"more" + bytes(508),
}  # fmt: skip
UNENDED = {"nothing": b"", "no end": FILE, "half an end": FILE + bytes(512), "half a header": FILE + header(b"a")[:100]}
HARMLESS = {
    "setuid": (entry(b"s", mode=b"0004755\0"), {"s": b"x"}),
    "dot slash": (header(b"./", 0, b"5") + entry(b"./a/b"), {"a/b": b"x"}),
    "folders again": (header(b"d/", 0, b"5") * 2 + entry(b"d/f"), {"d/f": b"x"}),
    "old v7": (entry(b"a", kind=b"\0", magic=b""), {"a": b"x"}),
    "gnu long name": (entry(b"././@LongLink", b"n" * 150 + b"\0", b"L") + entry(b"n" * 100), {"n" * 150: b"x"}),
    "pax path": (pax(("path", "é" * 80), ("mtime", "1.5")) + FILE, {"é" * 80: b"x"}),
    "pax of macos": (pax(("LIBARCHIVE.xattr.com.apple.provenance", "AQ==")) + FILE, {"ok.bin": b"x"}),
    "global comment": (pax(("comment", "0" * 40), kind=b"g") + FILE, {"ok.bin": b"x"}),
    "sibling prefix": (entry(b"files-evil/a"), {"files-evil/a": b"x"}),
    "padded": (FILE + bytes(9 << 10), {"ok.bin": b"x"}),
    "empty file": (entry(b"e", b""), {"e": b""}),
    "prefix": (entry(b"b", prefix=b"a"), {"a/b": b"x"}),
    "gnu size": (header(b"g", b"\x80" + bytes(10) + b"\x01") + b"x" + bytes(511), {"g": b"x"}),
}


class Place:
    """A folder to unpack into, among things that must not change."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "in" / "files"
        self.root.parent.mkdir()
        for name in ("canary", "in/canary", "in/files-evil"):
            (home / name).write_bytes(b"alive")
        self._before = self._outside()

    def _outside(self) -> dict[str, tuple[int, bytes]]:
        found = {}
        for path in self.home.rglob("*"):
            if path != self.root and not path.is_relative_to(self.root):
                found[str(path)] = (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        return found

    def unpack(self, data: bytes, step: int = 0, **limits: int) -> dict[str, bytes]:
        """Feed an archive in pieces of ``step`` bytes; returns the files."""
        try:
            unpacker = Unpacker(self.root, **{"max_bytes": 1 << 20, **limits})
            sink = TarSink(unpacker)
            for start in range(0, len(data), step or len(data) or 1):
                sink.write(data[start : start + (step or len(data))])
            sink.finish()
        finally:
            self.check()
        return {name: (self.root / name).read_bytes() for name in unpacker.names}

    def check(self) -> None:
        assert self._outside() == self._before
        for path in self.root.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path.lstat().st_nlink == 1)
            assert not mode & (stat.S_ISUID | stat.S_ISGID)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("step", [0, 100])
@pytest.mark.parametrize("what", ARCHIVES)
def test_hostile_archives_are_refused(place: Place, what: str, step: int) -> None:
    with pytest.raises((UnsafeError, VerificationError)) as caught:
        place.unpack(ARCHIVES[what] + END, step)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("what", UNENDED)
def test_archives_that_end_early_are_refused(place: Place, what: str) -> None:
    with pytest.raises(VerificationError, match="ends early"):
        place.unpack(UNENDED[what])


@pytest.mark.parametrize("step", [0, 1, 513])
@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_archives_are_unpacked(place: Place, what: str, step: int) -> None:
    data, files = HARMLESS[what]
    assert place.unpack(data + END, step) == files


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_other_programs_write_is_unpacked(place: Place, form: int) -> None:
    files = {"a.bin": b"a" * 3000, f"{'d' * 90}/{'e' * 90}/f.bin": b"", "x/y.bin": b"y" * 512}
    if form != tarfile.USTAR_FORMAT:
        files |= {f"{'long' * 40}.bin": b"l", "ünï/cödé.bin": b"u"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1.5, "ada"  # type: ignore[assignment]
            tar.addfile(info, io.BytesIO(data))
    assert place.unpack(buffer.getvalue(), 700) == files


def test_a_folder_that_is_there_already_is_not_used(place: Place) -> None:
    place.root.mkdir()
    with pytest.raises(BentotoolError):
        Unpacker(place.root, max_bytes=1)


def test_a_link_in_the_place_of_the_folder_is_not_followed(place: Place) -> None:
    try:
        place.root.symlink_to(place.home / "in", target_is_directory=True)
    except OSError:
        pytest.skip("links need a right on this platform")
    with pytest.raises(BentotoolError):
        Unpacker(place.root, max_bytes=1)


def test_a_link_planted_meanwhile_is_not_followed(place: Place) -> None:
    unpacker = Unpacker(place.root, max_bytes=100)
    try:
        (place.root / "planted").symlink_to(place.home / "canary")
    except OSError:
        pytest.skip("links need a right on this platform")
    with pytest.raises(BentotoolError):
        unpacker.create("planted", 1)
    assert (place.home / "canary").read_bytes() == b"alive"


def test_too_many_bytes(place: Place) -> None:
    with pytest.raises(UnsafeError, match="more than 1000 bytes") as caught:
        place.unpack(entry(b"a", b"a" * 600) + entry(b"b", b"b" * 600) + END, max_bytes=1000)
    assert "--max-size" in str(caught.value.hint)
    assert not (place.root / "b").exists()


def test_too_many_entries(place: Place) -> None:
    sink = TarSink(Unpacker(place.root, max_bytes=1))
    for number in range(MAX_ENTRIES):
        sink.write(header(b"d%d" % number, 0, b"5"))
    with pytest.raises(UnsafeError, match="entries"):
        sink.write(header(b"one more", 0, b"5"))
    place.check()


def test_layers_cannot_overwrite_one_another(place: Place) -> None:
    unpacker = Unpacker(place.root, max_bytes=1000)
    FileSink(unpacker, "a/b", 0).finish()
    for name in ("a/b", "A/B", "a", "a/b/c"):
        with pytest.raises(UnsafeError):
            FileSink(unpacker, name, 0)
        with pytest.raises(UnsafeError):
            TarSink(unpacker).write(entry(name.encode()) + END)


def test_a_file_has_the_bytes_stated(place: Place) -> None:
    unpacker = Unpacker(place.root, max_bytes=1000)
    short, long, open_ended = FileSink(unpacker, "s", 5), FileSink(unpacker, "l", 5), FileSink(unpacker, "o", None)
    short.write(b"1234")
    open_ended.write(b"x" * 900)
    with closing(short), closing(long), closing(open_ended):
        with pytest.raises(VerificationError, match="4 bytes, not the 5"):
            short.finish()
        with pytest.raises(VerificationError, match="longer than"):
            long.write(b"123456")
        with pytest.raises(UnsafeError, match="more than 1000"):
            open_ended.write(b"x" * 900)


def test_threads_share_one_folder(place: Place) -> None:
    unpacker, failures = Unpacker(place.root, max_bytes=1 << 20), []

    def work(number: int) -> None:
        try:
            sink = TarSink(unpacker)
            sink.write(b"".join(entry(b"shared/%d-%d" % (number, n)) for n in range(50)) + entry(b"same") + END)
        except UnsafeError:
            failures.append(number)
        finally:
            sink.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(failures) == 3
    assert len(unpacker.names) == 201


VALID = b"".join(data for data, _ in list(HARMLESS.values())[:8]) + END


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=3000), st.integers(0, len(VALID)), st.integers(1, 2000))
def test_any_bytes_are_refused_or_unpacked(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, step: int
) -> None:
    data = VALID[:at] + noise + VALID[at + len(noise) :]
    place = Place(tmp_path_factory.mktemp("fuzz"))
    with suppress(UnsafeError, VerificationError):
        place.unpack(data, step)


def gunzip(packed: bytes, limit: int = 1 << 30) -> bytes:
    """The content, or for a large one just its end."""
    data = b""
    with Gunzipped(io.BytesIO(packed), "it", limit) as stream:
        while piece := stream.read(1 << 20):
            data = piece if len(data) > 1 << 20 else data + piece
    return data


def test_gzip_is_read_to_its_end() -> None:
    data = os.urandom(5000) + bytes(200_000)
    packed = gzip.compress(data[:3000]) + gzip.compress(data[3000:])
    assert gunzip(packed) == data
    for cut in (0, 1, 8, 30, len(packed) // 2, len(packed) - 1):
        with pytest.raises(VerificationError, match="not sound gzip"):
            gunzip(packed[:cut])
    for bad in (packed + b"more", packed[:-4] + b"\0\0\0\1", packed[:12] + b"\xff" * 20 + packed[32:]):
        with pytest.raises(VerificationError, match="not sound gzip"):
            gunzip(bad)


def test_gzip_bombs_stop_early() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    with pytest.raises(UnsafeError, match="times its size"):
        gunzip(bomb)
    with pytest.raises(UnsafeError, match="more than 10485760 bytes"):
        gunzip(bomb, 10 << 20)
