"""Batchable APIs in a whole application: how inputs are grouped, counted, padded and taken apart."""

import asyncio

import httpx
import numpy as np
import pytest

import bentotool
from bentotool.errors import ConfigError
from bentotool.runtime.app import Application
from bentotool.runtime.batchqueue import BatchQueue
from bentotool.sdk.wording import kind_of

LIMIT = 10.0
policies = []


class Watched(BatchQueue):
    def __init__(self, *args):
        super().__init__(*args)
        policies.append(self)


def padded(rows):
    longest = max(row.shape[1] for row in rows)
    return [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows]


@bentotool.service
class Grouped:
    def __init__(self):
        self.calls = []
        self.gate = asyncio.Event()

    async def seen(self, batch):
        self.calls.append(batch)
        await self.gate.wait()

    def bucket(self, texts):
        return max(map(len, texts)) // 10

    @bentotool.api(batchable=True, batch_key="bucket")
    async def lengths(self, texts: list[str]) -> list[int]:
        await self.seen(texts)
        return [len(text) for text in texts]

    @bentotool.api(batchable=True, max_batch_size=10, batch_units=lambda texts: sum(map(len, texts)))
    async def limited(self, texts: list[str]) -> list[int]:
        await self.seen(texts)
        return [len(text) for text in texts]

    @bentotool.api(
        batchable=True,
        max_batch_size=100,
        batch_units=lambda texts: np.uint8(90) if texts == ["a"] else float(texts[0]),
    )
    async def counted(self, texts: list[str]) -> list[int]:
        await self.seen(texts)
        return [len(text) for text in texts]

    @bentotool.api(batchable=True, batch_pad=padded)
    async def sums(self, rows: np.ndarray) -> np.ndarray:
        await self.seen(rows.tolist())
        return rows.sum(axis=1)

    @bentotool.api(batchable=True, batch_policy=Watched)
    async def echo(self, rows: list[int]) -> list[int]:
        return rows


def together(path, bodies):
    """Answers to requests that come while the first of them runs, and the batches that were made."""

    async def main():
        app = Application(Grouped)
        await app.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=LIMIT) as client:
                tasks = [asyncio.create_task(client.post(path, json=body)) for body in bodies]
                for _ in range(100):
                    await asyncio.sleep(0)
                app.instance.gate.set()
                return [await task for task in tasks], app.instance.calls
        finally:
            await app.stop()

    return asyncio.run(main())


def test_a_key_of_the_service_keeps_inputs_apart():
    texts = [["a"], ["b" * 25], ["c"], ["d" * 22]]
    answers, calls = together("/lengths", [{"texts": each} for each in texts])
    assert [answer.json() for answer in answers] == [[1], [25], [1], [22]]
    for batch in calls:
        assert len({len(text) // 10 for text in batch}) == 1
    assert len(calls) < 4, "what has one key shares a batch"


def test_units_of_its_own_limit_a_batch_and_part_a_request():
    answers, calls = together("/limited", [{"texts": ["a" * 6]}, {"texts": ["b" * 6]}, {"texts": ["c" * 3, "d" * 9]}])
    assert [answer.json() for answer in answers] == [[6], [6], [3, 9]]
    assert all(sum(map(len, batch)) <= 10 for batch in calls)


def test_an_item_with_more_units_than_a_batch_may_have_is_refused():
    answers, _ = together("/limited", [{"texts": ["a" * 11]}, {"texts": ["b"]}])
    assert [answer.status_code for answer in answers] == [413, 200]
    assert "11 units, at most 10" in answers[0].json()["error"]["message"]


def test_padding_lets_shapes_that_differ_share_a_batch():
    rows = [[[1.0, 2.0]], [[1.0, 2.0, 3.0]], [[4.0]], [[1.0, 1.0, 1.0, 1.0]]]
    answers, calls = together("/sums", [{"rows": each} for each in rows])
    assert [answer.json() for answer in answers] == [[3.0], [6.0], [4.0], [4.0]]
    assert max(len(batch) for batch in calls) >= 3


def test_a_policy_of_its_own():
    policies.clear()
    answers, _ = together("/echo", [{"rows": [1, 2]}])
    assert answers[0].json() == [1, 2]
    assert len(policies) == 1


def test_a_hook_that_the_service_has_not():
    @bentotool.service
    class Without:
        @bentotool.api(batchable=True, batch_key="bukket")
        def double(self, rows: list[int]) -> list[int]:
            return rows

    async def main():
        await Application(Without).start()

    with pytest.raises(ConfigError, match="no method 'bukket'"):
        asyncio.run(main())


def test_units_of_an_array_library_do_not_wrap():
    """The sum of four 90s is 104 in a byte."""
    answers, calls = together("/counted", [{"texts": ["a"]}] * 5)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert max(map(len, calls)) == 1


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "-inf"])
def test_units_that_are_no_number_to_count_with_are_an_error_of_their_request_alone(given):
    answers, _ = together("/counted", [{"texts": ["a"]}, {"texts": [given]}, {"texts": ["0"]}, {"texts": ["7.5"]}])
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200]
    said = answers[1].json()["error"]["message"]
    assert "batch_units of counted gave" in said
    assert "instead of a positive number" in said


@pytest.mark.parametrize("given", [None, "3", [1], b"4", np.arange(3)])
def test_units_of_another_kind_are_an_error(given):
    @bentotool.service
    class Odd:
        @bentotool.api(batchable=True, batch_units=lambda rows: given)
        def double(self, rows: list[int]) -> list[int]:
            return rows

    answer = asyncio.run(_ask(Odd, {"rows": [1]}))
    assert answer.status_code == 500
    assert f"gave {kind_of(given)} instead" in answer.json()["error"]["message"]


async def _ask(service, body):
    app = Application(service)
    await app.start()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/double", json=body)
    finally:
        await app.stop()


@bentotool.service(traffic={"max_queue": 4})
class Parted:
    def __init__(self):
        self.calls = []
        self.gate = asyncio.Event()

    @bentotool.api(batchable=True, max_batch_size=2)
    async def double(self, rows: list[int]) -> list[int]:
        self.calls.append(rows)
        if rows == [1, 2]:
            raise ValueError("a part that fails")
        await self.gate.wait()
        return [2 * row for row in rows]


def with_parted(work):
    async def main():
        app = Application(Parted)
        await app.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=LIMIT) as client:
                found = await work(lambda rows: client.post("/double", json={"rows": rows}), app.instance.gate)
                return found, app.instance.calls
        finally:
            await app.stop()

    return asyncio.run(main())


def test_when_a_part_fails_those_that_have_not_begun_never_run():
    async def work(ask, gate):
        failed = await ask(list(range(1, 9)))
        gate.set()
        return failed, await ask([50])

    (failed, later), calls = with_parted(work)
    assert failed.status_code == 500
    assert later.json() == [100]
    assert [5, 6] not in calls
    assert [7, 8] not in calls


def test_when_a_part_finds_no_room_none_runs():
    async def work(ask, gate):
        first = asyncio.create_task(ask([50]))
        for _ in range(100):
            await asyncio.sleep(0)
        second = asyncio.create_task(ask([60, 61]))
        for _ in range(100):
            await asyncio.sleep(0)
        refused = await ask(list(range(10, 18)))
        gate.set()
        return refused, await first, await second

    (refused, *answered), calls = with_parted(work)
    assert refused.status_code == 503
    assert [answer.json() for answer in answered] == [[100], [120, 122]]
    assert calls == [[50], [60, 61]]
