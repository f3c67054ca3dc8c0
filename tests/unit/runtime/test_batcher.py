"""The batcher's policy and executor. Clocks are injected; threads are real, and every wait is bounded."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.runtime.batcher import Batcher
from bentotool.runtime.batchqueue import Arrivals, BatchQueue, Entry, Observer
from bentotool.runtime.costmodel import CostModel
from bentotool.sdk.exceptions import DeadlineExceeded, InvalidOutput, ServiceUnavailable

LIMIT = 10.0
FAR = 1e12


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shed(Observer):
    def __init__(self) -> None:
        self.causes: list[str] = []

    def shed(self, cause: str) -> None:
        self.causes.append(cause)


def linear_cost(alpha: float, beta: float) -> CostModel:
    cost = CostModel()
    for units in (1, 10, 20, 30) * 5:
        cost.observe(units, alpha + beta * units)
    return cost


def make_queue(
    max_units: int = 8, max_items: int = 100, cost: CostModel | None = None
) -> tuple[BatchQueue, Clock, Shed]:
    clock, shed = Clock(), Shed()
    return BatchQueue(max_units, max_items, cost or CostModel(), clock, shed), clock, shed


def make_entry(
    value: Any, units: int = 1, key: object = None, deadline: float = FAR, *, gone: bool = False
) -> tuple[Entry, list]:
    outcomes: list[tuple[Any, BaseException | None]] = []
    return Entry(value, units, key, deadline, lambda: gone, lambda r, e: outcomes.append((r, e))), outcomes


def values(batch: list[Entry]) -> list[Any]:
    return [entry.value for entry in batch]


def test_a_single_entry_is_taken_at_once():
    queue, _, _ = make_queue()
    queue.put(make_entry("a")[0])
    assert values(queue.take()) == ["a"]
    assert queue.take() == []


def test_units_never_exceed_the_maximum():
    queue, _, _ = make_queue(max_units=8)
    for units in (5, 4, 3, 8, 1):
        queue.put(make_entry(units, units)[0])
    taken = []
    while batch := queue.take():
        assert sum(entry.units for entry in batch) <= 8
        taken += values(batch)
    assert sorted(taken) == [1, 3, 4, 5, 8]


def test_an_entry_larger_than_a_batch_is_refused():
    queue, _, _ = make_queue(max_units=8)
    with pytest.raises(ValueError, match="do not fit"):
        queue.put(make_entry("x", 9)[0])


def test_keys_do_not_mix_and_the_oldest_key_goes_first():
    queue, clock, _ = make_queue()
    for number, key in enumerate("abab"):
        clock.now += 1
        queue.put(make_entry(number, key=key)[0])
    assert values(queue.take()) == [0, 2]
    assert values(queue.take()) == [1, 3]


def test_the_queue_is_bounded_and_says_when_to_return():
    queue, _, shed = make_queue(max_items=2)
    queue.put(make_entry(1)[0])
    queue.put(make_entry(2)[0])
    with pytest.raises(ServiceUnavailable) as raised:
        queue.put(make_entry(3)[0])
    assert raised.value.retry_after >= 1
    assert shed.causes == ["queue_full"]


def test_gone_entries_make_room_in_a_full_queue():
    queue, _, _ = make_queue(max_items=1)
    queue.put(make_entry(1, gone=True)[0])
    queue.put(make_entry(2)[0])
    assert values(queue.take()) == [2]


def test_expired_and_gone_entries_are_never_run():
    queue, clock, shed = make_queue()
    late, outcomes = make_entry("late", deadline=clock.now + 1)
    queue.put(late)
    queue.put(make_entry("gone", gone=True)[0])
    clock.now += 2
    assert queue.take() == []
    assert isinstance(outcomes[0][1], DeadlineExceeded)
    assert sorted(shed.causes) == ["expired", "gone"]


def test_what_cannot_be_in_time_is_shed_and_the_feasible_is_not():
    queue, clock, shed = make_queue(cost=linear_cost(1.0, 0.1))
    queue.put(make_entry("running")[0])
    queue.take()
    hopeless, outcomes = make_entry("hopeless", deadline=clock.now + 1.5)
    queue.put(hopeless)
    clock.now += 0.6
    queue.put(make_entry("fine", deadline=clock.now + 2)[0])
    assert values(queue.take()) == ["fine"]
    assert isinstance(outcomes[0][1], ServiceUnavailable)
    assert shed.causes == ["infeasible"]


def test_two_batches_save_everybody_where_one_cannot():
    queue, clock, _ = make_queue(max_units=30, cost=linear_cost(1.0, 0.1))
    queue.put(make_entry("urgent", deadline=clock.now + 1.15)[0])
    for number in range(5):
        queue.put(make_entry(number, deadline=clock.now + 10)[0])
    assert values(queue.take()) == ["urgent"]
    assert values(queue.take()) == [0, 1, 2, 3, 4]


def test_entries_are_ordered_by_deadline():
    queue, clock, _ = make_queue(max_units=2)
    for offset in (9, 3, 6, 1):
        queue.put(make_entry(offset, deadline=clock.now + offset)[0])
    assert values(queue.take()) == [1, 3]


async def with_batcher(function, work, **options):
    batcher = Batcher(function, name="test", **{"max_units": 8, **options})
    batcher.start()
    try:
        return await asyncio.wait_for(work(batcher), LIMIT)
    finally:
        batcher.close()


def submit(batcher: Batcher, value: Any, **options: Any) -> Any:
    return batcher.submit(value, **{"units": 1, "key": None, "deadline": FAR, **options})


def test_a_cancelled_caller_does_not_hurt_the_batch():
    """MLServer: one of four cancelled, and the other three never completed (STYLE d.17)."""
    gate, entered, seen = threading.Event(), threading.Event(), []

    def model(batch):
        seen.append(list(batch))
        entered.set()
        assert gate.wait(LIMIT)
        return [value * 2 for value in batch]

    async def work(batcher):
        first = asyncio.create_task(submit(batcher, 0))
        await asyncio.to_thread(entered.wait, LIMIT)
        rest = [asyncio.create_task(submit(batcher, value)) for value in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        rest[1].cancel()
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*rest, return_exceptions=True)

    results = asyncio.run(with_batcher(model, work))
    assert results[0] == 2
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2:] == [6, 8]
    assert seen[1] == [1, 3, 4], "a cancelled item was run"


def test_an_idle_batcher_does_not_poll():
    """LitServe spins and BentoML wakes every millisecond while idle (STYLE d.18)."""
    asked = []

    async def work(batcher):
        take = batcher.queue.take
        batcher.queue.take = lambda: asked.append(1) or take()
        await submit(batcher, 1)
        before = len(asked)
        await asyncio.sleep(0.1)
        return len(asked) - before

    assert asyncio.run(with_batcher(list, work)) <= 1


def test_cancellation_of_the_batch_task_is_not_swallowed():
    """BentoML turns CancelledError into an answer (STYLE d.19)."""

    async def model(batch):
        await asyncio.sleep(LIMIT)
        return batch

    async def work(batcher):
        caller = asyncio.create_task(submit(batcher, 1))
        await asyncio.sleep(0.01)
        task = batcher._task
        task.cancel()
        with pytest.raises(ServiceUnavailable):
            await caller
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(with_batcher(model, work))


def test_when_the_batch_task_is_cancelled_nobody_waits_for_ever():
    async def model(batch):
        await asyncio.sleep(LIMIT)
        return batch

    async def work(batcher):
        callers = [asyncio.create_task(submit(batcher, n, key=n)) for n in range(3)]
        await asyncio.sleep(0.01)
        batcher._task.cancel()
        return await asyncio.gather(*callers, return_exceptions=True)

    found = asyncio.run(with_batcher(model, work))
    assert [type(error) for error in found] == [ServiceUnavailable] * 3


def test_a_cancellation_that_the_model_made_itself_is_an_error_of_one_item():
    """It awaits a task that was cancelled: that ends no executor, and no other request."""

    async def model(batch):
        await asyncio.sleep(0)
        if "bad" in batch:
            ended = asyncio.get_running_loop().create_future()
            ended.cancel()
            await ended
        return list(batch)

    async def work(batcher):
        items = ["a", "b", "bad", "c", "d"]
        found = await asyncio.gather(*(submit(batcher, item) for item in items), return_exceptions=True)
        return found, await submit(batcher, "later")

    found, later = asyncio.run(with_batcher(model, work))
    assert later == "later"
    assert [item for item in found if isinstance(item, str)] == ["a", "b", "c", "d"]
    assert type(found[2]) is RuntimeError


async def late() -> None:
    """As `asyncio.timeout`, task groups and the cancel scopes of libraries do it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.sleep(LIMIT)
    except asyncio.CancelledError:
        raise TimeoutError from None


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(LIMIT)


async def end_generator() -> None:
    raise GeneratorExit


async def exit_process() -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@pytest.mark.parametrize("fault", [late, cancel_itself, end_generator, exit_process])
def test_cancel_scopes_in_a_model_concern_one_item(fault):
    async def model(batch):
        await asyncio.sleep(0)
        if "bad" in batch:
            await fault()
        if "wrong" in batch:
            raise ValueError("a plain fault, after that")
        return list(batch)

    async def work(batcher):
        items = ["a", "bad", "b", "c", "wrong", "d", "bad"]
        waiting = [asyncio.create_task(submit(batcher, item, key=key)) for key in (1, 2) for item in items]
        found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), LIMIT)
        return found, await submit(batcher, "later")

    found, later = asyncio.run(with_batcher(model, work))
    assert later == "later"
    assert [item for item in found if isinstance(item, str)] == ["a", "b", "c", "d"] * 2
    assert [type(found[number]) for number in (4, 11)] == [ValueError] * 2
    assert all(isinstance(found[number], Exception) for number in (1, 6, 8, 13))


def test_an_answer_in_time_is_not_put_off_by_others_with_less_time():
    """While a batch hangs, and callers with tiny deadlines keep coming."""
    gate = threading.Event()

    def model(batch):
        assert gate.wait(LIMIT)
        return list(batch)

    async def work(batcher):
        first = asyncio.create_task(submit(batcher, 0))
        await asyncio.sleep(0.05)
        patient = asyncio.create_task(submit(batcher, 1, deadline=time.monotonic() + 0.3))
        others = []
        until = time.monotonic() + LIMIT / 2
        while not patient.done() and time.monotonic() < until:
            others.append(asyncio.create_task(submit(batcher, 2, deadline=time.monotonic() + 0.001)))
            await asyncio.sleep(0.002)
        in_time = patient.done()
        gate.set()
        await asyncio.gather(first, patient, *others, return_exceptions=True)
        return in_time

    assert asyncio.run(with_batcher(model, work))


def test_deadlines_do_not_follow_the_wall_clock(monkeypatch):
    """BentoML and MLServer measure deadlines with time.time() (STYLE d.20)."""
    monkeypatch.setattr("time.time", lambda: 1e18)
    import time

    assert asyncio.run(with_batcher(list, lambda b: submit(b, 7, deadline=time.monotonic() + LIMIT))) == 7


def test_adaptive_means_that_the_cost_is_learnt():
    """MLServer's wait is a constant (STYLE d.21)."""
    cost = linear_cost(0.008, 0.001)
    assert cost(20) == pytest.approx(0.028, rel=0.02)
    for units in (1, 10, 20, 30) * 60:
        cost.observe(units, 0.004 + 0.002 * units)
    assert cost(20) == pytest.approx(0.044, rel=0.05)


def test_the_cost_model_survives_outliers_and_one_size_repeated():
    cost = linear_cost(0.008, 0.001)
    cost.observe(10, 5.0)
    assert cost(10) == pytest.approx(0.018, rel=0.1)
    for _ in range(500):
        cost.observe(10, 0.018)
    assert cost(30) == pytest.approx(0.038, rel=0.15)


def test_sizes_that_were_never_seen_are_believed_at_once():
    cost = CostModel()
    for _ in range(20):
        cost.observe(8, 0.16)
    cost.observe(64, 0.72)
    assert cost(64) == pytest.approx(0.72, rel=0.1)
    assert cost(8) == pytest.approx(0.16, rel=0.1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_device_that_has_become_slower_or_faster_is_noticed(factor: float):
    cost = linear_cost(0.08, 0.01)
    for units in (16, 48) * 10:
        cost.observe(units, factor * (0.08 + 0.01 * units))
    assert cost(32) == pytest.approx(factor * 0.4, rel=0.25)


def test_one_odd_request_fails_alone():
    """Group by what can be batched, and let the bad item fail by itself (STYLE d.22)."""
    calls = []

    def model(batch):
        calls.append(len(batch))
        if "poison" in batch:
            raise ValueError("bad item")
        return [value.upper() for value in batch]

    async def work(batcher):
        gate = threading.Event()
        texts = ["poison" if number == 13 else f"v{number}" for number in range(32)]
        with batcher._lock:  # everything gathers while the executor is held up
            tasks = [asyncio.create_task(submit(batcher, text)) for text in texts]
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(with_batcher(model, work, max_units=32))
    failed = [number for number, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [13]
    assert isinstance(results[13], ValueError)
    assert max(calls) <= 32


class Panic(BaseException):
    """As a compiled library raises it."""


@pytest.mark.parametrize("kind", ["thread", "task"])
@pytest.mark.parametrize("fault", ["drain", "odd"])
def test_whatever_a_policy_does_the_executor_goes_on(fault, kind):
    class Broken(BatchQueue):
        broke = False

        def take(self):
            if len(self) and not Broken.broke:
                Broken.broke = True
                if fault == "odd":
                    super().take()
                    return ["no entry"]
                raise Panic("in take")
            return super().take()

        def drain(self):
            if fault == "drain" and Broken.broke and len(self):
                self._keys.clear()
                raise Panic("in drain")
            return super().drain()

    async def in_task(batch):
        return list(batch)

    async def work(batcher):
        with pytest.raises(Exception, match=r".*"):
            await submit(batcher, 1, deadline=time.monotonic() + 0.3)
        return await submit(batcher, 2)

    function = list if kind == "thread" else in_task
    assert asyncio.run(with_batcher(function, work, policy=Broken)) == 2


def test_an_answer_that_panics_keeps_no_other_from_its_caller():
    async def work(batcher):
        loop, told = asyncio.get_running_loop(), []

        def answer(result, error):
            told.append(result)
            if result == 0:
                raise Panic("in the caller's code")

        deadline = time.monotonic() + LIMIT
        entries = [
            batcher.put(n, units=1, key=None, deadline=deadline, gone=lambda: False, answer=answer, wake=False)
            for n in range(3)
        ]
        batcher.wake()
        while len(told) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for entry in entries:
            batcher.forget(entry)
        assert loop.is_running()
        return told

    assert asyncio.run(with_batcher(list, work)) == [0, 1, 2]


def test_the_number_of_results_is_checked():
    with pytest.raises(InvalidOutput):
        asyncio.run(with_batcher(lambda batch: [*batch, 0], lambda b: submit(b, 1)))


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration(), RuntimeError("x")]
)
def test_the_executor_outlives_whatever_the_model_raises(error):
    def model(batch):
        if batch[0] == "bad":
            raise error
        return list(batch)

    async def work(batcher):
        with pytest.raises(Exception, match=r".*"):
            await submit(batcher, "bad")
        return await submit(batcher, "good")

    assert asyncio.run(with_batcher(model, work)) == "good"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_context_variables_of_a_request_do_not_reach_the_batch(kind):
    def in_thread(batch):
        return [variable.get() for _ in batch]

    async def in_task(batch):
        return in_thread(batch)

    async def work(batcher):
        variable.set("mine")
        return await submit(batcher, 1)

    assert asyncio.run(with_batcher(in_thread if kind == "thread" else in_task, work)) == "unset"


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_context_variables_of_a_batch_do_not_reach_the_next(kind):
    def in_thread(batch):
        seen = variable.get()
        variable.set(f"of {batch[0]}")
        return [seen for _ in batch]

    async def in_task(batch):
        await asyncio.sleep(0)
        return in_thread(batch)

    async def work(batcher):
        return await asyncio.gather(*(submit(batcher, number, key=number) for number in range(5)))

    assert asyncio.run(with_batcher(in_thread if kind == "thread" else in_task, work)) == ["unset"] * 5


def test_closing_answers_what_still_waits():
    gate, entered = threading.Event(), threading.Event()

    def model(batch):
        entered.set()
        gate.wait(LIMIT)
        return list(batch)

    async def work(batcher):
        first = asyncio.create_task(submit(batcher, 1))
        await asyncio.to_thread(entered.wait, LIMIT)
        second = asyncio.create_task(submit(batcher, 2))
        await asyncio.sleep(0)
        batcher.close()
        gate.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    first, second = asyncio.run(with_batcher(model, work))
    assert first == 1
    assert isinstance(second, ServiceUnavailable)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from("ab"), st.sampled_from(["ok", "ok", "poison", "cancel"])),
        max_size=40,
    ),
    st.booleans(),
)
def test_each_caller_gets_its_own_answer_or_its_own_error(items, is_async):
    broken: list[str] = []

    def check(batch):
        if sum(units for _, units, _, _ in batch) > 8 or len({key for _, _, key, _ in batch}) != 1:
            broken.append(f"too large, or keys mixed: {batch}")
        poison = [number for number, _, _, fate in batch if fate == "poison"]
        if poison:
            raise ValueError(str(poison[0]))
        return [number for number, _, _, _ in batch]

    async def check_async(batch):
        await asyncio.sleep(0)
        return check(batch)

    async def work(batcher):
        tasks = []
        for number, (units, key, fate) in enumerate(items):
            value = (number, units, key, fate)
            tasks.append(asyncio.create_task(submit(batcher, value, units=units, key=key)))
        await asyncio.sleep(0)
        for task, (_, _, fate) in zip(tasks, items, strict=True):
            if fate == "cancel":
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(with_batcher(check_async if is_async else check, work))
    assert not broken
    for number, ((_, _, fate), result) in enumerate(zip(items, results, strict=True)):
        assert is_own(fate, number, result)


def is_own(fate: str, number: int, result: Any) -> bool:
    """Whether a result is what the item's own caller must get."""
    if fate == "poison":
        return isinstance(result, ValueError) and str(result) == str(number)
    return isinstance(result, asyncio.CancelledError) if fate == "cancel" else result == number


def test_a_deadline_shorter_than_a_run_is_not_called_overload():
    queue, clock, shed = make_queue(cost=linear_cost(1.0, 0.1))
    early, of_early = make_entry("early", deadline=clock.now + 0.5)
    edge, of_edge = make_entry("edge", deadline=clock.now + 1.1001)
    queue.put(early)
    assert queue.take() == []
    queue.put(edge)
    clock.now += 0.01
    assert queue.take() == []
    for outcomes in (of_early, of_edge):
        assert isinstance(outcomes[0][1], DeadlineExceeded)
        assert "shorter than a run" in str(outcomes[0][1])
    assert shed.causes == ["infeasible", "infeasible"]


def loaded_queue(max_units: int = 64) -> tuple[BatchQueue, Clock, Shed]:
    """A queue that knows its cost, 8 ms and 1 ms per unit, and whose batch of 20 has just begun."""
    queue, clock, shed = make_queue(max_units=max_units, max_items=1000, cost=linear_cost(0.008, 0.001))
    for number in range(20):
        queue.put(make_entry(number)[0])
    assert len(queue.take()) == 20
    return queue, clock, shed


def test_the_door_refuses_what_the_running_batch_and_those_ahead_leave_no_time_for():
    queue, clock, shed = loaded_queue()
    queue.admit(clock.now + 0.05)
    with pytest.raises(ServiceUnavailable) as raised:
        queue.admit(clock.now + 0.03)  # 28 ms are still to run, and 9 ms for itself
    assert raised.value.retry_after >= 1
    assert shed.causes == ["refused"]


def test_the_door_counts_those_ahead_but_not_the_less_urgent():
    queue, clock, _ = loaded_queue()
    for number in range(12):
        queue.put(make_entry(number, deadline=clock.now + 10)[0])
    queue.admit(clock.now + 0.045)  # overtakes all of them
    for number in range(12):
        queue.put(make_entry(number, deadline=clock.now + 0.04)[0])
    with pytest.raises(ServiceUnavailable):
        queue.admit(clock.now + 0.045)


def test_the_door_is_open_while_nothing_runs_or_nothing_is_known():
    queue, clock, idle = make_queue(cost=linear_cost(1.0, 0.1))
    queue.admit(clock.now + 0.1)  # whether that is possible at all, the queue says
    assert not idle.causes
    queue, clock, unknown = make_queue()
    queue.put(make_entry(1)[0])
    assert len(queue.take()) == 1
    queue.admit(clock.now + 1e-6)
    assert not unknown.causes


def test_under_a_flood_the_door_takes_about_one_batch_and_refuses_the_rest():
    queue, clock, shed = loaded_queue()
    admitted = 0
    for _ in range(190):  # 28 ms at ten times what the device can do
        clock.now += 0.028 / 190
        try:
            queue.admit(clock.now + 0.05)
        except ServiceUnavailable:
            continue
        admitted += 1
        queue.put(make_entry(0, deadline=clock.now + 0.05)[0])
    assert 20 <= admitted <= 64
    assert len(queue.take()) >= 20
    assert shed.causes.count("refused") == 190 - admitted


def test_an_estimate_of_arrivals_forgets():
    clock = Clock()
    arrivals = Arrivals(clock)
    for _ in range(1000):
        clock.now += 0.001
        arrivals.note()
    assert arrivals.rate() == pytest.approx(1000, rel=0.05)
    clock.now += 2
    assert arrivals.rate() < 1


def test_who_has_no_chance_after_the_next_batch_is_told_before_it():
    queue, clock, shed = make_queue(max_units=8, cost=linear_cost(1.0, 0.1))
    for number in range(8):
        queue.put(make_entry(number, deadline=clock.now + 2.0)[0])
    hopeless, outcomes = make_entry("hopeless", deadline=clock.now + 2.5)
    queue.put(hopeless)
    assert len(queue.take()) == 8
    assert isinstance(outcomes[0][1], ServiceUnavailable)
    assert shed.causes == ["infeasible"]


def test_an_estimate_that_lets_nothing_run_is_put_to_the_test():
    queue, clock, shed = make_queue(cost=linear_cost(3.0, 0.0))

    def put() -> tuple[Entry, list]:
        made = make_entry("x", deadline=clock.now + 0.5)
        queue.put(made[0])
        return made

    _, answered = put()
    assert queue.take() == []
    assert isinstance(answered[0][1], DeadlineExceeded)
    clock.now += 1.5
    entries = [put()[0] for _ in range(3)]
    assert queue.take() == entries[:1], "one, and no more"
    assert shed.causes == ["infeasible"] * 3
    queue.cost.observe(1, 2.9)  # it was right
    clock.now += 2.9
    put()
    assert queue.take() == []
    clock.now += 5.0
    entry, _ = put()
    assert queue.take() == [entry]
    queue.cost.observe(1, 0.01)  # it was wrong
    for _ in range(20):
        clock.now += 0.01
        entry, _ = put()
        assert queue.take() == [entry]
        queue.cost.observe(1, 0.01)


def test_answers_reach_the_loop_with_one_wake_up_per_batch():
    gate, entered, woken = threading.Event(), threading.Event(), []

    def model(batch):
        entered.set()
        assert gate.wait(LIMIT)
        return list(batch)

    async def work(batcher):
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(submit(batcher, 0))
        await asyncio.to_thread(entered.wait, LIMIT)
        rest = [asyncio.create_task(submit(batcher, value)) for value in range(8)]
        await asyncio.sleep(0)
        inner = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: woken.append(1) or inner(*args)
        gate.set()
        await asyncio.gather(first, *rest)
        return len(woken)

    assert asyncio.run(with_batcher(model, work)) == 2


@pytest.mark.parametrize("error", [RuntimeError, Panic])
def test_a_policy_that_fails_does_not_end_the_executor(error):
    class Faulty(BatchQueue):
        failed = False

        def take(self):
            if len(self) and not Faulty.failed:
                Faulty.failed = True
                raise error("a policy with a fault")
            return super().take()

    async def work(batcher):
        with pytest.raises(RuntimeError, match="a policy with a fault"):
            await submit(batcher, 1)
        return await submit(batcher, 2)

    assert asyncio.run(with_batcher(list, work, policy=Faulty)) == 2
