"""Cancellation at every await of an engagement, and what the other side notices."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest
import trio
import trio.testing
from h2.settings import SettingCodes

from hostler import wire
from hostler.protocol import Data, EngagementFailed, NotSent, ResultStart, ServerEngagement, TryCall
from hostler.wire.connection import STREAM_WINDOW, WireProtocol, WireStream
from hostler.wire.mux import server
from hostler.wire.status import StreamEnd
from tests.support.observers import OnCommit

from .leaks import asyncio_tasks, open_sockets, settle, trio_tasks
from .services import EMPTY_BODY, SUCCESS, TRY, Gate, Pair, Service, call, collect, open_pair

pytestmark = pytest.mark.usefixtures("carrier")


@pytest.fixture(autouse=True)
def _one_idle_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner keeps tasks for the calls to come: always the same number, so that all are known."""
    monkeypatch.setattr(server, "MAX_IDLE", 1)


async def _stuck(engagement: ServerEngagement) -> None:
    await engagement.receive()
    await engagement.send(ResultStart(200))
    await trio.sleep_forever()


def _shared_calls(pair: Pair) -> int:
    """Calls that a shared stream of the client still has in its table."""
    return sum(len(slot.shared.calls) for slot in pair.client._pool._slots if slot.shared)


async def _check_clean(pair: Pair, tasks: int) -> None:
    await pair.service.wait_idle()
    await settle(trio_tasks, tasks)
    assert asyncio_tasks(pair.loop) == 0
    statistics = pair.client.statistics()
    assert (statistics.streams, statistics.waiting) == (0, 0)
    await settle(lambda: _shared_calls(pair), 0)


async def _receive(pair: Pair, cancel: Callable[[], None]) -> None:
    async with pair.client.engage(TRY) as engagement:
        assert await engagement.receive() == ResultStart(200)
        cancel()
        await engagement.receive()


async def _send(pair: Pair, cancel: Callable[[], None]) -> None:
    async with pair.client.engage(TRY) as engagement, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def cancel_when_stuck() -> None:
            await trio.testing.wait_all_tasks_blocked(0.01)
            cancel()

        while True:
            await engagement.send(Data(b"x" * 10_240))


async def _enter_with_try_stuck(pair: Pair, cancel: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def cancel_when_stuck() -> None:
            await pair.service.busy.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            cancel()

        big = TryCall(models_call_json="x" * 3_000_000)
        async with pair.client.engage(big, observer=OnCommit(lambda: pytest.fail("committed"))):
            pytest.fail("entered")


async def _before_connect(pair: Pair, cancel: Callable[[], None]) -> None:
    cancel()
    await call(pair.client)


async def _before_frames(pair: Pair, cancel: Callable[[], None]) -> None:
    async with pair.client.engage(TRY) as engagement:
        cancel()
        await engagement.send(EMPTY_BODY)


async def _leave_without_reading(pair: Pair, cancel: Callable[[], None]) -> None:
    async with pair.client.engage(TRY):
        await pair.service.busy.wait()


async def _at_the_end(pair: Pair, cancel: Callable[[], None]) -> None:
    async def finishes_but_does_not_return(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(SUCCESS)
        await trio.sleep_forever()

    pair.service.on_engage = finishes_but_does_not_return
    async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
        assert await engagement.receive() == SUCCESS
        cancel()
        await engagement.receive()


async def _unary(pair: Pair, cancel: Callable[[], None]) -> None:
    cancel()
    await pair.client.status()


@pytest.mark.parametrize(
    "act",
    [
        _before_connect,
        _before_frames,
        _receive,
        _send,
        _leave_without_reading,
        _at_the_end,
        _unary,
    ],
)
@pytest.mark.parametrize("warm", [False, True])
async def test_cancelled_client_leaves_nothing(
    act: Callable[[Pair, Callable[[], None]], Awaitable[None]], warm: bool
) -> None:
    service = Service()
    async with open_pair(service) as pair:
        if warm or act is not _before_connect:
            await call(pair.client)
        service.busy = trio.Event()
        service.on_engage = _stuck
        await trio.testing.wait_all_tasks_blocked(0.01)
        tasks, sockets = trio_tasks(), open_sockets()
        for _ in range(3):
            with trio.CancelScope() as scope:
                await act(pair, scope.cancel)
        await _check_clean(pair, tasks)
        assert open_sockets() == sockets


async def test_cancelled_while_try_call_waits_for_credit_is_not_committed() -> None:
    service = Service()

    async def never_reads(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with open_pair(service) as pair:
        await call(pair.client)
        service.busy = trio.Event()
        service.on_engage = never_reads
        await trio.testing.wait_all_tasks_blocked(0.01)
        tasks = trio_tasks()
        with trio.CancelScope() as scope:
            await _enter_with_try_stuck(pair, scope.cancel)
        await _check_clean(pair, tasks)


async def test_a_call_that_is_cancelled_in_the_turn_of_its_credit_is_not_sent() -> None:
    """Its task has not had its turn yet: what was sent by then would count as one that may have
    run, although nobody waits for it any more."""
    async with open_pair(Gate()) as pair, trio.open_nursery() as nursery:
        commits: list[int] = []
        (protocol,) = await _connected(pair)

        def commit(number: int) -> None:
            commits.append(number)
            scopes[1].cancel()

        async def engage(number: int) -> None:
            with scopes[number]:
                async with pair.client.engage(
                    TRY, first=EMPTY_BODY, observer=OnCommit(lambda: commit(number))
                ) as engagement:
                    await collect(engagement)

        scopes = [trio.CancelScope() for _ in range(3)]
        await _set_window(protocol, 0)
        for number in range(3):
            nursery.start_soon(engage, number)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert commits == []
        await _set_window(protocol, STREAM_WINDOW)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert commits == [0, 2]
        gate = pair.service.on_engage
        assert isinstance(gate, Gate)
        gate.open.set()


async def _connected(pair: Pair) -> Collection[WireProtocol]:
    """The server's side of the client's connections, of which it has one now."""
    await pair.client.status()
    return pair.server.connections


async def _set_window(protocol: WireProtocol, size: int) -> None:
    protocol.connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
    protocol.connection.flush()
    await trio.testing.wait_all_tasks_blocked(0.01)


def after_put(monkeypatch: pytest.MonkeyPatch, act: Callable[[WireStream], None]) -> None:
    """Have ``act`` called right after a client has handed its first messages over."""
    put = WireStream.put

    def patched(stream: WireStream, data: bytes, **options: Any) -> int:
        position = put(stream, data, **options)
        act(stream)
        return position

    monkeypatch.setattr(WireStream, "put", patched)


async def test_cancelled_right_after_the_try_call_was_sent_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runner may have the call: nobody may run it elsewhere as if nothing had happened."""
    record: list[str] = []
    async with open_pair() as pair:
        await call(pair.client)
        tasks = trio_tasks()
        with trio.CancelScope() as scope:
            after_put(monkeypatch, lambda stream: scope.cancel())
            async with pair.client.engage(TRY, observer=OnCommit(lambda: record.append("commit"))):
                pytest.fail("entered")
        assert record == ["commit"]
        monkeypatch.undo()
        await _check_clean(pair, tasks)


async def test_connection_lost_right_after_the_try_call_was_sent_is_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record: list[str] = []
    async with open_pair() as pair:
        await call(pair.client)
        after_put(monkeypatch, lambda stream: stream.break_off(StreamEnd(14, "connection lost")))
        async with pair.client.engage(
            TRY, observer=OnCommit(lambda: record.append("commit"))
        ) as engagement:
            assert record == ["commit"]
            with pytest.raises(EngagementFailed, match="connection lost"):
                await engagement.receive()
        monkeypatch.undo()
        await pair.service.wait_idle()


async def test_cancelled_while_connecting() -> None:
    """A backlog of a listener that never accepts takes the connection; HTTP/2 never starts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(f"127.0.0.1:{silent.getsockname()[1]}", loop=loop)
            tasks, sockets = trio_tasks(), open_sockets()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, client)
                    nursery.start_soon(call, client)
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    assert client.statistics().waiting == 2
                    scope.cancel()
            await settle(open_sockets, sockets)
            await settle(trio_tasks, tasks)
            assert client.statistics().waiting == 0
            assert asyncio_tasks(loop) == 0
            await client.aclose()


async def test_one_waiter_takes_over_when_the_dialling_one_is_cancelled() -> None:
    [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent, wire.open_loop() as loop, trio.open_nursery() as nursery:
        client = wire.GrpcRunnerClient(
            f"127.0.0.1:{silent.socket.getsockname()[1]}",
            wire.ConnectOptions(handshake_timeout=60),
            loop=loop,
        )
        first = trio.CancelScope()
        failed = trio.Event()

        async def dialling() -> None:
            with first:
                await call(client)

        async def waiting() -> None:
            with pytest.raises(NotSent):
                await call(client)
            failed.set()

        nursery.start_soon(dialling)
        async with await silent.accept():
            nursery.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked(0.01)
            first.cancel()
            async with await silent.accept():  # that of the other one, which then knows
                assert not failed.is_set()
            await failed.wait()
        await client.aclose()


async def test_inner_cancellation_of_send_keeps_messages_whole() -> None:
    """A send that is cancelled by an inner scope is still sent, and the next one follows it."""
    go = trio.Event()
    got = bytearray()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await go.wait()
        while isinstance(frame := await engagement.receive(), Data) and not frame.eof:
            got.extend(frame.data)
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client.engage(TRY) as engagement:
        sent = 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel_when_stuck() -> None:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    scope.cancel()

                while True:
                    sent += 10_000
                    await engagement.send(Data(b"x" * 10_000))
        go.set()
        await engagement.send(EMPTY_BODY)
        assert await collect(engagement) == [SUCCESS]
        assert len(got) == sent


async def test_service_is_cancelled_by_reset_and_by_loss() -> None:
    record: list[str] = []
    service = Service()

    async def engage(engagement: ServerEngagement) -> None:
        try:
            await _stuck(engagement)
        except trio.Cancelled:
            record.append("cancelled")
            raise

    service.on_engage = engage
    async with open_pair(service) as pair:
        async with pair.client.engage(TRY) as engagement:
            await engagement.receive()
        await service.wait_idle()
        assert record == ["cancelled"]
        async with pair.client.engage(TRY) as engagement:
            await engagement.receive()
            (connection,) = pair.server.connections
            connection.connection.transport.abort()
            with pytest.raises(EngagementFailed, match="connection") as info:
                await engagement.receive()
            assert info.value.status == 14
        await service.wait_idle()
        assert record == ["cancelled"] * 2


async def test_service_that_is_writing_is_cancelled_by_reset() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        while True:
            await engagement.send(Data(b"x" * 100_000))

    async with open_pair(engage) as pair:
        async with pair.client.engage(TRY) as engagement:
            await engagement.receive()
        await pair.service.wait_idle()
        async with pair.client.engage(TRY) as engagement:  # credits of the connection came back
            await engagement.receive()


async def test_a_scope_that_ends_as_its_turn_comes_sends_nothing() -> None:
    """A placer's attempt whose time is over in the moment in which it gets its stream. Sent, but
    cancelled, the call could neither be tried elsewhere nor be waited for."""
    commits: list[bool] = []
    scope = trio.CancelScope()

    async def second(client: wire.GrpcRunnerClient) -> None:
        with scope:
            async with client.engage(TRY, observer=OnCommit(lambda: commits.append(True))):
                raise AssertionError

    async with open_pair(max_connections=1, streams_per_connection=1) as pair:
        async with trio.open_nursery() as nursery:
            async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
                nursery.start_soon(second, pair.client)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await collect(engagement)
            # The stream was given back just now: the waiting task is due to run, and too late
            # for a cancellation to reach it where it waited.
            scope.cancel()
        assert scope.cancelled_caught
        assert commits == []
        assert pair.service.started == 1
