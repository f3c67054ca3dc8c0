"""The batch policy alone, with simulated time: what holds for any sequence of events, and how much it gets done."""

from __future__ import annotations

import random
from collections import Counter
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
