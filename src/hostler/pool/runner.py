"""A load balancer's side of a runner: one gRPC engagement per attempt.

`GrpcRunner` is the `hostler.abc.Runner` that a load balancer's pool has for each runner. (The
runner itself is `hostler.runner` and `hostler.agent`.) An `Attempt` begins the engagement, and a
`Conversation` sees it through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec
import structlog
import trio

from .._call_document import encode_call
from .._concurrency.gate import Gate, GateClosed
from .._fast import (
    Begun,
    BegunEngagement,
    CallSource,
    FastClient,
    FastEngagement,
    FastRunner,
    fast_way,
)
from ..abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from ..bodies import BodyConsumed
from ..errors import (
    APIError,
    FunctionError,
    MissingEOF,
    ProtocolError,
    ReservationAbandoned,
    RunnerClosed,
    RunnerFault,
    ServerBusy,
    ServiceReservationFailure,
)
from ..protocol import (
    BODY_PIECE,
    DEADLINE_STATUS,
    NACK_STATUS,
    UNKNOWN_STATUS,
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    Data,
    EngagementEnded,
    EngagementFailed,
    Finished,
    LoadHint,
    NotSent,
    Reserved,
    ResultStart,
    RunnerClient,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)

CLOSE_SECONDS = 5.0
"""Seconds for cancelled attempts to end, and then for closing the connections."""


class GrpcRunner(Runner, FastRunner):
    """Runs calls over ``client``, which it owns from now on. Never connects by itself.

    A call is committed when its `TryCall`, or the `Commit` of its reservation, was handed to the
    transport. After that only a NACK, or the client's proof that nothing was sent, lets the call be
    tried elsewhere.

    The runner says with its answers, and in its status, whether it takes reservations.
    """

    def __init__(self, client: RunnerClient) -> None:
        self._client = client
        self._fast_client = fast_way(client, FastClient)
        self._address = client.address
        self._gate = Gate()
        self._reserves = False

    def __repr__(self) -> str:
        state = "closed" if self._gate.closed else "open"
        return f"<GrpcRunner {self.address} {state} attempts={self._gate.inside}>"

    @property
    def address(self) -> str:
        return self._address

    @property
    def reserves(self) -> bool:
        return self._reserves

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        return await self._run(Attempt(self._client, call, observer))

    def begin_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Begun | None:
        if self._fast_client is None or self._gate.closed:
            return None
        attempt = BegunAttempt(self._fast_client, call, observer, self._ended)
        if not attempt.begin():
            return None
        self._gate.admit(attempt)
        return attempt.run

    def _ended(self, attempt: BegunAttempt, outcome: Outcome | None) -> None:
        self._gate.leave(attempt)
        if outcome is not None:
            self._note(outcome)

    async def try_reserve(
        self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED
    ) -> Outcome:
        attempt = ReservedAttempt(self._client, call, observer)
        outcome = await self._run(attempt)
        if attempt.claimed or not _was_not_understood(outcome):
            return outcome
        # A program without reservations has the address now. It has not run the call.
        self._reserves = False
        return await super().try_reserve(call, observer)

    async def _run(self, attempt: Attempt) -> Outcome:
        try:
            with self._gate.enter():
                outcome = await attempt.run()
                self._note(outcome)
                return outcome
        except GateClosed:
            await trio.lowlevel.checkpoint()
            return NotPlaced(RunnerClosed())
        # Ended by `aclose`: a committed call may have run.
        return Placed(RunnerClosed()) if attempt.is_committed else NotPlaced(RunnerClosed())

    def _note(self, outcome: Outcome) -> None:
        if outcome.load is not None:
            self._reserves = outcome.load.reserves

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        text = None if payload is None else msgspec.json.encode(payload).decode()
        status = await self._client.status(text)
        self._reserves = status.reservations
        return status

    def watch_health(self) -> AsyncGenerator[bool, None]:
        return self._client.watch_health()

    def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        return self._client.watch_load()

    async def aclose(self) -> None:
        self._gate.close()
        try:
            await self._gate.wait_empty()
        finally:
            self._gate.cancel_all()
            # Shielded: the connections are closed in any case. Neither step waits for a peer.
            with _shielded():
                await self._gate.wait_empty()
            with _shielded():
                await self._client.aclose()


def _was_not_understood(outcome: Outcome) -> bool:
    """Whether a reservation ended as it does at runners without reservations."""
    reason = outcome.reason if isinstance(outcome, NotPlaced) else None
    return isinstance(reason, EngagementFailed) and reason.status == UNKNOWN_STATUS


def _shielded() -> trio.CancelScope:
    return trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True)


log = structlog.get_logger(__name__)

END_SECONDS = 5.0
"""Seconds in which a runner must end the stream after its last frame."""

OK = 200

DATA_FIRST = "the runner sent data before the response head"

TWO_HEADS = "the runner began its response twice"

HeldBody = memoryview
"""The rest of a body that is in memory."""


class Conversation:
    """The exchange between a sent `TryCall` and the outcome.

    Nothing in here outlives `run`: the sender is a child of its nursery, so neither the body nor
    the writer is touched after an outcome was returned.
    """

    _answered = False
    _outcome: Outcome | None = None

    def __init__(
        self, call: RunnerCall, engagement: ClientEngagement, fast: FastEngagement | None
    ) -> None:
        """``fast`` is the engagement, if it knows which frames are here."""
        self._call = call
        self._engagement = engagement
        self._fast = fast

    async def run(self, body: trio.abc.ReceiveStream | HeldBody | None) -> Outcome:
        """Send ``body`` (``None``: it is sent already), pass the response on, and return the
        outcome.

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

        The call has not run, whatever happens. So everything but the runner's own verdict on the
        call lets it be tried elsewhere.
        """
        try:
            frame = await self._engagement.receive()
            if isinstance(frame, Reserved):
                return None
            if isinstance(frame, Finished) and not frame.success:
                outcome = self._outcome_of(frame)
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
            pass  # the receiver gets the reason
        except Exception as error:  # noqa: BLE001  (a body may fail in any way; it is the outcome)
            # Don't send an end of the body: the function would take a part for the whole.
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
        engagement, fast, writer = self._engagement, self._fast, self._call.writer
        try:
            while True:
                frame = None if fast is None else fast.receive_ready()
                if frame is None:
                    frame = await engagement.receive()
                if isinstance(frame, Data):
                    if not self._answered:
                        return Placed(ProtocolError(DATA_FIRST))
                    if frame.data:
                        await writer.write(frame.data)
                elif isinstance(frame, ResultStart):
                    if self._answered:
                        return Placed(ProtocolError(TWO_HEADS))
                    self._answered = True
                    # Without a status from the runner the status is 200, as in Fn's LB.
                    await writer.start(frame.status or OK, frame.headers)
                elif isinstance(frame, Finished):
                    outcome = self._outcome_of(frame)
                    if await self._ends_here() or not _is_good(outcome):
                        return outcome
                    return Placed(MissingEOF(), load=frame.load)
                else:
                    return Placed(_out_of_place(frame))
        except (EngagementFailed, NotSent) as failure:
            return outcome_of_failure(failure, answered=self._answered)
        except Exception as error:  # noqa: BLE001  (of the writer or the peer; it is the outcome)
            return Placed(error)

    def _outcome_of(self, finished: Finished) -> Outcome:
        """What the runner's last frame means. Fills in the call's durations."""
        outcome = outcome_of(finished, answered=self._answered)
        if isinstance(outcome, Placed):
            timings = self._call.timings
            timings.scheduler_ns = finished.scheduler_ns
            timings.execution_ns = finished.execution_ns
            timings.image_pull_wait_ns = finished.image_pull_wait_ns
            timings.ctr_prep_ns = finished.ctr_prep_ns
            timings.ctr_create_ns = finished.ctr_create_ns
            timings.init_start_ns = finished.init_start_ns
            if finished.execution_ns:
                self._call.add_user_execution_ns(finished.execution_ns)
        return outcome

    async def _ends_here(self) -> bool:
        """Whether no frame follows. The outcome is known: a stream that breaks now, or does not
        end, does not change it."""
        if self._fast is not None and self._fast.ended:
            return True
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


Rest = trio.abc.ReceiveStream | HeldBody | None
"""The part of a body that is not sent with the call itself."""


class Attempt(AttemptObserver):
    """Sends a call with its body. The call is committed when its `TryCall` was handed over."""

    is_committed = False

    def __init__(self, client: RunnerClient, call: RunnerCall, observer: AttemptObserver) -> None:
        self._client = client
        self._call = call
        self._observer = observer

    def committed(self) -> None:
        self.is_committed = True
        self._call.runner_address = self._client.address
        self._observer.committed()

    async def run(self) -> Outcome:
        try:
            try_call = self.try_call()
            first, rest = self._open_body()
            if isinstance(rest, trio.abc.ReceiveStream):
                async with rest:
                    return await self._engage(try_call, first, rest)
            return await self._engage(try_call, first, rest)
        except _CallBroken as broken:
            return Placed(broken.error)
        except NotSent as error:
            return NotPlaced(error)

    async def _engage(self, try_call: TryCall, first: Data | None, rest: Rest) -> Outcome:
        async with self._client.engage(
            try_call,
            first=first,
            request_id=self._call.request_id,
            deadline=self._call.deadline,
            observer=self,
        ) as engagement:
            fast = fast_way(engagement, FastEngagement)
            return await Conversation(self._call, engagement, fast).run(rest)

    def try_call(self, *, reserve: bool = False) -> TryCall:
        call = self._call
        try:
            return TryCall(
                models_call_json=encode_call(call.model),
                slot_hash_id=(call.slot_hash_id or b"").hex(),
                extensions=dict(call.extensions),
                reserve=reserve,
                wait_ms=0 if reserve else round(call.queue_seconds * 1000),
                spare_warm=call.spare_warm,
                launch=call.launch,
                surplus=call.surplus,
            )
        except Exception as error:  # (a bad model fails the call, not the placer)
            raise _CallBroken(error) from error

    def _open_body(self) -> tuple[Data | None, Rest]:
        """The part of the body that is sent with the call, and the rest. A stream has to be
        closed."""
        try:
            data = self._call.body.data
            stream = self._call.body.open() if data is None else None
        except BodyConsumed as error:
            raise _CallBroken(ServerBusy()) from error
        except Exception as error:  # (a bad body fails the call, not the placer)
            raise _CallBroken(error) from error
        if data is not None:
            held = memoryview(data)
            first = Data(bytes(held[:BODY_PIECE]), eof=len(held) <= BODY_PIECE)
            return first, held[BODY_PIECE:] or None
        return None, stream


class BegunAttempt(Attempt, CallSource):
    """An `Attempt` that begins without a wait, so its call is committed from the start.

    ``on_left`` is called once nothing of it is left, with the outcome, or ``None`` if it was
    cancelled.
    """

    _client: FastClient
    _engagement: BegunEngagement | None = None
    _cancelled = False

    def __init__(
        self,
        client: FastClient,
        call: RunnerCall,
        observer: AttemptObserver,
        on_left: Callable[[BegunAttempt, Outcome | None], None],
    ) -> None:
        super().__init__(client, call, observer)
        self._on_left = on_left

    def begin(self) -> bool:
        """Whether it has begun. If not, a plain `Attempt` finds out why."""
        call = self._call
        try:
            data = call.body.data
            if data is None:
                return False
            self._engagement = self._client.begin(
                self,
                first=Data(data, eof=True),
                request_id=call.request_id,
                deadline=call.deadline,
            )
        except Exception:  # noqa: BLE001  (a bad body or model: a plain attempt tells)
            return False
        return self._engagement is not None

    async def run(self) -> Outcome:
        assert self._engagement is not None
        outcome = None
        try:
            conversation = Conversation(self._call, self._engagement, self._engagement)
            outcome = await conversation.receive()
        finally:
            self._engagement.leave()
            self._on_left(self, outcome)
        if self._cancelled:  # by `GrpcRunner.aclose`: the call may have run
            outcome = Placed(RunnerClosed())
        return outcome

    def cancel(self) -> None:
        """End the attempt at both ends, see `Gate`. An attempt that waits for its client to take a
        part of the answer goes on until then; that wait has a limit of its own."""
        assert self._engagement is not None
        self._cancelled = True
        self._engagement.cut()


class ReservedAttempt(Attempt):
    """Asks for a slot, and commits the call to it if the observer claims it. The body is not
    touched before that."""

    claimed = False
    """The observer was asked to claim the slot."""

    def asked(self) -> None:
        self._observer.asked()

    async def run(self) -> Outcome:
        try:
            async with self._client.engage(
                self.try_call(reserve=True),
                request_id=self._call.request_id,
                deadline=self._call.deadline,
                observer=self,
            ) as engagement:
                return await self._converse(engagement)
        except _CallBroken as broken:
            return Placed(broken.error)
        except NotSent as error:
            return NotPlaced(error)

    async def _converse(self, engagement: ClientEngagement) -> Outcome:
        fast = fast_way(engagement, FastEngagement)
        conversation = Conversation(self._call, engagement, fast)
        refused = await conversation.await_slot()
        if refused is not None:
            return refused
        self.claimed = True
        if not self._observer.claim():
            return NotPlaced(ReservationAbandoned())
        first, rest = self._open_body()
        if isinstance(rest, trio.abc.ReceiveStream):
            async with rest:
                return await self._send(engagement, conversation, first, rest)
        return await self._send(engagement, conversation, first, rest)

    async def _send(
        self,
        engagement: ClientEngagement,
        conversation: Conversation,
        first: Data | None,
        rest: Rest,
    ) -> Outcome:
        await engagement.commit(first)
        if not self.is_committed:
            # The runner had ended the engagement before it could see the commit.
            again = await conversation.await_slot()
            return again or NotPlaced(ProtocolError("the runner reserved a slot twice"))
        return await conversation.run(rest)


class _CallBroken(Exception):
    """The call can't be sent to any runner."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


UNKNOWN_TEXT = "Unknown Error From Pure Runner"


def outcome_of(finished: Finished, *, answered: bool) -> Outcome:
    """The outcome that ``finished`` reports, with the runner's load; ``answered`` = the response
    has begun.

    503 is a NACK: the call did not run and may go elsewhere. Once the response has begun that can't
    be true, so it is the call's error. Codes outside of 400 to 599, such as the 0 of Fn's runners,
    are internal failures.
    """
    load = finished.load
    if finished.success:
        return Placed(None, load)
    code, text = finished.error_code, finished.error_text or UNKNOWN_TEXT
    if code == NACK_STATUS:
        return refusal(answered=answered, load=load)
    if not 400 <= code <= 599:
        return Placed(RunnerFault(f"code {code}: {text}"), load)
    if finished.error_user:
        return Placed(FunctionError(code, text), load)
    return Placed(APIError(code, text), load)


def outcome_of_failure(failure: EngagementFailed | NotSent, *, answered: bool) -> Outcome:
    """The outcome of a stream that ended without a `Finished`."""
    if isinstance(failure, NotSent):  # proven only now
        return Placed(failure) if answered else NotPlaced(failure)
    if failure.status == NACK_STATUS:
        return refusal(answered=answered)
    if failure.status == DEADLINE_STATUS:  # the call's deadline, which the runner has kept
        return Placed(ServiceReservationFailure())
    return Placed(failure)


def refusal(*, answered: bool, load: LoadHint | None = None) -> Outcome:
    if answered:
        return Placed(ServerBusy(), load)
    retry_after = load.retry_after_ms / 1000 if load and load.retry_after_ms else None
    return NotPlaced(ServerBusy(), retry_after, load)
