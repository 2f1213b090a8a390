"""Calls that wait for a hot container at a runner without room, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from hostler.agent.admission import CONTENDED_SECONDS, MAX_REFUSED, WANTED_SECONDS, FairAdmission
from hostler.bodies import BytesBody
from hostler.errors import ServerBusy

from .nodes import Node, open_full_node, until


def test_one_may_wait_behind_each_container() -> None:
    rule = FairAdmission()
    assert [rule.places(alive, 0) for alive in (0, 1, 3)] == [0, 1, 3]


def test_refusals_of_one_key_are_no_contention() -> None:
    rule = FairAdmission()
    for now in range(5):
        rule.found_no_room("a", now)
    assert rule.places(2, 5) == 2


def test_refusals_of_two_keys_end_the_waiting_for_a_while() -> None:
    rule = FairAdmission()
    rule.found_no_room("a", 10)
    rule.found_no_room("b", 20)
    assert rule.places(2, 20) == 0
    assert rule.places(2, 20 + CONTENDED_SECONDS - 0.001) == 0
    assert rule.places(2, 20 + CONTENDED_SECONDS) == 2
    rule.found_no_room("b", 30)
    assert rule.places(2, 30) == 2
    rule.found_no_room("a", 30)
    assert rule.places(2, 30) == 0


def rule_with(asked_at: float = 0, **here: int) -> FairAdmission:
    """So many calls of each load balancer are here, and some ask for leave to wait."""
    rule = FairAdmission()
    for lb, count in {"": 1, **here}.items():
        for _ in range(count):
            rule.came("fn", lb)
    rule.may_wait("fn", "", alive=1, waiting=0, now=asked_at)
    rule.left("fn", "")
    return rule


def test_who_is_alone_has_no_share() -> None:
    rule = rule_with(a=8)
    assert rule.share("fn", "a", 4, 0) == 0
    assert rule.may_wait("fn", "a", alive=4, waiting=3, now=0)
    assert not rule.may_wait("fn", "a", alive=4, waiting=4, now=0)


def test_who_wants_more_gets_as_much_as_the_other() -> None:
    rule = rule_with(a=8, b=1)
    assert rule.share("fn", "a", 4, 0) == 7  # if b wanted no more than it has
    assert rule.share("fn", "b", 4, 0) == 4
    assert rule.may_wait("fn", "b", alive=4, waiting=4, now=0)  # there are all those of a
    assert not rule.may_wait("fn", "a", alive=4, waiting=4, now=0)
    rule.refused("fn", "b", 0)
    assert rule.share("fn", "a", 4, 0) == rule.share("fn", "b", 4, 0) == 4
    assert rule.share("fn", "a", 4, WANTED_SECONDS / 2) == 4


def test_a_refusal_counts_for_a_while_and_so_does_that_calls_wait_here() -> None:
    rule = rule_with(asked_at=WANTED_SECONDS / 2, a=8)
    rule.refused("fn", "b", 0)
    assert rule.share("fn", "a", 4, WANTED_SECONDS - 0.001) == 4
    assert rule.share("fn", "a", 4, WANTED_SECONDS) == 0
    rule.refused("fn", "b", WANTED_SECONDS)
    assert rule.share("fn", "a", 4, 1.5 * WANTED_SECONDS) == 0  # long calls: nobody waits here


@pytest.mark.parametrize(("lbs", "alive", "share"), [(2, 1, 1), (3, 4, 3), (4, 1, 1), (3, 1, 1)])
def test_shares_are_even_and_never_nothing(lbs: int, alive: int, share: int) -> None:
    rule = rule_with(**{f"lb{number}": 1 for number in range(lbs)})
    for number in range(lbs):
        rule.refused("fn", f"lb{number}", 0)
    assert {rule.share("fn", f"lb{number}", alive, 0) for number in range(lbs)} == {share}


def test_who_may_wait_wants_no_more_than_it_has() -> None:
    rule = rule_with(a=8, b=1)
    rule.refused("fn", "b", 0)
    assert rule.share("fn", "a", 4, 0) == 4
    assert rule.may_wait("fn", "b", alive=4, waiting=4, now=0)
    assert rule.share("fn", "a", 4, 0) == 7


def test_those_that_want_little_leave_the_rest_to_the_others() -> None:
    rule = rule_with(a=6, b=1, c=1)
    assert rule.share("fn", "a", 4, 0) == 6
    assert rule.share("other", "a", 4, 0) == 0


def test_nothing_is_left_of_calls_and_load_balancers_that_are_gone() -> None:
    rule = FairAdmission()
    for number in range(3 * MAX_REFUSED):
        rule.came("fn", f"lb{number}")
        rule.left("fn", f"lb{number}")
        rule.refused("fn", f"lb{number}", number * WANTED_SECONDS)
    assert (rule._here, rule._calls, len(rule._wants) <= MAX_REFUSED) == ({}, {}, True)


class Calls:
    """Calls of one node, and how and when each ended."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.ends: dict[str, tuple[str, float]] = {}

    async def run(
        self, name: str, wait: float, *, image: str = "sleeper", body: bytes = b"1"
    ) -> None:
        call = self.node.call(image, BytesBody(body), id=name)
        call.queue_seconds = wait
        began = trio.current_time()
        try:
            await self.node.agent.submit(call)
        except Exception as error:
            end = type(error).__name__
        else:
            end = "ran"
        self.ends[name] = end, round(trio.current_time() - began, 2)

    @asynccontextmanager
    async def beside(self, *names: str, **bodies: bytes) -> AsyncIterator[trio.Nursery]:
        """Half a second after these calls have begun; their end is waited for at the end."""
        async with trio.open_nursery() as nursery:
            for name, body in (dict.fromkeys(names, b"1") | bodies).items():
                nursery.start_soon(partial(self.run, name, 0.0, body=body))
            await trio.sleep(0.5)
            yield nursery

    @property
    def waiting(self) -> int:
        return sum(queue.waiting_without_launch for queue in self.node.agent._launcher.queues)


BUSY = ServerBusy.__name__


async def test_without_leave_to_wait_a_call_is_refused_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node, trio.open_nursery() as nursery:
        calls = Calls(node)
        nursery.start_soon(calls.run, "first", 0.0)
        await trio.sleep(0.5)
        await calls.run("second", 0.0)
        assert calls.ends == {"second": (BUSY, 0)}


async def test_a_call_waits_and_gets_the_container(autojump_clock: object, tmp_path: Path) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first"):
            await calls.run("next", 0.6)
        assert calls.ends == {"first": ("ran", 1), "next": ("ran", 1.5)}
        assert calls.waiting == 0


async def test_the_end_of_the_limit_is_a_refusal(autojump_clock: object, tmp_path: Path) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first"):
            await calls.run("next", 0.3)
            assert calls.waiting == 0
        assert calls.ends == {"next": (BUSY, 0.3), "first": ("ran", 1)}


async def test_a_limit_that_ends_as_the_container_comes_loses_neither(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first"):
            await calls.run("next", 0.5)
        assert calls.ends["next"] in {("ran", 1.5), (BUSY, 0.5)}
        assert calls.waiting == 0
        await calls.run("later", 0.0)
        assert calls.ends["later"] == ("ran", 1)


@pytest.mark.parametrize("containers", [1, 2])
async def test_one_waits_for_each_container_and_all_others_are_refused(
    autojump_clock: object, tmp_path: Path, containers: int
) -> None:
    async with open_full_node(tmp_path, containers=containers) as node:
        calls = Calls(node)
        async with calls.beside(*(f"first{number}" for number in range(containers))) as nursery:
            for number in range(containers + 2):
                nursery.start_soon(calls.run, f"next{number}", 5.0)
                await trio.sleep(0.01)
            assert calls.waiting == containers
            assert sorted(calls.ends.values()) == [(BUSY, 0)] * 2
            await trio.sleep(0.6)  # those who waited run now
            assert calls.waiting == 0
            await calls.run("late", 5.0)
        for number in range(containers):
            assert calls.ends[f"next{number}"][0] == "ran"
        assert calls.ends["late"][0] == "ran"


async def test_those_who_wait_are_served_in_the_order_of_arrival(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path, containers=2) as node:
        calls = Calls(node)
        async with calls.beside(short=b"1", long=b"9") as nursery:
            for name in ("a", "b"):
                nursery.start_soon(calls.run, name, 5.0)
                await trio.sleep(0.01)
        assert list(calls.ends) == ["short", "a", "b", "long"]


async def test_when_the_container_dies_who_waits_is_refused_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside(first=b"exit"):
            await calls.run("next", 5.0)
        assert calls.ends["next"] == (BUSY, 0.5)
        assert calls.waiting == 0


async def test_a_cancelled_call_leaves_its_place_to_another(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first"):
            with trio.move_on_after(0.1) as scope:
                await calls.run("leaves", 5.0)
            assert scope.cancelled_caught
            assert calls.waiting == 0
            await calls.run("next", 5.0)
        assert calls.ends["next"] == ("ran", 1.4)


@pytest.mark.parametrize("rounds", range(8))
async def test_cancelled_when_the_container_comes_it_serves_the_next(
    autojump_clock: object, tmp_path: Path, rounds: int
) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first") as nursery:

            async def leaves() -> None:
                with scope:
                    await calls.run("leaves", 5.0)

            scope = trio.CancelScope()
            nursery.start_soon(leaves)
            await trio.sleep(0.5)  # until "first" ends
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        await calls.run("later", 0.0)
        assert calls.ends["later"] == ("ran", 1)
        assert calls.waiting == 0


async def test_a_drain_refuses_who_waits(autojump_clock: object, tmp_path: Path) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first") as nursery:
            nursery.start_soon(calls.run, "next", 5.0)
            await trio.sleep(0.1)
            node.agent.close_admission()
        assert calls.ends["next"] == (BUSY, 0.1)
        assert calls.ends["first"] == ("ran", 1)


async def test_when_two_functions_want_the_room_nobody_waits_and_the_other_gets_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node:
        calls = Calls(node)
        async with calls.beside("first") as nursery:
            nursery.start_soon(calls.run, "next", 5.0)
            await trio.sleep(0.1)
            assert calls.waiting == 1
            await calls.run("other", 0.0, image="other")
            assert calls.ends["other"] == (BUSY, 0)
            await trio.sleep(0.5)  # "next" runs
            await calls.run("refused", 5.0)
            assert calls.ends["refused"] == (BUSY, 0)
        await calls.run("other again", 0.0, image="other")
        assert calls.ends["other again"] == ("ran", 1)


async def test_hints_say_behind_how_many_containers_calls_may_wait(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path, containers=2) as node:
        calls = Calls(node)
        call = node.call("sleeper", BytesBody(b"0"))
        await node.agent.submit(call)
        assert node.agent.load_hint(call).slots == 1
        async with calls.beside("0", "1"):
            assert node.agent.load_hint(call).slots == 2
            await calls.run("refused", 0.0)
            await calls.run("other", 0.0, image="other")
            assert node.agent.load_hint(call).slots == 0
            await trio.sleep(CONTENDED_SECONDS)
            assert node.agent.load_hint(call).slots == 2


async def test_a_call_without_a_container_of_its_own_does_not_wait(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_full_node(tmp_path) as node, trio.open_nursery() as nursery:
        calls = Calls(node)
        nursery.start_soon(calls.run, "first", 0.0)
        await until(lambda: node.agent.statistics().containers != {})
        await trio.sleep(0.5)
        await calls.run("other", 5.0, image="other")
        assert calls.ends["other"] == (BUSY, 0)
