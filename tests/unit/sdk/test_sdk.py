"""Declarations: options, signatures, codecs, documents."""

import dataclasses
import datetime
import enum
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import msgspec
import pytest

import bentotool
from bentotool.errors import ConfigError
from bentotool.exceptions import InvalidArgument, InvalidOutput, UnprocessableEntity
from bentotool.runtime.typedcalls import TypedCall
from bentotool.sdk.schema import input_schema, output_schema
from bentotool.testing import TestClient
from bentotool.validators import DType, Shape


class Colour(enum.Enum):
    RED = "red"


class Pair(TypedDict):
    left: int
    right: str


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Box(msgspec.Struct):
    points: list[Point]


def declare(function, **options):
    """The spec of one API of a service made for it."""
    api = bentotool.api(**options)(function)
    return bentotool.service(type("Made", (), {"call": api})).apis["call"]


def decoded(spec, document):
    args, named = spec.decode(json.dumps(document).encode())
    return (*args, *named.values())


def test_importing_bentotool_imports_nothing_heavy():
    code = "import bentotool, sys\nprint([m for m in ('msgspec','litestar','numpy','httpx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_declaring_a_service_imports_no_server_and_no_array_library():
    code = (
        "import bentotool, sys\n"
        "@bentotool.service\nclass S:\n  @bentotool.api\n  def f(self, x: int) -> int: return x\n"
        "S.schema(); S.openapi()\n"
        "print([m for m in ('litestar','uvicorn','numpy','pandas','pydantic','httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (float, 3, 3.0),
        (bool, True, True),
        (None, None, None),
        (list[int], [1], [1]),
        (dict[str, float], {"a": 1.5}, {"a": 1.5}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Point, {"x": 1, "y": 0}, Point(1)),
        (Box, {"points": [{"x": 1, "y": 2}]}, Box([Point(1, 2)])),
        (Pair, {"left": 1, "right": "r"}, {"left": 1, "right": "r"}),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "b", "b"),
        (int | None, None, None),
        (int | str, "s", "s"),
        (
            datetime.datetime,
            "2026-01-02T03:04:05Z",
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        ),
        (Annotated[int, msgspec.Meta(ge=0)], 0, 0),
    ],
)
def test_types_travel_both_ways(annotation, value, expected):
    def call(self, x):
        return x

    call.__annotations__ = {"x": annotation, "return": annotation}
    spec = declare(call)
    assert decoded(spec, {"x": value}) == (expected,)
    written = spec.encode(expected)
    assert (written.decode() if annotation is str else json.loads(written)) == value


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"monitoring": {"type": "nonsense"}}, ["service S", "monitoring", "type"], "'nonsense' is not the class"),
        ({"monitoring": {"type": 3}}, ["service S", "monitoring", "type"], "3 is not the class"),
        ({"http": {"port": 99999}}, ["service S", "http", "port"], "99999 is not a port"),
    ],
)
def test_options_that_cannot_work_are_refused_where_they_stand(options, path, message):
    with pytest.raises(ConfigError, match=message) as raised:
        bentotool.service(**options)(type("S", (), {}))
    assert raised.value.details["path"] == path


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"batchable": True, "batch_dim": 5}, "batch_dim"),
        ({"batchable": True, "batch_dim": (0, 1)}, "batch_dim"),
        ({"batchable": True, "batch_dim": "x"}, "batch_dim"),
        ({"route": "/livez"}, "route"),
        ({"route": "/alive"}, "route"),
        ({"name": "metrics"}, "route"),
    ],
)
def test_an_api_that_cannot_work_is_refused(options, key):
    def call(self, values: list[float]) -> list[float]:
        return values

    def apis():
        inner = type("S", (), {"call": bentotool.api(**options)(call)})
        return bentotool.service(endpoints={"livez": "/alive"})(inner).apis

    with pytest.raises(ConfigError) as raised:
        apis()
    assert raised.value.path[-1] == key


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.x"),
        ({"x": [1], "other": 2}, "$.other"),
        ({"x": [1, "a"]}, "$.x[1]"),
        ({"x": None}, "$.x"),
    ],
)
def test_a_wrong_input_names_the_field(body, path):
    def call(self, x: list[float]) -> float:
        return sum(x)

    with pytest.raises(InvalidArgument) as raised:
        declare(call).decode(json.dumps(body).encode())
    assert raised.value.details["path"] == path
    assert raised.value.http_status == 400


def test_a_body_that_is_not_json():
    with pytest.raises(InvalidArgument, match="not JSON"):
        declare(lambda self, x: x).decode(b"{x")


def test_a_wrong_output_is_the_services_fault():
    def call(self) -> dict[str, float]:
        return {"y": "text"}

    with pytest.raises(InvalidOutput) as raised:
        declare(call).encode({"y": "text"})
    assert raised.value.http_status == 500


def test_defaults_are_passed_as_they_are():
    default = object()

    def call(self, a: int, b: list[int] = [], *, c: object = default):  # noqa: B006
        return None

    call.__annotations__.pop("c")
    args, named = declare(call).decode(b'{"a": 1}')
    assert args == (1, [])
    assert named["c"] is default


def test_a_positional_only_parameter_is_the_whole_body():
    def call(self, points: list[Point], /) -> int:
        return 0

    spec = declare(call)
    assert spec.root
    assert decoded(spec, [{"x": 1}]) == ([Point(1)],)


def test_nan_becomes_null():
    def call(self) -> dict[str, float]:
        return {}

    assert declare(call).encode({"a": float("nan"), "b": float("inf")}) == b'{"a":null,"b":null}'


@pytest.fixture
def np(require_package):
    require_package("numpy")
    import numpy

    return numpy


def test_arrays_are_checked_against_shape_and_dtype(np):
    def call(self, x, *, o=None):
        return x

    array = Annotated[np.ndarray, Shape((-1, 2)), DType("float32")]
    call.__annotations__ = {"x": array, "o": np.ndarray | None, "return": array}
    spec = declare(call)
    x, o = decoded(spec, {"x": [[1, 2], [3, 4.5]], "o": None})
    assert x.dtype == np.float32
    assert x.tolist() == [[1, 2], [3, 4.5]]
    assert o is None
    for wrong in ([[1]], [[1, 2], [3]], [["a", "b"]], "text", 3, [[None, "1"]], [[True, False]], [[None, 10**400]]):
        with pytest.raises(InvalidArgument) as raised:
            decoded(spec, {"x": wrong})
        assert raised.value.details["path"] == "$.x"
    assert spec.encode(np.array([[1.0, np.nan]])) == b"[[1.0,null]]"
    assert np.isnan(decoded(spec, {"x": [[1, None]]})[0]).tolist() == [[False, True]]  # what is sent can be sent back
    with pytest.raises(InvalidOutput):
        spec.encode(np.zeros((2, 3)))
    assert spec.encode([[1, 2]]) == b"[[1.0,2.0]]"


def test_arrays_inside_containers(np):
    def call(self, x):
        return x

    call.__annotations__ = {"x": dict[str, np.ndarray], "return": dict[str, float]}
    spec = declare(call)
    (x,) = decoded(spec, {"x": {"a": [1, 2]}})
    assert x["a"].tolist() == [1, 2]
    assert spec.encode({"y": np.float32(2)}) == b'{"y":2.0}'


def test_an_integer_that_does_not_fit_is_refused(np):
    def call(self, x):
        return x

    call.__annotations__ = {"x": Annotated[np.ndarray, DType("uint8")]}
    with pytest.raises(InvalidArgument, match="does not fit"):
        decoded(declare(call), {"x": [256]})


def test_pydantic_models(require_package):
    require_package("pydantic")
    import pydantic

    class Item(pydantic.BaseModel):
        count: int = pydantic.Field(gt=0)

    def call(self, item, n=pydantic.Field(default=2, description="how often")):  # noqa: B008
        return item

    call.__annotations__ = {"item": Item, "n": int, "return": Item}
    spec = declare(call)
    assert decoded(spec, {"item": {"count": 1}}) == (Item(count=1), 2)
    with pytest.raises(InvalidArgument) as raised:
        decoded(spec, {"item": {"count": 0}})
    assert raised.value.details["path"] == "$.item.count"
    assert spec.encode(Item(count=3)) == b'{"count":3}'


def test_a_value_that_cannot_be_sent_is_named_with_its_article():
    def call(self, x):
        return x

    spec = declare(call)
    for value, message in ((object(), "an object cannot be sent"), (call, "a function cannot be sent")):
        with pytest.raises(InvalidOutput, match=message):
            spec.encode(value)


def test_an_alias_of_pydantic_is_read_and_the_name_is_sent(require_package):
    require_package("pydantic")
    import pydantic

    class Mail(pydantic.BaseModel):
        from_: str = pydantic.Field(alias="from")

    def call(self, mail):
        return [mail]

    call.__annotations__ = {"mail": Mail, "return": list[Mail]}
    spec = declare(call)
    ([mail], _) = spec.decode(b'{"mail": {"from": "a"}}')
    assert spec.encode([mail]) == b'[{"from_":"a"}]'
    for tensors in (True, False):
        (schema, shared), (read, _) = output_schema(spec, "#/{name}", tensors), input_schema(spec, "#/{name}", tensors)
        assert schema["items"] == {"$ref": "#/MailAnswer"}
        assert list(shared["MailAnswer"]["properties"]) == ["from_"]
        assert list(read["properties"]["mail"]["properties"]) == ["from"]


def test_a_wrong_argument_between_services_is_said_in_one_line(require_package):
    require_package("pydantic")
    import pydantic

    class Item(pydantic.BaseModel):
        counts: list[int]

    def call(self, item, n):
        return item

    call.__annotations__ = {"item": Item, "n": int, "return": Item}
    typed = TypedCall("Inner", declare(call))
    with pytest.raises(InvalidArgument) as raised:
        typed.incoming([[{"counts": [1, "x"]}, 1], {}])
    assert raised.value.details["path"] == "$.item.counts[1]"
    assert raised.value.message.startswith("$.item.counts[1]: input should be a valid integer")
    assert "\n" not in raised.value.message
    with pytest.raises(InvalidOutput, match=r"something it does not declare at \$\.counts: field required$"):
        typed.result({})


def test_field_is_that_of_pydantic(require_package):
    require_package("pydantic")
    import pydantic

    assert bentotool.Field is pydantic.Field


def test_an_address_inside_a_pydantic_model_is_not_fetched_either(require_package):
    require_package("pydantic")
    import pydantic

    class Document(pydantic.BaseModel):
        pages: list[Path]

    def call(self, document):
        return None

    call.__annotations__ = {"document": Document}
    with pytest.raises(UnprocessableEntity) as raised:
        decoded(declare(call), {"document": {"pages": ["https://example.com/a"]}})
    assert raised.value.details["path"] == "$.document.pages[0]"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"trafic": {}}, "unknown option 'trafic'", "did you mean 'traffic'?"),
        ({"traffic": {"timout": 1}}, "unknown option 'timout'", "did you mean 'timeout'?"),
        ({"workers": 0}, "0 is not", None),
        ({"traffic": {"timeout": "1"}}, "'1' is not a number of seconds", None),
        ({"name": "a/b"}, "cannot be the name", "use letters"),
    ],
)
def test_wrong_options_of_a_service(options, message, hint):
    with pytest.raises(ConfigError) as raised:
        bentotool.service(**options)(type("S", (), {}))
    assert message in raised.value.message
    assert hint is None or hint in raised.value.hint


def _takes_a_module(self, x):
    return 0


_takes_a_module.__annotations__ = {"x": type(sys), "return": int}


def test_wrong_options_of_an_api():
    with pytest.raises(ConfigError) as raised:
        bentotool.api(batchabel=True)
    assert raised.value.hint == "did you mean 'batchable'?"
    with pytest.raises(ConfigError, match="exactly one parameter"):
        declare(lambda self, a, b: a, batchable=True)
    with pytest.raises(ConfigError, match="no JSON form"):
        declare(_takes_a_module)


def test_documents_of_a_service():
    validator = pytest.importorskip("openapi_spec_validator")

    class Service:
        @bentotool.api
        def predict(self, box: Box, points: list[Point], colour: Colour = Colour.RED) -> Point | None:
            """Predict a point."""

        @bentotool.api(route="/stream")
        def tokens(self, n: int):
            yield n

    declared = bentotool.service(name="docs", path_prefix="/v1")(Service)
    validator.validate(declared.openapi())
    schema = declared.schema()
    assert [route["route"] for route in schema["routes"]] == ["/predict", "/stream"]
    assert schema["routes"][0]["input"]["required"] == ["box", "points"]
    assert schema["routes"][0]["input"]["properties"]["colour"]["default"] == "red"
    assert schema["routes"][1]["output"]["is_stream"] is True
    assert json.loads(json.dumps(schema)) == schema


def test_a_local_instance_with_a_dependency():
    @bentotool.service
    class Inner:
        @bentotool.api
        def double(self, x: int) -> int:
            return 2 * x

    @bentotool.service
    class Outer:
        inner = bentotool.depends(Inner)

        @bentotool.api
        def quadruple(self, x: int) -> int:
            return self.inner.double(self.inner.double(x))

    assert Outer().quadruple(2) == 8
    assert list(Outer.dependencies) == ["inner"]
    with pytest.raises(ConfigError, match="not a service"):
        bentotool.depends(int)


def test_importing_is_tolerant_only_while_probing(monkeypatch):
    with pytest.raises(ImportError), bentotool.importing():
        import absent_package_for_sure
    monkeypatch.setenv("BENTOTOOL_PROBE", "1")
    with bentotool.importing():
        import absent_package_for_sure  # noqa: F401


def test_lists_that_pydantic_validates_can_be_batched(require_package):
    require_package("pydantic")
    import pydantic

    class Item(pydantic.BaseModel):
        n: int = pydantic.Field(ge=0)

    calls = []

    @bentotool.service
    class Batched:
        @bentotool.api(batchable=True)
        def items(self, items: list[Item]) -> list[Item]:
            calls.append(len(items))
            return [Item(n=item.n + 1) for item in items]

        @bentotool.api(batchable=True)
        def words(self, words: list[str] = pydantic.Field(description="words", max_length=2)) -> list[int]:  # noqa: B008
            return [len(word) for word in words]

    with TestClient(Batched) as client:
        assert client.post("/items", json={"items": [{"n": 1}, {"n": 2}]}).json() == [{"n": 2}, {"n": 3}]
        error = client.post("/items", json={"items": [{"n": 1}, {"n": -1}]}).json()["error"]
        assert (error["code"], error["path"]) == ("invalid_input", "$.items[1].n")
        assert client.post("/words", json={"words": ["a", "bc"]}).json() == [1, 2]
        assert client.post("/words", json={"words": ["a", "b", "c"]}).status_code == 400
    assert calls == [2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"envs": ["A=1"]}, "envs → 0: 'A=1' names no variable"),
        ({"envs": [{"nme": "A"}]}, "names no variable"),
        ({"envs": {"A": "1"}}, "is not a list of variables"),
        ({"labels": ["a"]}, "labels: ['a'] is not a table of texts"),
    ],
)
def test_wrong_variables_and_labels(options, words):
    with pytest.raises(ConfigError) as raised:
        bentotool.service(**options)(type("S", (), {}))
    assert words in str(raised.value)
