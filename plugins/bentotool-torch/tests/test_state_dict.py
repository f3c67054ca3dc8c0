"""State dicts that torch.save wrote: read without an unpickler, or refused."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bentotool_torch import loader
from bentotool_torch.framework import TorchFramework
from bentotool_torch.loader import pickles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.models.api import import_model
from bentotool.testing import source_files

torch = pytest.importorskip("torch")
_DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]


class Canary:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def saved(obj: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def put(tmp_path: Path, content: bytes, name: str = "net.pt") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def rewrite(content: bytes, change: Callable[[str, bytes], bytes | None], compression: int = 0) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target.getvalue()


def read_state_dict(path: Path) -> Any:
    """What a class of data promises: described as data, loaded without trust; else an error."""
    found = TorchFramework().describe(source_files(path))
    try:
        state = loader.load(path)
    except loader.UnsafeModelError as error:
        assert found.safety == "pickle"
        raise UnsafeError(str(error)) from None
    assert (found.format, found.safety) == ("state_dict", "data")
    return state


def net() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Embedding(5, 2))


EXPECTED = net().state_dict()
SAVED = saved(EXPECTED)


@pytest.fixture
def _no_unpickler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a pickle could name, and no unpickler, is there to be called."""
    for name in ("torch.load", "torch._utils._rebuild_tensor_v2", "pickle.Unpickler", "pickle.load", "pickle.loads"):
        monkeypatch.setattr(name, None)


@pytest.mark.usefixtures("_no_unpickler")
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net"])
def test_a_state_dict_is_data(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, SAVED, name)
    stored = import_model(path, "net")
    assert stored.info["safety"] == "data"
    facts = {"tensors": 8, "parameters": 38, "dtypes": ["float32", "int64"]}
    assert stored.info["metadata"] == facts
    loaded = namespace("torch").load_model("net")
    assert loaded.keys() == EXPECTED.keys()
    assert all(torch.equal(loaded[key], EXPECTED[key]) for key in EXPECTED)
    net().load_state_dict(loaded)


@pytest.mark.usefixtures("_no_unpickler")
def test_a_path_is_saved_as_safetensors(tmp_path: Path) -> None:
    stored = namespace("torch").save_model("net", put(tmp_path, SAVED))
    assert (stored.info["safety"], stored.info["main_file"]) == ("data", "model.safetensors")
    loaded = namespace("torch").load_model("net")
    assert all(torch.equal(loaded[key], EXPECTED[key]) for key in EXPECTED)


def _tensors() -> Any:
    """Of any dtype and view: slices, strides, transposed, of one element, of none, conjugated, repeated."""

    def make(dtype: str, view: int) -> Any:
        tensor = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
        return VIEWS[view](tensor)

    return st.builds(make, st.sampled_from(_DTYPES), st.integers(0, len(VIEWS) - 1))


VIEWS: list[Callable[[Any], Any]] = [
    lambda t: t,
    lambda t: t.permute(2, 0, 1),
    lambda t: t[:, 1:, ::2],
    lambda t: t[1, 2, 3],
    lambda t: t[:0],
    lambda t: t.reshape(-1)[5:7],
    lambda t: t.conj(),
    lambda t: t[:, :1].expand(2, 3, 4),
    lambda t: torch.nn.Parameter(t, requires_grad=False),
    lambda t: torch.as_strided(t, (3, 3), (1, 1)),
]
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | _tensors()
_STATES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=_STATES)
def test_what_is_read_is_what_torch_reads(tmp_path: Path, state: Any) -> None:
    path = put(tmp_path, saved({"state": state}))
    try:
        found = read_state_dict(path)
    except UnsafeError:
        return
    _check_alike(found, torch.load(path, weights_only=True))


def _check_alike(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            _check_alike(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert (type(found), len(found)) == (type(expected), len(expected))
        for one, other in zip(found, expected, strict=True):
            _check_alike(one, other)
    else:
        assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("value", [None, torch.eye(2).to_sparse(), torch.ones(1).expand(9)])
def test_what_only_torch_reads_needs_trust(tmp_path: Path, value: Any) -> None:
    """torch's weights_only would do for these, and is no boundary."""
    options = {"_use_new_zipfile_serialization": False} if value is None else {}
    path = put(tmp_path, saved({"a": torch.ones(2), **({} if value is None else {"x": value})}, **options))
    found = TorchFramework().describe(source_files(path))
    assert (found.format, found.safety) == ("state_dict", "pickle")
    with pytest.raises(UnsafeError) as caught:
        import_model(path)
    assert caught.value.exit_status == 6
    assert "torch.load('net.pt', weights_only=True)" in str(caught.value.hint)
    with pytest.raises(loader.UnsafeModelError, match="unpickler"):
        loader.load(path)
    import_model(path, "net", trust=True)
    assert torch.equal(namespace("torch").load_model("net", trust=True)["a"], torch.ones(2))


def test_every_dtype_and_view(tmp_path: Path) -> None:
    state = {dtype: torch.arange(6).to(getattr(torch, dtype)).reshape(2, 3) for dtype in _DTYPES}
    base = torch.arange(12.0).reshape(3, 4)
    state |= {"transposed": base.t(), "row": base[1], "column": base[:, 2], "scalar": torch.tensor(7)}
    state |= {"empty": torch.empty(0, 3), "parameter": torch.nn.Parameter(torch.ones(2))}
    found = read_state_dict(put(tmp_path, saved(state)))
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype, key
        assert found[key].shape == tensor.shape, key
        assert torch.equal(found[key], tensor.detach()), key
    assert found["row"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()
    assert found["row"].data_ptr() == found["transposed"].untyped_storage().data_ptr() + 16
    namespace("torch").save_model("views", found)
    assert torch.equal(namespace("torch").load_model("views")["transposed"], base.t())


def test_a_part_of_a_checkpoint(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {"epoch": 3, "loss": 0.5, "note": "ü", "big": 1 << 70, "state_dict": model.state_dict()}
    path = put(tmp_path, saved({**checkpoint, "optimizer": optimizer.state_dict(), "flags": [True, None, (1, -2)]}))
    assert read_state_dict(path)["flags"] == [True, None, (1, -2)]
    assert read_state_dict(path)["big"] == 1 << 70
    with pytest.raises(UsageError, match="'epoch' of the state dict is an int") as caught:
        namespace("torch").save_model("net", path)
    assert "part='state_dict'" in str(caught.value.hint)
    namespace("torch").save_model("net", path, part="state_dict")
    model.load_state_dict(namespace("torch").load_model("net"))
    with pytest.raises(UsageError, match="no part 'model'"):
        namespace("torch").save_model("net", path, part="model")
    with pytest.raises(NotFoundError):
        namespace("torch").save_model("net", tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Canary(), r"mkdir"),
        (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
        (torch.eye(2).to_sparse(), r"torch\._utils\._rebuild_sparse_tensor|torch\.serialization"),
        (torch.Size([1]), r"torch\.Size"),
        ({(1, 2): 3}, "keys other than text and numbers"),
        ({1}, "builtin(s|__).set|opcode"),
        (torch.ones(1).expand(9), "9 is made from 1 numbers"),
        (torch.tensor([1j, 2j]).conj(), "conjugates or negates"),
        (torch.tensor([1j, 2j]).conj().imag, "conjugates or negates"),
        (torch.ones(2).to(torch.float8_e4m3fn), "keeps its numbers in a torch.storage.UntypedStorage"),
        (torch.ones(2, device="meta"), "_rebuild_meta_tensor"),
    ],
)
def test_more_than_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, saved({"a": torch.ones(2), "x": value}))
    with pytest.raises((UnsafeError, UsageError), match=reason) as caught:
        namespace("torch").save_model("net", path)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "canary").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content, reason in (
        (saved({"a": torch.ones(1)}, _use_new_zipfile_serialization=False), "before PyTorch 1.6"),
        (b"text", "no PyTorch model|no archive of torch.save"),
        (saved({"a": torch.ones(1)})[:-40], "not a valid PyTorch file"),
    ):
        with pytest.raises((UnsafeError, UsageError), match=reason):
            read_state_dict(put(tmp_path, content))


def pickled(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != "data.pkl":
            return data
        assert old in data, data
        return data.replace(old, new)

    return change


SAMPLE = saved(OrderedDict(a=torch.arange(16.0).reshape(4, 4)))
HUGE = b"\x8a\x08" + struct.pack("<q", 1 << 60)
assert b"K\x10" in SAMPLE  # the number of elements; K\x04 K\x04 the shape, K\x04 K\x01 the strides


@pytest.mark.parametrize(
    ("change", "compression", "reason"),
    [
        (pickled(b"K\x10", b"K\x11"), 0, "is not there, is compressed"),
        (pickled(b"K\x10", HUGE), 0, "is not there, is compressed"),
        (pickled(b"K\x04K\x04\x86", b"K\x05K\x04\x86"), 0, "beyond the 16"),
        (pickled(b"K\x04K\x01\x86", b"K\x05K\x01\x86"), 0, "beyond the 16"),
        (pickled(b"K\x04K\x04\x86", HUGE + b"K\x00\x86"), 0, "no valid shape"),
        (pickled(b"K\x04K\x04\x86", b"K\x04J\xff\xff\xff\xff\x86"), 0, "no valid shape"),
        (pickled(b"K\x04K\x01\x86", b"K\x04J\xff\xff\xff\xff\x86"), 0, "no valid shape"),
        (pickled(b"K\x04K\x01\x86", b"K\x01\x85"), 0, "no valid shape"),
        (pickled(b"FloatStorage", b"QInt8Storage"), 0, "keeps its numbers in a torch.QInt8Storage"),
        (pickled(b"storage", b"../../a"), 0, "keeps its numbers"),
        (pickled(b"_rebuild_tensor_v2", b"_rebuild_tensor"), 0, r"uses torch\._utils\._rebuild_tensor"),
        (pickled(b"Rq\rs.", b"q\rs."), 0, "a str where a dict should be"),
        (lambda name, data: None if name == "data/0" else data, 0, "is not there"),
        (lambda name, data: data[:-1] if name == "data/0" else data, 0, "is not there"),
        (lambda name, data: b"big" if name == "byteorder" else data, 0, "big-endian"),
        (lambda _, data: data, zipfile.ZIP_DEFLATED, "is compressed"),
    ],
)
def test_hostile_archives(
    tmp_path: Path, change: Callable[[str, bytes], bytes | None], compression: int, reason: str
) -> None:
    with pytest.raises(BentotoolError, match=reason) as caught:
        read_state_dict(put(tmp_path, rewrite(SAMPLE, change, compression)))
    assert "\n" not in caught.value.message


def test_members_over_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """A directory that names one stretch of the file many times claims more than the file has."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(10_000)}))) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        big = new.getinfo(next(name for name in old.namelist() if name.endswith("data/0")))
        for number in range(1, 100):
            copy = zipfile.ZipInfo(f"{big.filename.rpartition('/')[0]}/{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copy, field, getattr(big, field))
            new.filelist.append(copy)
            new.NameToInfo[copy.filename] = copy
    with pytest.raises(UnsafeError, match="claim more bytes than the file has"):
        read_state_dict(put(tmp_path, target.getvalue()))


def test_a_member_that_is_elsewhere(tmp_path: Path) -> None:
    for value, reason in ((3, "not where the archive says|damaged"), (len(SAMPLE) - 1, "not where|cut short|damaged")):
        content = bytearray(SAMPLE)
        entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
        struct.pack_into("<I", content, entry + 42, value)
        with pytest.raises((BentotoolError, loader.InvalidModelError), match=reason):
            read_state_dict(put(tmp_path, bytes(content)))


def test_nested_sharing_costs_nothing(tmp_path: Path) -> None:
    """Sixty tuples, each of the one before twice: hashed or compared, they would be 2**60 values."""
    program = b"\x80\x02}X\x01\x00\x00\x00a)q\x00" + b"h\x00\x86q\x00" * 60 + b"s."
    content = rewrite(SAMPLE, lambda name, data: program if name == "data.pkl" else data)
    with pytest.raises(UsageError, match="'a' of the state dict is a tuple"):
        namespace("torch").save_model("net", put(tmp_path, content))
    keyed = program.replace(b"}X\x01\x00\x00\x00a)", b"})").replace(b"s.", b"K\x01s.")
    content = rewrite(SAMPLE, lambda name, data: keyed if name == "data.pkl" else data)
    with pytest.raises(UnsafeError, match="keys other than"):
        read_state_dict(put(tmp_path, content))


STATE = saved({"a": torch.arange(6.0), "b": {"c": [1, None, torch.ones(2, 2)]}, "p": torch.nn.Parameter(torch.ones(1))})
with zipfile.ZipFile(io.BytesIO(STATE)) as _archive:
    PROGRAM = _archive.read(next(name for name in _archive.namelist() if name.endswith("data.pkl")))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(PROGRAM) - 1), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, len(PROGRAM) * 2),
)
def test_mutated_programs(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    """What is read is plain, whatever the opcodes say; anything else is an error of one line."""
    program = bytearray(PROGRAM)
    for position, value in changes:
        program[position] = value
    _read(tmp_path, bytes(program[:cut]))


OPCODES = sorted({*pickles._NUMBERS, *pickles._COUNTED} - {ord("c")})
GLOBALS = [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from([*(bytes([code]) + bytes(8) for code in OPCODES), *GLOBALS]), max_size=30))
def test_any_program(tmp_path: Path, parts: list[bytes]) -> None:
    _read(tmp_path, b"\x80\x02" + b"".join(parts) + b".")


def _read(tmp_path: Path, program: bytes) -> None:
    path = put(tmp_path, rewrite(STATE, lambda name, data: program if name == "data.pkl" else data))
    modules = set(sys.modules)
    try:
        found = read_state_dict(path)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most raise, some do not
    else:
        seen: set[int] = set()
        _check_plain(found, seen)
    assert set(sys.modules) == modules


def _check_plain(value: Any, seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    allowed = (dict, list, tuple, str, int, float, type(None), torch.Tensor)
    assert isinstance(value, allowed), type(value)
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_plain(inner, seen)
