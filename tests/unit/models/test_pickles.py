"""Pickles are found by their bytes, and nothing else is taken for one."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.models.pickles import find_pickle

ONNX = Path(__file__).parents[3] / "templates" / "quickstart" / "iris.onnx"


class Canary:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


BARE = pickle.dumps(Canary(), protocol=4)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    **{f"zlib-{level}": lambda data, level=level: zlib.compress(data, level) for level in (0, 1, 6, 9)},  # type: ignore[misc]
}


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    return path


def npy(descr: str, version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    return b"\x93NUMPY" + bytes((version, 0)) + len(header).to_bytes(2 if version == 1 else 4, "little") + header


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("tail", [b"", b"and more", bytes(300_000)])
def test_every_protocol(tmp_path: Path, protocol: int, tail: bytes) -> None:
    assert find_pickle(put(tmp_path, pickle.dumps(Canary(), protocol=protocol) + tail)) == "it is a pickle"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_data_alone_is_a_pickle_too(tmp_path: Path, protocol: int) -> None:
    for thing in ({"a": [1, 2.5, None]}, list(range(50_000)), "x" * 500_000, b"y" * 500_000):
        assert find_pickle(put(tmp_path, pickle.dumps(thing, protocol=protocol))) == "it is a pickle"


def test_code_before_damage(tmp_path: Path) -> None:
    assert find_pickle(put(tmp_path, b"\x80\x04cos\nmkdir\n(Vx\ntR\xff\xff")) == "it is a pickle"


def test_a_text_with_an_odd_escape_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"\x80\x02cos\nmkdir\nS'a\\qb'\n\x85R.")
    assert find_pickle(path)


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed(tmp_path: Path, packer: str) -> None:
    for content in (BARE, BARE[:-1] + bytes(1 << 20)):
        assert find_pickle(put(tmp_path, PACKERS[packer](content))) == "it is a compressed pickle"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (zipped(archive__data_dot_pkl=BARE), "it holds the pickle 'archive/data.pkl'"),
        (zipped(a_dot_npy=npy("'<f4'"), b_dot_npy=npy("'|O'")), "it holds the pickled objects 'b.npy'"),
        (zipped(a_dot_npy=npy("'<f4'")), None),
        (zipped(schema_dot_json=b"{}", file_dot_txt=BARE), None),
        (npy("'|O'") + BARE, "it is an array of pickled objects"),
        (npy("[('a', '<f4'), ('b', 'O')]", 3) + BARE, "it is an array of pickled objects"),
        (npy("'<f4'"), None),
        (npy("[('O', '<f4')]"), "it is an array of pickled objects"),  # rather one too many
        (zipped(archive__data_dot_pkl=BARE)[:-10], None),
    ],
)
def test_containers(tmp_path: Path, content: bytes, found: str | None) -> None:
    assert find_pickle(put(tmp_path, content)) == found


def test_programs_hold_pickles_of_data(tmp_path: Path) -> None:
    script = put(tmp_path, zipped(m__data_dot_pkl=BARE, m__constants_dot_pkl=BARE, m__code__net_dot_py=b""))
    assert find_pickle(script, program=True) is None
    assert find_pickle(script) == "it holds the pickle 'm/data.pkl'"


def test_safetensors_of_any_header(tmp_path: Path) -> None:
    """The length that a header starts with may look like the start of a pickle: 0x280 to 0x580."""
    for length in range(0x100, 0x700, 8):
        header = json.dumps({"__metadata__": {"x": "y"}}).encode().ljust(length)
        assert find_pickle(put(tmp_path, length.to_bytes(8, "little") + header)) is None


@pytest.mark.parametrize(
    "content",
    [
        ONNX.read_bytes(),
        b"GGUF" + (3).to_bytes(4, "little") + bytes(64),
        json.dumps({"learner": {}}).encode(),
        b"[1, 2, 3]",
        b"tree\nversion=v4\n",
        b"CBM1" + bytes(100),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        gzip.compress(b'{"a": 1}'),
        b"cat\ndog\nbird\n",
        b"catboost==1.2\nnumpy\nclick\n",
        b"click\ntyper\nrich.\n",
        b"It is what it is.\n",
        b"}\n",
        b"(see below).",
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x04\x95",
        b"\x80\x02\x00\x01.",
        bytes(4096),
    ],
)
def test_no_false_alarm(tmp_path: Path, content: bytes) -> None:
    assert find_pickle(put(tmp_path, content)) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(
        [b"", b"\x80\x02", b"\x80\x05", b"PK\x03\x04", b"\x93NUMPY", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0"]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_end_in_an_answer(tmp_path: Path, start: bytes, rest: bytes) -> None:
    find_pickle(put(tmp_path, start + rest))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, len(ONNX.read_bytes()) - 1), value=st.integers(0, 255), cut=st.integers(1, len(ONNX.read_bytes()))
)
def test_a_damaged_model_is_no_pickle(tmp_path: Path, at: int, value: int, cut: int) -> None:
    content = bytearray(ONNX.read_bytes())
    content[at] = value
    assert find_pickle(put(tmp_path, bytes(content[:cut]))) is None
