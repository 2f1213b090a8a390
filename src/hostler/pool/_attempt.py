"""One attempt to run one call on one runner, over its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from .._call_json import encode_call
from ..abc import NotPlaced, Outcome, Placed, RunnerCall
from ..bodies import BodyConsumed
from ..engagement import ClientEngagement, NotSent, RunnerClient
from ..errors import ProtocolError, ReservationAbandoned, ServerBusy
from ..frames import Data, TryCall
from ._conversation import BODY_CHUNK, Conversation, HeldBody

Body = tuple[Data | None, trio.abc.ReceiveStream | HeldBody | None]
"""What of a body goes with the call, and the rest if there is any."""


class Attempt:
    """Sends the call with its body: it is committed when its ``TryCall`` was handed over."""

    def __init__(
        self, client: RunnerClient, call: RunnerCall, on_commit: Callable[[], None]
    ) -> None:
        self._client = client
        self._call = call
        self._on_commit = on_commit
        self.committed = False

    def _commit(self) -> None:
        self.committed = True
        self._call.runner_address = self._client.address
        self._on_commit()

    async def run(self) -> Outcome:
        try:
            try_call = self._try_call()
            async with self._body() as (first, rest):
                return await self._engage(try_call, first, rest)
        except _CallBroken as broken:
            return Placed(broken.error)
        except NotSent as error:
            return NotPlaced(error)

    async def _engage(
        self,
        try_call: TryCall,
        first: Data | None,
        rest: trio.abc.ReceiveStream | HeldBody | None,
    ) -> Outcome:
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
            )
        except Exception as error:  # (a bad model fails the call, not the placer)
            raise _CallBroken(error) from error

    @asynccontextmanager
    async def _body(self) -> AsyncIterator[Body]:
        try:
            data = self._call.body.data
            stream = self._call.body.open() if data is None else None
        except BodyConsumed as error:
            raise _CallBroken(ServerBusy()) from error
        except Exception as error:  # (a bad body fails the call, not the placer)
            raise _CallBroken(error) from error
        if data is not None:
            held = memoryview(data)
            first = Data(bytes(held[:BODY_CHUNK]), eof=len(held) <= BODY_CHUNK)
            yield first, held[BODY_CHUNK:] or None
            return
        assert stream is not None
        async with stream:
            yield None, stream


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
        async with self._body() as (first, rest):
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
