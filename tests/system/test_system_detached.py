"""A detached call that was answered 202 runs, whatever becomes of its load balancer then."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h11
import pytest
import trio

from hostler import wire
from hostler._call_document import encode_call
from hostler.models import Call
from hostler.protocol import ClientEngagement, Data, Finished, ResultStart, TryCall
from tests.cli._process import ends
from tests.functions.build import fnt_path

from .http import call, metric, until_metric
from .nodes import LIMIT, Runner, lines_of, open_lb, open_runner, open_single, wait_line

LARGEST = 5 * 1024 * 1024
"""FN_MAX_DETACHED_BODY of these nodes, under FN_MAX_REQUEST_SIZE."""
SIZES = (0, 1, 10_000, 200_000, 4_000_000, LARGEST)
ENV = {"FN_MAX_DETACHED_BODY": str(LARGEST)}


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("streamed", [False, True], ids=["shared", "own-stream"])
@pytest.mark.parametrize("size", SIZES)
async def test_an_acknowledged_call_survives_the_kill_of_its_lb(
    folder: Path, size: int, streamed: bool
) -> None:
    """With its whole body, though the function reads it only later."""
    target, body = folder / "written", body_of(size)
    lb_env = {**ENV, "FN_MULTIPLEX_LIMIT": "0" if streamed else "32768"}
    async with (
        open_runner(folder, env=ENV) as runner,
        open_lb(folder, [runner.address], env=lb_env) as lb,
    ):
        with trio.fail_after(LIMIT):
            order = f"readdelay=300;write={target}"
            reply = await call(lb, order, body, Fn_Invoke_Type="detached")
            lb.process.kill()
            assert reply.status == 202
            await lb.process.wait()
            await runner.drain()  # which waits for the call
        assert target.read_bytes() == body


async def test_an_acknowledged_call_whose_runner_is_killed_runs_nowhere_else(folder: Path) -> None:
    """Its function may have worked on it. The load balancer says so in its log, counts it, and has
    nothing left that a drain would wait for."""
    begun = folder / "begun"
    async with (
        open_runner(folder, env=ENV) as first,
        open_runner(folder, env=ENV) as second,
        open_lb(folder, [first.address, second.address], env=ENV) as lb,
    ):
        with trio.fail_after(LIMIT):
            reply = await call(lb, f"write={begun};sleep=60000", b"x", Fn_Invoke_Type="detached")
            assert reply.status == 202
            runs = [await metric(one.node, "fn_running") for one in (first, second)]
            assert sorted(runs) == [0, 1]
            victim, other = (first, second) if runs[0] else (second, first)
            victim.node.process.kill()
            await victim.node.process.wait()
            await until_metric(lb, "fn_errors", 1)
            assert await metric(other.node, "fn_calls") == 0
            assert (await call(lb, "", b"y")).status == 200
            lb.process.terminate()
            assert await ends(lb) == 0


@pytest.mark.parametrize("node", ["lb", "runner", "serve"])
async def test_a_body_over_the_limit_is_refused_by_each_node(folder: Path, node: str) -> None:
    """By the runner, too: a load balancer of Fn's has no limit."""
    target, body = folder / "written", body_of(LARGEST + 1)
    order = f"write={target}"
    with trio.fail_after(LIMIT):
        if node == "serve":
            async with open_single(folder, env=ENV) as single:
                reply = await call(single.node, order, body, Fn_Invoke_Type="detached")
                await single.drain()
        else:
            async with (
                open_runner(folder, env=ENV if node == "runner" else {}) as runner,
                open_lb(folder, [runner.address], env=ENV if node == "lb" else {}) as lb,
            ):
                reply = await call(lb, order, body, Fn_Invoke_Type="detached")
                await runner.drain()
    assert reply.status == 413
    assert "too large" in reply.json()["message"]
    assert not target.exists()


async def test_each_call_with_a_202_runs_though_its_lb_is_killed_among_many(folder: Path) -> None:
    """Of more calls than there is room for at once, none is promised that does not run, and none
    runs with a piece of its body."""
    room = {"FN_MAX_TOTAL_MEMORY_BYTES": str(72 * 2**20)}
    promised: list[int] = []
    enough = trio.Event()

    async def one(number: int) -> None:
        with suppress(h11.RemoteProtocolError, OSError, trio.BrokenResourceError):
            order = f"sleep=20;write={folder}/w{number}"
            reply = await call(lb, order, body_of(1_000_000 + number), Fn_Invoke_Type="detached")
            assert reply.status == 202, reply
            promised.append(number)
        if len(promised) == 10:
            lb.process.kill()
            enough.set()

    async with (
        open_runner(folder, env={**ENV, **room}) as runner,
        open_lb(folder, [runner.address], env=ENV) as lb,
    ):
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as clients:
                for number in range(40):
                    clients.start_soon(one, number)
            assert enough.is_set()
            await runner.drain()
    assert len(promised) < 40
    written = await trio.to_thread.run_sync(written_in, folder)
    assert set(promised) <= set(written)
    assert {n for n, body in written.items() if body != body_of(1_000_000 + n)} == set()


def written_in(folder: Path) -> dict[int, bytes]:
    return {int(path.name[1:]): path.read_bytes() for path in folder.glob("w*")}


async def test_a_runner_without_room_for_a_body_leaves_the_call_to_others(folder: Path) -> None:
    target, body = folder / "written", body_of(1_000_000)
    none = {"FN_BODY_MEMORY": "0", "FN_BODY_DISK": "0"}
    async with (
        open_runner(folder, env=none) as full,
        open_runner(folder) as other,
        open_lb(folder, [full.address, other.address], "--placer", "naive") as lb,
    ):
        with trio.fail_after(LIMIT):
            for _ in range(6):
                reply = await call(lb, f"write={target}", body, Fn_Invoke_Type="detached")
                assert reply.status == 202
            await other.drain()
            await full.drain()
            assert await ends(lb) == 0
        assert len(lines_of(lb, "call finished", runner=other.address)) == 6
        assert target.read_bytes() == body


async def test_with_no_room_anywhere_a_call_waits_and_is_refused(folder: Path) -> None:
    """Without taking the machine with it: each attempt takes a container and a piece of body."""
    none = {"FN_BODY_MEMORY": "0", "FN_BODY_DISK": "0"}
    lb_env = {"FN_DETACHED_PLACER_TIMEOUT": "3"}
    async with (
        open_runner(folder, env=none) as runner,
        open_lb(folder, [runner.address], env=lb_env) as lb,
    ):
        with trio.fail_after(LIMIT):
            reply = await call(lb, "", body_of(1_000_000), Fn_Invoke_Type="detached")
            assert reply.status == 503
            line = await wait_line(lb, "call finished", code=503)
            assert line["attempts"] < 100
            assert await metric(runner.node, "fn_body_memory_bytes") == 0
            await runner.drain()


def try_call(target: Path, timeout: int = 60) -> TryCall:
    """As a load balancer of Fn's sends it: the whole body follows in data frames."""
    model = Call(
        id="call",
        image=str(fnt_path()),
        type="detached",
        url="http://h/invoke/fnt",
        method="POST",
        timeout=timeout,
        idle_timeout=60,
        memory=16,
        headers={"Fnt-Do": [f"write={target}"]},
    )
    return TryCall(encode_call(model))


@asynccontextmanager
async def engaged(runner: Runner, call: TryCall) -> AsyncIterator[ClientEngagement]:
    """An engagement on a stream of its own, whose connection is lost with the block."""
    async with wire.open_loop() as loop:
        client = wire.GrpcRunnerClient(
            runner.address, wire.ConnectOptions(share_limit=0), loop=loop
        )
        try:
            async with client.engage(call) as engagement:
                yield engagement
        finally:
            await client.aclose()


def frames_of(body: bytes) -> list[Data]:
    """Of 10 KiB each, and an empty one: as Fn's load balancer has them."""
    return [*(Data(body[at : at + 10240]) for at in range(0, len(body), 10240)), Data(b"", True)]


async def test_a_body_in_small_frames_is_complete_before_the_acknowledgement(folder: Path) -> None:
    target, body = folder / "written", body_of(1_000_000)
    frames = frames_of(body)
    with trio.fail_after(LIMIT):
        async with open_runner(folder) as runner:
            async with engaged(runner, try_call(target)) as engagement:
                for frame in frames[:-1]:
                    await engagement.send(frame)
                await until_metric(runner.node, "fn_body_memory_bytes", len(body))
                with trio.move_on_after(0.05) as early:
                    await engagement.receive()
                assert early.cancelled_caught
                await engagement.send(frames[-1])
                assert await engagement.receive() == ResultStart(202)
            await runner.drain()
        assert target.read_bytes() == body


async def test_a_runner_that_drains_takes_the_rest_of_a_body(folder: Path) -> None:
    target, body = folder / "written", body_of(1_000_000)
    frames = frames_of(body)
    with trio.fail_after(LIMIT):
        async with open_runner(folder) as runner:
            async with engaged(runner, try_call(target)) as engagement:
                for frame in frames[:50]:
                    await engagement.send(frame)
                await until_metric(runner.node, "fn_body_memory_bytes", 1)
                runner.node.process.terminate()
                await wait_line(runner.node, "runner drains")
                for frame in frames[50:]:
                    await engagement.send(frame)
                assert await engagement.receive() == ResultStart(202)
            assert await runner.node.process.wait() == 0
        assert target.read_bytes() == body


@pytest.mark.parametrize("lost", [False, True], ids=["stalls", "is-lost"])
async def test_a_sender_that_does_not_go_on_holds_no_container(folder: Path, lost: bool) -> None:
    """Longer than the call's time, and no longer than its connection."""
    target, room = folder / "written", {"FN_MAX_TOTAL_MEMORY_BYTES": str(24 * 2**20)}
    first, second = try_call(target, timeout=2), try_call(folder / "second")
    with trio.fail_after(LIMIT):
        async with open_runner(folder, env=room) as runner:
            async with engaged(runner, first) as engagement:
                await engagement.send(Data(b"part"))
                await until_metric(runner.node, "fn_body_memory_bytes", 4)
                if not lost:
                    finished = await engagement.receive()
                    assert isinstance(finished, Finished)
                    assert finished.error_code == 504
            async with engaged(runner, second) as engagement:
                await engagement.send(Data(b"whole", eof=True))
                assert await engagement.receive() == ResultStart(202)
            await runner.drain()
        assert (folder / "second").read_bytes() == b"whole"
        assert not target.exists()
