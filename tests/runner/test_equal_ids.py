"""Call ids of different load balancers may coincide: they are names for people, and no keys."""

from __future__ import annotations

from pathlib import Path

import trio

from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.protocol import Data, ResultStart

from .runners import SimRunner, open_sim_runner, try_call


async def slow_echo(request: SimRequest) -> SimResponse:
    body = await request.read()
    await trio.sleep(1)
    request.container.output(body + b"\n")
    return SimResponse(body=body)


async def detach(runner: SimRunner) -> None:
    call, first = try_call("echo", id="same", type="detached"), Data(b"d", eof=True)
    async with runner.client.engage(call, first=first) as engagement:
        assert await engagement.receive() == ResultStart(202)


async def test_calls_with_equal_ids_at_once_are_served_each_for_itself(
    autojump_clock: object, tmp_path: Path
) -> None:
    answers: list[bytes] = []
    async with (
        open_sim_driver({"echo": slow_echo}) as driver,
        open_sim_runner(driver, tmp_path) as runner,
    ):

        async def one(body: bytes) -> None:
            answer, outcome = await runner.frames("echo", body, id="same")
            assert outcome.success
            assert outcome.details == "same"
            answers.append(answer)

        async with trio.open_nursery() as nursery:
            for body in (b"a", b"b", b"c"):
                nursery.start_soon(one, body)
            for _ in range(2):
                nursery.start_soon(detach, runner)
        await runner.service.drain(30)
        counts = runner.service.statistics()
        assert (counts.received, counts.handled, counts.detached) == (5, 5, 0)
        assert runner.agent.statistics().completed == 5
    assert sorted(answers) == [b"a", b"b", b"c"]
