"""The batch policy alone, with simulated time: what holds for any sequence of events, and how much it gets done."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.runtime.batchqueue import BatchQueue, Entry, Observer
from bentotool.runtime.costmodel import CostModel
from bentotool.sdk.exceptions import ServiceUnavailable

FIXED, EACH, DEADLINE, LARGEST = 0.008, 0.001, 0.05, 64
BEST = 17 / (FIXED + 17 * EACH)
"""Entries per second of the largest batches of which two fit into the deadline: the capacity under it."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def learnt() -> CostModel:
    cost = CostModel()
    for units in (1, 16, 32, 64) * 5:
        cost.observe(units, FIXED + EACH * units)
    return cost


@dataclass
class Run:
    """What became of the requests of a simulation."""

    good: int = 0
    late: int = 0
    refused: int = 0
    shed: int = 0
    sizes: list[int] = field(default_factory=list)


def simulate(rate: float, seconds: float = 20.0, noise: float = 0.0, seed: int = 3) -> Run:
    """One executor and Poisson arrivals, each with the same time to its deadline."""
    rng, clock, run = random.Random(seed), Clock(), Run()
    queue = BatchQueue(LARGEST, 1000, learnt(), clock, Observer())
    begin, at = clock.now, clock.now

    def settle(result: Any, error: BaseException | None) -> None:
        run.shed += 1

    def arrive(when: float) -> None:
        clock.now = when
        try:
            queue.admit(when + DEADLINE)
        except ServiceUnavailable:
            run.refused += 1
        else:
            queue.put(Entry(None, 1, None, when + DEADLINE, lambda: False, settle))

    at += rng.expovariate(rate)
    while at < begin + seconds:
        if not len(queue):
            arrive(at)
            at += rng.expovariate(rate)
        batch = queue.take()
        if not batch:
            continue
        began = clock.now
        end = began + (FIXED + EACH * len(batch)) * (1 + abs(rng.gauss(0, noise)))
        while at < end:
            arrive(at)
            at += rng.expovariate(rate)
        clock.now = end
        run.sizes.append(len(batch))
        queue.cost.observe(len(batch), end - began)
        for entry in batch:
            run.good += entry.deadline >= end
            run.late += entry.deadline < end
    return run


@pytest.mark.parametrize(("load", "share"), [(0.3, 0.999), (0.7, 0.99), (0.95, 0.97), (1.0, 0.95)])
def test_goodput_below_capacity_is_nearly_all_that_arrives(load, share):
    run = simulate(load * BEST)
    assert run.good >= share * (run.good + run.late + run.refused + run.shed)
    assert run.late == 0


@pytest.mark.parametrize("load", [1.3, 3.0, 10.0])
def test_goodput_above_capacity_stays_at_capacity(load):
    run = simulate(load * BEST)
    assert run.good / 20.0 >= BEST
    assert run.late == 0


def test_far_above_capacity_nearly_all_is_refused_at_the_door():
    run = simulate(10 * BEST)
    assert run.refused >= 20 * run.shed


def test_when_batches_take_longer_than_expected_few_answers_are_late():
    run = simulate(1.3 * BEST, noise=0.03)
    assert run.good / 20.0 >= 0.97 * BEST


def test_alone_a_request_never_waits():
    run = simulate(0.5, seconds=100.0)
    assert run.good > 20
    assert set(run.sizes) == {1}
    assert not run.refused
    assert not run.shed


Arrival = tuple[float, int, float]
"""When, in seconds; its units; seconds to its deadline."""


def share_in_time(arrivals: list[Arrival]) -> dict[int, float]:
    """One executor; which share of the entries of a size is answered in time."""
    clock = Clock()
    queue = BatchQueue(LARGEST, 1000, learnt(), clock, Observer())
    coming = sorted(((100.0 + at, units, patience) for at, units, patience in arrivals), reverse=True)
    came, good = Counter(units for _, units, _ in arrivals), Counter[int]()

    def arrive_until(when: float) -> None:
        while coming and coming[-1][0] <= when:
            clock.now, units, patience = coming.pop()
            try:
                queue.admit(clock.now + patience)
            except ServiceUnavailable:
                continue
            queue.put(Entry(None, units, None, clock.now + patience, lambda: False, lambda result, error: None))

    while coming:
        if not len(queue):
            arrive_until(max(clock.now, coming[-1][0]))
        batch = queue.take()
        if not batch:
            continue
        units = sum(entry.units for entry in batch)
        end = clock.now + FIXED + EACH * units
        arrive_until(end)
        clock.now = end
        queue.cost.observe(units, FIXED + EACH * units)
        good.update(entry.units for entry in batch if entry.deadline >= end)
    return {units: good[units] / came[units] for units in came}


def poisson(rate: float, units: int, patience: float, seed: int, seconds: float = 30.0) -> list[Arrival]:
    rng, at, found = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        found.append((at, units, patience))
    return found


@pytest.mark.parametrize("patience", [0.3, 1.0, 10.0])
def test_small_requests_do_not_starve_beside_full_batches(patience):
    """Bulk callers that ask for more than there is get their share of it, and so do the others."""
    bulk, small = poisson(16.0, LARGEST, patience, seed=1), poisson(5.0, 1, patience, seed=2)
    found = share_in_time(bulk + small)
    assert found[1] >= 0.75
    assert found[LARGEST] >= 0.75


def test_small_urgent_requests_are_let_in_beside_patient_full_batches():
    bulk, small = poisson(8.0, LARGEST, 10.0, seed=1), poisson(5.0, 1, 0.1, seed=2)
    assert share_in_time(bulk + small)[1] >= 0.9


@pytest.mark.parametrize(("units", "share"), [(5, 0.9), (15, 0.9), (30, 0.5)])
def test_large_requests_do_not_starve_beside_many_small_ones(units, share):
    """Six tenths of the capacity are asked by small ones; 30 units take three quarters of the deadline alone."""
    large, small = poisson(3.0, units, DEADLINE, seed=1), poisson(0.6 * BEST, 1, DEADLINE, seed=2)
    found = share_in_time(large + small)
    assert found[units] >= share
    assert found[1] >= 0.94


@pytest.mark.parametrize("sizes", [(1, 30), (1, 8), (1, 2, 3, 4, 5)])
def test_whatever_the_sizes_overload_leaves_the_service_busy_with_what_is_in_time(sizes):
    asked = 3 * BEST
    arrivals = [
        arrival
        for seed, units in enumerate(sizes)
        for arrival in poisson(asked / sum(sizes), units, DEADLINE, seed, seconds=20.0)
    ]
    found = share_in_time(arrivals)
    assert sum(found[units] * units * asked / sum(sizes) for units in sizes) >= 0.8 * BEST
    assert min(found.values()) > 0.1


def test_choosing_a_batch_looks_at_a_bounded_number_of_beginnings():
    class Counting(CostModel):
        calls = 0

        def __call__(self, units: float) -> float:
            self.calls += 1
            return super().__call__(units)

    clock, cost = Clock(), Counting()
    for units in (1, 16, 32, 64) * 5:
        cost.observe(units, FIXED + EACH * units)
    queue = BatchQueue(4096, 10_000, cost, clock, Observer())
    for _ in range(10_000):
        queue.put(Entry(None, 1, None, clock.now + 4.0, lambda: False, lambda result, error: None))
    cost.calls = 0
    assert queue.take()
    assert cost.calls < 500


@dataclass
class Caller:
    """What became of the requests of one kind."""

    came: int = 0
    good: int = 0
    late: int = 0
    at_once: int = 0
    """Refused when they came."""
    longest: float = 0.0
    """Seconds until the answer that took longest."""

    @property
    def share(self) -> float:
        return self.good / self.came


KeyArrival = tuple[float, str, object, float]
"""When, in seconds; the kind of caller; its key; seconds to its deadline."""


def with_keys(arrivals: list[KeyArrival], largest: int = LARGEST) -> dict[str, Caller]:
    """One executor and callers of several keys."""
    clock, found = Clock(), defaultdict(Caller)
    queue = BatchQueue(largest, 1000, learnt(), clock, Observer())
    coming = sorted(((100.0 + at, *rest) for at, *rest in arrivals), key=lambda each: each[0], reverse=True)

    def arrive_until(when: float) -> None:
        while coming and coming[-1][0] <= when:
            clock.now, kind, key, patience = coming.pop()
            found[kind].came += 1
            try:
                queue.admit(clock.now + patience)
                queue.put(Entry(kind, 1, key, clock.now + patience, lambda: False, lambda result, error: None))
            except ServiceUnavailable:
                found[kind].at_once += 1

    while coming or len(queue):
        if not len(queue):
            arrive_until(max(clock.now, coming[-1][0]))
        batch = queue.take()
        if not batch:
            continue
        seconds = FIXED + EACH * len(batch)
        end = clock.now + seconds
        arrive_until(end)
        clock.now = end
        queue.cost.observe(len(batch), seconds)
        for entry in batch:
            caller = found[entry.value]
            caller.good += entry.deadline >= end
            caller.late += entry.deadline < end
            caller.longest = max(caller.longest, end - entry.arrived)
    return found


def calls(kind: str, rate: float, keys: int | str, patience: float, seconds: float = 15.0) -> list[KeyArrival]:
    """Poisson arrivals, of one key or with as many to choose from."""
    rng = random.Random(kind)
    return [
        (at, kind, keys if isinstance(keys, str) else rng.randrange(keys), patience)
        for at, _, _ in poisson(rate, 1, patience, rng.randrange(1000), seconds)
    ]


FULL = LARGEST / (FIXED + EACH * LARGEST)
"""Entries per second of full batches."""


@pytest.mark.parametrize("keys", [1, 5])
def test_urgent_callers_are_in_time_beside_patient_ones_of_another_key(keys):
    bulk, urgent = calls("bulk", 1.02 * FULL, "bulk", 30.0), calls("urgent", 6.0, keys, 0.3)
    found = with_keys(bulk + urgent)
    assert found["urgent"].share >= 0.95
    assert found["bulk"].share == 1.0


def test_however_many_are_urgent_no_key_starves_nor_who_waits_among_them():
    bulk, slow = calls("bulk", 0.4 * FULL, "a", 20.0), calls("slow", 2.0, "b", 20.0)
    urgent = calls("urgent", 3 * FULL, "b", 0.2)
    found = with_keys(bulk + slow + urgent)
    assert found["slow"].share == 1.0
    assert found["slow"].longest < 4.0
    assert found["bulk"].share >= 0.98
    assert found["bulk"].longest < 4.0
    assert found["urgent"].good >= 0.3 * FULL * 15.0


@pytest.mark.parametrize(("keys", "load"), [(2, 0.5), (5, 0.3), (20, 0.1), (1000, 0.05)])
def test_with_equal_deadlines_keys_below_capacity_lose_nothing(keys, load):
    found = with_keys(calls("any", load * FULL, keys, 2.0))["any"]
    assert found.share == 1.0
    assert found.longest < 1.0


def test_the_key_whose_entry_waits_longest_goes_first_and_runs_it():
    """Although more urgent ones of its key came later, and they fill the batch."""
    clock = Clock()
    queue = BatchQueue(2, 100, CostModel(), clock, Observer())
    for name, key, patience in (("old", "a", 50), ("b", "b", 10), ("a1", "a", 5), ("a2", "a", 3), ("a3", "a", 6)):
        clock.now += 1.0
        queue.put(Entry(name, 1, key, clock.now + patience, lambda: False, lambda result, error: None))
    assert [[entry.value for entry in queue.take()] for _ in range(4)] == [["a2", "old"], ["b"], ["a1", "a3"], []]


def test_one_key_is_taken_in_order_of_deadline_alone():
    clock = Clock()
    queue = BatchQueue(2, 100, CostModel(), clock, Observer())
    for name, patience in (("old", 50), ("a1", 5), ("a2", 4)):
        clock.now += 1.0
        queue.put(Entry(name, 1, None, clock.now + patience, lambda: False, lambda result, error: None))
    assert [[entry.value for entry in queue.take()] for _ in range(2)] == [["a1", "a2"], ["old"]]


@pytest.mark.parametrize(("keys", "share"), [(1, 0.97), (2, 0.97), (5, 0.97), (8, 0.9), (20, 0.5)])
def test_overload_with_keys_is_refused_at_once_and_the_rest_is_done(keys, share):
    """A second is enough for about 14 full batches, and so for as many keys."""
    found = with_keys(calls("any", 3 * FULL, keys, 1.0))["any"]
    assert found.late == 0
    assert found.good >= share * FULL * 15.0
    assert found.at_once >= 0.9 * (found.came - found.good)


@pytest.mark.parametrize("keys", [100, 1000])
def test_more_keys_than_there_is_time_for_are_refused_at_once(keys):
    found = with_keys(calls("any", 3 * FULL, keys, 0.5))["any"]
    assert found.late == 0
    assert found.good >= 0.8 * 15.0 / (FIXED + EACH)
    assert found.at_once >= 0.9 * (found.came - found.good)


def test_overload_with_mixed_deadlines_and_keys_does_what_can_be_done():
    found = with_keys([arrival for patience in (0.2, 1.0, 5.0) for arrival in calls(str(patience), FULL, 3, patience)])
    assert sum(caller.good for caller in found.values()) >= 0.9 * FULL * 15.0
    assert sum(caller.late for caller in found.values()) == 0
    assert min(caller.share for caller in found.values()) >= 0.15


@pytest.mark.parametrize("keys", [1, 3, 1000])
def test_refusing_looks_at_few_of_those_that_wait(keys):
    class Counted(float):
        looked = 0

        def __lt__(self, other: float) -> bool:
            Counted.looked += 1
            return super().__lt__(other)

    clock = Clock()
    queue = BatchQueue(LARGEST, 10_000, learnt(), clock, Observer())
    for number in range(5000):
        queue.put(Entry(None, 1, number % keys, Counted(clock.now + 60.0), lambda: False, lambda result, error: None))
    assert queue.take()
    for turn in range(100):
        if turn == 1:
            Counted.looked = 0  # the first one after a batch looks at all
        try:
            queue.admit(Counted(clock.now + 1.0))
            queue.put(Entry(None, 1, 1, Counted(clock.now + 1.0), lambda: False, lambda result, error: None))
        except ServiceUnavailable:
            pass
    assert Counted.looked < 100 * 80


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 8), st.sampled_from("abc"), st.floats(0.001, 0.2)),
        st.tuples(st.just("take")),
        st.tuples(st.just("wait"), st.floats(0.0, 0.1)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(operations, st.booleans())
def test_whatever_happens_each_entry_ends_once(steps, is_known):
    clock = Clock()
    queue = BatchQueue(8, 10, learnt() if is_known else CostModel(), clock, Observer())
    entries: list[Entry] = []
    settled: list[int] = []
    taken: list[Entry] = []
    left: set[int] = set()
    waits: list[float | None] = []

    def put(units: int, key: str, patience: float) -> None:
        number = len(entries)
        entry = Entry(
            number, units, key, clock.now + patience, lambda: number in left, lambda r, e: settled.append(number)
        )
        try:
            queue.admit(entry.deadline)
            queue.put(entry)
        except ServiceUnavailable as error:
            waits.append(error.retry_after)
        else:
            entries.append(entry)

    def take() -> None:
        before, waiting = clock.now, len(queue)
        batch = queue.take()
        assert sum(entry.units for entry in batch) <= 8
        assert len({entry.key for entry in batch}) <= 1
        assert not any(entry.value in left for entry in batch), "nobody waits for it any more"
        assert all(entry.deadline > before for entry in batch), "it was too late before it ran"
        assert [entry.deadline for entry in batch] == sorted(entry.deadline for entry in batch)
        assert batch or len(queue) == 0 or waiting == 0 or len(queue) < waiting
        taken.extend(batch)

    for step in steps:
        if step[0] == "put":
            put(*step[1:])
        elif step[0] == "take":
            take()
        elif step[0] == "wait":
            clock.now += step[1]
        else:
            left.add(step[1])
        assert len(queue) <= 10
    assert all(wait is not None and wait >= 1 for wait in waits)
    waiting = queue.drain()
    ended = sorted([entry.value for entry in taken] + settled + [entry.value for entry in waiting])
    assert ended == list(range(len(entries))), "each is taken, answered or still waiting, and only one of these"
