"""Attempts that need no wait, over the real wire."""

from __future__ import annotations

import pytest
import trio

from hostler.abc import Outcome, Placed, RunnerCall
from hostler.bodies import BytesBody, ReplayBody
from hostler.errors import RunnerClosed
from hostler.pool import GrpcRunner
from hostler.protocol import BODY_PIECE
from tests.support.observers import OnCommit
from tests.wire.services import Gate, Pair, Service, call, open_pair

from .bench import OK, answer
from .fakes import RecordingWriter, make_call

pytestmark = pytest.mark.fast


async def begun(pair: Pair, runner_call: RunnerCall, runner: GrpcRunner) -> tuple[Outcome, int]:
    commits = 0

    def commit() -> None:
        nonlocal commits
        commits += 1

    outcome_of = runner.begin_exec(runner_call, OnCommit(commit))
    assert outcome_of is not None
    assert (commits, runner_call.runner_address) == (1, pair.server.address)
    return await outcome_of(), commits


async def test_a_call_that_succeeds() -> None:
    async with open_pair(Service(answer(OK))) as pair:
        await call(pair.client)
        runner_call = make_call()
        assert await begun(pair, runner_call, GrpcRunner(pair.client)) == (Placed(), 1)
        assert isinstance(runner_call.writer, RecordingWriter)
        assert runner_call.timings.scheduler_ns == 7
        assert pair.client.statistics().streams == 0


async def test_closing_cuts_it_and_tells_whose_doing_that_was() -> None:
    async with open_pair(Service(Gate())) as pair, trio.open_nursery() as nursery:
        runner = GrpcRunner(pair.client)
        outcomes: list[tuple[Outcome, int]] = []

        async def attempt() -> None:
            outcomes.append(await begun(pair, make_call(), runner))

        async with trio.open_nursery() as first:  # makes the connection
            first.start_soon(call, pair.client)
            await pair.service.busy.wait()
            nursery.start_soon(attempt)
            while pair.service.started < 2:
                await trio.testing.wait_all_tasks_blocked(0.001)
            first.cancel_scope.cancel()
        with trio.move_on_after(0):
            await runner.aclose()
        await pair.service.wait_idle()
        ((outcome, commits),) = outcomes
        assert isinstance(outcome, Placed)
        assert isinstance(outcome.error, RunnerClosed)
        assert commits == 1
        assert runner.begin_exec(make_call()) is None


async def test_what_only_a_wait_can_send_does_not_begin() -> None:
    async with open_pair(Service(answer(OK))) as pair:
        await call(pair.client)
        runner = GrpcRunner(pair.client)
        for body in (
            ReplayBody(BytesBody(b"x").open()),
            BytesBody(bytes(BODY_PIECE + 1)),
            BytesBody(bytes(40_000)),
        ):
            runner_call = make_call()
            runner_call.body = body
            assert runner.begin_exec(runner_call) is None
        bad = make_call()
        bad.model.headers = {"X": ["\ud800"]}  # no JSON
        assert runner.begin_exec(bad) is None
        assert pair.client.statistics().streams == 0
