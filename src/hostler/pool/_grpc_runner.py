"""A runner that is reached over the runner protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from .._call_json import encode_call
from .._gate import Gate, GateClosed
from ..abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from ..bodies import BodyConsumed
from ..engagement import NotSent, RunnerClient
from ..errors import RunnerClosed, ServerBusy
from ..frames import Data, RunnerStatus, TryCall
from ._conversation import BODY_CHUNK, Conversation, HeldBody

CLOSE_SECONDS = 5.0
"""Seconds for ended attempts to leave, and then for closing the connections."""


class GrpcRunner(Runner):
    """Runs calls over ``client``, which it owns from now on. Never connects by itself.

    A call is committed when its ``TryCall`` was handed to the transport. After that only a NACK,
    or the client's proof that nothing was sent, lets it be tried elsewhere.
    """

    def __init__(self, client: RunnerClient) -> None:
        self._client = client
        self._gate = Gate()

    def __repr__(self) -> str:
        state = "closed" if self._gate.closed else "open"
        return f"<GrpcRunner {self.address} {state} attempts={self._gate.inside}>"

    @property
    def address(self) -> str:
        return self._client.address

    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        attempt = _Attempt(self._client, call, on_commit)
        try:
            with self._gate.enter():
                return await attempt.run()
        except GateClosed:
            await trio.lowlevel.checkpoint()
            return NotPlaced(RunnerClosed())
        # Ended by `aclose`: what was committed may have run.
        return Placed(RunnerClosed()) if attempt.committed else NotPlaced(RunnerClosed())

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        text = None if payload is None else msgspec.json.encode(payload).decode()
        return await self._client.status(text)

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        await self._client.watch_health(tell)

    async def aclose(self) -> None:
        self._gate.close()
        try:
            await self._gate.wait_empty()
        finally:
            self._gate.cancel_all()
            # Shielded: the connections are closed in any case, and neither step waits for a peer.
            with _shielded():
                await self._gate.wait_empty()
            with _shielded():
                await self._client.aclose()


def _shielded() -> trio.CancelScope:
    return trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True)


class _Attempt:
    """One attempt to run one call on one runner."""

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
        call = self._call
        try:
            try_call = TryCall(
                models_call_json=encode_call(call.model),
                slot_hash_id=(call.slot_hash_id or b"").hex(),
                extensions=dict(call.extensions),
            )
            data = call.body.data
            stream = call.body.open() if data is None else None
        except BodyConsumed:
            return Placed(ServerBusy())
        except Exception as error:  # noqa: BLE001  (a bad model or body fails the call, not the placer)
            return Placed(error)
        if data is not None:
            held = memoryview(data)
            first = Data(bytes(held[:BODY_CHUNK]), eof=len(held) <= BODY_CHUNK)
            return await self._engage(try_call, first, held[BODY_CHUNK:] or None)
        assert stream is not None
        async with stream:
            return await self._engage(try_call, None, stream)

    async def _engage(
        self,
        try_call: TryCall,
        first: Data | None,
        rest: trio.abc.ReceiveStream | HeldBody | None,
    ) -> Outcome:
        try:
            async with self._client.engage(
                try_call,
                first=first,
                request_id=self._call.request_id,
                deadline=self._call.deadline,
                on_commit=self._commit,
            ) as engagement:
                return await Conversation(self._call, engagement).run(rest)
        except NotSent as error:
            return NotPlaced(error)
