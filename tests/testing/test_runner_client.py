"""The rest of a runner client's contract: closing, the other RPCs, many engagements."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hostler.protocol import (
    Data,
    EngagementEnded,
    EngagementFailed,
    GRPCStatus,
    LogAck,
    LogStart,
    NotSent,
    RunnerClient,
    ServerEngagement,
)

from .services import TRY, OpenClient, ScriptedService, frames_of, send_for_ever


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
