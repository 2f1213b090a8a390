"""Load balancers with more calls at a full runner leave places to those with fewer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent.admission import (
    SHARED_SECONDS,
    SLICE_SECONDS,
    SLICE_STARTS,
    WANTED_SECONDS,
    FairAdmission,
)
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.errors import ServerBusy
from hostler.protocol import LEAVE_SECONDS

from .nodes import Node, open_full_node


def rule_with(**here: int) -> FairAdmission:
    """So many calls of each load balancer are here, each of its own function."""
    rule = FairAdmission()
    for lb, count in here.items():
        for _ in range(count):
            rule.came(f"fn {lb}", lb)
    return rule


def end_one(rule: FairAdmission, lb: str, now: float) -> bool:
    """A call of ``lb`` ends; whether its place is left to others, or else has its next call."""
    rule.left(f"fn {lb}", lb)
    leaves = rule.leaves(f"fn {lb}", lb, now)
    if not leaves:
        rule.came(f"fn {lb}", lb)
    return leaves


def test_nobody_leaves_a_place_before_others_are_refused() -> None:
    rule = rule_with(a=4, b=1)
    assert not end_one(rule, "a", 0)
    rule.refused("fn a", "a", 0)
    assert not end_one(rule, "a", 0)


def test_each_refusal_is_worth_one_place_of_who_has_more() -> None:
    rule = rule_with(a=4, b=1)
    for now in (0, 0.1):
        rule.refused("fn b", "b", now)
        rule.refused("fn b", "b", now)
        assert not end_one(rule, "b", now)
        assert end_one(rule, "a", now)
        assert not end_one(rule, "a", now)


def test_a_refusal_counts_for_a_while() -> None:
    rule = rule_with(a=4)
    rule.refused("fn b", "b", 0)
    assert not end_one(rule, "a", WANTED_SECONDS)
    rule.refused("fn b", "b", WANTED_SECONDS)
    assert end_one(rule, "a", 1.5 * WANTED_SECONDS)


def test_calls_of_all_functions_count() -> None:
    rule = rule_with(a=1, b=2)
    for key in ("one", "two"):
        rule.came(key, "a")
        rule.came(key, "a")
    rule.refused("one", "b", 0)
    rule.left("two", "a")
    assert rule.leaves("two", "a", 0)  # with 4 of 6


def test_where_one_has_to_have_more_they_take_turns() -> None:
    rule = rule_with(a=1)
    lb, other = "a", "b"
    for now in (0.0, SLICE_SECONDS, 2 * SLICE_SECONDS):
        for step in range(5):
            rule.refused(f"fn {other}", other, now + step / 10)
            assert end_one(rule, lb, now + step / 10) == (step == 0)
            if step == 0:
                lb, other = other, lb
                rule.came(f"fn {lb}", lb)


def test_turns_are_long_where_containers_start_slowly() -> None:
    rule = rule_with(b=1)
    rule.started(2.0, 1.0)
    rule.started(0.1, 1.0)
    for now in (1.0, 1.0 + 2 * SLICE_STARTS - 0.001):
        rule.refused("fn a", "a", now)
        assert not end_one(rule, "b", now)
    rule.came("fn b", "b")
    assert end_one(rule, "b", 1.0 + 2 * SLICE_STARTS - 0.001)  # it has more even so
    rule.refused("fn a", "a", 1.0 + 2 * SLICE_STARTS)
    assert end_one(rule, "b", 1.0 + 2 * SLICE_STARTS)


def test_who_wants_the_same_function_has_its_share_there() -> None:
    rule = rule_with(a=4)
    rule.may_wait("fn a", "a", alive=1, waiting=0, now=0)
    for now in (0.0, SHARED_SECONDS):
        rule.refused("fn a", "b", now)
        assert not end_one(rule, "a", now)
        rule.refused("other", "b", now)
        assert end_one(rule, "a", now)
    now = WANTED_SECONDS + SHARED_SECONDS
    rule.refused("fn a", "b", now)
    assert end_one(rule, "a", now)


def test_where_two_functions_want_the_room_nobody_has_a_share() -> None:
    rule = rule_with(a=4)
    rule.may_wait("fn a", "a", alive=1, waiting=0, now=0)
    for key in ("fn a", "fn b"):
        rule.found_no_room(key, 0)
    rule.refused("fn a", "b", 0)
    assert end_one(rule, "a", 0)


def test_who_wants_another_function_has_no_share_there() -> None:
    rule = rule_with(a=2, b=1)
    rule.may_wait("fn a", "a", alive=1, waiting=0, now=0)
    rule.refused("fn b", "b", 0)
    assert rule.share("fn a", "a", 1, 0) == 0


def test_nobody_may_wait_for_what_is_left_to_others() -> None:
    rule = rule_with(a=4)
    rule.refused("fn a", "b", 0)
    assert rule.places(2, 0) == 2
    assert end_one(rule, "a", 0)
    assert rule.places(2, LEAVE_SECONDS - 0.001) == 0
    assert rule.places(2, LEAVE_SECONDS) == 2


@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=5).filter(any),
    st.lists(st.integers(0, 10**6), max_size=60),
)
def test_places_go_from_who_has_more_to_who_has_fewer(had: list[int], ends: list[int]) -> None:
    """All want all they can get. In whatever order their calls end, none is left a place by who
    has not more; and who ends as the richest one, as all do in time, makes it more even."""
    here = {f"lb{number}": count for number, count in enumerate(had)}
    rule, now, turns = rule_with(**here), 0.0, list[float]()

    def end(lb: str) -> None:
        for other in here:
            rule.refused(f"fn {other}", other, now)
        poorest = min((other for other in here if other != lb), key=here.__getitem__)
        if end_one(rule, lb, now):
            assert here[lb] > here[poorest]
            if here[lb] == here[poorest] + 1:
                turns.append(now)
            here[lb] -= 1
            here[poorest] += 1
            rule.came(f"fn {poorest}", poorest)
        else:
            assert here[lb] <= here[poorest] + 1

    for number in ends:
        now += 0.1
        busy = [lb for lb, count in here.items() if count]
        end(busy[number % len(busy)])
    for _ in range(sum(had)):
        end(max(here, key=here.__getitem__))
    assert max(here.values()) - min(here.values()) <= 1
    assert sum(here.values()) == sum(had)
    assert all(later - sooner > SLICE_SECONDS - 0.001 for sooner, later in pairwise(turns))


async def run(node: Node, lb: str, body: bytes, image: str = "sleeper") -> PendingCall:
    """A call of ``lb`` that has ended, or was refused."""
    call = node.call(image, BytesBody(body))
    call.client = lb
    try:
        await node.agent.submit(call)
    except ServerBusy:
        call.attempts = -1
    return call


@pytest.mark.parametrize("image", ["sleeper", "other"])
async def test_the_answer_to_a_call_says_that_its_place_is_for_others(
    autojump_clock: object, tmp_path: Path, image: str
) -> None:
    async with open_full_node(tmp_path, containers=2) as node, trio.open_nursery() as nursery:
        told: list[tuple[str, bool]] = []

        async def call(lb: str, body: bytes, image: str = "sleeper") -> None:
            call = await run(node, lb, body, image)
            end = "refused" if call.attempts < 0 else "ran"
            told.append((f"{lb} {end}", node.agent.load_hint(call).leave))

        nursery.start_soon(call, "a", b"1")
        nursery.start_soon(call, "a", b"2")
        await trio.sleep(0.9)
        await call("b", b"1", image)
        await call("a", b"1", "third")  # it had no place
        await trio.sleep(0.5)
        await call("b", b"0.1", image)
        await trio.sleep(1)
    refused = [("b refused", False), ("a refused", False)]
    assert told == [*refused, ("a ran", True), ("b ran", False), ("a ran", False)]
