"""One attempt to run one call on one runner, over its client."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._call_document import encode_call
from ..abc import NotPlaced, Outcome, Placed, RunnerCall
from ..bodies import BodyConsumed
from ..errors import ProtocolError, ReservationAbandoned, RunnerClosed, ServerBusy
from ..protocol import (
    BODY_PIECE,
    BegunEngagement,
    ClientEngagement,
    Data,
    NotSent,
    RunnerClient,
    TryCall,
)
from ._conversation import Conversation, HeldBody

Rest = trio.abc.ReceiveStream | HeldBody | None
"""Of a body, what does not go with the call itself."""


class Attempt:
    """Sends the call with its body: it is committed when its ``TryCall`` was handed over."""

    committed = False

    def __init__(
        self, client: RunnerClient, call: RunnerCall, on_commit: Callable[[], None]
    ) -> None:
        self._client = client
        self._call = call
        self._on_commit = on_commit

    def _commit(self) -> None:
        self.committed = True
        self._call.runner_address = self._client.address
        self._on_commit()

    async def run(self) -> Outcome:
        try:
            try_call = self._try_call()
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
            on_commit=self._commit,
        ) as engagement:
            return await Conversation(self._call, engagement).run(rest)

    def _try_call(self, *, reserve: bool = False) -> TryCall:
        call = self._call
        try:
            return TryCall(
                models_call_json=encode_call(call.model),
                slot_hash_id=(call.slot_hash_id or b"").hex(),
                extensions=dict(call.extensions),
                reserve=reserve,
                wait_ms=0 if reserve else round(call.queue_seconds * 1000),
                gentle=call.gentle,
                launch=call.launch,
            )
        except Exception as error:  # (a bad model fails the call, not the placer)
            raise _CallBroken(error) from error

    def _open_body(self) -> tuple[Data | None, Rest]:
        """What of the body goes with the call, and the rest. A stream has to be closed."""
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


class BegunAttempt(Attempt):
    """As `Attempt`, begun without a wait, hence committed from its beginning.

    ``on_left`` is called once nothing of it is left, with the outcome, or ``None`` if it was
    cancelled; then ``on_end`` with the outcome.
    """

    _engagement: BegunEngagement | None = None
    _cancelled = False

    def __init__(
        self,
        client: RunnerClient,
        call: RunnerCall,
        on_commit: Callable[[], None],
        on_left: Callable[[BegunAttempt, Outcome | None], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        super().__init__(client, call, on_commit)
        self._on_left = on_left
        self._on_end = on_end

    def begin(self) -> bool:
        """Whether it has begun. If not, an `Attempt` finds out why."""
        call = self._call
        try:
            data = call.body.data
            if data is None or len(data) > BODY_PIECE:
                return False
            self._engagement = self._client.begin(
                self._try_call,
                first=Data(data, eof=True),
                request_id=call.request_id,
                deadline=call.deadline,
                on_commit=self._commit,
            )
        except Exception:  # noqa: BLE001  (a bad body or model: told by the other)
            return False
        return self._engagement is not None

    async def run(self) -> Outcome:
        assert self._engagement is not None
        outcome = None
        try:
            outcome = await Conversation(self._call, self._engagement).receive()
        finally:
            self._engagement.leave()
            self._on_left(self, outcome)
        if self._cancelled:  # by the end of its runner's client: it may have run
            outcome = Placed(RunnerClosed())
        self._on_end(outcome)
        return outcome

    def cancel(self) -> None:
        """End it at both ends, see `Gate`. One that waits for its client to take a part of the
        answer goes on until it did, which has its own limit."""
        assert self._engagement is not None
        self._cancelled = True
        self._engagement.cut()


class ReservedAttempt(Attempt):
    """Asks for a slot, and commits the call to it if ``claim`` says so.

    The body is not touched before. ``on_asked`` is called when the runner was asked.
    """

    def __init__(
        self,
        client: RunnerClient,
        call: RunnerCall,
        *,
        on_asked: Callable[[], None],
        claim: Callable[[], bool],
        on_commit: Callable[[], None],
    ) -> None:
        super().__init__(client, call, on_commit)
        self._on_asked = on_asked
        self._claim = claim
        self.claimed = False
        """``claim`` was called."""

    async def run(self) -> Outcome:
        try:
            async with self._client.engage(
                self._try_call(reserve=True),
                request_id=self._call.request_id,
                deadline=self._call.deadline,
                on_commit=self._on_asked,
            ) as engagement:
                return await self._converse(engagement)
        except _CallBroken as broken:
            return Placed(broken.error)
        except NotSent as error:
            return NotPlaced(error)

    async def _converse(self, engagement: ClientEngagement) -> Outcome:
        conversation = Conversation(self._call, engagement)
        refused = await conversation.await_slot()
        if refused is not None:
            return refused
        self.claimed = True
        if not self._claim():
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
        await engagement.commit(first, on_commit=self._commit)
        if not self.committed:
            # The runner had ended the engagement before it could see the commit.
            again = await conversation.await_slot()
            return again or NotPlaced(ProtocolError("the runner reserved a slot twice"))
        return await conversation.run(rest)


class _CallBroken(Exception):
    """The call can't be sent to anybody."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))
