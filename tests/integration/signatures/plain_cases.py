"""APIs of plain types: numbers, texts, containers, records, dates, streams."""

# ruff: noqa: C901, UP007, UP045 - a list of small functions, with types as services of BentoML write them

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Line:
    start: Point
    end: Point
    label: Optional[str] = None


class Pair(TypedDict):
    left: int
    right: str


class Spot(NamedTuple):
    x: int
    y: int


def plain_cases(zoo):
    case = zoo.case

    @case("3", a=1, b=2)
    def add(self, a: int, b: int) -> int:
        return a + b

    @case("'A'", x="a")
    def text(self, x: str) -> str:
        return x.upper()

    @case("1.5", x=1.5)
    def number(self, x: float) -> float:
        return x

    @case("False", x=True)
    def flag(self, x: bool) -> bool:
        return not x

    @case("None")
    def nothing(self) -> None:
        return None

    @case("7", a=3)
    def default(self, a: int, b: int = 4) -> int:
        return a + b

    @case("5", a=2, b=3)
    def keyword_only(self, *, a: int, b: int = 1) -> int:
        return a + b

    @case("{'b': {'a': 1}}", x={"a": 1})
    def unannotated(self, x):
        return {"b": x}

    @case("[1, 'a', None]", x=[1, "a", None])
    def anything(self, x: Any) -> Any:
        return x

    @case("[3, 1, 2]", args=[3, 1, 2])
    def variadic(self, *numbers: int) -> list:
        return list(numbers)

    @case("{'a': 1, 'b': 2}", kwargs={"a": 1, "b": 2})
    def keywords(self, **numbers: int) -> dict:
        return numbers

    @case("4", 2)
    def root_number(self, x: int, /) -> int:
        return x * 2

    @case("[1, 2]", [2, 1])
    def root_list(self, x: list[int], /) -> list[int]:
        return sorted(x)

    @case("'HI'", "hi")
    def root_text(self, x: str, /) -> str:
        return x.upper()


def structured_cases(zoo):
    case = zoo.case

    @case("[2, 4]", x=[1, 2])
    def a_list(self, x: list[int]) -> list[int]:
        return [item * 2 for item in x]

    @case("{'a': 0.5}", x={"a": 1})
    def a_dict(self, x: dict[str, float]) -> dict[str, float]:
        return {key: value / 2 for key, value in x.items()}

    @case("[1, 'a']", x=[1, "a"])
    def a_tuple(self, x: tuple[int, str]) -> tuple[int, str]:
        return x

    @case("[1, 2]", x=[2, 1, 2])
    def a_set(self, x: set[int]) -> list[int]:
        return sorted(x)

    @case("None", x=None)
    def optional(self, x: Optional[int]) -> Optional[int]:
        return x

    @case("'text'", x="text")
    def optional_text(self, x: Optional[str] = None) -> Optional[str]:
        return x

    @case("'1'", x="1")
    def union(self, x: Union[int, str]) -> Union[int, str]:
        return x

    @case("'blue'", x="red")
    def enumeration(self, x: Colour) -> Colour:
        return Colour.BLUE

    @case("2", x=1)
    def numbered(self, x: Level) -> Level:
        return Level.HIGH

    @case("'b'", x="b")
    def literal(self, x: Literal["a", "b"]) -> Literal["a", "b"]:
        return x

    @case("{'x': 2, 'y': 0}", p={"x": 1})
    def dataclass(self, p: Point) -> Point:
        return Point(p.x + 1, p.y)

    @case("3", lines=[{"start": {"x": 0}, "end": {"x": 3}}])
    def nested(self, lines: list[Line]) -> int:
        return sum(line.end.x for line in lines)

    @case("{'left': 2, 'right': 'r'}", p={"left": 1, "right": "r"})
    def typed_dict(self, p: Pair) -> Pair:
        return {"left": p["left"] + 1, "right": p["right"]}

    @case("[2, 1]", s=[1, 2])
    def named_tuple(self, s: Spot) -> Spot:
        return Spot(s.y, s.x)

    @case("{'a': [{'x': 1, 'y': 0}]}", m={"a": [{"x": 1}]})
    def dict_of_lists(self, m: dict[str, list[Point]]) -> dict[str, list[Point]]:
        return m

    @case("[{'x': 1, 'y': 0}, 'b']", things=[{"x": 1}, "b"])
    def list_of_unions(self, things: list[Union[Point, str]]) -> list[Union[Point, str]]:
        return things

    @case("{'a': None, 'b': 1}", x={"a": None, "b": 1})
    def dict_of_optionals(self, x: dict[str, Optional[int]]) -> dict[str, Optional[int]]:
        return x

    @case("None")
    def optional_answer(self, p: Optional[Point] = None) -> Optional[Point]:
        return p

    @case("[1, 4]", rows=[1, 2], options={"batchable": True})
    def batched_list(self, rows: list[int]) -> list[int]:
        return [row * row for row in rows]


def text_cases(zoo):
    case = zoo.case

    @case("'2026-01-02T03:04:05Z'", x="2026-01-02T03:04:05Z")
    def moment(self, x: datetime.datetime) -> datetime.datetime:
        return x

    @case("'2026-01-03'", x="2026-01-02")
    def day(self, x: datetime.date) -> datetime.date:
        return x + datetime.timedelta(days=1)

    @case("'00000000-0000-0000-0000-000000000001'", x="00000000-0000-0000-0000-000000000001")
    def identity(self, x: uuid.UUID) -> uuid.UUID:
        return x

    @case("'1.10'", x="1.10")
    def exact(self, x: decimal.Decimal) -> decimal.Decimal:
        return x

    @case("b'\\x00\\xff'")
    def raw_bytes(self) -> bytes:
        return b"\x00\xff"

    @case("3", b"abc")
    def root_bytes(self, x: bytes, /) -> int:
        return len(x)

    @case("None")
    def not_a_number(self) -> float:
        return float("nan")


def stream_cases(zoo):
    case, content_type = zoo.case, zoo.validators.ContentType

    @case("'012'", n=3)
    def stream(self, n: int) -> Generator[str, None, None]:
        for number in range(min(n, 9)):
            yield str(number)

    @case('\'{"n": 0}{"n": 1}\'', n=2)
    def stream_of_records(self, n: int) -> Generator[dict, None, None]:
        for number in range(min(n, 9)):
            yield {"n": number}

    @case("'01'", n=2)
    async def async_stream(self, n: int) -> AsyncGenerator[str, None]:
        for number in range(min(n, 9)):
            yield str(number)

    @case("'ab'")
    def typed_stream(self) -> Annotated[Generator[str, None, None], content_type("text/plain")]:
        yield "a"
        yield "b"


def context_cases(zoo):
    case = zoo.case

    @case("'GET curl'", verb="GET", who="curl")
    def with_context(self, verb: str, who: str, ctx: zoo.library.Context) -> str:
        ctx.response.headers["x-method"] = ctx.request.method
        return f"{verb} {who}"

    @case("7", n=7)
    async def asynchronous(self, n: int) -> int:
        return n

    @case("'renamed'", options={"route": "/another/route"})
    def routed(self) -> str:
        return "renamed"

    @case("5", n=4, task=True)
    def task(self, n: int) -> int:
        return n + 1

    @case("{'n': 4}", n=4, task=True)
    async def asynchronous_task(self, n: int) -> dict[str, int]:
        return {"n": n}
