"""Receiving a layer over several tries."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from bentotool.errors import RemoteError, VerificationError
from bentotool.oci import sink as sinks
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layers import FILES_ANNOTATION, LayerFile
from bentotool.oci.layout import Layout
from bentotool.oci.tar import BLOCK, TRAILER, tar_header

BIG = 3 << 20
FILES = {"models/m/a.txt": b"a" * 700, "models/m/b.bin": random.Random(1).randbytes(BIG), "models/m/c": b"", "d": b"d"}


@pytest.fixture(autouse=True)
def smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_RESUMABLE", 1 << 20)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def virtual() -> tuple[Descriptor, bytes]:
    data, listing = b"", []
    for name, content in FILES.items():
        file = LayerFile(name, len(content), hashlib.sha256(content).hexdigest())
        data += tar_header(file.entry) + content + bytes(-len(content) % BLOCK)
        listing.append({"path": name, "size": file.size, "sha256": file.sha256})
    data += TRAILER
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor("application/x.tar", digest, len(data), {FILES_ANNOTATION: json.dumps(listing)}), data


def plain() -> tuple[Descriptor, bytes]:
    data = FILES["models/m/b.bin"]
    return Descriptor("application/x", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)), data


def break_off(layout: Layout, descriptor: Descriptor, data: bytes, *, resume: bool = True) -> None:
    def receive() -> None:
        with layout.layer_sink(descriptor) as sink:
            start = sink.resume() if resume else 0
            sink.write(data[start:])
            raise RemoteError("the connection broke")

    with pytest.raises(RemoteError):
        receive()


def go_on(layout: Layout, descriptor: Descriptor, data: bytes) -> int:
    with layout.layer_sink(descriptor) as sink:
        start = sink.resume()
        for position in range(start, len(data), 100_000):
            sink.write(data[position : position + 100_000])
        sink.commit()
    assert layout.has_layer(descriptor)
    assert list(layout.temporary().iterdir()) == []
    return start


@pytest.mark.parametrize("made", [virtual, plain])
@pytest.mark.parametrize("cut", [2 << 20, (2 << 20) + 1, BIG])
def test_a_broken_transfer_goes_on_where_it_stopped(layout: Layout, made: object, cut: int) -> None:
    descriptor, data = made()  # type: ignore[operator]
    break_off(layout, descriptor, data[:cut])
    assert go_on(layout, descriptor, data) >= cut


def test_it_goes_on_from_any_byte(tmp_path: Path) -> None:
    descriptor, data = virtual()
    chance = random.Random(2)
    cuts = [0, 511, 512, 513, 1536, len(data) - 1, *(chance.randrange(len(data)) for _ in range(20))]
    for number, cut in enumerate(cuts):
        layout = Layout(tmp_path / str(number))
        break_off(layout, descriptor, data[:cut])
        second = chance.randrange(cut, len(data))
        break_off(layout, descriptor, data[:second])
        assert go_on(layout, descriptor, data) <= len(data)


def test_little_is_not_worth_keeping(layout: Layout) -> None:
    descriptor, data = plain()
    break_off(layout, descriptor, data[:1000])
    assert list(layout.temporary().iterdir()) == []


def test_without_resume_nothing_is_kept(layout: Layout) -> None:
    descriptor, data = plain()
    break_off(layout, descriptor, data[: 2 << 20], resume=False)
    assert list(layout.temporary().iterdir()) == []


@pytest.mark.parametrize("made", [virtual, plain])
def test_a_part_that_was_written_to_is_found_out_and_dropped(layout: Layout, made: object) -> None:
    descriptor, data = made()  # type: ignore[operator]
    break_off(layout, descriptor, data[: 2 << 20])
    (part,) = layout.temporary().glob("part-*")
    with part.open("r+b") as file:
        file.seek(1000)
        file.write(b"oops")
    with pytest.raises(VerificationError):
        go_on(layout, descriptor, data)
    assert list(layout.temporary().iterdir()) == []
    assert go_on(layout, descriptor, data) <= 2048  # what was right of it: a small file before


def test_a_part_longer_than_the_blob_is_dropped(layout: Layout) -> None:
    descriptor, data = plain()
    break_off(layout, descriptor, data[: 2 << 20])
    (part,) = layout.temporary().glob("part-*")
    with part.open("ab") as file:
        file.write(bytes(BIG))
    assert go_on(layout, descriptor, data) == 0


def test_files_that_are_here_are_not_asked_for(layout: Layout) -> None:
    descriptor, data = virtual()
    content = FILES["models/m/b.bin"]
    layout.put(FILES["models/m/a.txt"], "application/x")
    layout.put(content, "application/x")
    assert go_on(layout, descriptor, data) > len(content)
