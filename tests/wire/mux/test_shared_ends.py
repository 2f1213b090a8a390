"""How streams that calls share, and their connections, end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from hostler import wire
from hostler.protocol import EngagementFailed, NotSent, Reserved, ServerEngagement
from hostler.wire.connection import WireStream
from hostler.wire.server import _Streams
from tests.support.observers import OnCommit
from tests.wire.services import paths

from ..leaks import settle
from ..services import EMPTY_BODY, SUCCESS, TRY, Gate, Service, body_of, call, open_pair

pytestmark = pytest.mark.fast


async def test_a_runner_that_drains_refuses_new_calls_and_finishes_those_it_has() -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        results: list[object] = []

        async def one() -> None:
            results.append((await call(pair.client))[-1])

        nursery.start_soon(one)
        await settle(lambda: service.running, 1)
        # The GOAWAY is not there yet when the second call begins.
        pair.server.serving.stopping = True
        async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
            with pytest.raises(NotSent, match="did not look at the call"):
                await engagement.receive()
        pair.server.serving.stopping = False
        pair.server.stop_accepting()
        await settle(pair.client._pool._usable, 0)
        with pytest.raises(NotSent, match="connection refused"):
            await call(pair.client)
        gate.open.set()
        await settle(lambda: results, [SUCCESS])
        await settle(lambda: pair.client.statistics().connections, 0)


async def test_a_server_that_ends_tells_each_call() -> None:
    service = Service(Gate())
    failures: list[EngagementFailed] = []

    async def one(client: wire.GrpcRunnerClient) -> None:
        with pytest.raises(EngagementFailed) as info:
            await call(client)
        failures.append(info.value)

    async with wire.open_loop() as loop, trio.open_nursery() as nursery:
        async with wire.open_server(service, "127.0.0.1:0", loop=loop) as server:
            client = wire.GrpcRunnerClient(
                server.address, wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            for _ in range(3):
                nursery.start_soon(one, client)
            await settle(lambda: service.running, 3)
        await settle(lambda: len(failures), 3)
        await client.aclose()
    assert {(one.status, one.text) for one in failures} == {(14, "the server is shutting down")}
    assert len(failures) == 3


async def test_calls_that_come_after_a_server_has_ended_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client has not read yet that the server goes: its calls may go elsewhere."""
    service = Service()
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        assert body_of(await call(pair.client, b"hi")) == b"hi"
        (slot,) = pair.client._pool._slots
        held: list[bytes] = []
        monkeypatch.setattr(slot.protocol, "data_received", held.append)
        (protocol,) = pair.server.connections
        pair.server.stop_accepting()
        handler = protocol.handler
        assert isinstance(handler, _Streams)
        assert handler.nursery is not None
        handler.nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        refused = 0

        async def late() -> None:
            nonlocal refused
            async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
                with pytest.raises(NotSent, match="did not look at the call"):
                    await engagement.receive()
            refused += 1

        for _ in range(3):
            nursery.start_soon(late)
        await settle(lambda: pair.client.statistics().streams, 3)
        monkeypatch.undo()
        for data in held:
            slot.protocol.data_received(data)
        await settle(lambda: refused, 3)
        # It does not wait for more: the client closes what it needs no longer.
        await settle(lambda: len(pair.server.connections), 0)
    assert service.started == 1


@pytest.mark.parametrize("what", ["call", "commit"])
async def test_what_is_cancelled_before_it_is_its_turn_is_never_sent(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in the turn in which its task is still to learn of the cancellation: the attempt
    would be committed and over at once, so that the call could neither go on nor go elsewhere."""
    frames: list[object] = []
    commits: list[bool] = []

    async def engage(engagement: ServerEngagement) -> None:
        frames.append(await engagement.receive())
        await engagement.send(Reserved())
        frames.append(await engagement.receive())

    async with open_pair(engage, share_streamed=True) as pair, trio.open_nursery() as nursery:
        reserve = msgspec.structs.replace(TRY, reserve=True)
        async with pair.client.engage(reserve) as other:  # so that nobody is alone
            await other.receive()
            scope = trio.CancelScope()

            async def attempt() -> None:
                with scope:
                    if what == "call":
                        async with pair.client.engage(
                            TRY, first=EMPTY_BODY, observer=OnCommit(lambda: commits.append(True))
                        ):
                            raise AssertionError
                    else:
                        await other.commit(None)

            shared = pair.client._pool._slots[0].shared
            assert shared is not None
            # (Another one's call, which would have all sent before the task has its turn.)
            monkeypatch.setattr(type(shared), "_flush", lambda shared: None)
            nursery.start_soon(attempt)
            await trio.testing.wait_all_tasks_blocked(0.01)
            monkeypatch.undo()
            scope.cancel()
            shared._flush()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert scope.cancelled_caught
            assert commits == []
            assert frames == [reserve]
            assert pair.service.started == 1


async def test_a_lost_connection_fails_what_was_sent_and_only_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(Gate())
    outcomes: list[str] = []
    async with open_pair(service) as pair, trio.open_nursery() as nursery:

        async def one() -> None:
            committed: list[bool] = []
            begin = pair.client.engage(
                TRY, first=EMPTY_BODY, observer=OnCommit(lambda: committed.append(True))
            )
            try:
                async with begin as engagement:
                    await engagement.receive()
            except NotSent:
                assert not committed
                outcomes.append("not sent")
            except EngagementFailed as error:
                assert committed
                outcomes.append(f"failed {error.status}")

        for _ in range(2):
            nursery.start_soon(one)
        await settle(lambda: service.running, 2)
        protocol = pair.client._pool._slots[0].protocol
        monkeypatch.setattr(WireStream, "room", lambda stream: 0)
        for _ in range(2):
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked(0.01)
        protocol.abort("gone")
        await settle(lambda: sorted(outcomes), ["failed 14"] * 2 + ["not sent"] * 2)
        await service.wait_idle()
        monkeypatch.undo()


async def test_a_runner_that_ends_the_stream_gets_plain_calls(
    monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair:
        opened = paths(pair, monkeypatch)
        async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
            await settle(lambda: service.running, 1)
            shared = pair.client._pool._slots[0].shared
            assert shared is not None
            shared.stream.reset_received(int(ErrorCodes.ENHANCE_YOUR_CALM))
            with pytest.raises(EngagementFailed, match="ENHANCE_YOUR_CALM") as info:
                await engagement.receive()
            assert info.value.status == 8
        gate.open.set()
        await service.wait_idle()
        assert await call(pair.client) == [SUCCESS]
        assert opened == ["EngageMany", "Engage"]
    assert len(logs.with_event("runner ended a shared stream")) == 1
