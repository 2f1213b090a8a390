"""Engagements and the other RPCs, client and server in one process."""

from __future__ import annotations

import pytest
import trio

from hostler import wire
from hostler.protocol import (
    Data,
    EngagementEnded,
    EngagementFailed,
    Finished,
    GRPCStatus,
    LogAck,
    LogChannel,
    LogContainer,
    LogReady,
    LogStart,
    NotSent,
    ResultStart,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from tests.support.observers import OnCommit

from .services import (
    EMPTY_BODY,
    SUCCESS,
    TRY,
    Service,
    body_of,
    call,
    collect,
    echo,
    open_pair,
    read_call,
)

pytestmark = pytest.mark.usefixtures("carrier")


async def test_a_runner_knows_which_calls_are_of_the_same_load_balancer() -> None:
    names: list[str] = []

    async def note(engagement: ServerEngagement) -> None:
        names.append(engagement.client)
        await echo(engagement)

    for _ in range(2):
        async with open_pair(Service(note)) as pair:
            for body in (b"", bytes(100_000)):  # on a shared stream, and on one of its own
                async with pair.client.engage(TRY, first=Data(body, eof=True)) as engagement:
                    await collect(engagement)
    assert names[0] == names[1] != names[2] == names[3]
    assert all(names)


async def test_whole_call() -> None:
    record: list[str] = []
    async with open_pair() as pair:
        async with pair.client.engage(
            TRY,
            first=Data(b"hello", eof=True),
            request_id="rid",
            observer=OnCommit(lambda: record.append("commit")),
        ) as engagement:
            record.append("entered")
            start, data, finished = await collect(engagement)
            assert await engagement.receive() is None  # and again
        assert start == ResultStart(200, (("X-Call", '{"id":"a"}'), ("X-Request", "rid")))
        assert data == Data(b"hello")
        assert finished == SUCCESS
        assert record == ["commit", "entered"]


async def test_try_call_arrives_as_it_was_sent() -> None:
    seen: list[TryCall] = []

    async def engage(engagement: ServerEngagement) -> None:
        seen.append((await read_call(engagement))[0])
        assert engagement.request_id == "a?b"
        assert engagement.peer.startswith("127.0.0.1:")
        await engagement.send(SUCCESS)

    async with (
        open_pair(engage) as pair,
        pair.client.engage(TRY, first=EMPTY_BODY, request_id="a\nb") as engagement,
    ):
        await collect(engagement)
    assert seen == [TRY]


@pytest.mark.parametrize("size", [0, 1, 10_240, 10_241, 300_000, 2_000_000])
async def test_bodies_of_all_sizes(size: int) -> None:
    body = b"0123456789" * (size // 10) + b"x" * (size % 10)
    async with open_pair() as pair:
        assert body_of(await call(pair.client, body)) == body
        # and in pieces
        async with pair.client.engage(TRY) as engagement:
            await engagement.send(Data(body[: size // 2]))
            await engagement.send(Data(body[size // 2 :], eof=True))
            assert body_of(await collect(engagement)) == body


async def test_large_try_call() -> None:
    big = TryCall(models_call_json="x" * 3_000_000)
    async with open_pair() as pair, pair.client.engage(big, first=EMPTY_BODY) as engagement:
        start = await engagement.receive()
        assert isinstance(start, ResultStart)
        assert dict(start.headers)["X-Call"] == big.models_call_json


async def test_half_closed_client_is_none() -> None:
    seen: list[object] = []

    async def engage(engagement: ServerEngagement) -> None:
        seen.append(await engagement.receive())
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client._stream("Engage", "") as stream:
        stream.end_now()
        assert await stream.receive() is not None
        assert await stream.receive() is None
    assert seen == [None]


async def test_answer_before_the_body_ends_sending() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Finished(success=False, error_code=503))

    async with open_pair(engage) as pair, pair.client.engage(TRY) as engagement:
        with pytest.raises(EngagementEnded):  # noqa: PT012  (until it fails)
            while True:
                await engagement.send(Data(b"x" * 10_240))
        assert await collect(engagement) == [Finished(success=False, error_code=503)]
        with pytest.raises(EngagementEnded):
            await engagement.send(EMPTY_BODY)


async def test_huge_first_frame_does_not_hold_up_an_early_answer() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Finished(success=False, error_code=503))

    async with open_pair(engage) as pair:
        assert await call(pair.client, b"x" * 10_000_000) == [
            Finished(success=False, error_code=503)
        ]


async def test_unary_calls() -> None:
    async with open_pair() as pair:
        assert await pair.client.status() == RunnerStatus(custom_status={"a": "b"})
        assert (await pair.client.status("{}")).details == "{}"
        assert (await pair.client.status('{"a": [1]}')).details == '{"a":[1]}'
        await pair.client.configure({"k": "v"})
        assert pair.service.config == {"k": "v"}
        with pytest.raises(ValueError, match="not a JSON object"):
            await pair.client.status("7")
        assert pair.client.statistics().streams == 0


async def test_unary_errors() -> None:
    def fail(payload: str | None) -> RunnerStatus:
        raise GRPCStatus(5, "no status")

    async with open_pair() as pair:
        pair.service.on_status = fail
        with pytest.raises(EngagementFailed, match="gRPC status 5: no status"):
            await pair.client.status()


async def test_log_stream() -> None:
    batch = [LogContainer("a", "f", "c", [])]

    async def serve(channel: LogChannel) -> None:
        assert await channel.receive() == LogStart({"x": "y"})
        assert await channel.receive() == LogReady()
        await channel.send(batch)
        assert await channel.receive() == LogAck()
        await channel.send([])

    async with open_pair() as pair:
        pair.service.on_logs = serve
        async with pair.client.stream_logs() as collector:
            await collector.send(LogStart({"x": "y"}))
            await collector.send(LogReady())
            assert await collector.receive() == batch
            await collector.send(LogAck())
            assert await collector.receive() == []
            assert await collector.receive() is None


async def test_unknown_method() -> None:
    async with open_pair() as pair:
        with pytest.raises(EngagementFailed, match=r"unknown method /RunnerProtocol/Nope") as info:
            await pair.client._unary("Nope", b"")
        assert info.value.status == 12


async def test_deadline_of_the_client_is_kept() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed, match="deadline exceeded") as info:
            await call(pair.client, deadline=trio.current_time() + 0.01)
        assert info.value.status == 4


async def test_loop_is_shared_and_needs_no_context() -> None:
    """Tasks of a nursery that was opened outside of the loop work: the loop is held explicitly."""
    async with trio.open_nursery() as outside, open_pair() as pair:
        async with wire.open_loop() as again:
            assert again is pair.loop
        done = trio.Event()

        async def task() -> None:
            assert body_of(await call(pair.client, b"hi")) == b"hi"
            done.set()

        outside.start_soon(task)
        await done.wait()


async def test_closed_client() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        await pair.client.aclose()
        await pair.client.aclose()
        with pytest.raises(NotSent, match="is closed"):
            await call(pair.client)
        assert "closed" in repr(pair.client)


async def test_closing_the_client_fails_running_engagements() -> None:
    service = Service()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await trio.sleep_forever()

    service.on_engage = engage
    async with open_pair(service) as pair:
        async with pair.client.engage(TRY) as engagement:
            await service.busy.wait()
            await pair.client.aclose()
            with pytest.raises(EngagementFailed, match="client closed") as info:
                await engagement.receive()
            assert info.value.status == 14
            with pytest.raises(EngagementEnded):
                await engagement.send(EMPTY_BODY)
        await service.wait_idle()


async def test_one_receiver_sees_frames_while_another_task_sends() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        while isinstance(frame := await engagement.receive(), Data) and not frame.eof:
            await engagement.send(frame)
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client.engage(TRY) as engagement:

        async def send() -> None:
            for _ in range(200):
                await engagement.send(Data(b"x" * 10_240))
            await engagement.send(EMPTY_BODY)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert len(body_of(await collect(engagement))) == 200 * 10_240


@pytest.mark.parametrize("address", ["", "x", ":80", "a:b:80", "h:", "h:x", "h:70000", "[::1]80"])
async def test_bad_addresses(address: str) -> None:
    async with wire.open_loop() as loop:
        with pytest.raises(ValueError, match="address"):
            wire.GrpcRunnerClient(address, loop=loop)


async def test_service_is_not_needed_to_make_a_client() -> None:
    async with wire.open_loop() as loop:
        client = wire.GrpcRunnerClient("[::1]:9", loop=loop)
        assert client.address == "[::1]:9"
        assert client.statistics().connections == 0
        await client.aclose()
