"""A reservation on the runner: a call that has its slot and waits for its LB's word."""

from __future__ import annotations

from contextlib import suppress

import trio

from ..abc import Body
from ..bodies import BodyConsumed
from ..errors import ProtocolError
from ..protocol import ClientFrame, Commit, Data, EngagementEnded, Reserved, ServerEngagement
from ._body import EngagementBody, receive_data

EXPECTED_COMMIT = "Protocol failure: expected ClientMsg_Commit"


class LateBody(Body):
    """The body of a call that was made before it came, or that is only reserved: it can't be read
    before its `begin`."""

    def __init__(self) -> None:
        self._body: EngagementBody | None = None
        self._whole: bytes | None = None

    @property
    def data(self) -> bytes | None:
        return self._whole

    def begin(self, engagement: ServerEngagement, first: Data) -> None:
        """The body begins so, and goes on on ``engagement``."""
        self._body = EngagementBody(engagement, first)
        self._whole = first.data if first.eof else None

    def open(self) -> trio.abc.ReceiveStream:
        if self._body is None:
            raise BodyConsumed("the call has no body yet")
        return self._body.open()


class Reservation:
    """Tells the LB that its call has a slot, and waits for the `Commit`. A `SlotHook`."""

    def __init__(self, engagement: ServerEngagement, body: LateBody) -> None:
        self._engagement = engagement
        self._body = body
        self._committed = False

    async def __call__(self) -> None:
        """Returns once the call may run, at once if it is asked again for another slot.

        Raises `ProtocolError` if the LB says anything else. Cancelled by the end of the
        engagement, as the call's task is.
        """
        if self._committed:
            await trio.lowlevel.checkpoint()
            return
        await self._engagement.send(Reserved())
        commit = await self._next()
        if not isinstance(commit, Commit):
            raise ProtocolError(EXPECTED_COMMIT)
        # What is complete with its commit no longer depends on the LB.
        first = await receive_data(self._engagement) if commit.with_data else Data(b"")
        self._committed = True
        self._body.begin(self._engagement, first)

    async def _next(self) -> ClientFrame:
        frame: ClientFrame | None = None
        with suppress(EngagementEnded):
            frame = await self._engagement.receive()
        if frame is None:
            # The LB is gone, so there will be no commit: the call is about to be cancelled.
            await trio.sleep_forever()
        assert frame is not None
        return frame
