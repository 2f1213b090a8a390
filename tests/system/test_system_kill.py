"""A runner that is killed under load takes with it only what was committed to it."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import attrs
import trio

from .http import Reply, call, until_metric
from .nodes import LIMIT, Fleet, ends, errors_of, lines_of, open_fleet

CLIENTS = 300
SLEEP = "sleep=1000"
FNS = {"fnt": {"memory": 1}}


@attrs.define
class Load:
    """Clients that call again and again until told to stop."""

    fleet: Fleet
    stop: trio.Event = attrs.Factory(trio.Event)
    answers: list[Reply] = attrs.Factory(list)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(self._one, number)

    async def _one(self, number: int) -> None:
        body = b"client %d" % number
        while not self.stop.is_set():
            answer = await call(self.fleet.lb, SLEEP, body)
            if answer.status == 200:
                assert answer.body == body
            self.answers.append(answer)

    async def until_answers(self, more: int) -> None:
        least = len(self.answers) + more
        while len(self.answers) < least:  # noqa: ASYNC110  (the condition is a length)
            await trio.sleep(0.02)


async def test_killed_runner_fails_only_the_calls_committed_to_it(folder: Path) -> None:
    async with open_fleet(folder, functions=FNS) as fleet:
        victim, survivor = fleet.runners
        load = Load(fleet)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run)
                await until_metric(fleet.lb, "fn_running", CLIENTS)
                await load.until_answers(CLIENTS)
                await until_metric(victim.node, "fn_running", 20)
                assert victim.functions()
                victim.node.process.kill()
                await victim.node.process.wait()
                with trio.fail_after(LIMIT):
                    await victim.until_no_function()
                await load.until_answers(2 * CLIENTS)
                load.stop.set()
        check(fleet, load.answers)
        assert (await call(fleet.lb, content=b"later")).body == b"later"
        assert await ends(fleet.lb, signal.SIGTERM) == 0
        failed = [answer for answer in load.answers if answer.status != 200]
        assert [line["event"] for line in errors_of(fleet.lb)] == [
            "internal error in a call"
        ] * len(failed)
        await survivor.drain()


def check(fleet: Fleet, answers: list[Reply]) -> None:
    victim, survivor = (runner.address for runner in fleet.runners)
    ended = {line["call_id"]: line for line in lines_of(fleet.lb, "call finished")}
    counts: Counter[tuple[str, int]] = Counter()
    for answer in answers:
        line = ended[answer.headers["fn-call-id"]]
        assert line["code"] == answer.status
        counts[line["runner"], answer.status] += 1
        if answer.status != 200:
            assert line["error"], line
            assert answer.status == 500
            assert answer.headers["content-type"].startswith("application/json")
            assert answer.json() == {"message": "internal server error"}
    assert set(counts) == {(victim, 200), (survivor, 200), (victim, 500)}, counts
    assert 1 <= counts[victim, 500] <= CLIENTS
