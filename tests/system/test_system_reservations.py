"""Reservations between processes: who is asked for one, and what a client's leaving frees."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.cli._process import NodeProcess

from .http import Reply, call, metric, posting, until_metric
from .nodes import FREED, LIMIT, Functions, errors_of, open_fleet, wait_line

FUNCTIONS: Functions = {
    "fnt": {},
    "other": {},
    "stuck": {"config": {"FNT_START": "hang"}},
}


async def test_cold_calls_are_reserved_and_hot_ones_are_not(folder: Path) -> None:
    """Once a runner has said, with its first answer, that it can."""
    with trio.fail_after(LIMIT):
        async with open_fleet(folder, runners=1, functions=FUNCTIONS) as fleet:
            (runner,) = fleet.runners
            for fn, body in (("fnt", b"1"), ("other", b"x" * 200_000), ("other", b"3")):
                reply = await call(fleet.lb, content=body, fn=fn)
                assert (reply.status, reply.body) == (200, body)
            for node, name in ((fleet.lb, "lb_placer_reservation"), (runner.node, "reservation")):
                assert await metric(node, f"fn_{name}_count") == 1
                assert await metric(node, f"fn_{name}_committed_count") == 1
                assert await metric(node, f"fn_{name}_abandoned_count") == 0
            await fleet.drain()


async def test_a_client_that_leaves_while_its_container_starts_frees_its_reservation(
    folder: Path,
) -> None:
    with trio.fail_after(LIMIT):
        async with open_fleet(folder, runners=1, functions=FUNCTIONS) as fleet:
            (runner,) = fleet.runners
            await call(fleet.lb)
            async with posting(fleet.lb, "/invoke/stuck"):
                await until_metric(fleet.lb, "fn_lb_placer_reservation_count", 1)
                await until_metric(runner.node, "fn_queued", 1)
            with trio.fail_after(FREED):
                await until_metric(fleet.lb, "fn_lb_placer_reservation_abandoned_count", 1)
                while await metric(runner.node, "fn_queued"):  # noqa: ASYNC110  (another's state)
                    await trio.sleep(0.01)
            assert await metric(runner.node, "fn_canceled") == 1
            assert await metric(fleet.lb, "fn_lb_placer_client_cancelled_count") == 1
            assert (await call(fleet.lb, content=b"next")).body == b"next"
            assert errors_of(fleet.lb) == []


async def test_a_runner_that_is_killed_with_nothing_but_reservations_fails_no_call(
    folder: Path,
) -> None:
    """Its containers were starting: what it held goes to the other one."""
    known: Functions = {f"known{number}": {} for number in range(40)}
    gate = folder / "gate"
    starts = {"config": {"FNT_START": f"until={gate}"}}
    slow: Functions = {f"slow{number}": starts for number in range(4)}
    replies: list[Reply] = []
    with trio.fail_after(2 * LIMIT):
        async with open_fleet(folder, functions={**known, **slow}) as fleet:
            nodes = [runner.node for runner in fleet.runners]
            for fn in known:  # until both have said that they take reservations
                await call(fleet.lb, fn=fn)
                if all([await metric(node, "fn_calls") for node in nodes]):
                    break

            async def one(fn: str) -> None:
                replies.append(await call(fleet.lb, content=fn.encode(), fn=fn))

            async with trio.open_nursery() as nursery:
                for fn in slow:
                    nursery.start_soon(one, fn)
                victim = await first_with(nodes, "fn_queued")
                victim.process.kill()
                gate.touch()
            assert {(reply.status, reply.body.decode()) for reply in replies} == {
                (200, fn) for fn in slow
            }
            assert await metric(fleet.lb, "fn_errors") == 0
            ids = [reply.headers["fn-call-id"] for reply in replies]
            ended = [await wait_line(fleet.lb, "call finished", call_id=id_) for id_ in ids]
            assert any(line["attempts"] > 1 for line in ended)
            assert errors_of(fleet.lb) == []


async def first_with(nodes: list[NodeProcess], name: str) -> NodeProcess:
    """The first node whose metric is not 0."""
    while True:
        for node in nodes:
            if await metric(node, name):
                return node


async def test_nothing_is_reserved_when_either_side_does_not_want_it(folder: Path) -> None:
    with trio.fail_after(2 * LIMIT):
        for runner_env, lb_env in (
            ({"FN_RESERVATION_MSECS": "0"}, {}),
            ({}, {"FN_RESERVE": "false"}),
        ):
            inside = folder / str(len(lb_env))
            inside.mkdir()
            async with open_fleet(
                inside, runners=1, functions=FUNCTIONS, runner_env=runner_env, lb_env=lb_env
            ) as fleet:
                for fn in ("fnt", "other"):
                    assert (await call(fleet.lb, content=b"x", fn=fn)).body == b"x"
                assert await metric(fleet.lb, "fn_lb_placer_reservation_count") == 0
                await fleet.drain()
