"""Connections that wait for a request, when there are many."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from hostler.config import NodeConfig
from hostler.http1.server import LOOKS, close_idle

MANY = 1000


@attrs.define(eq=False)
class Idle:
    """A connection that has waited since ``since``."""

    since: float
    served: bool = False
    looks: int = 0
    closed_at: float | None = None

    def idle_until(self, seconds: float) -> float:
        self.looks += 1
        now, until = trio.current_time(), self.since + seconds
        if now >= until and self.closed_at is None:
            self.closed_at = now
        return until if self.closed_at is None else float("inf")


@attrs.define
class Server:
    connections: set[Any]
    config: NodeConfig = attrs.Factory(NodeConfig)


async def test_they_are_closed_in_time_and_looked_at_a_bounded_number_of_times(
    autojump_clock: object,
) -> None:
    """However differently they are due: else the work would grow with the square of them."""
    limit = NodeConfig().request_header_read_timeout
    begin = trio.current_time()
    idle = [Idle(begin + limit * number / MANY) for number in range(MANY)]
    with trio.move_on_after(2.5 * limit):
        await close_idle(Server(set(idle)))  # type: ignore[arg-type]
    for each in idle:
        assert each.closed_at is not None
        assert 0 <= each.closed_at - (each.since + limit) <= limit / LOOKS + 1e-6
        assert each.looks <= 2.5 * LOOKS + 2
