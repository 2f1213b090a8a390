"""Where a call's response goes on a runner: onto the engagement, or nowhere but for the ack."""

from __future__ import annotations

import math
from contextlib import suppress
from http import HTTPStatus

import trio

from ..abc import Body, CallListener, ResponseWriter
from ..bodies import BodyBudget, NotKept, keep_whole
from ..call import PendingCall
from ..errors import APIError, CallHandleNotFound, CallTimeout, ServerBusy
from ..protocol import Data, EngagementEnded, Headers, ResultStart, ServerEngagement


class EngagementWriter(ResponseWriter):
    """Sends the response as it is produced; a slow LB stops the function.

    The head goes with the first byte of the body, or with the outcome: an LB has no use for it
    before. The end of a body whose length was announced goes with the outcome, too, so that most
    answers are one write for the runner and one wake-up for the LB.
    """

    def __init__(self, engagement: ServerEngagement) -> None:
        self._engagement = engagement
        self._started = False
        self._left: int | None = None
        self.unsent: list[ResultStart | Data] = []
        """What goes with the outcome."""

    def start_now(self, status: int, headers: Headers) -> bool:
        if not self._started:
            self._started = True
            self._left = _announced(headers)
            self.unsent.append(ResultStart(status, headers))
        return True

    async def start(self, status: int, headers: Headers) -> None:
        self.start_now(status, headers)
        await trio.lowlevel.checkpoint_if_cancelled()

    def write_now(self, data: bytes | memoryview) -> bool:
        if len(data) != self._left:
            return not data
        self._left = 0
        if data:
            self.unsent.append(Data(bytes(data)))
        return True

    async def write(self, data: bytes | memoryview) -> None:
        if self.write_now(data):
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        self.unsent.append(Data(bytes(data)))
        if self._left is not None:
            self._left -= len(data)
        frames, self.unsent = self.unsent, []
        await self._engagement.send_all(frames)


def _announced(headers: Headers) -> int | None:
    """The length that the body is going to have. The agent has checked it."""
    for name, value in headers:
        if name == "Content-Length" and value.isdecimal():
            return int(value)
    return None


class DetachedWriter(ResponseWriter):
    """Swallows the function's output; `acknowledge` is all that the LB gets to see."""

    def __init__(self, engagement: ServerEngagement) -> None:
        self._engagement = engagement
        self.acknowledged = False

    async def acknowledge(self) -> None:
        """From here on the call runs, whatever becomes of the LB: it may have the acknowledgement,
        and may have answered its client, before this returns, or although the engagement broke."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.acknowledged = True
        with suppress(EngagementEnded):
            await self._engagement.send(ResultStart(HTTPStatus.ACCEPTED))

    async def start(self, status: int, headers: Headers) -> None:
        pass

    async def write(self, data: bytes | memoryview) -> None:
        pass


class AcknowledgeDetached(CallListener):
    """Tells the LB that a detached call has its slot, and that its body is here: the earliest
    moment at which the LB may answer its client. Registered on the inner agent.

    The body is read only now: calls that wait for a slot take no room, and a runner that refuses
    one has not taken its body for nothing. It is kept in ``bodies``, up to ``limit`` bytes; whoever
    runs the call closes it.
    """

    def __init__(self, bodies: BodyBudget | None = None, limit: float = math.inf) -> None:
        self._bodies = bodies or BodyBudget()
        self._limit = limit

    def hears_begin(self, call: PendingCall) -> bool:
        return call.model.type == "detached"

    async def before_call(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            return
        if not isinstance(call.writer, DetachedWriter):
            raise CallHandleNotFound
        call.body = await self._whole(call)
        await call.writer.acknowledge()

    async def _whole(self, call: PendingCall) -> Body:
        """The body, from now on without the LB. It has to come within the call's time, which holds
        for the body of any other call."""
        try:
            with trio.move_on_after(call.run_seconds(trio.current_time())):
                return await keep_whole(call.body, self._bodies, self._limit)
        except APIError as error:
            if isinstance(error.__cause__, NotKept):
                raise ServerBusy from error  # another runner may have room, or a disk that works
            raise
        raise CallTimeout
