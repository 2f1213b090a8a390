"""The state machine of one engagement on a runner.

    wait try ──try──▶ wait data ──data──▶ running ──submit returned──▶ finished
        │                 │                  │
        ├──anything else──┴──────────────────┴──▶ the stream ends with a status
        │
        └──reserve──▶ waiting for a slot ──slot──▶ reserved ──commit──▶ running

The first data frame is awaited before the call is submitted: it is on its way with the try, and
most calls are complete with it. From there the body is read only as the function takes it; that of
a detached call, whole before it is acknowledged. A call that is reserved is submitted at once, and
takes its slot; see `_reservation`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence

import attrs
import structlog
import trio

from .. import _call_document, options
from ..abc import InnerAgent
from ..bodies import BytesBody
from ..call import CallDraft, PendingCall
from ..errors import APIError, DetachUnsupported, InvalidFnImage, ProtocolError, ServerBusy
from ..models import Call
from ..protocol import EngagementEnded, Finished, GRPCStatus, RunnerFrame, ServerEngagement, TryCall
from ._body import EngagementBody, receive_data
from ._detached import DetachedCalls
from ._hooks import StatusChecks
from ._outcome import finished
from ._reservation import LateBody, Reservation
from ._writers import DetachedWriter, EngagementWriter

log = structlog.get_logger(__name__)

UNKNOWN = 2
BROKEN = (ProtocolError, GRPCStatus, EngagementEnded)
"""What ends an engagement without an outcome: nothing inside of this runner has failed."""

EXPECTED_TRY = "Protocol failure: expected ClientMsg_Try"


@attrs.frozen(kw_only=True)
class Terms:
    """What a pure runner allows."""

    detached: bool = True
    checks: StatusChecks = attrs.Factory(StatusChecks)


class CallRun:
    """One call on this runner: made from an engagement, run, and answered.

    ``detached`` has the calls that outlive their engagement. ``log`` is a logger that is bound
    already: the module's own takes longer to find its method than all of a line that nobody wants.
    """

    def __init__(
        self,
        agent: InnerAgent,
        terms: Terms,
        engagement: ServerEngagement,
        detached: DetachedCalls,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._agent = agent
        self._terms = terms
        self._engagement = engagement
        self._detached = detached
        self._logger = log
        self._call: PendingCall | None = None
        self._failure: Exception | None = None
        """Why it could not be made."""
        self._body: BytesBody | EngagementBody | LateBody = BytesBody()

    def refuse(self, first: TryCall) -> Finished | None:
        """Make the call of ``first``, which has come, before its engagement is served; the answer
        if the agent has no room for it. Synchronous."""
        if first.reserve and not self._can_reserve:
            return None
        self._body = LateBody()
        try:
            self._call = call = self._make_call(first)
            refused = self._agent.refuse(call)
        except Exception as error:  # noqa: BLE001  (it is told when the engagement is served)
            self._failure = error
            return None
        if not refused:
            return None
        busy = ServerBusy()
        self._log(busy)
        return finished(call, busy, self._agent.load_hint(call))

    async def serve(self) -> bool:
        """Run the engagement to its end; whether the call was handled (not NACKed).

        Raises `GRPCStatus` for a broken protocol.
        """
        try:
            error = await self._outcome()
        except ProtocolError as broken:
            raise GRPCStatus(UNKNOWN, str(broken)) from broken
        load = None if self._call is None else self._agent.load_hint(self._call)
        last = finished(self._call, error, load)
        await self._engagement.send_all([*self._unsent(), last], last=True)
        return not isinstance(error, ServerBusy)

    def _unsent(self) -> Sequence[RunnerFrame]:
        """The part of the response that goes with the outcome. It goes before an error, too: it
        tells the LB that the function has run."""
        writer = self._call.writer if self._call else None
        return writer.unsent if isinstance(writer, EngagementWriter) else ()

    async def _outcome(self) -> Exception | None:
        try:
            try_call = await self._receive_try()
            if isinstance(self._body, LateBody):
                if not try_call.reserve:
                    self._body.begin(self._engagement, await receive_data(self._engagement))
            else:
                self._body = LateBody() if try_call.reserve else await self._receive_body()
            if self._failure is not None:
                return self._told(self._failure)
            call = self._call
            if call is None:
                call = self._call = self._make_call(try_call)
            if try_call.reserve:
                assert isinstance(self._body, LateBody)
                call.on_slot = Reservation(self._engagement, self._body)
        except BROKEN:
            raise
        except Exception as error:  # noqa: BLE001  (the LB is told, see _log)
            return self._told(error)
        if call.model.type == "detached":
            return await self._await_detached(call)
        return await self._submit(call)

    def _told(self, error: Exception) -> Exception:
        self._log(error)
        return error

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
        if self._terms.checks.image and model.image == self._terms.checks.image:
            raise InvalidFnImage
        detached = model.type == "detached"
        writer_type = DetachedWriter if detached else EngagementWriter
        slot_key = _decode_slot_key(try_call.slot_hash_id)

        def fill(draft: CallDraft) -> None:
            # One option instead of six: it is made for each call.
            options.from_model(model, self._body)(draft)
            draft.writer = writer_type(self._engagement)
            draft.extensions = dict(try_call.extensions)
            draft.slot_hash_id = slot_key
            draft.request_id = self._engagement.request_id
            draft.deadline = self._engagement.deadline

        call = self._agent.get_call(fill)
        if detached and not self._terms.detached:
            raise DetachUnsupported
        call.queue_seconds = try_call.wait_ms / 1000
        call.gentle = try_call.gentle
        call.launch = try_call.launch
        call.client = self._engagement.client
        call.refusable = self._engagement.named
        return call

    async def _submit(self, call: PendingCall) -> Exception | None:
        error: Exception | None = None
        try:
            await self._agent.submit(call)
        except BROKEN:
            raise
        except Exception as failure:  # noqa: BLE001  (the LB is told, see _log)
            error = failure
        self._log(error)
        return error

    async def _await_detached(self, call: PendingCall) -> Exception | None:
        """Run ``call`` in the runner's own nursery, so that it survives the loss of the LB."""
        run = _DetachedRun()
        self._detached.start(run.run, self._submit, call)
        try:
            await run.ended.wait()
        finally:
            assert isinstance(call.writer, DetachedWriter)
            if not call.writer.acknowledged:
                run.scope.cancel()  # nobody was promised anything, nobody waits
        if isinstance(run.error, BROKEN):
            raise run.error
        return run.error

    def _log(self, error: Exception | None) -> None:
        call_id = self._call.model.id if self._call else ""
        request_id = self._engagement.request_id
        if error is None or (isinstance(error, APIError) and error.code):
            text = "" if error is None else str(error)
            self._logger.debug("call finished", call_id=call_id, request_id=request_id, error=text)
        else:
            self._logger.error(
                "call failed inside the runner",
                call_id=call_id,
                request_id=request_id,
                exc_info=error,
            )


class _DetachedRun:
    """A detached call under way, and how it ended."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: Exception | None = None

    async def run(
        self, submit: Callable[[PendingCall], Awaitable[Exception | None]], call: PendingCall
    ) -> None:
        try:
            with self.scope:
                self.error = await submit(call)
        except BROKEN as broken:
            self.error = broken
        finally:
            await call.body.aclose()
            self.ended.set()


def _decode(text: str) -> Call:
    """The call's model, with the dates of this machine: clocks of two machines are unrelated."""
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
    """A peer's mistake, so not the client's: a 500 that says which part can't be read."""
    log.warning("bad try frame", part=what, reason=str(error))
    return APIError(500, f"invalid {what}: {error}")
