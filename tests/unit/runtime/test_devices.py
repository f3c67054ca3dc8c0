"""Who gets which GPU."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bentotool
from bentotool.errors import ConfigError, UsageError
from bentotool.runtime.devices import VISIBLE, make_plan, visible_devices
from bentotool.runtime.parts import Part, describe_parts, part_document, part_from

FOUR = ("GPU-aaaa-1", "GPU-abbb-2", "GPU-cccc-3", "GPU-dddd-4")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("0", "1", "2", "3")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("none", ()),
        ("0", ("0",)),
        ("2,0", ("2", "0")),
        (" 1 , 3 ", ("1", "3")),
        ("01", ("1",)),
        ("1,-1,2", ("1",)),
        ("1,9,2", ("1",)),  # up to the first that is not there
        ("1,x,2", ("1",)),
        ("1,1", ()),
        ("GPU-cccc-3", ("GPU-cccc-3",)),
        ("GPU-c", ("GPU-c",)),
        ("GPU-a", ()),  # of two
        ("GPU-zzzz", ()),
        ("GPU-dddd-4,GPU-c", ("GPU-dddd-4", "GPU-c")),
        ("MIG-1234-5678", ("MIG-1234-5678",)),
        ("MIG-GPU-aaaa-1/3/0", ("MIG-GPU-aaaa-1/3/0",)),
    ],
)
def test_every_form_of_the_variable(value, expected):
    assert visible_devices(value, FOUR) == expected


def test_what_the_machine_has_need_not_be_known():
    assert visible_devices("4,2", ()) == ("4", "2")
    assert visible_devices("GPU-ab", ()) == ("GPU-ab",)
    assert visible_devices(None, ("", "")) == ("0", "1")


def plan(*parts, visible=None):
    return make_plan(parts, {} if visible is None else {VISIBLE: visible}, FOUR)


def test_workers_share_what_their_service_has():
    made = plan(Part("A", workers=2, gpu=2), Part("B", gpu=1), Part("C"))
    assert made.variables("A", 0) == made.variables("A", 1) == {VISIBLE: "0,1"}
    assert made.variables("B", 0) == {VISIBLE: "2"}
    assert made.variables("C", 0) == {}


def test_workers_of_their_own():
    made = plan(Part("A", workers=3, worker_gpus=(1.0, (3,), 0.0)), visible="3,2,1,0")
    assert [made.variables("A", index) for index in range(3)] == [{VISIBLE: "3"}, {VISIBLE: "0"}, {VISIBLE: ""}]


def test_shares_of_one():
    made = plan(Part("A", gpu=0.5), Part("B", gpu=0.5), Part("C", gpu=3))
    assert made.given["A"] == made.given["B"]
    assert set(made.given["C"][0]).isdisjoint(made.given["A"][0])


@pytest.mark.parametrize(
    "parts",
    [
        [Part("A", gpu=5)],
        [Part("A", gpu=3), Part("B", gpu=2)],
        [Part("A", gpu=1.5)],
        [Part("A", worker_gpus=((0, 0),))],
        [Part("A", worker_gpus=((4,),))],
        [Part("A", worker_gpus=((1,), (1,)))],
        [Part("A", gpu=0.6), Part("B", gpu=0.6), Part("C", gpu=3)],
    ],
)
def test_nothing_is_given_out_twice(parts):
    with pytest.raises(UsageError, match="GPU"):
        plan(*parts)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 0.25, 0.5, 1, 2]), max_size=6))
def test_no_device_has_more_than_it_is(amounts):
    parts = [Part(f"S{number}", gpu=amount) for number, amount in enumerate(amounts)]
    try:
        made = plan(*parts)
    except UsageError:
        return
    load = dict.fromkeys(made.allowed, 0.0)
    for part in parts:
        for name in made.given.get(part.name, ((),))[0]:
            load[name] += min(1, part.gpu)
    assert all(taken <= 1 + 1e-9 for taken in load.values())


def test_it_is_said_where_there_is_none():
    assert "this machine has none" in make_plan([Part("A", gpu=1)], {}, ()).notes[0]
    assert "allows none" in plan(Part("A", gpu=1), visible="-1").notes[0]
    off = make_plan([Part("A", gpu=9)], {"BENTOTOOL_GPU_ALLOCATION": "off"}, FOUR)
    assert off.variables("A", 0) == {}


def test_nothing_is_looked_for_where_nobody_asks():
    assert make_plan([Part("A", workers=4)], {VISIBLE: "0"}, None).to_dict([Part("A")])["devices"] == []


def test_declared_and_told():
    @bentotool.service(resources={"gpu": 0.5}, workers=2)
    class Model:
        pass

    @bentotool.service(workers=[{"gpus": 1}, {"gpus": [0, 1]}, {}], envs=[{"name": "A", "value": "1"}])
    class Front:
        model = bentotool.depends(Model)

    front, model = parts = describe_parts(Front)
    assert (front.workers, front.worker_gpus, front.depends) == (3, (1.0, (0, 1), 0.0), ("Model",))
    assert (model.gpu, model.workers) == (0.5, 2)
    assert [part_from(json.loads(json.dumps(part_document(part)))) for part in parts] == parts
    assert [part.name for part in describe_parts(Front, inside=True)] == ["Front"]


@pytest.mark.parametrize("workers", [0, [], [1], [{"gpu": 1}], [{"gpus": -1}], [{"gpus": [True]}], "many"])
def test_wrong_workers(workers):
    with pytest.raises(ConfigError, match="workers"):
        bentotool.service(workers=workers)(type("A", (), {}))


@pytest.mark.parametrize("number", ["x", -1, True, [1]])
def test_wrong_numbers_of_gpus(number):
    with pytest.raises(ConfigError, match="gpu"):
        describe_parts(bentotool.service(resources={"gpu": number})(type("A", (), {})))


def test_circles_and_names():
    @bentotool.service(name="Same")
    class One:
        pass

    @bentotool.service(name="Same")
    class Two:
        one = bentotool.depends(One)

    with pytest.raises(ConfigError, match=r"Same -> Same|named 'Same'"):
        describe_parts(Two)
