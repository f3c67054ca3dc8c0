"""Three services, as the tests of composition serve them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import numpy as np

import bentotool
from bentotool.exceptions import BentoMLException


class Quota(BentoMLException):
    error_code = 429


class Worn(Exception):
    def __init__(self, part: str, *, hours: int) -> None:
        super().__init__(f"{part} after {hours} hours")
        self.part, self.hours = part, hours


class Panic(BaseException):
    """As a compiled library raises it."""


class Limit(Quota):
    def __init__(self, of: str) -> None:
        super().__init__(f"limit of {of}")
        self.of = of


class Point(msgspec.Struct):
    x: float
    y: float


class Odd(BentoMLException):
    error_code = 422

    def __init__(self, text: str) -> None:
        super().__init__(text, details={"n": 10**30})


@bentotool.service(workers=2, threads=4)
class Numbers:
    def __init__(self) -> None:
        self.cancelled = 0

    def __is_ready__(self) -> bool:
        return not os.path.exists(os.environ.get("NOT_READY", "-"))

    @bentotool.api
    async def wait(self, seconds: float) -> int:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return os.getpid()

    @bentotool.api
    def block(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    @bentotool.api
    async def scale(self, values: np.ndarray, by: float = 2.0) -> np.ndarray:
        return values * by

    @bentotool.api
    async def mirror(self, point: Point, corners: set[int]) -> Point:
        assert isinstance(point, Point)
        assert corners == {1, 2}
        return Point(point.y, point.x)

    @bentotool.api
    async def fail(self, how: str) -> None:
        if how == "quota":
            raise Quota("that is enough")
        if how == "worn":
            raise Worn("belt", hours=70)
        if how == "limit":
            raise Limit("rows")
        raise {"value": ValueError, "key": KeyError, "exit": SystemExit, "panic": Panic}[how]("wrong")

    @bentotool.api
    def told(self, a: int, ctx: bentotool.Context) -> str:
        ctx.response.status_code = 201
        return f"{a} {ctx.request.path}"

    @bentotool.api
    async def count(self, n: int) -> AsyncIterator[str]:
        for number in range(n):
            yield f"{number}"
            await asyncio.sleep(0)

    @bentotool.api
    def lines(self, n: int) -> Iterator[np.ndarray]:
        for number in range(n):
            yield np.full(2, number)
        if n == 3:
            raise Quota("no more of them")

    @bentotool.api
    async def broken(self, how: str) -> AsyncIterator[str]:
        yield "one"
        raise {"cancel": asyncio.CancelledError, "exit": SystemExit, "odd": Odd}[how]("wrong \udcff")

    @bentotool.api
    async def headers(self, ctx: bentotool.Context) -> dict[str, str]:
        return {name: ctx.request.headers.get(name, "") for name in ("traceparent", "x-request-id")}

    @bentotool.api
    async def noticed(self) -> int:
        return self.cancelled

    @bentotool.api
    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


@bentotool.service
class Words:
    numbers = bentotool.depends(Numbers)

    @bentotool.api
    async def wait(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return os.getpid()

    @bentotool.api(batchable=True)
    def twice(self, rows: list[str]) -> list[str]:
        return [row * 2 for row in rows]

    @bentotool.api
    async def through(self) -> dict[str, str]:
        return await self.numbers.headers()


@bentotool.service(path_prefix="/front", traffic={"timeout": 20})
class Front:
    numbers = bentotool.depends(Numbers)
    words = bentotool.depends(Words)

    @bentotool.api
    async def broken(self, how: str) -> AsyncIterator[str]:
        async for item in self.numbers.to_async.broken(how):
            yield item

    @bentotool.api
    async def together(self, seconds: float) -> list[int]:
        return await asyncio.gather(
            self.numbers.wait(seconds), self.words.wait(seconds), self.numbers.to_async.block(seconds)
        )

    @bentotool.api
    async def scale(self, values: list[float]) -> list[float]:
        return (await self.numbers.scale(np.array(values), by=3)).tolist()

    @bentotool.api
    async def mirror(self, x: float, y: float) -> list[float]:
        found = await self.numbers.mirror(Point(x, y), corners={1, 2})
        assert type(found) is Point
        return [found.x, found.y]

    @bentotool.api
    def twice(self, word: str) -> str:
        return self.words.twice([word])[0]

    @bentotool.api
    async def told(self) -> list[str]:
        return [await self.numbers.to_async.told(1), await asyncio.to_thread(self.numbers.told, a=2)]

    @bentotool.api
    async def caught(self, how: str) -> str:
        try:
            await self.numbers.fail(how)
        except Worn as error:
            return f"{error}: {error.part}, {error.hours}"
        except Limit as error:
            return f"{error.http_status}: {error}: {error.of}"
        except Quota as error:
            return f"quota {error.http_status}: {error}"
        except (ValueError, KeyError, RuntimeError) as error:
            return repr(error)
        return "none"

    @bentotool.api
    async def passed_on(self, how: str) -> None:
        await self.numbers.fail(how)

    @bentotool.api
    async def wrong_call(self) -> str:
        try:
            await self.numbers.scale(1, 2, 3, 4)
        except TypeError as error:
            return str(error)
        return "none"

    @bentotool.api
    async def count(self, n: int) -> list[str]:
        return [item async for item in self.numbers.count(n)] + list(self.numbers.to_sync.count(1))

    @bentotool.api
    def lines(self, n: int) -> list[list[int]]:
        found = []
        try:
            found.extend(item.tolist() for item in self.numbers.lines(n))
        except Quota as error:
            found.append([error.http_status])
        return found

    @bentotool.api
    async def stream(self, n: int) -> AsyncIterator[str]:
        async for item in self.numbers.count(n):
            yield item

    @bentotool.api
    async def trace(self) -> dict[str, str]:
        return await self.words.through()

    @bentotool.api
    async def hurried(self) -> str:
        try:
            await self.numbers.wait(30.0)
        except BentoMLException as error:
            return error.code
        return "none"

    @bentotool.api
    async def noticed(self) -> int:
        return sum(await asyncio.gather(*(self.numbers.noticed() for _ in range(2))))

    @bentotool.api
    async def pid(self, seconds: float) -> int:
        return await self.numbers.wait(seconds)

    @bentotool.api
    async def kill(self) -> str:
        try:
            await self.numbers.die()
        except BentoMLException as error:
            return f"{type(error).__name__} {error.http_status}"
        return "none"

    @bentotool.api
    async def ready(self) -> bool:
        return self.numbers.is_ready() and self.numbers.client_url is None

    @bentotool.api
    async def where(self) -> list[int]:
        return [os.getpid(), await self.numbers.wait(0), await self.words.wait(0)]
