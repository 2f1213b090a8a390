"""One engagement on a runner: receive, submit, answer; its body, writers, reservation and outcome.

    wait try ──try──▶ wait data ──data──▶ running ──submit returned──▶ finished
        │                 │                  │
        ├──anything else──┴──────────────────┴──▶ the stream ends with a status
        │
        └──reserve──▶ waiting for a slot ──slot──▶ reserved ──commit──▶ running

The first data frame is awaited before the call is submitted: it is on its way with the try, and
most calls are complete with it. From then on the body is read only as the function takes it, but
that of a detached call whole before the acknowledgement. A reserved call is submitted at once, and
waits in its `ReservationHook` for its commit.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import attrs
import structlog
import trio

from .. import _call_document, options
from .._concurrency.signal import Signal
from .._fast import FastAgent, FastWriter, fast_way
from ..abc import Body, CallListener, ResponseWriter, RunnerAgent
from ..bodies import BodyBudget, BodyConsumed, BytesBody, NotKept, keep_whole
from ..calls import CallDraft, PendingCall
from ..dates import format_date
from ..errors import (
    APIError,
    CallHandleNotFound,
    CallTimeout,
    DetachUnsupported,
    InvalidFnImage,
    ProtocolError,
    ServerBusy,
    public_error,
)
from ..models import Call
from ..protocol import (
    ClientFrame,
    Commit,
    Data,
    EngagementEnded,
    Finished,
    GRPCStatus,
    Headers,
    LoadHint,
    Reserved,
    ResultStart,
    RunnerFrame,
    ServerEngagement,
    TryCall,
)

log = structlog.get_logger(__name__)

UNKNOWN = 2

BROKEN = (ProtocolError, GRPCStatus, EngagementEnded)
"""Exceptions that end an engagement without an outcome: nothing inside of this runner has
failed."""

EXPECTED_TRY = "Protocol failure: expected ClientMsg_Try"


class RunnerState:
    """What the engagements of one runner share, and their counts.

    ``tasks`` has the detached calls, which outlive their engagement. No caller may name
    ``status_image``.
    """

    def __init__(
        self,
        agent: RunnerAgent,
        tasks: trio.Nursery,
        *,
        takes_detached: bool = True,
        status_image: str = "",
    ) -> None:
        self.agent = agent
        self.fast_agent = fast_way(agent, FastAgent)
        self.tasks = tasks
        self.takes_detached = takes_detached
        self.status_image = status_image
        self.active = self.received = self.handled = 0
        """Engagements: running, ever begun, ended without a NACK."""
        self.detached = 0
        """Detached calls that run, with or without their engagement."""
        self.changed = Signal()
        """An engagement or a detached call has ended."""
        self.log: structlog.typing.FilteringBoundLogger = log.bind()
        """Bound once: a module's own logger takes longer to find its method than the rest of a line
        that is not logged."""

    def __repr__(self) -> str:
        return f"<RunnerState active={self.active} detached={self.detached}>"


class EngagementRun:
    """One call on this runner: made from an engagement, run, and answered."""

    def __init__(self, state: RunnerState, engagement: ServerEngagement) -> None:
        self._state = state
        self._agent = state.agent
        self._engagement = engagement
        self._call: PendingCall | None = None
        self._failure: Exception | None = None
        """Why the call could not be made."""
        self._body: BytesBody | EngagementBody | LateBody = BytesBody()

    def refuse(self, first: TryCall) -> Finished | None:
        """Make the call of ``first`` before its engagement is served. Returns the answer if the
        agent has no room for the call. Synchronous."""
        agent = self._state.fast_agent
        if agent is None or (first.reserve and not self._can_reserve):
            return None
        self._body = LateBody()
        try:
            self._call = call = self._make_call(first)
            refused = agent.refuse(call)
        except Exception as error:  # noqa: BLE001  (raised when the engagement is served)
            self._failure = error
            return None
        if not refused:
            return None
        busy = ServerBusy()
        self._log(busy)
        return finished(call, busy, self._agent.load_hint(call))

    async def serve(self) -> None:
        """Run the engagement to its end. Raises `GRPCStatus` for a frame that the protocol does not
        allow. Cancelling it cancels the call; a detached call only up to its acknowledgement."""
        state = self._state
        state.active += 1
        state.received += 1
        handled = True  # an engagement that breaks off counts, too: it got no NACK
        error: Exception | None = None
        try:
            try:
                call = await self._receive_call()
                if call.model.type == "detached":
                    error = await self._await_detached(call)
                else:
                    await self._agent.run(call)
                    self._log(None)
            except BROKEN:
                raise
            except Exception as failure:  # noqa: BLE001  (the LB is told, see _log)
                error = failure
                self._log(error)
            load = None if self._call is None else self._agent.load_hint(self._call)
            last = finished(self._call, error, load)
            await self._engagement.send_all([*self._unsent(), last], last=True)
            handled = not isinstance(error, ServerBusy)
        except ProtocolError as broken:
            raise GRPCStatus(UNKNOWN, str(broken)) from broken
        finally:
            state.active -= 1
            state.handled += handled
            state.changed.note()

    def _unsent(self) -> Sequence[RunnerFrame]:
        """The part of the response that goes with the outcome. It goes before an error, too, and so
        tells the LB that the function has run."""
        writer = self._call.writer if self._call else None
        return writer.unsent if isinstance(writer, EngagementWriter) else ()

    async def _receive_call(self) -> PendingCall:
        try_call = await self._receive_try()
        if isinstance(self._body, LateBody):
            if not try_call.reserve:
                self._body.begin(self._engagement, await receive_data(self._engagement))
        else:
            self._body = LateBody() if try_call.reserve else await self._receive_body()
        if self._failure is not None:
            raise self._failure
        call = self._call
        if call is None:
            call = self._call = self._make_call(try_call)
        if try_call.reserve:
            assert isinstance(self._body, LateBody)
            call.on_slot = ReservationHook(self._engagement, self._body)
        return call

    async def _receive_try(self) -> TryCall:
        frame = await self._engagement.receive()
        if not isinstance(frame, TryCall) or (frame.reserve and not self._can_reserve):
            raise ProtocolError(EXPECTED_TRY)
        return frame

    @property
    def _can_reserve(self) -> bool:
        return self._agent.reservation_seconds > 0

    async def _receive_body(self) -> BytesBody | EngagementBody:
        first = await receive_data(self._engagement)
        return BytesBody(first.data) if first.eof else EngagementBody(self._engagement, first)

    def _make_call(self, try_call: TryCall) -> PendingCall:
        model = _decode(try_call.models_call_json)
        if self._state.status_image and model.image == self._state.status_image:
            raise InvalidFnImage
        detached = model.type == "detached"
        writer_type = DetachedWriter if detached else EngagementWriter
        slot_key = _decode_slot_key(try_call.slot_hash_id)

        def fill(draft: CallDraft) -> None:
            # One option instead of six, because it is made for each call.
            options.from_model(model, self._body)(draft)
            draft.writer = writer_type(self._engagement)
            draft.extensions = dict(try_call.extensions)
            draft.slot_hash_id = slot_key
            draft.request_id = self._engagement.request_id
            draft.deadline = self._engagement.deadline

        call = self._agent.get_call(fill)
        if detached and not self._state.takes_detached:
            raise DetachUnsupported
        call.queue_seconds = try_call.wait_ms / 1000
        call.spare_warm = try_call.spare_warm
        call.launch = try_call.launch
        call.surplus = try_call.surplus
        call.client = self._engagement.client
        call.refusable = self._engagement.named
        return call

    async def _await_detached(self, call: PendingCall) -> Exception | None:
        """Run ``call`` in a task of the runner, so that it survives the loss of the LB. Returns its
        error, which was logged."""
        run = _DetachedRun()
        self._state.detached += 1
        self._state.tasks.start_soon(self._run_detached, call, run)
        try:
            await run.ended.wait()
        finally:
            assert isinstance(call.writer, DetachedWriter)
            if not call.writer.acknowledged:
                run.scope.cancel()  # no promise was made, and no client waits
        if isinstance(run.error, BROKEN):
            raise run.error
        return run.error

    async def _run_detached(self, call: PendingCall, run: _DetachedRun) -> None:
        try:
            with run.scope:
                try:
                    await self._agent.run(call)
                except Exception as error:  # noqa: BLE001  (the LB is told, see _log)
                    run.error = error
                if not isinstance(run.error, BROKEN):
                    self._log(run.error)
        finally:
            await call.body.aclose()
            run.ended.set()
            self._state.detached -= 1
            self._state.changed.note()

    def _log(self, error: Exception | None) -> None:
        logger = self._state.log
        call_id = self._call.model.id if self._call else ""
        request_id = self._engagement.request_id
        if error is None or (isinstance(error, APIError) and error.code):
            text = "" if error is None else str(error)
            logger.debug("call finished", call_id=call_id, request_id=request_id, error=text)
        else:
            text = "call failed inside the runner"
            logger.error(text, call_id=call_id, request_id=request_id, exc_info=error)


@attrs.define(eq=False)
class _DetachedRun:
    """A running detached call, and how it ended."""

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)
    error: Exception | None = None


def _decode(text: str) -> Call:
    """The call's model, with the dates of this machine, since the clocks of two machines differ."""
    try:
        model = _call_document.decode_call(text)
    except APIError as error:
        raise _bad_frame("call model", error) from error
    model.created_at = dt.datetime.now(dt.UTC)
    model.started_at = model.completed_at = None
    return model


def _decode_slot_key(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) or None
    except ValueError as error:
        raise _bad_frame("slot_hash_id", error) from error


def _bad_frame(what: str, error: Exception) -> APIError:
    """A mistake of the peer, not of the client: a 500 that says which part can't be read."""
    log.warning("bad try frame", part=what, reason=str(error))
    return APIError(500, f"invalid {what}: {error}")


EXPECTED_DATA = "Protocol failure: expected ClientMsg_Data"


async def receive_data(engagement: ServerEngagement) -> Data:
    """The next frame, which has to be data; raises `ProtocolError` otherwise."""
    frame = await engagement.receive()
    if not isinstance(frame, Data):
        raise ProtocolError(EXPECTED_DATA)
    return frame


class EngagementBody(Body):
    """A body that can be opened once: the part that the function has taken is not kept.

    Nothing is read ahead. So a function that reads slowly, or a call that waits for a slot, stops
    the LB from sending (HTTP/2 flow control). Not to be read once the engagement is over.
    """

    def __init__(self, engagement: ServerEngagement, first: Data) -> None:
        self._stream: _EngagementStream | None = _EngagementStream(engagement, first)

    def open(self) -> trio.abc.ReceiveStream:
        if self._stream is None:
            raise BodyConsumed("the body of an engagement can be read once")
        stream, self._stream = self._stream, None
        return stream


class _EngagementStream(trio.abc.ReceiveStream):
    def __init__(self, engagement: ServerEngagement, first: Data) -> None:
        self._engagement = engagement
        self._rest: bytes | memoryview = first.data
        self._eof = first.eof

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._rest and not self._eof:
            frame = await receive_data(self._engagement)
            self._rest, self._eof = frame.data, frame.eof
        rest = self._rest
        if max_bytes is None or len(rest) <= max_bytes:
            self._rest = b""
            return bytes(rest)
        self._rest = memoryview(rest)[max_bytes:]
        return bytes(rest[:max_bytes])

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class EngagementWriter(ResponseWriter, FastWriter):
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
        """Frames that go with the outcome."""

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
    """The announced length of the body. The agent has checked it."""
    for name, value in headers:
        if name == "Content-Length" and value.isdecimal():
            return int(value)
    return None


class DetachedWriter(ResponseWriter):
    """Drops the function's output; the LB sees only the result of `acknowledge`."""

    def __init__(self, engagement: ServerEngagement) -> None:
        self._engagement = engagement
        self.acknowledged = False

    async def acknowledge(self) -> None:
        """From here on the call runs, whatever becomes of the LB. The LB may have the
        acknowledgement, and may have answered its client, before this returns, or even though the
        engagement broke."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.acknowledged = True
        with suppress(EngagementEnded):
            await self._engagement.send(ResultStart(HTTPStatus.ACCEPTED))

    async def start(self, status: int, headers: Headers) -> None:
        pass

    async def write(self, data: bytes | memoryview) -> None:
        pass


class AcknowledgeDetached(CallListener):
    """Tells the LB that a detached call has its slot and its whole body is here, the earliest
    moment at which the LB may answer its client. Registered on the inner agent.

    The body is read only then: waiting calls take no room for their bodies, and a runner that
    refuses a call has not read its body for nothing. The body is kept in ``bodies``, up to
    ``limit`` bytes, and closed after the call.
    """

    def __init__(self, bodies: BodyBudget | None = None, limit: float = math.inf) -> None:
        self._bodies = bodies or BodyBudget()
        self._limit = limit

    def wants_before_call(self, call: PendingCall) -> bool:
        return call.model.type == "detached"

    async def before_call(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            return
        if not isinstance(call.writer, DetachedWriter):
            raise CallHandleNotFound
        call.body = await self._whole(call)
        await call.writer.acknowledge()

    async def _whole(self, call: PendingCall) -> Body:
        """The whole body, which no longer depends on the LB. It has to come within the call's time,
        as the body of any other call."""
        try:
            with trio.move_on_after(call.run_seconds(trio.current_time())):
                return await keep_whole(call.body, self._bodies, self._limit)
        except APIError as error:
            if isinstance(error.__cause__, NotKept):
                raise ServerBusy from error  # another runner may have room, or a disk that works
            raise
        raise CallTimeout


def finished(
    call: PendingCall | None, error: Exception | None, load: LoadHint | None = None
) -> Finished:
    """The frame for ``call`` (``None``: it could not even be made) that ended with ``error``, with
    ``load``, the agent's hint.

    An error that is no `APIError`, or one without a code, becomes a bare 500. (Fn sends code 0 and
    the raw text, which its LB turns into a 200.)
    """
    code, text, user = 0, "", False
    if error is not None:
        public = public_error(error)
        code, text, user = public.code, public.message, public.blame == "user"
    if call is None:
        return Finished(
            success=error is None, load=load, error_code=code, error_text=text, error_user=user
        )
    model, timings = call.model, call.timings
    return Finished(  # positional: sixteen keywords take longer than all the rest
        error is None,
        model.id,
        code,
        text,
        user,
        _text(model.created_at),
        _text(model.started_at),
        _text(_end_of(model)),
        timings.scheduler_ns,
        timings.execution_ns,
        model.image,
        timings.image_pull_wait_ns,
        timings.ctr_prep_ns,
        timings.ctr_create_ns,
        timings.init_start_ns,
        load,
    )


def facts(call: PendingCall) -> dict[str, Any]:
    """The id, the dates and the durations of ``call``, as `RunnerStatus` names them."""
    model, timings = call.model, call.timings
    return {
        "id": model.id,
        "created_at": _text(model.created_at),
        "started_at": _text(model.started_at),
        "completed_at": _text(_end_of(model)),
        "scheduler_ns": timings.scheduler_ns,
        "execution_ns": timings.execution_ns,
        "image_pull_wait_ns": timings.image_pull_wait_ns,
        "ctr_prep_ns": timings.ctr_prep_ns,
        "ctr_create_ns": timings.ctr_create_ns,
        "init_start_ns": timings.init_start_ns,
    }


def _end_of(model: Call) -> dt.datetime | None:
    if model.completed_at is None and model.started_at is not None:
        return dt.datetime.now(dt.UTC)
    return model.completed_at


def _text(date: dt.datetime | None) -> str:
    return "" if date is None else format_date(date)


EXPECTED_COMMIT = "Protocol failure: expected ClientMsg_Commit"


class LateBody(Body):
    """The body of a call that was made before its body came, or that is only reserved. It can't be
    read before `begin`."""

    def __init__(self) -> None:
        self._body: EngagementBody | None = None
        self._whole: bytes | None = None

    @property
    def data(self) -> bytes | None:
        return self._whole

    def begin(self, engagement: ServerEngagement, first: Data) -> None:
        """``first`` is the begin of the body, which goes on on ``engagement``."""
        self._body = EngagementBody(engagement, first)
        self._whole = first.data if first.eof else None

    def open(self) -> trio.abc.ReceiveStream:
        if self._body is None:
            raise BodyConsumed("the call has no body yet")
        return self._body.open()


class ReservationHook:
    """Tells the LB that its call has a slot, and waits for the `Commit`. A `SlotHook`."""

    def __init__(self, engagement: ServerEngagement, body: LateBody) -> None:
        self._engagement = engagement
        self._body = body
        self._committed = False

    async def __call__(self) -> None:
        """Returns once the call may run; at once if it is called again for another slot.

        Raises `ProtocolError` if the LB says anything else. The end of the engagement cancels it
        with the call's task.
        """
        if self._committed:
            await trio.lowlevel.checkpoint()
            return
        await self._engagement.send(Reserved())
        commit = await self._next()
        if not isinstance(commit, Commit):
            raise ProtocolError(EXPECTED_COMMIT)
        # A call that is complete with its commit no longer depends on the LB.
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
