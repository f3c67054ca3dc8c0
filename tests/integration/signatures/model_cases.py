"""APIs of pydantic models and msgspec Structs."""

# ruff: noqa: C901, UP007, UP045 - a list of small functions, with types as services of BentoML write them

import pathlib
from typing import Annotated, Optional, Union

from binary_cases import FILE


def model_cases(zoo):
    import pydantic

    case = zoo.case

    class Item(pydantic.BaseModel):
        name: str
        count: int = pydantic.Field(default=1, gt=0, description="how many")

    class Order(pydantic.BaseModel):
        items: dict[str, list[Item]]
        note: Optional[str] = None

    class Upload(pydantic.BaseModel):
        photo: pathlib.Path
        caption: str = "none"

    @case("{'name': 'a', 'count': 2}", item={"name": "a"})
    def model(self, item: Item) -> Item:
        return Item(name=item.name, count=item.count + 1)

    @case("[{'name': 'a', 'count': 1}]", items=[{"name": "a"}])
    def list_of_models(self, items: list[Item]) -> list[Item]:
        return items

    @case("{'name': 'b', 'count': 1}", {"name": "b"})
    def root_model(self, item: Item, /) -> Item:
        return item

    @case("{'items': {'a': [{'name': 'b', 'count': 1}]}, 'note': None}", order={"items": {"a": [{"name": "b"}]}})
    def nested_model(self, order: Order) -> Order:
        return order

    @case("None")
    def optional_model(self, item: Optional[Item] = None) -> Optional[Item]:
        return item

    @case("{'name': 'a', 'count': 1}", item={"name": "a"})
    def model_or_text(self, item: Union[Item, str]) -> Union[Item, str]:
        return item

    @case("'a,b'", tags=["b", "a"])
    def described(self, tags: Annotated[set[str], pydantic.Field(description="words", max_length=3)]) -> str:
        return ",".join(sorted(tags))

    @case("3", x=3)
    def field(self, x: int = pydantic.Field(default=1, ge=0, description="a number")) -> int:
        return x

    @case("'abc cap'", {"photo": FILE + "abc", "caption": "cap"})
    def model_with_file(self, upload: Upload, /) -> str:
        return f"{upload.photo.read_text()} {upload.caption}"

    @case("'b 1'", name="b", options={"input_spec": Item})
    def input_spec(self, name, count):
        return f"{name} {count}"

    @case("{'name': 'c', 'count': 3}", options={"output_spec": Item})
    def output_spec(self):
        return {"name": "c", "count": 3}


def struct_cases(zoo):
    import msgspec

    class Spot(msgspec.Struct):
        x: int
        y: int = 0

    class Box(msgspec.Struct):
        spots: list[Spot]
        name: Optional[str] = None

    @zoo.case("{'spots': [{'x': 2, 'y': 0}], 'name': None}", box={"spots": [{"x": 2}]})
    def struct(self, box: Box) -> Box:
        return box
