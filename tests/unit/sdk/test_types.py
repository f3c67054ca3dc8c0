"""How types travel: records with defaults, records that contain themselves, what schemas say of them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import typing
from pathlib import Path
from typing import Annotated, Any, Optional, TypedDict, Union  # the old names: what services have

import msgspec
import numpy as np
import pytest

import bentotool
from bentotool.exceptions import InvalidArgument, InvalidOutput
from bentotool.sdk.codecs import codec_for
from bentotool.validators import DataframeSchema, DType, Shape


@dataclasses.dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


@dataclasses.dataclass
class Node:
    value: int = 3
    point: Optional[Point] = None  # noqa: UP045
    next: Optional[Node] = None  # noqa: UP045
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tree:
    array: np.ndarray
    part: Optional[Tree] = None  # noqa: UP045


@dataclasses.dataclass
class Upload:
    file: Path
    tags: Union[list[str], str] = "none"  # noqa: UP007


class Pair(TypedDict):
    left: np.ndarray
    right: typing.NotRequired[int] if hasattr(typing, "NotRequired") else int


def declare(annotation: Any, returned: Any = None, **options: Any) -> Any:
    def call(self, value):
        return value

    call.__annotations__ = {"value": annotation, "return": returned or annotation}
    return bentotool.service(type("Made", (), {"call": bentotool.api(**options)(call)}))


def through(annotation: Any, value: Any) -> Any:
    """A value, read and written again."""
    spec = declare(annotation).apis["call"]
    args, _ = spec.decode(json.dumps({"value": value}).encode())
    return json.loads(spec.encode(args[0]))


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (Point, {"x": 1}, {"x": 1, "y": 0}),
        (dict[str, list[Point]], {"a": [{"x": 1}]}, {"a": [{"x": 1, "y": 0}]}),
        (Union[Point, str], {"x": 1}, {"x": 1, "y": 0}),  # noqa: UP007
        (Union[Point, str], "a", "a"),  # noqa: UP007
        (Optional[Point], None, None),  # noqa: UP045
        (tuple[Point, int], [{"x": 1}, 2], [{"x": 1, "y": 0}, 2]),
        (
            Node,
            {"next": {"children": [{"point": {"x": 1}}]}},
            {
                "value": 3,
                "point": None,
                "children": [],
                "next": {
                    "value": 3,
                    "point": None,
                    "next": None,
                    "children": [{"value": 3, "point": {"x": 1, "y": 0}, "next": None, "children": []}],
                },
            },
        ),
        (Tree, {"array": [1], "part": {"array": [2]}}, {"array": [1], "part": {"array": [2], "part": None}}),
        (list[Pair], [{"left": [1, 2], "right": 1}], [{"left": [1, 2], "right": 1}]),
        (Union[np.ndarray, str], [1, 2], [1, 2]),  # noqa: UP007
        (Union[np.ndarray, str], "a", "a"),  # noqa: UP007
        (decimal.Decimal, 1.5, "1.5"),
        (datetime.datetime, "2026-01-02T03:04:05", "2026-01-02T03:04:05"),
    ],
)
def test_values_come_back_whole(annotation, value, expected):
    assert through(annotation, value) == expected


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Point, {"x": "1"}, "$.value.x"),
        (list[Point], [{"x": 1}, {}], "$.value[1].x"),
        (Node, {"next": {"children": [{}, {"point": {"x": None}}]}}, "$.value.next.children[1].point.x"),
        (Tree, {"array": [1], "part": {"array": ["a"]}}, "$.value.part.array"),
        (list[Pair], [{"left": [1, 2], "right": "a"}], "$.value[0].right"),
    ],
)
def test_a_wrong_value_inside_names_its_place(annotation, value, path):
    with pytest.raises(InvalidArgument) as raised:
        through(annotation, value)
    assert raised.value.details["path"] == path


def test_what_a_service_returns_is_checked_inside_too():
    spec = declare(list[Point]).apis["call"]
    with pytest.raises(InvalidOutput, match=r"\$\[1\]\.x"):
        spec.encode([Point(1), Point("a")])  # type: ignore[arg-type]
    assert spec.encode([{"x": 1, "y": 2}]) == b'[{"x":1,"y":2}]'


def test_a_record_keeps_its_class_and_what_it_does_when_it_is_made():
    @dataclasses.dataclass
    class Sum:
        a: int
        b: int = 2

        def __post_init__(self) -> None:
            self.total = self.a + self.b

    spec = declare(Sum).apis["call"]
    ((made,), _) = spec.decode(b'{"value":{"a":1}}')
    assert (type(made), made.total, vars(made)["b"]) == (Sum, 3, 2)


def test_schemas_say_what_is_read():
    def schema(annotation):
        document = declare(annotation).openapi()
        body = document["paths"]["/call"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return body["properties"]["value"], document["components"]["schemas"]

    assert schema(set[int])[0] == {"type": "array", "items": {"type": "integer"}}
    assert schema(decimal.Decimal)[0]["type"] == ["string", "number"]
    assert schema(tuple[int, str])[0]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert schema(datetime.datetime)[0] == {"type": "string", "format": "date-time"}
    assert schema(np.ndarray)[0]["type"] == ["array", "number", "boolean", "null"]
    row = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    shaped = Annotated[np.ndarray, Shape((-1, 2)), DType("int64")]
    assert schema(shaped)[0] == {"type": "array", "items": row}
    reference, shared = schema(Node)
    assert reference == {"$ref": "#/components/schemas/Node"}
    assert shared["Node"]["properties"]["value"] == {"type": "integer", "default": 3}
    assert shared["Node"]["properties"]["children"]["items"] == {"$ref": "#/components/schemas/Node"}
    assert shared["Point"]["description"] == "A point."
    assert "description" not in shared["Node"]


def test_files_and_arrays_in_the_notation_of_bentomls_clients():
    given = {
        route["name"]: route["input"]["properties"]["value"]
        for route in declare(Optional[Path]).schema()["routes"]  # noqa: UP045
    }
    assert given["call"]["type"] == "file"
    (route,) = declare(Annotated[np.ndarray, DType("float32")]).schema()["routes"]
    assert route["input"]["properties"]["value"] == {"type": "tensor", "format": "numpy-array", "dtype": "float32"}
    (route,) = declare(Upload).schema()["routes"]
    assert route["input"]["$defs"]["Upload"]["properties"]["file"]["type"] == "file"
    (route,) = declare(datetime.date).schema()["routes"]
    assert route["output"] == {"anyOf": [{"type": "string", "format": "date"}]}


def test_files_inside_pydantic_models(require_package):
    require_package("pydantic")
    import pydantic

    class Item(pydantic.BaseModel):
        photo: Path
        values: np.ndarray
        note: str = pydantic.Field("x", description="a note")
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    service = declare(Item, int)
    (route,) = service.schema()["routes"]
    fields = route["input"]["properties"]["value"]["properties"]
    assert (fields["photo"]["type"], fields["values"]["type"]) == ("file", "tensor")
    assert fields["note"]["description"] == "a note"
    body = service.openapi()["paths"]["/call"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    photo = body["properties"]["value"]["properties"]["photo"]
    assert (photo["type"], photo["contentMediaType"]) == ("string", "application/octet-stream")
    assert "notation" not in json.dumps(service.openapi())


def test_frames_are_described_as_rows_and_columns(require_package):
    require_package("pandas")
    import pandas as pd

    service = declare(Annotated[pd.DataFrame, DataframeSchema(columns=["a"])])
    body = service.openapi()["paths"]["/call"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [choice["type"] for choice in body["properties"]["value"]["anyOf"]] == ["array", "object"]


def test_frames_are_read_as_pandas_writes_them(require_package):
    require_package("pandas")
    import pandas as pd

    load = codec_for(pd.DataFrame).load
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    for orient in ("columns", "records", "index"):
        text = json.loads(frame.to_json(orient=orient))
        if orient == "index":  # its keys look like columns
            assert list(load(text).columns) == ["0", "1"]
        else:
            assert load(text).to_dict("list") == frame.to_dict("list")
    with pytest.raises(ValueError, match="the same index"):
        load({"a": {"0": 1}, "b": {"1": 2}})
    with pytest.raises(ValueError, match="each a list"):
        load({"a": {"0": 1}, "b": [2]})


def test_structs_keep_their_defaults():
    class Box(msgspec.Struct):
        a: int = 1

    assert through(Box, {}) == {"a": 1}
