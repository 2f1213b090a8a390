"""Scenarios of whole fleets, as Fn's system tests have them (reference 07, sections 12 and 13)."""

from __future__ import annotations

from pathlib import Path

import trio

from .http import Reply, call
from .nodes import open_fleet

MAX_RESPONSE = 6_291_456


async def test_scenario_12_a_response_up_to_the_limit_is_complete_and_one_over_it_an_error(
    folder: Path,
) -> None:
    env = {"FN_MAX_RESPONSE_SIZE": str(MAX_RESPONSE)}
    async with open_fleet(folder, runner_env=env) as fleet:
        big = await call(fleet.lb, "size=5300000")
        assert (big.status, len(big.body)) == (200, 5_300_000)
        assert len((await call(fleet.lb, f"size={MAX_RESPONSE}")).body) == MAX_RESPONSE
        over = await call(fleet.lb, f"size={MAX_RESPONSE + 1}")
        assert over.status == 502
        assert over.body.strip() == b'{"message":"function response body too large"}'
        assert int(over.headers["content-length"]) == len(over.body)
        await fleet.drain()


async def test_scenario_12_empty_output_twice_on_one_container(folder: Path) -> None:
    async with open_fleet(folder, runners=1) as fleet:
        for _ in range(2):
            reply = await call(fleet.lb, "size=0")
            assert (reply.status, reply.body) == (200, b"")
        assert len(fleet.runners[0].functions()) == 1
        await fleet.drain()


async def test_scenario_12_ten_calls_at_once_sync_and_detached(folder: Path) -> None:
    replies: list[Reply] = []

    async def one(fn_invoke_type: str) -> None:
        replies.append(await call(fleet.lb, content=b"x", Fn_Invoke_Type=fn_invoke_type))

    async with open_fleet(folder, runners=4) as fleet:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one, "sync")
                nursery.start_soon(one, "detached")
        assert sorted(reply.status for reply in replies) == [200] * 10 + [202] * 10
        assert {reply.body for reply in replies if reply.status == 200} == {b"x"}
        await fleet.drain()


async def test_scenario_13_a_detached_body_arrives_intact_under_traffic(folder: Path) -> None:
    """Whatever other requests do with the buffers of the load balancer meanwhile."""
    body = bytes(range(256)) * 16 * 1024  # 4 MiB
    target = folder / "written"
    async with open_fleet(folder) as fleet:

        async def echo(number: int) -> None:
            content = b"%d" % (number % 10) * 300_000
            for _ in range(3):
                assert (await call(fleet.lb, content=content)).body == content

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(echo, number)
            order = f"readdelay=100;write={target}"
            detached = await call(fleet.lb, order, body, Fn_Invoke_Type="detached")
            assert detached.status == 202
        await fleet.drain()  # which waits for it
    assert target.read_bytes() == body
