"""Where a call's response goes on a runner: onto the engagement, or nowhere but for the ack."""

from __future__ import annotations

from http import HTTPStatus

from ..abc import CallListener, ResponseWriter
from ..call import PendingCall
from ..engagement import ServerEngagement
from ..errors import CallHandleNotFound
from ..frames import Data, Headers, ResultStart


class EngagementWriter(ResponseWriter):
    """Sends the response as it is produced; a slow LB stops the function."""

    def __init__(self, engagement: ServerEngagement) -> None:
        self._engagement = engagement
        self._started = False

    async def start(self, status: int, headers: Headers) -> None:
        if not self._started:
            self._started = True
            await self._engagement.send(ResultStart(status, headers))

    async def write(self, data: bytes | memoryview) -> None:
        if data:
            await self._engagement.send(Data(bytes(data)))


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

    async def before_call(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            return
        if not isinstance(call.writer, DetachedWriter):
            raise CallHandleNotFound
        await call.writer.acknowledge()
