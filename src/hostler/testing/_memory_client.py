"""A `RunnerClient` that calls a `RunnerService` in the same process, without a wire."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from hostler.protocol import (
    DEADLINE_STATUS,
    UNAVAILABLE_STATUS,
    UNIMPLEMENTED_STATUS,
    ClientFrame,
    Data,
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
    TryCall,
)

from ._memory import (
    Link,
    MemoryClientEngagement,
    MemoryServerEngagement,
    ToClient,
    ToRunner,
    failure_of,
)

T = TypeVar("T")

_Batch = Sequence[LogContainer]


class MemoryLogCollector(LogCollector):
    def __init__(self, link: Link[LogMessage, _Batch]) -> None:
        self._link = link

    async def send(self, message: LogMessage) -> None:
        await self._link.send_to_runner(message)

    async def receive(self) -> _Batch | None:
        return await self._link.receive_by_client()


class MemoryLogChannel(LogChannel):
    def __init__(self, link: Link[LogMessage, _Batch]) -> None:
        self._link = link

    async def receive(self) -> LogMessage | None:
        return await self._link.receive_by_runner()

    async def send(self, batch: _Batch) -> None:
        await self._link.send_to_client(batch)


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
        return self._address

    @property
    def engagements(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        on_commit: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[MemoryClientEngagement]:
        self.attempts += 1
        await self._reach()
        link = Link[ClientFrame, RunnerFrame]()
        client = MemoryClientEngagement(link)
        server = MemoryServerEngagement(
            link, request_id=request_id, peer=self._peer, deadline=deadline
        )
        link.to_runner.send_nowait(try_call)
        if first is not None:
            link.to_runner.send_nowait(first)
        on_commit()
        async with self._served(link, lambda: self._service.engage(server), deadline):
            yield client

    @asynccontextmanager
    async def stream_logs(self) -> AsyncIterator[MemoryLogCollector]:
        await self._reach()
        link = Link[LogMessage, _Batch]()
        channel = MemoryLogChannel(link)
        async with self._served(link, lambda: self._service.stream_logs(channel)):
            yield MemoryLogCollector(link)

    async def status(self, payload: str | None = None) -> RunnerStatus:
        await self._reach()
        return await _answer(self._service.status(payload))

    async def configure(self, config: Mapping[str, str]) -> None:
        await self._reach()
        await _answer(self._service.configure(dict(config)))

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        await self._reach()

        async def send(hint: LoadHint) -> None:
            await trio.lowlevel.checkpoint()
            tell(hint)

        broken: list[str] = []
        with trio.CancelScope() as scope:

            def break_off(text: str) -> None:
                broken.append(text)
                scope.cancel()

            self._open.add(break_off)
            try:
                await self._service.watch_load(send)
            except GRPCStatus as error:
                if error.status == UNIMPLEMENTED_STATUS:
                    return
                raise EngagementFailed(error.status, error.text) from error
            finally:
                self._open.discard(break_off)
        raise EngagementFailed(UNAVAILABLE_STATUS, "".join(broken) or "the watch has ended")

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
        link: Link[ToRunner, ToClient],
        serve: Callable[[], Awaitable[None]],
        deadline: float = math.inf,
    ) -> AsyncIterator[None]:
        """Run ``serve`` in a task for the time of the block; then the link is over."""
        scope = trio.CancelScope(deadline=deadline)

        def break_link(text: str) -> None:
            # First of all, so that the service never sees a clean end instead of the reset.
            scope.cancel()
            link.lose(text)

        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._open.add(break_link)
            nursery.start_soon(_serve, link, serve, scope)
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
    link: Link[ToRunner, ToClient], serve: Callable[[], Awaitable[None]], scope: trio.CancelScope
) -> None:
    """The service's task of one RPC."""
    with scope:
        try:
            await serve()
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
