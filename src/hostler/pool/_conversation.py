"""One engagement as the LB sees it: the body goes out while the response comes in."""

from __future__ import annotations

import structlog
import trio

from ..abc import NotPlaced, Outcome, Placed, RunnerCall
from ..errors import ProtocolError, ServerBusy
from ..protocol import (
    BODY_PIECE,
    NACK_STATUS,
    ClientEngagement,
    Data,
    EngagementEnded,
    EngagementFailed,
    Finished,
    NotSent,
    Reserved,
    ResultStart,
    RunnerFrame,
)
from ._verdict import MissingEOF, fill_timings, outcome_of, outcome_of_failure

log = structlog.get_logger(__name__)

END_SECONDS = 5.0
"""Seconds in which a runner must end the stream after its last frame."""

OK = 200

DATA_FIRST = "the runner sent data before the response head"
TWO_HEADS = "the runner began its response twice"

HeldBody = memoryview
"""The rest of a body that is in memory."""


class Conversation:
    """What happens between a sent ``TryCall`` and the outcome.

    Nothing in here outlives `run`: the sender is a child of its nursery, so neither the body
    nor the writer is touched after an outcome was returned.
    """

    _answered = False
    _outcome: Outcome | None = None

    def __init__(self, call: RunnerCall, engagement: ClientEngagement) -> None:
        self._call = call
        self._engagement = engagement

    async def run(self, body: trio.abc.ReceiveStream | HeldBody | None) -> Outcome:
        """Send ``body`` (``None``: it is sent already), pass the response on, tell the outcome.

        Leave the engagement at once if this returns before the stream has ended.
        """
        if body is None:
            return await self.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, body, nursery.cancel_scope)
            outcome = await self.receive()
            self._outcome = self._outcome or outcome
            nursery.cancel_scope.cancel()
        assert self._outcome is not None
        return self._outcome

    async def await_slot(self) -> Outcome | None:
        """Wait for the slot of a call that is to be reserved; ``None`` = the runner holds it.

        The call has not run, whatever happens: all that is not the runner's own word about the
        call lets it be tried elsewhere.
        """
        try:
            frame = await self._engagement.receive()
            if isinstance(frame, Reserved):
                return None
            if isinstance(frame, Finished) and not frame.success:
                outcome = self._outcome_of(frame)
                if not self._engagement.ended:
                    await self._ends_here()
                return outcome
            return NotPlaced(ProtocolError("the runner neither reserved a slot nor refused"))
        except EngagementFailed as failure:
            return NotPlaced(ServerBusy() if failure.status == NACK_STATUS else failure)
        except Exception as error:  # noqa: BLE001  (of the peer; the call has not run)
            return NotPlaced(error)

    async def _send(self, body: trio.abc.ReceiveStream | HeldBody, scope: trio.CancelScope) -> None:
        try:
            if isinstance(body, HeldBody):
                await self._send_held(body)
            else:
                await self._send_stream(body)
        except EngagementEnded:
            pass  # the receiver knows why
        except Exception as error:  # noqa: BLE001  (a body may fail in any way; it is the outcome)
            # Never an end of the body: the function would take a piece of it for the whole.
            self._outcome = self._outcome or Placed(error)
            scope.cancel()

    async def _send_held(self, rest: HeldBody) -> None:
        while rest:
            chunk, rest = bytes(rest[:BODY_PIECE]), rest[BODY_PIECE:]
            await self._engagement.send(Data(chunk, eof=not rest))

    async def _send_stream(self, body: trio.abc.ReceiveStream) -> None:
        chunk = b"-"
        while chunk:
            chunk = bytes(await body.receive_some(BODY_PIECE))
            await self._engagement.send(Data(chunk, eof=not chunk))

    async def receive(self) -> Outcome:
        """As `run`, for a body that is sent already."""
        engagement, writer = self._engagement, self._call.writer
        try:
            while True:
                frame = engagement.receive_ready() or await engagement.receive()
                if isinstance(frame, Data):
                    if not self._answered:
                        return Placed(ProtocolError(DATA_FIRST))
                    if frame.data:
                        await writer.write(frame.data)
                elif isinstance(frame, ResultStart):
                    if self._answered:
                        return Placed(ProtocolError(TWO_HEADS))
                    self._answered = True
                    # Without a status, as Fn's LB has it, the writer's own holds.
                    await writer.start(frame.status or OK, frame.headers)
                elif isinstance(frame, Finished):
                    outcome = self._outcome_of(frame)
                    if engagement.ended or await self._ends_here() or not _is_good(outcome):
                        return outcome
                    return Placed(MissingEOF(), load=frame.load)
                else:
                    return Placed(_out_of_place(frame))
        except EngagementFailed as failure:
            return outcome_of_failure(failure, answered=self._answered)
        except NotSent as error:  # proven only now
            return Placed(error) if self._answered else NotPlaced(error)
        except Exception as error:  # noqa: BLE001  (of the writer or the peer; it is the outcome)
            return Placed(error)

    def _outcome_of(self, finished: Finished) -> Outcome:
        """What the runner's last word means, of which the call gets the durations."""
        outcome = outcome_of(finished, answered=self._answered)
        if isinstance(outcome, Placed):
            fill_timings(self._call.timings, finished)
            if finished.execution_ns:
                self._call.add_user_execution_ns(finished.execution_ns)
        return outcome

    async def _ends_here(self) -> bool:
        """Whether no frame follows. The outcome is known: a stream that breaks now, or does not
        end, changes nothing any more."""
        with trio.move_on_after(END_SECONDS) as scope:
            try:
                return await self._engagement.receive() is None
            except (EngagementFailed, NotSent) as failure:
                log.debug("stream broke after the outcome", error=str(failure))
        if scope.cancelled_caught:
            log.warning("runner does not end the stream", seconds=END_SECONDS)
        return True


def _is_good(outcome: Outcome) -> bool:
    return isinstance(outcome, Placed) and outcome.error is None


def _out_of_place(frame: RunnerFrame | None) -> ProtocolError:
    if frame is None:
        return ProtocolError("the runner ended the stream without an outcome")
    return ProtocolError("the runner reserved a slot for a call that it has")
