"""Load on a load balancer, and when each call began and ended by this machine's clock."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import attrs
import h11
import trio

from tests.cli._process import NodeProcess

from .http import Reply, call

BROKEN = (OSError, h11.RemoteProtocolError, trio.BrokenResourceError)
"""What a client meets that gets no answer."""


@attrs.frozen
class Answer:
    """``reply`` is an error's text if there was none."""

    began: float
    ended: float
    reply: Reply | str

    @property
    def ok(self) -> bool:
        return isinstance(self.reply, Reply) and self.reply.status == 200


@attrs.define(eq=False)
class Load:
    """Calls of one function, until told to stop; every body has to come back."""

    lb: NodeProcess
    do: str
    stop: trio.Event = attrs.Factory(trio.Event)
    answers: list[Answer] = attrs.Factory(list)

    async def run_clients(self, count: int) -> None:
        """Closed loop: clients that call again as soon as they are answered."""

        async def client(number: int) -> None:
            while not self.stop.is_set():
                await self._call(number)

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(client, number)

    async def run_rate(self, rate: float) -> None:
        """Open loop: ``rate`` calls a second, whatever becomes of those before."""
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            number = 0
            while not self.stop.is_set():
                nursery.start_soon(self._call, number)
                number += 1
                await trio.sleep_until(began + number / rate)

    async def _call(self, number: int) -> None:
        body = b"call %d" % number
        began = time.time()
        reply: Reply | str
        try:
            reply = await call(self.lb, self.do, body)
            assert reply.status != 200 or reply.body == body
        except BROKEN as error:
            reply = repr(error)
        self.answers.append(Answer(began, time.time(), reply))

    async def until_answers(self, more: int) -> None:
        least = len(self.answers) + more
        while len(self.answers) < least:  # noqa: ASYNC110  (the condition is a length)
            await trio.sleep(0.02)

    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.ok]

    def rate(self, since: float, until: float) -> float:
        """Calls a second that ended well."""
        done = sum(answer.ok and since <= answer.ended < until for answer in self.answers)
        return done / (until - since)


def at(line: dict[str, Any]) -> float:
    """The time of a log line, in the seconds of ``time.time``."""
    return dt.datetime.fromisoformat(line["timestamp"]).timestamp()


def began_at(line: dict[str, Any]) -> float:
    """When the call of this "call finished" came to the load balancer."""
    return at(line) - float(line["total_ms"]) / 1000
