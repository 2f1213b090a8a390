"""The engagement seam: memory and wire must be indistinguishable to what is built on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hostler.engagement import (
    ClientEngagement,
    EngagementEnded,
    EngagementFailed,
    GRPCStatus,
    LogChannel,
    NotSent,
    RunnerClient,
    RunnerService,
    ServerEngagement,
)
from hostler.frames import (
    ClientFrame,
    Data,
    Finished,
    LogAck,
    LogContainer,
    LogLine,
    LogRequest,
    LogStart,
    ResultStart,
    RunnerStatus,
    TryCall,
)
from hostler.testing import MemoryRunnerClient
from hostler.wire import GrpcRunnerClient, open_loop, open_server

Engage = Callable[[ServerEngagement], Awaitable[None]]
OpenClient = Callable[[RunnerService], AbstractAsyncContextManager[RunnerClient]]

TRY = TryCall("{}", "ab01", {"k": "v"})
MIB = 2**20


class ScriptedService(RunnerService):
    """A service whose engagements are one function of the test."""

    def __init__(self, engage: Engage | None = None) -> None:
        self._engage = engage
        self.configured: Mapping[str, str] | None = None
        self.trouble: Exception | None = None
        self.logs_cancelled = trio.Event()

    async def engage(self, engagement: ServerEngagement) -> None:
        assert self._engage is not None
        await self._engage(engagement)

    async def status(self, payload: str | None) -> RunnerStatus:
        if self.trouble is not None:
            raise self.trouble
        return RunnerStatus(active=7, details=payload or "none", custom_status={"a": "b"})

    async def configure(self, config: Mapping[str, str]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.configured = dict(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        try:
            while (message := await channel.receive()) is not None:
                line = LogLine(1, repr(message).encode(), stderr=True)
                await channel.send([LogContainer("a", "f", "c", [LogRequest("r", [line])])])
        except trio.Cancelled:
            self.logs_cancelled.set()
            raise


async def frames_of(engagement: ServerEngagement) -> AsyncIterator[ClientFrame]:
    """Everything up to ``eof``. An LB does not half-close after it."""
    while (frame := await engagement.receive()) is not None:
        yield frame
        if isinstance(frame, Data) and frame.eof:
            return


async def send_for_ever(engagement: ClientEngagement) -> None:
    while True:
        await engagement.send(Data(bytes(1000)))


@asynccontextmanager
async def _open_memory(service: RunnerService) -> AsyncIterator[RunnerClient]:
    client = MemoryRunnerClient(service)
    yield client
    await client.aclose()
    assert client.engagements == 0


@asynccontextmanager
async def _open_wire(service: RunnerService) -> AsyncIterator[RunnerClient]:
    async with open_loop() as loop, open_server(service, "127.0.0.1:0", loop=loop) as server:
        client = GrpcRunnerClient(server.address, loop=loop, connect_timeout=5)
        yield client
        await client.aclose()


_OPENERS: dict[str, OpenClient] = {"memory": _open_memory, "wire": _open_wire}


@pytest.fixture(params=_OPENERS)
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    opener = _OPENERS[request.param]

    @asynccontextmanager
    async def limited(service: RunnerService) -> AsyncIterator[RunnerClient]:
        with trio.fail_after(20):
            async with opener(service) as client:
                yield client

    return limited


async def test_frames_pass_in_order_both_ways(open_client: OpenClient) -> None:
    seen: list[object] = []
    finished = Finished(success=True, details="d", execution_ns=5, image="i")

    async def engage(engagement: ServerEngagement) -> None:
        assert engagement.request_id == "r1"
        assert engagement.peer
        seen.extend([frame async for frame in frames_of(engagement)])
        await engagement.send(ResultStart(200, [("A", "1"), ("A", "2")]))
        await engagement.send(Data(b"one"))
        await engagement.send(finished)

    async with open_client(ScriptedService(engage)) as client:
        async with client.engage(TRY, request_id="r1") as engagement:
            await engagement.send(Data(b"a"))
            await engagement.send(Data(b"b", eof=True))
            received = [await engagement.receive() for _ in range(3)]
            assert await engagement.receive() is None
        head, data, end = received
        assert isinstance(head, ResultStart)
        assert (head.status, list(head.headers)) == (200, [("A", "1"), ("A", "2")])
        assert data == Data(b"one")
        assert end == finished
    assert isinstance(seen[0], TryCall)
    assert (seen[0].models_call_json, seen[0].slot_hash_id) == ("{}", "ab01")
    assert dict(seen[0].extensions) == {"k": "v"}
    assert seen[1:] == [Data(b"a"), Data(b"b", eof=True)]


async def test_first_goes_with_the_call_and_commit_is_told_once(open_client: OpenClient) -> None:
    seen: list[object] = []
    commits: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        seen.extend([frame async for frame in frames_of(engagement)])
        await engagement.send(Finished(success=True))

    async with open_client(ScriptedService(engage)) as client:
        whole = Data(b"all", eof=True)
        async with client.engage(
            TRY, first=whole, on_commit=lambda: commits.append("commit")
        ) as engagement:
            assert commits == ["commit"]
            assert await engagement.receive() == Finished(success=True)
            assert await engagement.receive() is None
    assert seen[1:] == [whole]
    assert commits == ["commit"]


async def test_a_status_arrives_after_what_was_sent_before_it(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Data(b"before"))
        raise GRPCStatus(503, "too busy")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        assert await engagement.receive() == Data(b"before")
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert (caught.value.status, caught.value.text) == (503, "too busy")


async def test_a_status_in_an_exception_group_is_still_that_status(
    open_client: OpenClient,
) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        async with trio.open_nursery():
            raise GRPCStatus(503, "full")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert caught.value.status == 503


async def test_an_internal_error_tells_nothing_and_is_logged(
    open_client: OpenClient, logs: Any
) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        raise ValueError("secret")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert caught.value.status == 2
    assert "secret" not in caught.value.text
    logs.expect_error("")


@pytest.mark.parametrize("how", ["leave", "raise", "cancel"])
async def test_leaving_early_cancels_the_service(open_client: OpenClient, how: str) -> None:
    """Also in the middle of a read, which must not end as if the client had half-closed."""
    started, cancelled = trio.Event(), trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        started.set()
        try:
            while await engagement.receive() is not None:
                pass
        except trio.Cancelled:
            cancelled.set()
            raise

    async with open_client(ScriptedService(engage)) as client:
        with trio.CancelScope() as scope:
            try:
                async with client.engage(TRY):
                    await started.wait()
                    if how == "raise":
                        raise KeyError(how)
                    if how == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
            except KeyError:
                assert how == "raise"
        assert scope.cancelled_caught == (how == "cancel")
        await cancelled.wait()


async def test_a_cancelled_attempt_that_was_not_sent_is_not_committed(
    open_client: OpenClient,
) -> None:
    commits: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        raise AssertionError("the service must never see it")

    async with open_client(ScriptedService(engage)) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client.engage(TRY, on_commit=lambda: commits.append("commit")):
                pass
        assert scope.cancelled_caught
        assert commits == []


async def test_a_client_that_does_not_read_stops_the_service(open_client: OpenClient) -> None:
    total, piece = 32 * MIB, 64 * 1024
    sent = 0

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal sent
        while sent < total:
            await engagement.send(Data(bytes(piece)))
            sent += piece

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent <= 4 * MIB
        got = 0
        while isinstance(frame := await engagement.receive(), Data):
            got += len(frame.data)
        assert (got, frame) == (total, None)


async def test_a_service_that_does_not_read_stops_the_client(open_client: OpenClient) -> None:
    total, piece = 32 * MIB, 64 * 1024
    sent = got = 0
    go = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal got
        await go.wait()
        async for frame in frames_of(engagement):
            got += len(frame.data) if isinstance(frame, Data) else 0

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY) as engagement,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            nonlocal sent
            while sent < total:
                sent += piece
                await engagement.send(Data(bytes(piece), eof=sent == total))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent <= 4 * MIB
        go.set()
        assert await engagement.receive() is None
        assert got == total


async def test_sending_to_a_service_that_has_ended(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Finished(success=True))

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY) as engagement,
    ):
        with pytest.raises(EngagementEnded):
            await send_for_ever(engagement)
        assert await engagement.receive() == Finished(success=True)
        assert await engagement.receive() is None


async def test_big_data_is_cut_and_complete(open_client: OpenClient) -> None:
    body = bytes(range(256)) * 40_000

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Data(body))

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        pieces = []
        while isinstance(frame := await engagement.receive(), Data):
            pieces.append(frame.data)
        assert b"".join(pieces) == body
        assert len(pieces) > 1


async def test_close_fails_what_runs_and_refuses_what_comes(open_client: OpenClient) -> None:
    cancelled = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        try:
            await engagement.receive()
            await engagement.send(Data(b"here"))
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with open_client(ScriptedService(engage)) as client:
        async with client.engage(TRY) as engagement:
            assert await engagement.receive() == Data(b"here")
            await client.aclose()
            with pytest.raises(EngagementFailed):
                await engagement.receive()
            with pytest.raises(EngagementEnded):
                await send_for_ever(engagement)
        await cancelled.wait()
        await client.aclose()
        with pytest.raises(NotSent):
            async with client.engage(TRY):
                pytest.fail("entered a closed client")
        with pytest.raises(NotSent):
            await client.status()


async def test_unary_calls(open_client: OpenClient, logs: Any) -> None:
    service = ScriptedService()
    async with open_client(service) as client:
        assert (await client.status()).details == "none"
        status = await client.status('{"a":1}')
        assert (status.active, dict(status.custom_status)) == (7, {"a": "b"})
        assert '"a"' in status.details
        await client.configure({"x": "y"})
        assert service.configured == {"x": "y"}
        service.trouble = GRPCStatus(9, "not now")
        with pytest.raises(EngagementFailed) as caught:
            await client.configure({})
        assert (caught.value.status, caught.value.text) == (9, "not now")
        service.trouble = ValueError("secret")
        with pytest.raises(EngagementFailed) as caught:
            await client.status()
        assert caught.value.status == 2
        assert "secret" not in caught.value.text
        logs.expect_error("")


async def test_log_stream(open_client: OpenClient) -> None:
    service = ScriptedService()
    async with open_client(service) as client:
        async with client.stream_logs() as collector:
            for message in (LogStart({"a": "b"}), LogAck()):
                await collector.send(message)
                batch = await collector.receive()
                assert batch is not None
                (container,) = batch
                (line,) = container.requests[0].lines
                assert (container.container_id, line.data, line.stderr) == (
                    "c",
                    repr(message).encode(),
                    True,
                )
        await service.logs_cancelled.wait()


async def test_many_engagements_at_once(open_client: OpenClient) -> None:
    count, inside = 200, 0
    all_inside = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal inside
        inside += 1
        if inside == count:
            all_inside.set()
        async for frame in frames_of(engagement):
            if isinstance(frame, Data):
                await all_inside.wait()
                await engagement.send(Data(frame.data))

    async def one(client: RunnerClient, number: int) -> None:
        async with client.engage(TRY) as engagement:
            await engagement.send(Data(b"%d" % number, eof=True))
            assert await engagement.receive() == Data(b"%d" % number)
            assert await engagement.receive() is None

    async with open_client(ScriptedService(engage)) as client, trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, client, number)
