from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bentotool_torch import loader
from bentotool_torch.framework import TorchFramework
from bentotool_torch.loader import archive, pickles, program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import ModelInfo
from bentotool.models.api import import_model
from bentotool.testing import check_framework, check_plugin, check_served, source_files

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]


class Canary:
    """What a hostile pickle does: runs a program of the author's choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


X = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
NET = net()
EXPECTED = NET(X)


def script() -> Any:
    return torch.jit.trace(NET, X)


def exported() -> Any:
    return torch.export.export(NET, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def saved(obj: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def exported_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(exported(), buffer)
    return buffer.getvalue()


def script_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(script(), buffer)
    return buffer.getvalue()


def rewrite(content: bytes, changes: dict[str, bytes | Callable[[bytes], bytes]]) -> bytes:
    """An archive with other or further members; names are those inside its root folder."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        left = dict(changes)
        for name in old.namelist():
            change = left.pop(name.partition("/")[2], None)
            data = old.read(name)
            new.writestr(name, change(data) if callable(change) else change if change is not None else data)
        for name, change in left.items():
            assert isinstance(change, bytes)
            new.writestr(f"{root}/{name}", change)
    return target.getvalue()


def put(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def describe(path: Path) -> ModelInfo:
    framework = TorchFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_plugin() -> None:
    check_plugin("torch")


@pytest.mark.timeout(180)
def test_contract(tmp_path: Path) -> None:
    samples = [
        put(tmp_path, "script.pt", script_bytes()),
        put(tmp_path, "program.pt2", exported_bytes()),
        put(tmp_path, "state.pth", saved(NET.state_dict())),
        put(tmp_path, "module.pt", saved(NET)),
    ]
    TorchFramework().save(NET, tmp_path)
    (tmp_path / "scratch").mkdir()
    infos = check_framework("torch", [tmp_path / "model.safetensors", *samples], scratch=tmp_path / "scratch")
    assert [info.safety for info in infos] == ["data", "program", "program", "data", "pickle"]
    assert [info.format for info in infos] == ["safetensors", "torchscript", "pt2", "state_dict", "pickle"]
    assert infos[0].metadata == {"tensors": 4, "parameters": 23, "dtypes": ["float32"]}


@pytest.mark.parametrize(
    ("make", "safety"),
    [(lambda: NET.state_dict(), "data"), (lambda: NET, "data"), (script, "program"), (exported, "program")],
)
def test_save_load_and_run(make: Callable[[], Any], safety: str) -> None:
    stored = namespace("torch").save_model("net", make())
    assert stored.info["safety"] == safety
    loaded = namespace("torch").load_model("net:latest")
    if safety == "data":
        other = net()
        other.load_state_dict(loaded)
        loaded = other
    elif hasattr(loaded, "module"):
        loaded = loaded.module()
    assert torch.equal(loaded(X), EXPECTED)


def test_tied_weights_are_saved() -> None:
    weight = torch.ones(3, 2)
    namespace("torch").save_model("tied", {"a": weight, "b": weight, "c": weight.t(), "d": weight[1:]})
    loaded = namespace("torch").load_model("tied")
    assert torch.equal(loaded["b"], weight)
    assert loaded["c"].shape == (2, 3)
    assert loaded["d"].shape == (2, 2)


@pytest.mark.parametrize("thing", [3, {}, {"epoch": 3}, {1: torch.ones(1)}, torch.ones(1)])
def test_only_models_are_saved(tmp_path: Path, thing: object) -> None:
    with pytest.raises(UsageError):
        TorchFramework().save(thing, tmp_path)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_pickles_are_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, "net.pt", saved({"a": torch.ones(2), "evil": Canary()}, **options))
    found = describe(path)
    assert (found.format, found.safety) == ("pickle", "pickle")
    assert any("mkdir" in reason or "opcode" in reason for reason in found.metadata["needs_trust"])
    with pytest.raises(UnsafeError, match="is a pickle") as caught:
        import_model(path)
    assert caught.value.exit_status == 6
    with pytest.raises(loader.UnsafeModelError):
        loader.load(path)
    assert not (tmp_path / "canary").exists()
    import_model(path, "evil", trust=True)  # importing runs nothing either
    assert not (tmp_path / "canary").exists()
    loader.load(path, trust=True)
    assert (tmp_path / "canary").exists()


def test_a_canary_in_plain_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        path = put(tmp_path, "net.pt", pickle.dumps(Canary(), protocol))
        with pytest.raises(BentotoolError):
            import_model(path)
        with pytest.raises(ValueError, match="not a file of PyTorch"):
            loader.load(path, trust=True)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("member", ["data.pkl", "constants.pkl"])
def test_a_canary_in_torchscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    """Class program rests on this: torch.jit reads its pickles with an unpickler of its own, which makes data only."""
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, "net.pt", rewrite(script_bytes(), {member: pickle.dumps(Canary(), 2)}))
    assert describe(path).safety == "program"
    with pytest.raises(RuntimeError):
        loader.load(path, trust=True)
    assert not (tmp_path / "canary").exists()


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data, data
        return data.replace(old.encode(), new.encode())

    return change


CANARY = saved({"x": Canary()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data/sample_inputs/model.pt": CANARY}, f"data/sample_inputs/model.pt: it uses {os.mkdir.__module__}.mkdir"),
        ({"data/sample_inputs/model.pt": pickle.dumps(Canary())}, "it is a pickle"),
        ({"data/constants/opaque_obj_0": b""}, "opaque_obj_0 is a pickle"),
        ({"data/aotinductor/model/x.so": b""}, "x.so is code"),
        (
            {"data/weights/model_weights_config.json": replaced('"use_pickle": false', '"use_pickle": true')},
            "keeps 'weight_0' as a pickle",
        ),
        ({"models/model.json": replaced("torch.ops.aten.relu.default", "torch.os.system")}, "calls torch.os.system"),
        ({"models/model.json": replaced("torch.ops.aten.relu.default", "_operator.call")}, "calls _operator.call"),
        ({"models/model.json": replaced("Symbol('s31'", "exec('1'")}, "it evaluates"),
        ({"models/model.json": replaced("builtins.tuple", "os.path")}, "it imports os.path"),
    ],
)
def test_an_exported_program_that_is_more_than_a_program(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    content = exported_bytes()
    if b"Symbol('s31'" not in content:  # the number of the symbol is torch's choice
        import re

        symbol = re.search(rb"Symbol\('(\w+)'", content)
        assert symbol
        content = rewrite(content, {"models/model.json": replaced(symbol[1].decode(), "s31")})
    path = put(tmp_path, "net.pt2", rewrite(content, changes))
    found = describe(path)
    assert found.safety == "pickle"
    assert any(reason in text for text in found.metadata["needs_trust"]), found.metadata
    with pytest.raises(loader.UnsafeModelError):
        loader.load(path)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("2*s0 + 1", True),
        ("Max(1, s31//2)", True),
        ("Symbol('s31', positive=True, integer=True)", True),
        ("Mod(u0, 8)**2", True),
        ("__import__('os')", False),
        ("s0.func", False),
        ("(preview)(1)", False),
        ("9**9**9", False),
        ("9**99999999", False),
        ("lambdify(s0, s0)", False),
        ("Symbol('s0').x", False),
        ("[s0]", False),
    ],
)
def test_expressions(text: str, fine: bool) -> None:
    assert program._is_arithmetic(text) is fine


def test_damaged_archives(tmp_path: Path) -> None:
    good = saved(NET.state_dict())
    twice = io.BytesIO(good)
    with zipfile.ZipFile(twice, "a") as old, pytest.warns(UserWarning, match="Duplicate"):
        old.writestr(old.namelist()[0], b"")
    for content, expected in (
        (b"", "no archive of torch.save"),
        (good[:-30], "the archive has no directory"),
        (twice.getvalue(), "members of the same name"),
        (rewrite(good, {"data.pkl": lambda data: data[:-5]}), "cut short"),
        (rewrite(good, {"data.pkl": b"cos\n" + b"x" * 2000}), "a global without an end"),
        (rewrite(exported_bytes(), {"models/model.json": b"[" * 200_000}), "is not JSON"),
        (archive.LEGACY, "cut short"),
    ):
        with pytest.raises(UsageError, match=expected) as caught:
            describe(put(tmp_path, "net.pt", content))
        assert caught.value.message.startswith("net.pt is not a valid PyTorch file: ")


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (12, "<I", 0x7FFF_FFFF, "claims a directory of 2147483647 bytes"),  # of the end record: bytes of the directory
        (12, "<I", 0xFFFF_FFFF, "the archive has no directory"),  # in a record of 64 bits, which is not there
        (16, "<I", 0x7FFF_FFFF, "is damaged"),  # where the directory lies
    ],
)
def test_a_directory_that_claims_too_much(tmp_path: Path, offset: int, form: str, value: int, reason: str) -> None:
    content = bytearray(rewrite(saved(NET.state_dict()), {}))
    struct.pack_into(form, content, content.rindex(b"PK\x05\x06") + offset, value)
    with pytest.raises(UsageError, match=reason):
        describe(put(tmp_path, "net.pt", bytes(content)))


def test_a_large_directory_of_64_bits_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved(NET.state_dict()))
    at = content.rindex(b"PK\x05\x06")
    wide = struct.pack("<IQHHIIQQQQ", 0x0606_4B50, 44, 45, 45, 0, 0, 5, 5, 1 << 62, 0)
    struct.pack_into("<I", content, at + 12, 0xFFFF_FFFF)
    content[at:at] = wide + struct.pack("<IIQI", 0x0706_4B50, 0, at, 1)
    with pytest.raises(UsageError, match=f"claims a directory of {1 << 62} bytes"):
        describe(put(tmp_path, "net.pt", bytes(content)))


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (8, "<H", 1, "is encrypted"),
        (10, "<H", 99, "damaged"),  # a compression that nobody knows
        (24, "<I", 0x7FFF_FFFF, "has two sizes"),  # bytes of the member
        (42, "<I", 0x7FFF_FFFF, "damaged"),  # where it lies
        (28, "<H", 0xFFFF, "damaged"),  # bytes of its name
    ],
)
def test_a_member_that_lies(tmp_path: Path, offset: int, form: str, value: int, reason: str) -> None:
    content = bytearray(saved(NET.state_dict()))
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + offset, value)  # the first: data.pkl
    with pytest.raises(UsageError, match=reason) as caught:
        describe(put(tmp_path, "net.pt", bytes(content)))
    assert "\n" not in caught.value.message


def test_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    with pytest.raises(UsageError, match="more than 5 members"):
        describe(put(tmp_path, "net.pt", saved(NET.state_dict())))


def test_a_large_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_READ", 1000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("x/data.pkl", b"N" * (1 << 20))
    with pytest.raises(UsageError, match="larger than 1000 bytes"):
        describe(put(tmp_path, "net.pt", bomb.getvalue()))


def test_what_is_not_ours(tmp_path: Path) -> None:
    framework = TorchFramework()
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as new:
        new.writestr("readme", b"")
    assert framework.detect(source_files(put(tmp_path, "some.zip", plain.getvalue()))) is None
    folder = tmp_path / "bert"
    folder.mkdir()
    TorchFramework().save(NET, folder)
    assert framework.detect(source_files(folder)) is not None
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    assert framework.detect(source_files(folder)) is None
    assert import_model(folder).info["framework"] == "huggingface"


SAMPLES = (saved(NET.state_dict()), exported_bytes(), saved(NET.state_dict(), _use_new_zipfile_serialization=False))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sample=st.sampled_from(SAMPLES))
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any, sample: bytes) -> None:
    content = bytearray(sample)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content) * 2))
    path = put(tmp_path, "fuzz.pt", bytes(content[:cut]))
    try:
        describe(path)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), tail=st.binary(max_size=20))
def test_any_bytes_as_a_pickle(content: bytes, tail: bytes) -> None:
    try:
        pickles.scan_pickle(content + b"cos\nsystem\n" + tail)
    except loader.InvalidModelError:
        pass


def test_looking_at_a_model_imports_no_torch(tmp_path: Path) -> None:
    path = put(tmp_path, "net.pt", saved(NET.state_dict()))
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins(), trust=True)
assert not {"torch", "numpy", "pickle", "safetensors"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


def test_a_script_is_served_with_no_code(tmp_path: Path) -> None:
    script().save(tmp_path / "net.pt")
    import_model(tmp_path / "net.pt", "net")
    found = check_served("net", {"input": X.numpy()})["output"]
    assert torch.allclose(torch.tensor(found), EXPECTED, atol=1e-6)


def test_weights_alone_are_not_served(tmp_path: Path) -> None:
    torch.save(NET.state_dict(), tmp_path / "weights.pt")
    import_model(tmp_path / "weights.pt", "weights")
    with pytest.raises(UsageError, match="cannot be served without code: only TorchScript says what it takes"):
        check_served("weights", {"input": X.numpy()})
