"""Clients that waste a server's time, and good ones that only seem to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from benchmarks.attack import attacks, rapid_reset
from benchmarks.attack.continuation_flood import head_in_pieces
from hostler.protocol import ServerEngagement
from hostler.wire.codec import messages as codec
from hostler.wire.connection import FRAMES_IN_TURN
from hostler.wire.mux.envelope import Envelope
from tests.conftest import Logs
from tests.support.http2 import (
    CANCEL,
    DATA,
    ENGAGE,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
)
from tests.support.http2 import open_peer as open_raw
from tests.wire.leaks import settle
from tests.wire.services import EMPTY_BODY, SUCCESS, TRY, Gate, call, encoded, open_pair, read_call

TRY_MESSAGE, END_MESSAGE = codec.encode_client(TRY), codec.encode_client(EMPTY_BODY)
REFUSED, CALM_DOWN = 7, 11


class Empty:
    """Frames of no content on one stream."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, peer: Peer) -> bytes:
        if self.number:
            return frame(DATA, stream=self.number)
        head, self.number = peer.begin()
        return head


def _on_dead_stream(peer: Peer) -> bytes:
    head, number = peer.begin()
    return head + frame(RST_STREAM, CANCEL, stream=number) + frame(DATA, b"x", stream=number) * 20


def _given_up(peer: Peer) -> bytes:
    data, number = peer.begin(TRY_MESSAGE, END_MESSAGE)
    return data + frame(RST_STREAM, CANCEL, stream=number)


class OfShared:
    """On one shared stream: what ``make`` gives for the number of a call, each time the next."""

    def __init__(self, make: Callable[[int], Sequence[Envelope]]) -> None:
        self._make = make
        self._stream = self._call = 0

    def __call__(self, peer: Peer) -> bytes:
        self._call += 1
        batch = b"".join(map(encoded, self._make(self._call)))
        if self._stream:
            return frame(DATA, message(batch), stream=self._stream)
        data, self._stream = peer.begin(batch)
        return data


def begun(number: int) -> Envelope:
    return Envelope(number, [TRY_MESSAGE, END_MESSAGE])


RESETS = "too many streams that were reset before"
NOTHING = "too many frames that ask for nothing"
SHARED_FLOODS: dict[str, tuple[Callable[[int], Sequence[Envelope]], str]] = {
    "calls that are given up": (lambda n: [begun(n), Envelope(n, reset=8)], RESETS),
    "calls that begin with their reset": (lambda n: [Envelope(n, reset=8)], NOTHING),
    "resets of calls that are over": (
        lambda n: [begun(1)] if n == 1 else [Envelope(1, reset=8)],
        NOTHING,
    ),
    "credit": (lambda n: [begun(1)] if n == 1 else [Envelope(1, credit=1)], NOTHING),
    "frames for calls that are over": (
        lambda n: [begun(2)] if n == 1 else [Envelope(1, [b"x"])],
        NOTHING,
    ),
    "envelopes of nothing": (lambda n: [begun(1)] if n == 1 else [Envelope(1)] * 20, NOTHING),
}

FLOODS: dict[str, tuple[Callable[[Peer], bytes], str]] = {
    "resets": (rapid_reset.opened_and_reset, "too many streams that were reset before"),
    "calls that are given up": (_given_up, "too many streams that were reset before"),
    "pings": (lambda peer: frame(PING, bytes(8)), "too many frames that ask for nothing"),
    "settings": (lambda peer: frame(SETTINGS), "too many frames that ask for nothing"),
    "windows": (
        lambda peer: frame(WINDOW_UPDATE, b"\0\0\0\x01"),
        "too many frames that ask for nothing",
    ),
    "empty data": (Empty(), "too many frames that ask for nothing"),
    "pieces of heads": (head_in_pieces, "too many frames that ask for nothing"),
    "unknown frames": (lambda peer: frame(0xEE), "too many frames that ask for nothing"),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_client_that_floods_is_cut_off_and_others_are_not(name: str, logs: Logs) -> None:
    make, reason = FLOODS[name]
    await _cut_off(make, ENGAGE, reason, logs)


@pytest.mark.parametrize("name", SHARED_FLOODS)
async def test_a_client_that_floods_a_shared_stream_is_cut_off(name: str, logs: Logs) -> None:
    make, reason = SHARED_FLOODS[name]
    await _cut_off(OfShared(make), "/RunnerProtocol/EngageMany", reason, logs)


async def _cut_off(make: Callable[[Peer], bytes], path: str, reason: str, logs: Logs) -> None:
    async with open_pair() as pair:
        async with open_raw(pair.server.address, path=path) as attacker:
            sent = 0
            while sent < 20_000 and await attacker.send(
                b"".join(make(attacker) for _ in range(50))
            ):
                sent += 50
                await trio.lowlevel.checkpoint()
            with trio.fail_after(10):
                await attacker.closed.wait()
            assert attacker.goaway == CALM_DOWN
            assert sent < 20_000
        assert len(await call(pair.client)) == 3
        await settle(lambda: len(pair.server.connections), 1)
    (line,) = logs.with_event("client cut off")
    assert str(line["reason"]).startswith(reason)


async def test_streams_that_are_only_opened_have_no_task() -> None:
    started: list[str] = []

    class Spawned(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            started.append(task.name)

    async with open_pair() as pair, open_raw(pair.server.address) as attacker:
        reply = await attacker.request(TRY_MESSAGE, END_MESSAGE)
        await reply.done.wait()
        trio.lowlevel.add_instrument(spawned := Spawned())
        await attacker.send(b"".join(rapid_reset.opened_and_reset(attacker) for _ in range(200)))
        reply = await attacker.request(TRY_MESSAGE, END_MESSAGE)
        await reply.done.wait()
        trio.lowlevel.remove_instrument(spawned)
        assert reply.ended
    assert len([name for name in started if "_serve" in name]) == 1


async def test_the_callers_of_a_good_balancer_may_all_leave_at_once(logs: Logs) -> None:
    """2 000 calls run, and all are reset."""

    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await trio.sleep_forever()

    async with open_pair(engage) as pair, open_raw(pair.server.address) as peer:
        numbers = []
        for _ in range(2000):
            data, number = peer.begin(TRY_MESSAGE, END_MESSAGE)
            numbers.append(number)
            await peer.send(data)
        while pair.service.started < 2000:  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.01)
        await peer.send(b"".join(frame(RST_STREAM, CANCEL, stream=n) for n in numbers))
        await pair.service.wait_idle()
        assert not peer.closed.is_set()
        assert peer.goaway is None
    assert not logs.with_event("client cut off")


async def test_resets_between_answered_calls_are_no_flood(logs: Logs) -> None:
    """Every second call is given up, without end."""
    async with open_pair() as pair, open_raw(pair.server.address) as peer:
        for _ in range(25):
            await peer.send(b"".join(_given_up(peer) for _ in range(100)))
            replies = [await peer.request(TRY_MESSAGE, END_MESSAGE) for _ in range(100)]
            for reply in replies:
                await reply.done.wait()
            assert all(reply.ended for reply in replies)
        assert peer.goaway is None


@pytest.mark.parametrize("share_limit", [0, 32 * 1024])
async def test_a_balancer_whose_callers_all_leave_again_and_again_is_not_cut_off(
    share_limit: int, logs: Logs
) -> None:
    """4 096 calls are cancelled as they run, 256 at a time; on one connection those would be too
    many."""

    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        if not engagement.request_id:
            await trio.sleep_forever()
        await engagement.send(SUCCESS)

    async with open_pair(engage, share_limit=share_limit) as pair:
        for _ in range(16):
            started = pair.service.started
            async with trio.open_nursery() as nursery:
                for _ in range(256):
                    nursery.start_soon(call, pair.client)
                while pair.service.started < started + 256:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                nursery.cancel_scope.cancel()
            await pair.service.wait_idle()
            async with pair.client.engage(TRY, first=EMPTY_BODY, request_id="stays") as stays:
                assert await stays.receive() == SUCCESS
    assert not logs.with_event("client cut off")
    assert not logs.with_event("peer ended the connection")


async def test_a_balancer_whose_callers_leave_before_their_calls_are_sent_is_not_cut_off(
    logs: Logs,
) -> None:
    """The runner does not read, so that streams are opened whose first message is withdrawn."""
    async with open_pair(share_limit=0) as pair:
        await call(pair.client)
        (slot,) = pair.client._pool._slots
        slot.protocol.connection.write_ready.clear()
        for _ in range(4):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for _ in range(128):
                        nursery.start_soon(call, pair.client)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        slot.protocol.connection.write_ready.set()
        assert len(await call(pair.client)) == 3
    assert not logs.with_event("client cut off")
    assert not logs.with_event("peer ended the connection")


@pytest.mark.parametrize(("setting", "seconds"), [((), 0.05), ((("grpc-timeout", "50m"),), 60.0)])
async def test_a_stream_whose_first_message_does_not_come_ends(
    setting: tuple[tuple[str, str], ...], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.wire.server.FIRST_SECONDS", seconds)
    async with open_pair() as pair, open_raw(pair.server.address, more=setting) as peer:
        replies = [await peer.request() for _ in range(100)]
        part, number = peer.begin()
        replies.append(peer.expect(number))
        await peer.send(part + frame(DATA, message(TRY_MESSAGE)[:-1], stream=number))
        for reply in replies:
            await reply.done.wait()
            assert reply.ended
        assert pair.service.started == 0
        (protocol,) = pair.server.connections
        assert not protocol.processor.streams
        assert pair.server.serving.waiting == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("tried", [False, True])
async def test_a_call_whose_try_or_first_data_does_not_come_ends(
    shared: bool, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a task; without a bound its client would keep the task, and what the try has."""
    limit = "DATA_SECONDS" if tried else "FIRST_SECONDS"
    monkeypatch.setattr(f"hostler.wire.serving.{limit}", 0.05)
    path = "/RunnerProtocol/EngageMany" if shared else ENGAGE
    async with open_pair() as pair, open_raw(pair.server.address, path=path) as peer:
        if shared:
            frames = [TRY_MESSAGE] if tried else []
            data, number = peer.begin(encoded(Envelope(1, frames, request_id="r")))
        elif tried:
            data, number = peer.begin(TRY_MESSAGE)
        else:  # so much of a try that a task takes the rest
            data, number = peer.begin()
            parts = message(bytes(2**18)), 2**14
            for at in range(0, 2**17, parts[1]):
                data += frame(DATA, parts[0][at : at + parts[1]], stream=number)
        reply = peer.expect(number)
        await peer.send(data)
        await settle(lambda: pair.service.started, 1)
        if shared:
            await settle(lambda: b"no message came in time" in reply.data, True)
        else:
            await reply.done.wait()
            assert reply.ended
        await pair.service.wait_idle()
        assert pair.server.serving.waiting == 0


@pytest.mark.parametrize("shared", [False, True])
async def test_calls_without_data_are_few_on_each_connection_if_there_are_many(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.wire.serving.MAX_WAITING", 40)
    path = "/RunnerProtocol/EngageMany" if shared else ENGAGE
    async with open_pair() as pair, open_raw(pair.server.address, path=path) as peer:
        if shared:
            calls = [encoded(Envelope(number, [TRY_MESSAGE])) for number in range(1, 51)]
            many = await peer.request(b"".join(calls))
            await settle(lambda: many.data.count(b"wait for their first data"), 10)
        else:
            replies = [await peer.request(TRY_MESSAGE) for _ in range(50)]
            await settle(lambda: sum(reply.ended for reply in replies), 10)
        assert pair.server.serving.waiting == 40
        assert len(await call(pair.client)) == 3  # its data have come with the try


async def test_many_connections_within_their_budgets_do_not_hold_up_a_good_one() -> None:
    """Of those that have more to read than their turn allows, one reads on in each turn."""
    count, each = 20, 1500
    async with open_pair() as pair, contextlib.AsyncExitStack() as stack:
        await call(pair.client)
        peers = [
            await stack.enter_async_context(open_raw(pair.server.address)) for _ in range(count)
        ]
        good = await stack.enter_async_context(open_raw(pair.server.address))
        await settle(lambda: len(pair.server.connections), count + 2)
        for peer in peers:
            await peer.send(frame(PING, bytes(8)) * each)
        before = sum(peer.frames for peer in peers)
        reply = await good.request(TRY_MESSAGE, END_MESSAGE)
        await reply.done.wait()
        answered = sum(peer.frames for peer in peers) - before
        assert reply.ended
        assert answered < 2 * count * FRAMES_IN_TURN
        await settle(lambda: sum(peer.frames for peer in peers) >= count * each, True)


async def test_streams_without_a_message_are_few_on_each_connection_if_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hostler.wire.server.MAX_WAITING", 40)
    async with open_pair() as pair:
        async with open_raw(pair.server.address) as first:
            held = [await first.request() for _ in range(40)]
            await settle(lambda: pair.server.serving.waiting, 40)
            async with open_raw(pair.server.address) as second:
                few = [await second.request() for _ in range(16)]
                more = [await second.request() for _ in range(4)]
                for reply in more:
                    await reply.done.wait()
                assert {reply.reset for reply in more} == {REFUSED}
                assert not any(reply.done.is_set() for reply in (*held, *few))
                whole = await second.request(TRY_MESSAGE, END_MESSAGE)
                await whole.done.wait()
                assert whole.reset == REFUSED  # (its head came first)
            assert len(await call(pair.client)) == 3
        await settle(lambda: pair.server.serving.waiting, 0)


async def test_a_head_is_bounded(logs: Logs) -> None:
    async with (
        open_pair() as pair,
        open_raw(pair.server.address, more=[("x", "y" * 17_000)]) as peer,
    ):
        await peer.send(peer.begin(TRY_MESSAGE, END_MESSAGE)[0])
        await peer.closed.wait()
        assert pair.service.started == 0


async def test_shared_streams_of_a_connection_are_few() -> None:
    path = "/RunnerProtocol/EngageMany"
    async with open_pair(Gate()) as pair, open_raw(pair.server.address, path=path) as peer:
        held = [await peer.request(encoded(begun(1))) for _ in range(4)]
        await settle(lambda: pair.service.running, 4)
        fifth = await peer.request(encoded(begun(1)))
        await fifth.done.wait()
        assert fifth.ended
        assert not any(reply.done.is_set() for reply in held)
        assert pair.service.started == 4


def test_the_attacks_are_listed() -> None:
    found = attacks()
    assert {"rapid-reset", "ping-flood", "empty-frames"} <= set(found)
    assert all(callable(module.run) and module.ABOUT for module in found.values())
