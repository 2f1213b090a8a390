"""What an agent tells load balancers of its load."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from hostler.agent.load_report import COMPLETE_SECONDS, FEW
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.drivers.sim import open_sim_driver
from hostler.errors import ServerBusy
from hostler.protocol import MAX_WARM_KEYS, SLOT_DIGEST, WARM_KEY_SECONDS, LoadHint

from .functions import sleeper
from .nodes import MIB, Node, open_node


def digest(call: PendingCall) -> bytes:
    assert call.slot_hash_id is not None
    return hashlib.sha256(call.slot_hash_id).digest()[:SLOT_DIGEST]


async def ended(node: Node, *, body: bytes = b"1", **fields: Any) -> tuple[PendingCall, LoadHint]:
    call = node.call("sleeper", BytesBody(body), **fields)
    await node.agent.submit(call)
    return call, node.agent.load_hint(call)


async def test_the_hint_of_an_ended_call(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=512) as node,
    ):
        call, hint = await ended(node)
        assert replace(hint, idle_cpus=None) == LoadHint(
            free_memory=(512 - 128) * MIB,
            reclaimable_memory=128 * MIB,
            free_cpus=node.agent.statistics().total.cpus,
            slot=digest(call),
            warm={digest(call): 1},
            complete=True,
            reserves=True,
            slots=1,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended, node)
            await trio.sleep(0.5)
            other, hint = await ended(node, body=b"0", fn_id="other")
        assert hint.active == 1
        assert hint.warm == {digest(other): 1}
        assert hint.retry_after_ms > 0


async def test_a_nack_says_when_to_come_back_and_what_is_warm(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=512, enable_nb_resource_tracker=True) as node,
    ):
        warm, _ = await ended(node, body=b"0.4", memory=256)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ended, node)
            await trio.sleep(0.5)
            call = node.call("sleeper", memory=512, fn_id="big")
            with pytest.raises(ServerBusy):
                await node.agent.submit(call)
            hint = node.agent.load_hint(call)
        assert hint.active == 2
        assert hint.free_memory == 0
        assert hint.retry_after_ms == pytest.approx(200, abs=5)
        assert hint.warm == {digest(warm): 1}
        assert hint.slot == digest(call)


@pytest.mark.slow
async def test_all_hot_containers_are_named_now_and_then(
    autojump_clock: object, tmp_path: Path
) -> None:
    """The more there are, the less often; and only so many."""
    count = MAX_WARM_KEYS + 3
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=128 * count) as node,
    ):
        calls = [(await ended(node, body=b"0.001", fn_id=f"fn{n}"))[0] for n in range(count)]
        await trio.sleep(MAX_WARM_KEYS * WARM_KEY_SECONDS)
        hint = node.agent.load_hint(calls[-1])
        assert hint.complete
        assert set(hint.warm) == {digest(call) for call in calls[3:]}
        await trio.sleep(MAX_WARM_KEYS * WARM_KEY_SECONDS - 0.01)
        hint = node.agent.load_hint(calls[0])
        assert (hint.complete, hint.warm) == (False, {digest(calls[0]): 1})
        await trio.sleep(0.02)
        assert node.agent.load_hint(calls[0]).complete
        figures = node.agent.load_figures()
        assert (figures.complete, figures.warm) == (False, {})
        assert figures.reclaimable_memory == node.agent.load().reclaimable_memory


async def test_few_hot_containers_are_named_every_tenth_of_a_second(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=128 * FEW) as node,
    ):
        calls = [(await ended(node, body=b"0.001", fn_id=f"fn{n}"))[0] for n in range(FEW)]
        for _ in range(3):
            await trio.sleep(COMPLETE_SECONDS)
            hint = node.agent.load_hint(calls[0])
            assert (hint.complete, len(hint.warm)) == (True, FEW)
        assert node.agent.load_figures() == node.agent.load()


async def test_a_change_is_told_to_who_waits_for_it(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=512) as node,
    ):
        cpus = node.agent.statistics().total.cpus
        assert replace(node.agent.load(), idle_cpus=None) == LoadHint(
            free_memory=512 * MIB, free_cpus=cpus, complete=True, reserves=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended, node)
            await node.agent.wait_load_change()
            await trio.sleep(0.5)
            busy = node.agent.load()
            assert (busy.active, busy.free_memory) == (1, 384 * MIB)
            assert (busy.reclaimable_memory, busy.warm) == (0, {})
            assert (busy.free_cpus, busy.reclaimable_cpus) == (cpus, 0)
            await node.agent.wait_load_change()
        idle = node.agent.load()
        assert (idle.active, idle.reclaimable_memory) == (0, 128 * MIB)
        assert list(idle.warm.values()) == [1]


async def test_cpus_are_told_as_memory_is(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"sleeper": sleeper}) as driver,
        open_node(driver, tmp_path, memory=512) as node,
    ):
        total = node.agent.statistics().total.cpus
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ended, node, cpus=1000))
            await trio.sleep(0.5)
            busy = node.agent.load()
        idle = node.agent.load()
    assert (busy.free_cpus, busy.reclaimable_cpus) == (total - 1000, 0)
    assert (idle.free_cpus, idle.reclaimable_cpus) == (total - 1000, 1000)
