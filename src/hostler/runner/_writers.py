"""Where a call's response goes on a runner: onto the engagement, or nowhere but for the ack."""

from __future__ import annotations

from http import HTTPStatus

import trio

from ..abc import CallListener, ResponseWriter
from ..call import PendingCall
from ..engagement import ServerEngagement
from ..errors import CallHandleNotFound
from ..frames import Data, Headers, ResultStart


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
        await self._engagement.send(ResultStart(HTTPStatus.ACCEPTED))
        self.acknowledged = True

    async def start(self, status: int, headers: Headers) -> None:
        pass

    async def write(self, data: bytes | memoryview) -> None:
        pass


class AcknowledgeDetached(CallListener):
    """Tells the LB that a detached call has its slot: the earliest moment at which the LB may
    answer its client. Registered on the inner agent."""

    def hears_begin(self, call: PendingCall) -> bool:
        return call.model.type == "detached"

    async def before_call(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            return
        if not isinstance(call.writer, DetachedWriter):
            raise CallHandleNotFound
        await call.writer.acknowledge()
