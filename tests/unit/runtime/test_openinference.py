"""The Open Inference Protocol beside the JSON API of a service that is one model: two ways into one queue."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest

from bentotool.runtime.app import Application
from bentotool.sdk.api import api
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.inference_protocol import datatype_of, read_inference
from bentotool.sdk.named_arrays import ArraySpec, ModelCard
from bentotool.sdk.service import Service, service

NUMBERS = ArraySpec("x", "float32", (None, 2))
NAMES = ArraySpec("name", "str", (None,))
OUTPUTS = (ArraySpec("total", "float32", (None,)), ArraySpec("greeting", "str", (None,)))
BASE = "/v2/models/toy"
INFER = f"{BASE}/infer"
X = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
NAME = {"name": "name", "shape": [2], "datatype": "BYTES", "data": ["ada", "bjørn"]}
LENGTH = "inference-header-content-length"


def toy(*, rows: bool = True, inputs: tuple[ArraySpec, ...] = (NUMBERS, NAMES), **options: Any) -> Service[Any]:
    """A model of two outputs; ``calls`` has the rows of each call, and it waits for ``go``."""
    card = ModelCard("toy", "7", "toy", "predict", inputs, OUTPUTS, rows)

    class Toy:
        calls: ClassVar[list[int]] = []
        go = threading.Event()

        def predict(self, inputs: Any, /) -> Any:
            assert self.go.wait(20)
            self.calls.append(len(inputs["x"]))
            if (inputs["x"] < 0).any():
                raise InvalidArgument("the model refuses the input: below zero")
            if (inputs["x"] > 1e6).any():
                raise RuntimeError("a secret of the model")
            total = inputs["x"].sum(axis=1)
            named = inputs.get("name", total.astype(str))
            greeting = np.array([f"hi {name}" for name in named], dtype=object)
            return {"total": total, "greeting": greeting}

    Toy.go.set()
    Toy.predict.__annotations__ = {"inputs": card.input_type(), "return": card.output_type()}
    Toy.predict = api(batchable=True, max_batch_size=10)(Toy.predict)  # type: ignore[method-assign]
    made: Service[Any] = service(name="toy", **options)(Toy)
    made.card = card
    return made


def served(work: Any, model: Service[Any] | None = None) -> Any:
    async def main() -> Any:
        app = Application(model or toy())
        await app.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client:
                return await asyncio.wait_for(work(client, app), 40)
        finally:
            await app.stop()

    return asyncio.run(main())


def infer(body: Any = None, model: Service[Any] | None = None, path: str = INFER, **options: Any) -> httpx.Response:
    sent = {"json": body} if body is not None else {}
    return served(lambda client, _app: client.post(path, **sent, **options), model)


def in_binary(*inputs: tuple[str, str, list[int], bytes], **further: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose tensors are bytes behind its JSON."""
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in inputs
    ]
    head = json.dumps({"inputs": described, **further}).encode()
    headers = {LENGTH: str(len(head)), "content-type": "application/octet-stream"}
    return head + b"".join(data for *_, data in inputs), headers


def texts(*values: str) -> bytes:
    return b"".join(len(value.encode()).to_bytes(4, "little") + value.encode() for value in values)


def test_what_the_server_and_the_model_are() -> None:
    async def work(client: httpx.AsyncClient, _app: Application) -> dict[str, httpx.Response]:
        paths = ("", "/health/live", "/health/ready", "/models/toy", "/models/toy/ready")
        versioned = ("/models/toy/versions/7", "/models/toy/versions/7/ready")
        return {path: await client.get(f"/v2{path}") for path in (*paths, *versioned)}

    found = served(work)
    assert {answer.status_code for answer in found.values()} == {200}
    assert found[""].json()["extensions"] == ["binary_tensor_data"]
    assert (found["/health/live"].json(), found["/health/ready"].json()) == ({"live": True}, {"ready": True})
    assert found["/models/toy/ready"].json() == found["/models/toy/versions/7/ready"].json()
    assert found["/models/toy/ready"].json() == {"name": "toy", "ready": True}
    assert found["/models/toy"].json() == found["/models/toy/versions/7"].json()
    assert found["/models/toy"].json() == {
        "name": "toy",
        "versions": ["7"],
        "platform": "toy",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "name", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "total", "datatype": "FP32", "shape": [-1]},
            {"name": "greeting", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_not_ready_is_said_in_both_ways() -> None:
    async def work(client: httpx.AsyncClient, app: Application) -> list[tuple[int, Any]]:
        app.problem = "a worker is missing"
        answers = [await client.get(path) for path in ("/v2/health/ready", f"{BASE}/ready", "/v2/health/live")]
        return [(answer.status_code, answer.json()) for answer in answers]

    server, model, live = served(work)
    assert server == (503, {"ready": False, "error": "a worker is missing"})
    assert model == (503, {"name": "toy", "ready": False, "error": "a worker is missing"})
    assert live == (200, {"live": True})


def test_json_by_both_protocols() -> None:
    async def work(client: httpx.AsyncClient, _app: Application) -> tuple[Any, Any, Any]:
        own = await client.post("/predict", json={"x": [[1, 2], [3, 4]], "name": ["ada", "bjørn"]})
        theirs = await client.post(INFER, json={"id": "q", "inputs": [X, NAME]})
        nested = {**X, "data": [[1, 2], [3, 4]]}
        versioned = await client.post(f"{BASE}/versions/7/infer", json={"inputs": [nested, NAME]})
        return own.json(), theirs.json(), versioned.json()

    own, theirs, versioned = served(work)
    assert own == {"total": [3, 7], "greeting": ["hi ada", "hi bjørn"]}
    outputs = [
        {"name": "total", "shape": [2], "datatype": "FP32", "data": [3.0, 7.0]},
        {"name": "greeting", "shape": [2], "datatype": "BYTES", "data": ["hi ada", "hi bjørn"]},
    ]
    assert theirs == {"model_name": "toy", "model_version": "7", "outputs": outputs, "id": "q"}
    assert versioned == {"model_name": "toy", "model_version": "7", "outputs": outputs}


def test_tensors_as_bytes() -> None:
    x = np.array([[1, 2], [3, 4]], "<f4").tobytes()
    body, headers = in_binary(("x", "FP32", [2, 2], x), ("name", "BYTES", [2], texts("ada", "bjørn")))
    assert infer(content=body, headers=headers).json()["outputs"][1]["data"] == ["hi ada", "hi bjørn"]
    asked = {"outputs": [{"name": "greeting", "parameters": {"binary_data": True}}, {"name": "total"}]}
    body, headers = in_binary(("x", "FP32", [2, 2], x), ("name", "BYTES", [2], texts("ada", "")), **asked)
    answer = infer(content=body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    greeting, total = json.loads(answer.content[:length])["outputs"]
    assert answer.content[length:] == texts("hi ada", "hi ")
    assert greeting["parameters"] == {"binary_data_size": len(answer.content) - length}
    assert total == {"name": "total", "shape": [2], "datatype": "FP32", "data": [3.0, 7.0]}


def test_a_number_among_texts_is_no_text() -> None:
    for names in (["ada", 1], [["ada"], "b"], [True, "b"]):
        answer = infer({"x": [[1, 2], [3, 4]], "name": names}, path="/predict")
        assert (answer.status_code, answer.json()["error"]["path"]) == (400, "$.name")


def test_a_request_in_json_may_have_its_answer_in_bytes() -> None:
    answer = infer({"inputs": [X, NAME], "outputs": [{"name": "total"}], "parameters": {"binary_data_output": True}})
    length = int(answer.headers[LENGTH])
    assert [output["name"] for output in json.loads(answer.content[:length])["outputs"]] == ["total"]
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == [3, 7]


ODD_NAMES = ["ada\0", "", "\0", "x" * 200_000, *["b"] * 3_000]


def with_odd_names() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """The same request in each form that texts come in: by JSON, twice, and as bytes."""
    count = len(ODD_NAMES)
    ones = np.ones((count, 2), "<f4")
    theirs = [{**X, "shape": [count, 2], "data": [1] * 2 * count}, {**NAME, "shape": [count], "data": ODD_NAMES}]
    binary = in_binary(("x", "FP32", [count, 2], ones.tobytes()), ("name", "BYTES", [count], texts(*ODD_NAMES)))
    kind = {"content-type": "application/json"}
    return {
        "own": ("/predict", json.dumps({"x": ones.tolist(), "name": ODD_NAMES}).encode(), kind),
        "theirs": (INFER, json.dumps({"inputs": theirs}).encode(), kind),
        "bytes": (INFER, *binary),
    }


@pytest.mark.parametrize("form", ["own", "theirs", "bytes"])
def test_texts_stay_as_they_are_and_take_no_more_room(form: str) -> None:
    path, body, headers = with_odd_names()[form]
    tracemalloc.start()
    try:
        answer = infer(None, path=path, content=body, headers=headers)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 200
    found = answer.json()
    given = found["greeting"] if form == "own" else found["outputs"][1]["data"]
    assert given == [f"hi {name}" for name in ODD_NAMES]
    assert most < 100 * len(body)  # each as wide as the longest, they would take 2 GB


@pytest.mark.parametrize("path", ["/predict", INFER])
def test_a_text_among_numbers_takes_no_room(path: str) -> None:
    data = ["x" * 200_000, *["b"] * 30_000]
    body = json.dumps({"x": data, "name": ["a"]} if path == "/predict" else {"inputs": [{**X, "data": data}, NAME]})
    tracemalloc.start()
    try:
        answer = infer(None, path=path, content=body, headers={"content-type": "application/json"})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, most < 100 * len(body)) == (400, True)


NO_ROWS = [{**X, "shape": [0, 2], "data": []}, {**NAME, "shape": [0], "data": []}]
WRONG = {
    "no input": ({"inputs": [X]}, "$.name: required, and not given"),
    "another input": ({"inputs": [X, NAME, {**X, "name": "y"}]}, "$.y: there is no such input"),
    "twice": ({"inputs": [X, X]}, "input 'x' is there twice"),
    "another shape": ({"inputs": [{**X, "shape": [4, 1]}, NAME]}, "$.x: expected an array of shape (any, 2)"),
    "too few elements": ({"inputs": [{**X, "data": [1]}, NAME]}, "of shape (2, 2)"),
    "another type": ({"inputs": [{**NAME, "name": "x"}, NAME]}, "$.x: expected an array of numbers"),
    "numbers for texts": ({"inputs": [X, {**X, "name": "name"}]}, "$.name: expected texts"),
    "a number among texts": ({"inputs": [X, {**NAME, "data": ["ada", 1]}]}, "input 'name' is not 2 texts"),
    "no type": ({"inputs": [{**X, "datatype": "FP128"}, NAME]}, "elements of type 'FP128'"),
    "texts that are none": ({"inputs": [X, {**NAME, "data": [1, 2]}]}, "input 'name' is not 2 texts"),
    "rows that differ": ({"inputs": [X, {**NAME, "shape": [1], "data": ["a"]}]}, "as many rows in each array"),
    "no rows": ({"inputs": NO_ROWS}, "one at least"),
    "no such output": ({"inputs": [X, NAME], "outputs": [{"name": "z"}]}, "there is no output 'z'"),
    "no inputs": ({}, "has no inputs"),
    "no object": ([1], "has no inputs"),
    "an id that is none": ({"inputs": [X, NAME], "id": 5}, "the id is not a text"),
    "outputs that are none": ({"inputs": [X, NAME], "outputs": {"name": "total"}}, "the outputs are not a list"),
    "an output without name": ({"inputs": [X, NAME], "outputs": [{"nam": "total"}]}, "an output has no name"),
    "an output by its name alone": ({"inputs": [X, NAME], "outputs": ["total"]}, "an output has no name"),
    "an output twice": ({"inputs": [X, NAME], "outputs": [{"name": "total"}] * 2}, "output 'total' is there twice"),
    "parameters that are none": ({"inputs": [X, NAME], "parameters": [1]}, "the parameters of the request are not an"),
    "an input's parameters": ({"inputs": [{**X, "parameters": 1}, NAME]}, "the parameters of input 'x' are not an"),
    "bytes perhaps": (
        {"inputs": [X, NAME], "outputs": [{"name": "total", "parameters": {"binary_data": "no"}}]},
        "binary_data of output 'total' is not true or false",
    ),
    "an answer in bytes perhaps": (
        {"inputs": [X, NAME], "parameters": {"binary_data_output": 1}},
        "binary_data_output of the request is not true or false",
    ),
    "refused by the model": ({"inputs": [{**X, "data": [-1, 0, 0, 0]}, NAME]}, "refuses the input: below zero"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_request(wrong: str) -> None:
    body, said = WRONG[wrong]
    answer = infer(body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert said in answer.json()["error"]


def of_type(datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "v", "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}


INEXACT = {
    "fractions for whole numbers": (of_type("INT64", 1, 2.5), "v' is no INT64 of shape (2,): a fraction is among its"),
    "a fraction that is whole": (of_type("INT64", 2.0), "a fraction is among its elements"),
    "texts for numbers": (of_type("FP32", 1, "2"), "a text is among its elements"),
    "texts for whole numbers": (of_type("INT32", "2"), "a text is among its elements"),
    "truth for numbers": (of_type("INT8", 1, True), "true or false is among its elements"),
    "truth for fractions": (of_type("FP64", 1.5, True), "true or false is among its elements"),
    "numbers for truth": (of_type("BOOL", True, 1), "a number is among its elements"),
    "texts for truth": (of_type("BOOL", "false"), "a text is among its elements"),
    "nothing for whole numbers": (of_type("INT64", 1, None), "null is among its elements"),
    "an object": (of_type("FP64", {}), "an object is among its elements"),
    "too large": (of_type("INT8", 128), "does not fit into int8"),
    "below zero": (of_type("UINT8", -1), "does not fit into uint8"),
    "larger than any": (of_type("UINT64", 2**64), "does not fit into uint64"),
    "larger than any fraction": (of_type("FP32", 1e300), "does not fit into float32"),
    "larger than half a fraction": (of_type("FP16", 70000), "does not fit into float16"),
    "rows of another length": (of_type("FP32", [1, 2, 3], [4, 5, 6], shape=[3, 2]), "its lists are of shape (2, 3)"),
    "rows that differ": (of_type("FP32", [1], [2, 3], shape=[3]), "rows of equal length"),
    "halves as numbers": (of_type("BF16", 1.5), "travels as bytes alone"),
    "more than any array": (of_type("FP32", shape=[0, 2**62, 2**62]), "is no FP32 of shape"),
    "no list": ({**of_type("FP32"), "data": 5}, "input 'v' has no data"),
}


@pytest.mark.parametrize("inexact", INEXACT)
def test_elements_are_taken_as_they_are_or_not_at_all(inexact: str) -> None:
    entry, said = INEXACT[inexact]
    model = toy(inputs=(ArraySpec("v", "any", None),))
    answer = infer({"inputs": [entry]}, model)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text
    assert model.inner.calls == []


EXACT = [
    of_type("UINT64", 2**64 - 1, 0),
    of_type("INT64", -(2**63), 2**63 - 1),
    of_type("FP32", 1, 2.5),
    of_type("FP16", 65504),
    of_type("BOOL", True, False),
    of_type("FP64", [1], [2], shape=[2]),
    of_type("FP64", 1.5, None),
]


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry["datatype"])
def test_elements_that_fit(entry: dict[str, Any]) -> None:
    request = read_inference(json.dumps({"inputs": [entry], "id": None, "outputs": None}).encode(), None)
    array = request.tensors["v"]
    plain = [None if value != value else value for value in array.ravel().tolist()]
    assert (plain, array.shape) == (np.array(entry["data"], dtype=object).ravel().tolist(), tuple(entry["shape"]))
    assert datatype_of(array.dtype.name) == entry["datatype"]


@pytest.mark.parametrize("length", ["1_1", "+11", "11 ", " ", "-1", "0", "12", "9" * 5000, "٣"])
def test_a_length_that_is_none(length: str) -> None:
    raw = length.encode()
    answer = infer(content=b'{"id":"abc"}'[:11], headers=[(LENGTH.encode(), raw)])
    assert answer.status_code == 400
    assert answer.json() == {"error": "$: Inference-Header-Content-Length does not lie in the body"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"{}", {LENGTH: "3"}),
        (b"{}", {LENGTH: "many"}),
        (b"\xff", {}),
        (b'{"inputs": [{"name": "\\ud800", "shape": [1], "datatype": "FP32", "data": [1]}]}', {}),
        in_binary(("x", "FP32", [2, 2], bytes(15)), ("name", "BYTES", [2], texts("a", "b"))),
        in_binary(("x", "FP32", [1, 2], bytes(8)), ("name", "BYTES", [1], b"\xff\xff\xff\x7fab")),
        in_binary(("x", "FP32", [1, 2], bytes(8)), ("name", "BYTES", [1], b"\x01\0\0\0\xff")),
        in_binary(("x", "FP32", [1, 2], bytes(8)), ("name", "BYTES", [2], texts("a"))),
    ],
)
def test_bodies_that_contradict_themselves(body: bytes, headers: dict[str, str]) -> None:
    answer = infer(content=body, headers=headers)
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


def test_other_failures_have_the_status_they_have_elsewhere() -> None:
    failed = infer({"inputs": [{**X, "data": [1e7, 0, 0, 0]}, NAME]})
    assert (failed.status_code, "secret" in failed.text) == (500, False)
    assert infer({"inputs": [X, NAME]}, path="/v2/models/other/infer").status_code == 404
    assert infer({"inputs": [X, NAME]}, path=f"{BASE}/versions/8/infer").status_code == 404
    nothing = infer({}, path="/v2/nothing").json()
    assert nothing == {"error": "nothing is at /v2/nothing: the model here is toy, version 7"}
    got = served(lambda client, _app: client.get(INFER))
    assert (got.status_code, got.headers["allow"], set(got.json())) == (405, "POST", {"error"})
    assert infer(content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    foreign = infer(content=b"{}", headers={"origin": "http://elsewhere.example"})
    assert (foreign.status_code, set(foreign.json())) == (403, {"error"})
    late = infer({"inputs": [X, NAME]}, headers={"x-request-timeout-ms": "soon"})
    assert (late.status_code, set(late.json())) == (400, {"error"})


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v2/", 404, None),
        ("GET", "/v2/models/toy/", 404, None),
        ("PUT", "/v2/nothing", 404, None),
        ("DELETE", INFER, 405, "POST"),
        ("GET", INFER, 405, "POST"),
        ("POST", BASE, 405, "GET"),
        ("PATCH", "/v2", 405, "GET"),
        ("OPTIONS", "/v2/health/live", 405, "GET"),
    ],
)
def test_below_v2_errors_are_the_protocols(method: str, path: str, status: int, allow: str | None) -> None:
    answer = served(lambda client, _app: client.request(method, path))
    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)
    assert path in answer.json()["error"]
    assert set(answer.json()) == {"error"}


async def all_in(app: Application, number: int) -> None:
    """Wait until so many requests are in, and have had turns of the event loop to get into the queue."""
    for _ in range(1000):
        if app.in_flight == number:
            break
        await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0.01)


def test_both_ways_share_calls() -> None:
    model = toy()
    calls, go = model.inner.calls, model.inner.go

    async def work(client: httpx.AsyncClient, app: Application) -> list[httpx.Response]:
        go.clear()
        own = {"x": [[1, 1]], "name": ["a"]}
        one = {"inputs": [{**X, "shape": [1, 2], "data": [2, 2]}, {**NAME, "shape": [1], "data": ["long name"]}]}
        asked = [asyncio.create_task(client.post("/predict", json=own)) for _ in range(4)]
        asked += [asyncio.create_task(client.post(INFER, json=one)) for _ in range(4)]
        await all_in(app, 8)  # whoever came first holds the model
        go.set()
        return await asyncio.gather(*asked)

    answers = served(work, model)
    assert [answer.status_code for answer in answers] == [200] * 8
    assert [answer.json()["total"] for answer in answers[:4]] == [[2]] * 4
    assert [answer.json()["outputs"][1]["data"] for answer in answers[4:]] == [["hi long name"]] * 4
    assert sum(calls) == 8
    assert len(calls) < 8, calls


def test_one_that_the_model_refuses_takes_no_other_along() -> None:
    model = toy()
    go = model.inner.go

    async def work(client: httpx.AsyncClient, app: Application) -> list[int]:
        go.clear()
        bodies = [{"x": [[value, 1]], "name": ["a"]} for value in (1, 1, -1, 1)]
        asked = [asyncio.create_task(client.post("/predict", json=body)) for body in bodies]
        await all_in(app, 4)
        go.set()
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert served(work, model) == [200, 200, 400, 200]


def test_a_model_without_rows_is_asked_for_each_request() -> None:
    model = toy(rows=False, inputs=(ArraySpec("x", "float32", (2, 2)),))

    async def work(client: httpx.AsyncClient, _app: Application) -> list[Any]:
        asked = [client.post("/predict", json=[[1, 2], [3, 4]]), client.post(INFER, json={"inputs": [X]})]
        return [answer.json() for answer in await asyncio.gather(*asked)]

    own, theirs = served(work, model)
    assert own["total"] == theirs["outputs"][0]["data"] == [3, 7]
    assert model.inner.calls == [2, 2]


def test_more_rows_than_a_call_may_have_are_split() -> None:
    model = toy()
    body = {"x": [[number, 0] for number in range(25)], "name": ["a"] * 25}
    answer = served(lambda client, _app: client.post("/predict", json=body), model)
    assert answer.json()["total"] == list(range(25))
    assert sorted(model.inner.calls) == [5, 10, 10]


def test_the_documents_have_both(require_package: Any) -> None:
    require_package("openapi_spec_validator")
    import openapi_spec_validator

    document = toy().openapi()
    openapi_spec_validator.validate(document)
    assert {"/predict", "/v2", INFER, f"{BASE}/versions/7/infer"} <= set(document["paths"])
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"x", "name"}


def test_lists_of_any_api_in_the_protocols_form() -> None:
    class Words:
        @api
        def join(self, words: list[str], weights: list[float]) -> dict[str, Any]:
            return {"joined": " ".join(words), "total": sum(weights)}

    numbers = {"name": "weights", "shape": [2], "datatype": "FP64", "data": [1.5, 2]}
    body = json.dumps({"inputs": [{**NAME, "name": "words"}, numbers]}).encode()
    made: Service[Any] = service(name="words")(Words)
    answer = infer(None, made, "/join", content=body, headers={LENGTH: str(len(body))})
    assert (answer.status_code, answer.json()) == (200, {"joined": "ada bjørn", "total": 3.5})


def test_requests_are_counted_by_route() -> None:
    async def work(client: httpx.AsyncClient, _app: Application) -> str:
        await client.post(INFER, json={"inputs": [X, NAME]})
        await client.put(INFER)
        await client.get("/v2/nothing")
        return (await client.get("/metrics")).text

    lines = [line for line in served(work).splitlines() if "request_total{" in line]
    assert any(f'endpoint="{INFER}"' in line and line.endswith(" 1.0") for line in lines), lines
    assert all('service_version="7"' in line for line in lines)
    for endpoint, status in ((INFER, 405), ("/v2/{path:path}", 404)):
        wanted = (f'endpoint="{endpoint}"', f'code="{status}"')
        assert [line[-4:] for line in lines if all(part in line for part in wanted)] == [" 1.0"], lines
