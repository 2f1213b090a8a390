"""Detached calls on a node that runs functions itself (Fn runs them synchronously there)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from hostler._concurrency.drain import Grace
from hostler.abc import CallAgent, CallListener, InnerAgent
from hostler.bodies import BodyBudget, keep_whole
from hostler.call import CallOption, DiscardWriter, PendingCall
from hostler.errors import APIError

log = structlog.get_logger(__name__)


class DetachingAgent(CallAgent):
    """Lets the submitter of a detached call go once the call has a container.

    All else is the inner agent's. Until then the call is a part of the submitter's task: errors
    are raised there, and cancelling it cancels the call.
    """

    def __init__(
        self, inner: InnerAgent, nursery: trio.Nursery, body_limit: int, bodies: BodyBudget
    ) -> None:
        self._inner = inner
        self._nursery = nursery
        self._body_limit = body_limit
        self._bodies = bodies
        inner.add_listener(_Acknowledge())

    @property
    def detached(self) -> int:
        """Calls that run on though their clients were let go."""
        return len(self._nursery.child_tasks)

    def get_call(self, *options: CallOption) -> PendingCall:
        return self._inner.get_call(*options)

    async def submit(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            await self._inner.submit(call)
            return
        await self._nursery.start(self._keep_and_run, call)

    async def _keep_and_run(self, call: PendingCall, *, task_status: trio.TaskStatus[None]) -> None:
        # The body has to outlive the request.
        call.body = body = await keep_whole(call.body, self._bodies, self._body_limit)
        try:
            await self._run(call, task_status)
        finally:
            await body.aclose()

    async def _run(self, call: PendingCall, task_status: trio.TaskStatus[None]) -> None:
        call.writer = writer = _AckWriter(task_status)
        try:
            await self._inner.submit(call)
            writer.acknowledge()  # of an agent that does not tell its listeners
        except Exception as error:
            if not writer.acknowledged:
                raise
            _log_late_failure(call.model.id, error)


class _AckWriter(DiscardWriter):
    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.acknowledged = False

    def acknowledge(self) -> None:
        """Idempotent."""
        if not self.acknowledged:
            self.acknowledged = True
            self._task_status.started()


def _log_late_failure(call_id: str, error: Exception) -> None:
    """The client has its 202: nobody else learns of it."""
    if isinstance(error, APIError):
        log.warning("detached call failed", call_id=call_id, reason=str(error))
    else:
        log.error("detached call failed", call_id=call_id, exc_info=error)


class _Acknowledge(CallListener):
    def hears_begin(self, call: PendingCall) -> bool:
        return isinstance(call.writer, _AckWriter)

    async def before_call(self, call: PendingCall) -> None:
        if isinstance(call.writer, _AckWriter):
            call.writer.acknowledge()


@asynccontextmanager
async def open_detaching(
    inner: InnerAgent,
    *,
    body_limit: int,
    grace: float | Grace,
    bodies: BodyBudget | None = None,
) -> AsyncIterator[DetachingAgent]:
    """``body_limit`` in bytes, for one detached call; ``bodies`` is to be the front end's.

    Leaving the block gives detached calls ``grace`` seconds to end; left by an exception or a
    cancellation there is no grace.
    """
    async with trio.open_nursery() as nursery:
        yield DetachingAgent(inner, nursery, body_limit, bodies or BodyBudget())
        nursery.cancel_scope.deadline = Grace.of(grace).deadline()
