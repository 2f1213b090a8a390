"""Two load balancers in front of one full runner, as processes: each has its share at once."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from tests.cli._process import NodeProcess

from .http import posting
from .nodes import LIMIT, open_lb, open_runner

MEMORY = 16
ROOM = {"FN_MAX_TOTAL_MEMORY_BYTES": str(4 * MEMORY * 2**20)}
"""For four containers."""
FUNCTIONS = {"fnt": {"memory": MEMORY}}
CLIENTS = 16
ALONE, SETTLED, COUNTED = 3.0, 2.0, 5.0
"""Seconds that the first has the runner for itself, that the second has to get its share, and in
which is counted what each has."""


@attrs.define(eq=False)
class Crowd:
    """Clients of one load balancer that call again as soon as they are answered."""

    lb: NodeProcess
    answered: int = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(self._client)

    async def _client(self) -> None:
        while True:
            async with posting(self.lb, "/invoke/fnt", b"x", Fnt_Do="sleep=100") as exchange:
                reply = await exchange.reply()
            assert (reply.status, reply.body) == (200, b"x")
            self.answered += 1


async def test_the_second_balancer_has_half_of_a_full_runner(folder: Path) -> None:
    homes = [folder / name for name in ("first", "second")]
    for home in homes:
        home.mkdir()
    async with open_runner(folder, env=ROOM) as runner:
        lbs = [open_lb(home, [runner.address], functions=FUNCTIONS) for home in homes]
        async with lbs[0] as first, lbs[1] as second:
            with trio.fail_after(LIMIT):
                async with trio.open_nursery() as calling:
                    crowds = [Crowd(first), Crowd(second)]
                    for crowd in crowds:
                        calling.start_soon(crowd.run)
                        await trio.sleep(ALONE if crowd.lb is first else SETTLED)
                    before = [crowd.answered for crowd in crowds]
                    await trio.sleep(COUNTED)
                    counts = [
                        crowd.answered - had for crowd, had in zip(crowds, before, strict=True)
                    ]
                    calling.cancel_scope.cancel()
    assert 0.4 <= counts[1] / sum(counts) <= 0.6, counts
