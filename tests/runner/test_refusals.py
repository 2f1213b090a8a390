"""Calls that a runner has no room for: what it costs to say so, and to whom it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import trio
import trio.lowlevel
import trio.testing

from hostler import wire
from hostler._call_document import encode_call
from hostler.protocol import Data, Finished, TryCall
from hostler.wire.codec import messages as codec
from tests.agent.nodes import call_model
from tests.conftest import Logs
from tests.support.fn_placer import FnPlacer, Outcome, open_fn_placer
from tests.support.http2 import DATA, END_STREAM, Peer, Reply, frame, message, open_peer

from .full import END, code_of, open_full, try_of

OURS = [("hostler-lb", "lb-1")]


class Spawned(trio.abc.Instrument):
    """Counts tasks that are started, and turns of the scheduler."""

    def __init__(self) -> None:
        self.tasks = self.turns = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks += 1

    def after_io_wait(self, timeout: float) -> None:
        self.turns += 1


async def many(peer: Peer, count: int) -> list[Reply]:
    """So many calls, in one write."""
    replies, data = [], []
    for _ in range(count):
        frames, number = peer.begin(try_of(), END)
        replies.append(peer.expect(number))
        data.append(frames)
    await peer.send(b"".join(data))
    for reply in replies:
        await reply.done.wait()
    return replies


@pytest.mark.fast
async def test_a_refused_call_costs_no_task(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        await many(peer, 1)
        spawned = Spawned()
        trio.lowlevel.add_instrument(spawned)
        replies = await many(peer, 200)
        trio.lowlevel.remove_instrument(spawned)
        assert {code_of(reply) for reply in replies} == {503}
        assert spawned.tasks == 0


async def test_a_refusal_is_counted_and_tells_the_load(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        for _ in range(5):
            (reply,) = await many(peer, 1)
        last = codec.decode_runner(reply.messages[-1])
        assert isinstance(last, Finished)
        assert last.details == "call-holds"
        assert last.load is not None
        assert (last.load.refused, last.load.active, last.load.free_memory) == (5, 1, 0)
        statistics = full.agent.statistics()
        assert (statistics.calls, statistics.server_busy, statistics.queued) == (6, 5, 0)
        counts = full.runner.statistics()
        assert (counts.active, counts.received, counts.handled) == (1, 6, 0)
        assert full.value("fn_server_busy") == 5


async def test_refusals_let_others_have_their_turns(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        spawned = Spawned()
        trio.lowlevel.add_instrument(spawned)
        await many(peer, 640)
        trio.lowlevel.remove_instrument(spawned)
        assert spawned.turns >= 640 / 32


async def test_a_call_that_is_not_refused_is_made_once_and_served(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(request: Any, model: Any, extensions: Any) -> Any:
        seen.append(model.fn_id)
        return extensions

    async with (
        open_full(tmp_path, call_overrider=note) as full,
        open_peer(full.runner.address) as peer,
    ):
        (refused,) = await many(peer, 1)
        assert code_of(refused) == 503
        assert len(seen) == 2
        full.over.set()
        while full.agent.statistics().running:  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.001)
        (served,) = await many(peer, 1)
        assert code_of(served) == 200
        assert len(seen) == 3


async def test_auto_lets_calls_of_other_load_balancers_wait_and_refuses_ours(
    tmp_path: Path,
) -> None:
    async with (
        open_full(tmp_path, "auto") as full,
        open_peer(full.runner.address) as theirs,
        open_peer(full.runner.address, more=OURS) as ours,
    ):
        waits = await theirs.request(try_of(), END)
        while not full.agent.statistics().queued:  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.001)
        assert [code_of(reply) for reply in await many(ours, 2)] == [503, 503]
        assert not waits.done.is_set()
        full.over.set()
        await waits.done.wait()
        assert code_of(waits) == 200


@pytest.mark.parametrize("share_limit", [0, 2**16])
async def test_auto_refuses_calls_of_our_own_client(tmp_path: Path, share_limit: int) -> None:
    """On a stream of its own and on a shared one."""
    try_call = TryCall(encode_call(call_model("holds", fn_id="another")))
    async with open_full(tmp_path, "auto") as full, wire.open_loop() as loop:
        client = wire.GrpcRunnerClient(
            full.runner.address,
            wire.ConnectOptions(connect_timeout=60, share_limit=share_limit),
            loop=loop,
        )
        for _ in range(3):
            async with client.engage(try_call, first=Data(b"", eof=True)) as engagement:
                finished = await engagement.receive()
                assert isinstance(finished, Finished)
                assert finished.error_code == 503
                assert await engagement.receive() is None
        await client.aclose()


@pytest.mark.parametrize("nack", [True, False])
async def test_who_says_true_or_false_has_it_for_all(tmp_path: Path, nack: bool) -> None:
    async with (
        open_full(tmp_path, nack) as full,
        open_peer(full.runner.address, more=OURS) as ours,
        open_peer(full.runner.address) as theirs,
    ):
        replies = [await peer.request(try_of(), END) for peer in (ours, theirs)]
        while full.agent.statistics().server_busy + full.agent.statistics().queued < 2:  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.001)
        full.over.set()
        for reply in replies:
            await reply.done.wait()
        assert {code_of(reply) for reply in replies} == ({503} if nack else {200})


async def test_the_first_message_may_come_in_parts(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        await many(peer, 1)
        await trio.testing.wait_all_tasks_blocked()  # all that the peer says by itself is said
        frames, number = peer.begin(try_of(config={"A": "x" * 30_000}), END)
        reply = peer.expect(number)
        for at in range(0, len(frames), 1000):
            await peer.send(frames[at : at + 1000])
            await trio.lowlevel.checkpoint()
        await reply.done.wait()
        assert code_of(reply) == 503


async def test_what_was_sent_of_a_large_body_before_the_refusal_harms_nothing(
    tmp_path: Path, logs: Logs
) -> None:
    """As Fn's load balancers send it: at once, as far as the window goes."""
    piece = codec.encode_client(Data(b"x" * 10_000))
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        for _ in range(100):
            reply = await peer.request(try_of(), *[piece] * 40, END)
            await reply.done.wait()
            assert code_of(reply) == 503
    assert not logs.with_event("client cut off")


async def test_a_client_that_has_ended_its_side_is_refused(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        data, number = peer.begin(try_of())
        reply = peer.expect(number)
        await peer.send(data + frame(DATA, message(END), flags=END_STREAM, stream=number))
        await reply.done.wait()
        assert code_of(reply) == 503


async def test_a_call_of_a_draining_runner_is_refused(tmp_path: Path) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        full.agent.close_admission()
        (reply,) = await many(peer, 1)
        assert code_of(reply) == 503
        assert full.agent.statistics().server_busy == 1


@pytest.mark.parametrize("nack", ["auto", True])
async def test_a_runner_that_stood_still_under_load_serves_all(
    tmp_path: Path, nack: Literal["auto"] | bool
) -> None:
    """All that came meanwhile is there at once; the calls of two load balancers as Fn's, which ask
    again every 10 ms for each that was refused."""
    async with open_full(tmp_path, nack, memory=256) as full:
        outcomes: list[Outcome] = []
        async with (
            open_fn_placer([full.runner.address]) as one,
            open_fn_placer([full.runner.address]) as other,
            trio.open_nursery() as nursery,
        ):

            async def place(placer: FnPlacer) -> None:
                outcomes.append(await placer.place(try_of(), END))

            for _ in range(100):
                nursery.start_soon(place, one)
                nursery.start_soon(place, other)
            statistics = full.agent.statistics()
            while statistics.calls < 201:
                await trio.sleep(0.001)
                statistics = full.agent.statistics()
            full.over.set()
        assert [outcome.code for outcome in outcomes] == [200] * 200
        refused = sum(outcome.refused for outcome in outcomes)
        assert full.agent.statistics().server_busy == refused
        assert (refused > 0) is (nack is True)
