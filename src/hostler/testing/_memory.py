"""Engagements without a wire: the two ends joined by bounded memory channels.

The behaviour is that of the wire: leaving or cancelling an engagement cancels the service's
task, a service's `GRPCStatus` reaches the client as `EngagementFailed`, a slow reader stops the
writer after a few frames, and what was sent before the end arrives before the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog
import trio

from hostler.protocol import (
    MAX_DATA_CHUNK,
    ClientEngagement,
    ClientFrame,
    Commit,
    Data,
    EngagementEnded,
    EngagementFailed,
    GRPCStatus,
    RunnerFrame,
    ServerEngagement,
)

log = structlog.get_logger(__name__)

ToRunner = TypeVar("ToRunner")
ToClient = TypeVar("ToClient")

OK = 0
UNKNOWN = 2
UNAVAILABLE = 14
"""gRPC status numbers (the gRPC core concepts, "status codes and their use")."""

_FRAMES_IN_FLIGHT = 4
"""Frames that a channel holds before its sender waits."""


class Link(Generic[ToRunner, ToClient]):
    """The transport of one RPC in memory: a channel each way, and how it ended."""

    def __init__(self) -> None:
        self.to_runner, self._runner_in = trio.open_memory_channel[ToRunner](_FRAMES_IN_FLIGHT)
        self.to_client, self._client_in = trio.open_memory_channel[ToClient](_FRAMES_IN_FLIGHT)
        self._failure: EngagementFailed | None = None
        self._lost = False

    async def send_to_runner(self, frame: ToRunner) -> None:
        try:
            await self.to_runner.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EngagementEnded("the engagement has ended") from None

    def put_to_runner(self, frame: ToRunner) -> bool:
        """As `send_to_runner`, without waiting; false if the RPC is over. For a frame that has
        room: one that is sent when all before it has been received."""
        try:
            self.to_runner.send_nowait(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def send_to_client(self, frame: ToClient) -> None:
        try:
            await self.to_client.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EngagementEnded("the client has left") from None

    async def receive_by_runner(self) -> ToRunner | None:
        try:
            return await self._runner_in.receive()
        except trio.EndOfChannel:
            return None

    async def receive_by_client(self) -> ToClient | None:
        if self._lost and self._failure is not None:
            await trio.lowlevel.checkpoint()
            raise self._failure
        try:
            return await self._client_in.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            return None

    def finish(self, status: int = OK, text: str = "") -> None:
        """End the RPC from the runner's side, after what was sent."""
        if status != OK and self._failure is None:
            self._failure = EngagementFailed(status, text)
        self.to_client.close()
        self._runner_in.close()

    def lose(self, text: str) -> None:
        """Break the RPC as a lost connection does; what is under way is lost too."""
        self._lost = True
        self._failure = EngagementFailed(UNAVAILABLE, text)
        self.to_client.close()
        self.to_runner.close()

    def leave(self) -> None:
        """The client is gone."""
        self.to_runner.close()
        self._client_in.close()


class MemoryClientEngagement(ClientEngagement):
    """The LB's end. Unlike over the wire, any frame can be sent, in any order: for tests of what
    a runner does with a peer that breaks the protocol."""

    def __init__(self, link: Link[ClientFrame, RunnerFrame]) -> None:
        self._link = link

    async def send(self, frame: ClientFrame) -> None:
        await self._link.send_to_runner(frame)

    async def commit(self, first: Data | None, *, on_commit: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._link.put_to_runner(Commit(with_data=first is not None)):
            return  # `receive` knows why
        on_commit()
        if first is not None:
            with suppress(EngagementEnded):
                await self._link.send_to_runner(first)

    async def receive(self) -> RunnerFrame | None:
        return await self._link.receive_by_client()

    def half_close(self) -> None:
        """Nothing more will be sent. No LB does this, not even after ``eof`` (reference: the
        wire protocol); a runner must cope."""
        self._link.to_runner.close()


class MemoryServerEngagement(ServerEngagement):
    """The runner's end. ``finish`` ends it; `MemoryRunnerClient` does that for its services."""

    def __init__(
        self,
        link: Link[ClientFrame, RunnerFrame],
        *,
        request_id: str = "",
        peer: str = "memory",
        deadline: float = math.inf,
    ) -> None:
        self._link = link
        self.deadline = deadline
        self.request_id = request_id
        self.peer = self.client = peer

    async def receive(self) -> ClientFrame | None:
        return await self._link.receive_by_runner()

    async def send(self, frame: RunnerFrame) -> None:
        """Raises `EngagementEnded` if the client has left and this task was not cancelled yet."""
        if not isinstance(frame, Data) or len(frame.data) <= MAX_DATA_CHUNK:
            await self._link.send_to_client(frame)
            return
        for start in range(0, len(frame.data), MAX_DATA_CHUNK):
            await self._link.send_to_client(Data(frame.data[start : start + MAX_DATA_CHUNK]))

    def finish(self, status: int = OK, text: str = "") -> None:
        """End the engagement with a gRPC status; the client reads what was sent before it."""
        self._link.finish(status, text)


def memory_engagement_pair(
    *, request_id: str = "", peer: str = "memory"
) -> tuple[MemoryClientEngagement, MemoryServerEngagement]:
    """Two joined ends and nobody behind them: the test plays one side or both."""
    link = Link[ClientFrame, RunnerFrame]()
    return (
        MemoryClientEngagement(link),
        MemoryServerEngagement(link, request_id=request_id, peer=peer),
    )


def failure_of(error: Exception) -> EngagementFailed:
    """What a client learns of a service's ``error``; anything but `GRPCStatus` is logged."""
    status = _only_status(error)
    if status is not None:
        return EngagementFailed(status.status, status.text)
    log.error("runner service failed", exc_info=error)
    return EngagementFailed(UNKNOWN, "internal error")


def _only_status(error: Exception) -> GRPCStatus | None:
    """The `GRPCStatus` in ``error``, also out of an exception group of nothing else."""
    if isinstance(error, GRPCStatus):
        return error
    if isinstance(error, ExceptionGroup) and error.split(GRPCStatus)[1] is None:
        return _only_status(error.exceptions[0])
    return None
