"""A runner that is reached over the runner protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from .._concurrency.gate import Gate, GateClosed
from ..abc import Begun, NotPlaced, Outcome, Placed, Runner, RunnerCall
from ..errors import RunnerClosed
from ..protocol import UNKNOWN_STATUS, EngagementFailed, LoadHint, RunnerClient, RunnerStatus
from ._attempt import Attempt, BegunAttempt, ReservedAttempt

CLOSE_SECONDS = 5.0
"""Seconds for ended attempts to leave, and then for closing the connections."""


class GrpcRunner(Runner):
    """Runs calls over ``client``, which it owns from now on. Never connects by itself.

    A call is committed when its ``TryCall``, or the ``Commit`` of its reservation, was handed to
    the transport. After that only a NACK, or the client's proof that nothing was sent, lets it be
    tried elsewhere.

    The runner says with its answers, and in its status, whether it takes reservations.
    """

    def __init__(self, client: RunnerClient) -> None:
        self._client = client
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

    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        return await self._run(Attempt(self._client, call, on_commit))

    def begin_exec(
        self,
        call: RunnerCall,
        *,
        on_commit: Callable[[], None],
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Begun | None:
        if self._gate.closed:
            return None
        attempt = BegunAttempt(self._client, call, on_commit, self._ended, on_end)
        if not attempt.begin():
            return None
        self._gate.admit(attempt)
        return attempt.run

    def _ended(self, attempt: BegunAttempt, outcome: Outcome | None) -> None:
        self._gate.leave(attempt)
        if outcome is not None:
            self._note(outcome)

    async def try_reserve(
        self,
        call: RunnerCall,
        *,
        claim: Callable[[], bool],
        on_asked: Callable[[], None] = lambda: None,
        on_commit: Callable[[], None] = lambda: None,
    ) -> Outcome:
        attempt = ReservedAttempt(
            self._client, call, on_asked=on_asked, claim=claim, on_commit=on_commit
        )
        outcome = await self._run(attempt)
        if attempt.claimed or not _was_not_understood(outcome):
            return outcome
        # Another program has the address now. It has not run the call.
        self._reserves = False
        return await super().try_reserve(call, claim=claim, on_commit=on_commit)

    async def _run(self, attempt: Attempt) -> Outcome:
        try:
            with self._gate.enter():
                outcome = await attempt.run()
                self._note(outcome)
                return outcome
        except GateClosed:
            await trio.lowlevel.checkpoint()
            return NotPlaced(RunnerClosed())
        # Ended by `aclose`: what was committed may have run.
        return Placed(RunnerClosed()) if attempt.committed else NotPlaced(RunnerClosed())

    def _note(self, outcome: Outcome) -> None:
        if outcome.load is not None:
            self._reserves = outcome.load.reserves

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        text = None if payload is None else msgspec.json.encode(payload).decode()
        status = await self._client.status(text)
        self._reserves = status.reservations
        return status

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        await self._client.watch_health(tell)

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        await self._client.watch_load(tell)

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


def _was_not_understood(outcome: Outcome) -> bool:
    """Whether a reservation ended as it does with runners that don't know the word."""
    reason = outcome.reason if isinstance(outcome, NotPlaced) else None
    return isinstance(reason, EngagementFailed) and reason.status == UNKNOWN_STATUS


def _shielded() -> trio.CancelScope:
    return trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True)
