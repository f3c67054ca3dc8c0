"""Bodies of every kind through the whole application: files, forms, tensors, what is wrong with them, hostile ones."""

from __future__ import annotations

import dataclasses
import json
import struct
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bentotool
from bentotool.sdk.tensors import MEDIA_TYPE, decode_tensors, encode_tensors, tensor_of
from bentotool.testing import TestClient
from bentotool.validators import ContentType, DType, Shape

NPY = "application/x-npy"
seen: list[Path] = []


@dataclasses.dataclass
class Photo:
    file: Path
    caption: str = "none"


@bentotool.service(http={"max_body_bytes": 2_000_000})
class Bodies:
    @bentotool.api
    def size(self, f: Path, n: int = 1) -> dict[str, Any]:
        seen.append(f)
        return {"size": f.stat().st_size * n, "suffix": f.suffix, "name": f.name}

    @bentotool.api
    def sizes(self, fs: list[Path]) -> list[int]:
        return [f.stat().st_size for f in fs]

    @bentotool.api
    def maybe(self, f: Path | None = None) -> int | None:
        return None if f is None else f.stat().st_size

    @bentotool.api
    def whole(self, f: Path, /) -> str:
        return f.read_text()

    @bentotool.api
    def text_only(self, f: Annotated[Path, ContentType("text/*")]) -> int:
        return f.stat().st_size

    @bentotool.api
    def photo(self, photo: Photo) -> str:
        return photo.caption + photo.file.read_text()

    @bentotool.api
    def reverse(self, b: bytes) -> bytes:
        return b[::-1]

    @bentotool.api
    def make(self, ctx: bentotool.Context) -> Path:
        path = Path(ctx.temp_dir) / "a b.txt"
        path.write_text("made")
        return path

    @bentotool.api
    def gone(self) -> Path:
        return Path("nowhere.txt")

    @bentotool.api
    def double(self, x: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return x * 2

    @bentotool.api
    def scale(self, x: Annotated[np.ndarray, Shape((-1, 2))], k: float, names: list[str]) -> dict[str, Any]:
        return {"y": x * k, "names": names, "deep": [{"z": x}]}

    @bentotool.api
    def echo(self, x: Any) -> Any:
        return x

    @bentotool.api
    def odd(self, kind: str) -> Any:
        return {"array": np.array([np.nan, np.inf, 1]), "scalar": np.float32("nan"), "float": float("-inf")}[kind]


@pytest.fixture(scope="module")
def client():
    with TestClient(Bodies) as client:
        yield client


def leftovers() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("bentotool-request-*"))


@pytest.fixture
def no_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert leftovers() == set()


def form(*parts: bytes, boundary: bytes = b"xyz") -> tuple[bytes, dict[str, str]]:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    return body, {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}


def part(name: str, content: bytes, filename: str | None = None, more: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'Content-Disposition: form-data; name="{name}"{file}\r\n{more}\r\n'.encode() + content


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leftovers")
def test_files_come_by_form_by_body_and_inside_json(client):
    assert client.post("/size", files={"f": ("a.txt", b"abc")}, json={"n": 2}).json()["size"] == 6
    assert client.post("/size", content=b"raw", headers={"content-type": "text/csv"}).json()["size"] == 3
    assert client.post("/size", json={"f": "data:text/plain;base64,YWJj"}).json()["size"] == 3
    assert client.post("/sizes", files={"fs": [("a", b"a"), ("b", b"bb")]}).json() == [1, 2]
    assert client.post("/sizes", files={"fs": [("a", b"a")]}).json() == [1]
    assert client.post("/maybe", json={}).json() is None
    assert client.post("/maybe", json={"f": None}).json() is None
    assert client.post("/whole", content=b'{"a":1}', headers={"content-type": "application/json"}).text == '{"a":1}'
    assert client.post("/photo", files={"photo.file": ("a.txt", b"!")}, json={"photo": {"caption": "c"}}).text == "c!"
    assert client.post("/photo", files={"photo.file": ("a.txt", b"!")}).text == "none!"
    assert client.post("/reverse", content=b"xyz", headers={"content-type": "image/png"}).content == b"zyx"


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize(
    "name", ["../../etc/passwd.txt", "/abs.txt", "..\\..\\x.txt", "a\x00b.txt", "con.txt", "é.txt"]
)
def test_a_callers_name_makes_no_path(client, name):
    body, headers = form(part("f", b"abc", name.replace('"', "")))
    answer = client.post("/size", content=body, headers=headers)
    if answer.status_code == 200:
        assert seen[-1].parent.name.startswith("bentotool-request-")
        assert seen[-1].name in ("upload-1.txt", "upload-1", "upload-1.bin")
        assert not seen[-1].exists()
    else:
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "given", "status", "place"),
    [
        ("/size", {"json": {"f": "/etc/passwd"}}, 400, "$.f"),
        ("/size", {"json": {"f": "file:///etc/passwd"}}, 422, "$.f"),
        ("/size", {"json": {"f": "http://169.254.169.254/"}}, 422, "$.f"),
        ("/size", {"json": {}}, 400, "$.f"),
        ("/size", {"json": {"f": 3}}, 400, "$.f"),
        ("/size", {"files": {"f": [("a", b"a"), ("b", b"b")]}}, 400, "$.f"),
        ("/size", {"files": {"f": ("a", b"a")}, "json": {"n": "x"}}, 400, "$.n"),
        ("/size", {"files": {"g": ("a", b"a")}}, 400, "$.g"),
        ("/sizes", {"json": {"fs": ["data:,a", "b"]}}, 400, "$.fs[1]"),
        ("/text_only", {"files": {"f": ("a.png", b"a", "image/png")}}, 400, "$.f"),
        ("/whole", {"content": b"http://example.com/a", "headers": {"content-type": "text/plain"}}, 422, "$"),
        ("/double", {"json": {"x": [["a"]]}}, 400, "$.x"),
        ("/scale", {"json": {"x": [[1, 2, 3]], "k": 1, "names": []}}, 400, "$.x"),
        ("/scale", {"json": {"x": [[1, 2]], "k": 1, "names": ["a", 2]}}, 400, "$.names[1]"),
        ("/photo", {"json": {"photo": {"file": "data:,a", "caption": 1}}}, 400, "$.photo.caption"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(client, path, given, status, place):
    answer = client.post(path, **given)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["path"] == place
    assert error["code"]
    assert "\n" not in error["message"]


def test_files_as_answers(client):
    answer = client.post("/make")
    assert (answer.content, answer.headers["content-type"]) == (b"made", "text/plain")
    assert 'filename="a b.txt"' in answer.headers["content-disposition"]
    assert client.post("/gone").status_code == 500
    assert client.post("/gone").json()["error"]["code"] == "invalid_output"


# --- hostile forms ---------------------------------------------------------------------------------------

GOOD = part("f", b"abc", "a.txt")
HOSTILE = {
    "no end": form(GOOD)[0][:-10],
    "no part": b"--xyz--\r\n",
    "nothing": b"",
    "no boundary inside": b"abc" * 100,
    "a long preamble": b"a" * 200_000 + form(GOOD)[0],
    "too many parts": form(*[part(f"p{index}", b"") for index in range(1100)])[0],
    "a long header": form(b"X-Long: " + b"a" * 100_000 + b"\r\n" + GOOD)[0],
    "many headers": form(b"".join(b"X-%d: a\r\n" % index for index in range(1000)) + GOOD)[0],
    "a header without a colon": form(b"nonsense\r\n\r\nabc")[0],
    "no name": form(b"Content-Disposition: form-data\r\n\r\nabc")[0],
    "a long name": form(part("f" * 5000, b"abc", "a"))[0],
    "a name with a line break": form(b'Content-Disposition: form-data; name="f\rx"; filename="a"\r\n\r\nabc')[0],
    "a form in a form": form(part("f", b"--abc--", "a", "Content-Type: multipart/mixed; boundary=abc\r\n"))[0],
    "base64": form(part("f", b"YWJj", "a", "Content-Transfer-Encoding: base64\r\n"))[0],
    "text that is no text": form(GOOD, part("n", b"\xff\xfe"))[0],
    "a deep place": form(GOOD, part("n" + ".a" * 500, b"1"))[0],
    "a far place": form(GOOD, part("n[99999999]", b"1"))[0],
    "a place inside a file": form(GOOD, part("f.x", b"1"))[0],
    "the same field twice": form(GOOD, GOOD)[0],
    "deep json": form(GOOD, part("n", b"[" * 100_000))[0],
    "a huge number": form(GOOD, part("n", b"9" * 5000))[0],
    "a folder's name": form(part("f", b"abc", "/"))[0] + b"trailing",
}


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_are_refused(client, name):
    answer = client.post("/size", content=HOSTILE[name], headers=form()[1])
    assert answer.status_code in (400, 413) or (answer.status_code == 200 and name == "a folder's name"), answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) >= {"code", "message"}
    assert client.post("/size", files={"f": ("a.txt", b"abc")}).status_code == 200


@pytest.mark.parametrize("boundary", ["", "a" * 71, "é", "\x01", '"', "boundary=boundary"])
def test_hostile_boundaries(client, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    try:
        headers["content-type"].encode("latin-1")
    except UnicodeEncodeError:
        return
    assert client.post("/size", content=form(GOOD)[0], headers=headers).status_code in (400, 415)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(["cut", "insert", "flip", "repeat"]), st.binary(max_size=12)),
        max_size=6,
    )
)
def test_damaged_forms(client, damage):
    """No mutation of a form does more than give a status, in the one shape of errors."""
    body = bytearray(form(GOOD, part("n", b"2"), part("g", b"\r\n--xy", "b"))[0])
    for at, what, other in damage:
        at = min(at, len(body))
        if what == "cut":
            del body[at : at + 1 + len(other)]
        elif what == "insert":
            body[at:at] = other
        elif what == "flip" and at < len(body):
            body[at] ^= 0xFF
        else:
            body[at:at] = body[max(0, at - 30) : at]
    answer = client.post("/size", content=bytes(body), headers=form()[1])
    assert answer.status_code in (200, 400, 413, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from([MEDIA_TYPE, NPY, "application/json", "oip"]))
def test_random_bodies(client, body, media):
    headers = {"content-type": media}
    if media == "oip":
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": "20"}
    answer = client.post("/double", content=body, headers=headers)
    assert answer.status_code in (200, 400, 415), answer.text


# --- tensors ---------------------------------------------------------------------------------------------


def npy(array):
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_tensors_in_binary_both_ways(client):
    x = np.arange(6, dtype="float32").reshape(3, 2)
    headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
    body = b"".join(encode_tensors({"x": tensor_of(x)}))
    answer = client.post("/double", content=body, headers=headers)
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (decode_tensors(answer.content)[0]["value"].numpy() == x * 2).all()

    rest = json.dumps({"k": 3, "names": ["a"]}).encode()
    answer = client.post("/scale", content=b"".join(encode_tensors({"x": tensor_of(x)}, rest)), headers=headers)
    tensors, beside = decode_tensors(answer.content)
    assert (tensors["y"].numpy() == x * 3).all()
    assert (tensors["deep[0].z"].numpy() == x).all()
    assert json.loads(beside or b"")["names"] == ["a"]

    answer = client.post("/double", content=npy(x), headers={"content-type": NPY, "accept": NPY})
    assert answer.content == npy(x * 2)
    assert client.post("/double", content=npy(x), headers={"content-type": NPY}).json() == (x * 2).tolist()


def test_the_open_inference_protocol(client):
    x = np.ones((2, 2), dtype="float32")
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"id": "7", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    answer = client.post("/double", content=head + x.tobytes(), headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:length])
    assert (described["id"], described["outputs"][0]["shape"]) == ("7", [2, 2])
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == [2.0] * 4


def test_pickles_are_not_read(client):
    array = np.array([{"a": 1}], dtype=object)
    answer = client.post("/double", content=npy_of_objects(array), headers={"content-type": NPY})
    assert (answer.status_code, answer.json()["error"]["path"]) == (400, "$")
    body = struct.pack("<Q", 2) + b"{}" + b"extra"
    assert client.post("/double", content=body, headers={"content-type": MEDIA_TYPE}).status_code == 400


def npy_of_objects(array):
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


# --- answers ---------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def strict(text: bytes) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_answers_are_always_json(value):
    spec = Bodies.apis["echo"]
    strict(spec.encode(value))
    strict(spec.encode({"a": np.array([1.5, np.nan]), "b": [np.float64("inf")], "c": value}))


@pytest.mark.parametrize(("kind", "expected"), [("array", [None, None, 1.0]), ("scalar", None), ("float", None)])
def test_nan_is_null(client, kind, expected):
    answer = client.post("/odd", json={"kind": kind})
    assert answer.headers["content-type"] == "application/json"
    assert strict(answer.content) == expected


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_nan_is_not_read(client, word):
    answer = client.post("/echo", content=b'{"x": ' + word + b"}", headers={"content-type": "application/json"})
    assert answer.status_code == 400
