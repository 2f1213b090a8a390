"""Engagements and a runner client in memory, without a wire.

The behaviour is that of the wire: leaving or cancelling an engagement cancels the service's
task, a service's `GRPCStatus` reaches the client as `EngagementFailed`, a slow reader stops the
writer after a few frames, and what was sent before the end arrives before the end.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Generic, TypeVar

import structlog
import trio

from ..protocol import (
    DEADLINE_STATUS,
    MAX_DATA_CHUNK,
    UNAVAILABLE_STATUS,
    UNIMPLEMENTED_STATUS,
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    ClientFrame,
    Commit,
    Data,
    EngagementEnded,
    EngagementFailed,
    GRPCStatus,
    LoadHint,
    LogChannel,
    LogCollector,
    LogContainer,
    LogMessage,
    NotSent,
    RunnerClient,
    RunnerFrame,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)

log = structlog.get_logger(__name__)

ToRunner = TypeVar("ToRunner")
ToClient = TypeVar("ToClient")

OK, UNKNOWN, UNAVAILABLE = 0, 2, 14
"""gRPC status numbers (the gRPC core concepts, "status codes and their use")."""

_FRAMES_IN_FLIGHT = 4
"""Frames that a channel holds before its sender waits."""


class MemoryTransport(Generic[ToRunner, ToClient]):
    """The transport of one RPC in memory: a channel each way, and how it ended."""

    def __init__(self) -> None:
        self.to_runner, self.runner_in = trio.open_memory_channel[ToRunner](_FRAMES_IN_FLIGHT)
        self.to_client, self.client_in = trio.open_memory_channel[ToClient](_FRAMES_IN_FLIGHT)
        self.failure: EngagementFailed | None = None
        self.lost = False

    def finish(self, status: int = OK, text: str = "") -> None:
        """End the RPC from the runner's side, after what was sent."""
        if status != OK and self.failure is None:
            self.failure = EngagementFailed(status, text)
        self.to_client.close()
        self.runner_in.close()

    def lose(self, text: str) -> None:
        """Break the RPC as a lost connection does; what is under way is lost too."""
        self.lost = True
        self.failure = EngagementFailed(UNAVAILABLE, text)
        self.to_client.close()
        self.to_runner.close()

    def leave(self) -> None:
        """The client is gone."""
        self.to_runner.close()
        self.client_in.close()


class _ClientEnd(Generic[ToRunner, ToClient]):
    def __init__(self, link: MemoryTransport[ToRunner, ToClient]) -> None:
        self._link = link

    async def send(self, frame: ToRunner) -> None:
        try:
            await self._link.to_runner.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EngagementEnded("the engagement has ended") from None

    async def receive(self) -> ToClient | None:
        link = self._link
        if link.lost and link.failure is not None:
            await trio.lowlevel.checkpoint()
            raise link.failure
        try:
            return await link.client_in.receive()
        except trio.EndOfChannel:
            if link.failure is not None:
                raise link.failure from None
            return None


class _RunnerEnd(Generic[ToRunner, ToClient]):
    def __init__(self, link: MemoryTransport[ToRunner, ToClient]) -> None:
        self._link = link

    async def send(self, frame: ToClient) -> None:
        """Raises `EngagementEnded` if the client has left and this task was not cancelled yet."""
        try:
            await self._link.to_client.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EngagementEnded("the client has left") from None

    async def receive(self) -> ToRunner | None:
        try:
            return await self._link.runner_in.receive()
        except trio.EndOfChannel:
            return None


class MemoryClientEngagement(_ClientEnd[ClientFrame, RunnerFrame], ClientEngagement):
    """The LB's end. Unlike over the wire, any frame can be sent, in any order: for tests of what
    a runner does with a peer that breaks the protocol."""

    def __init__(
        self,
        link: MemoryTransport[ClientFrame, RunnerFrame],
        observer: AttemptObserver = UNOBSERVED,
    ) -> None:
        super().__init__(link)
        self._observer = observer

    async def commit(self, first: Data | None) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:  # there is room: all frames before it have been received
            self._link.to_runner.send_nowait(Commit(with_data=first is not None))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # `receive` knows why
        self._observer.committed()
        if first is not None:
            with suppress(EngagementEnded):
                await self.send(first)

    def half_close(self) -> None:
        """Nothing more will be sent. No LB does this, not even after ``eof`` (reference: the
        wire protocol); a runner must cope."""
        self._link.to_runner.close()


class MemoryServerEngagement(_RunnerEnd[ClientFrame, RunnerFrame], ServerEngagement):
    """The runner's end. ``finish`` ends it; `MemoryRunnerClient` does that for its services."""

    def __init__(
        self,
        link: MemoryTransport[ClientFrame, RunnerFrame],
        *,
        request_id: str = "",
        peer: str = "memory",
        deadline: float = math.inf,
    ) -> None:
        super().__init__(link)
        self.deadline = deadline
        self.request_id = request_id
        self.peer = self.client = peer

    async def send(self, frame: RunnerFrame) -> None:
        """As of any end; data of more than a chunk goes in several frames."""
        if not isinstance(frame, Data) or len(frame.data) <= MAX_DATA_CHUNK:
            await super().send(frame)
            return
        for start in range(0, len(frame.data), MAX_DATA_CHUNK):
            await super().send(Data(frame.data[start : start + MAX_DATA_CHUNK]))

    def finish(self, status: int = OK, text: str = "") -> None:
        """End the engagement with a gRPC status; the client reads what was sent before it."""
        self._link.finish(status, text)


def memory_engagement_pair(
    *, request_id: str = "", peer: str = "memory"
) -> tuple[MemoryClientEngagement, MemoryServerEngagement]:
    """Two joined ends and nobody behind them: the test plays one side or both."""
    link = MemoryTransport[ClientFrame, RunnerFrame]()
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


T = TypeVar("T")

_Batch = Sequence[LogContainer]


class MemoryLogCollector(_ClientEnd[LogMessage, _Batch], LogCollector):
    pass


class MemoryLogChannel(_RunnerEnd[LogMessage, _Batch], LogChannel):
    pass


class MemoryRunnerClient(RunnerClient):
    """One runner, reached through memory.

    ``unreachable``, while it is set, makes everything fail with `NotSent`, with it as the cause.
    ``engagements`` counts those now open (log streams too), ``attempts`` those ever asked for.

    One difference to the wire: leaving an engagement waits until the service's task, which was
    cancelled, has ended.
    """

    def __init__(
        self, service: RunnerService, *, address: str = "memory:1", peer: str = "memory:2"
    ) -> None:
        self.unreachable: Exception | None = None
        self.attempts = 0
        self._service = service
        self._address = address
        self._peer = peer
        self._closed = False
        self._open: set[Callable[[str], None]] = set()
        """For each engagement and log stream, what breaks it."""

    @property
    def address(self) -> str:
        """As given: the name by which logs and pools know the runner; nothing listens there."""
        return self._address

    @property
    def engagements(self) -> int:
        """How many engagements and log streams are open now."""
        return len(self._open)

    @asynccontextmanager
    async def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        observer: AttemptObserver = UNOBSERVED,
    ) -> AsyncIterator[MemoryClientEngagement]:
        self.attempts += 1
        await self._reach()
        link = MemoryTransport[ClientFrame, RunnerFrame]()
        client = MemoryClientEngagement(link, observer)
        server = MemoryServerEngagement(
            link, request_id=request_id, peer=self._peer, deadline=deadline
        )
        link.to_runner.send_nowait(try_call)
        if first is not None:
            link.to_runner.send_nowait(first)
        if try_call.reserve:
            observer.asked()
        else:
            observer.committed()
        async with self._served(link, self._service.engage(server), deadline):
            yield client

    @asynccontextmanager
    async def stream_logs(self) -> AsyncIterator[MemoryLogCollector]:
        await self._reach()
        link = MemoryTransport[LogMessage, _Batch]()
        channel = MemoryLogChannel(link)
        async with self._served(link, self._service.stream_logs(channel)):
            yield MemoryLogCollector(link)

    async def status(self, payload: str | None = None) -> RunnerStatus:
        await self._reach()
        return await _answer(self._service.status(payload))

    async def configure(self, config: Mapping[str, str]) -> None:
        await self._reach()
        await _answer(self._service.configure(dict(config)))

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        await self._reach()
        broken = ""
        scope = trio.CancelScope()

        def break_off(text: str) -> None:
            nonlocal broken
            broken = text
            scope.cancel()

        self._open.add(break_off)
        try:
            async with aclosing(self._service.watch_load()) as hints:
                while not broken:
                    hint: LoadHint | None = None
                    with scope:
                        hint = await anext(hints, None)
                    if hint is None:
                        break
                    scope = trio.CancelScope()  # none is open while the caller has the hint
                    yield hint
        except GRPCStatus as error:
            if error.status == UNIMPLEMENTED_STATUS:
                return
            raise EngagementFailed(error.status, error.text) from error
        finally:
            self._open.discard(break_off)
        raise EngagementFailed(UNAVAILABLE_STATUS, broken or "the watch has ended")

    def lose_connections(self, text: str = "connection lost") -> None:
        """Break what is under way, on both ends, as a dead network does."""
        for break_link in self._open:
            break_link(text)

    async def aclose(self) -> None:
        self._closed = True
        self.lose_connections("the client was closed")
        await trio.lowlevel.checkpoint()

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise NotSent("the client is closed")
        if self.unreachable is not None:
            raise NotSent(str(self.unreachable)) from self.unreachable

    @asynccontextmanager
    async def _served(
        self,
        link: MemoryTransport[ToRunner, ToClient],
        served: Awaitable[None],
        deadline: float = math.inf,
    ) -> AsyncIterator[None]:
        """Await ``served`` in a task for the time of the block; then the link is over."""
        scope = trio.CancelScope(deadline=deadline)

        def break_link(text: str) -> None:
            # First of all, so that the service never sees a clean end instead of the reset.
            scope.cancel()
            link.lose(text)

        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._open.add(break_link)
            nursery.start_soon(_serve, link, served, scope)
            try:
                yield
            except BaseException as error:  # noqa: BLE001  (raised again below, not in a group)
                failure = error
            finally:
                self._open.remove(break_link)
                scope.cancel()
                link.leave()
        if failure is not None:
            raise failure


async def _serve(
    link: MemoryTransport[ToRunner, ToClient],
    served: Awaitable[None],
    scope: trio.CancelScope,
) -> None:
    """The service's task of one RPC."""
    with scope:
        try:
            await served
        except Exception as error:  # noqa: BLE001  (a service's errors become a status)
            failure = failure_of(error)
            link.finish(failure.status, failure.text)
        else:
            link.finish()
    if scope.cancelled_caught:  # by its deadline: otherwise nobody is left who would be told
        link.finish(DEADLINE_STATUS, "deadline exceeded")


async def _answer(answer: Awaitable[T]) -> T:
    """Await a unary RPC of the service and translate what it raises."""
    try:
        return await answer
    except Exception as error:
        raise failure_of(error) from error
