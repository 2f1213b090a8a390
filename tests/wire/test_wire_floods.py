"""Clients that waste a server's time, and good ones that only seem to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from benchmarks.attack import attacks, rapid_reset
from benchmarks.attack.continuation_flood import head_in_pieces
from benchmarks.http2 import CANCEL, DATA, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Peer, frame
from benchmarks.http2 import open_peer as open_raw
from hostler.engagement import ServerEngagement
from hostler.wire import _codec as codec
from tests.conftest import Logs

from .leaks import settle
from .services import EMPTY_BODY, TRY, call, open_pair, read_call

TRY_MESSAGE, END_MESSAGE = codec.encode_client(TRY), codec.encode_client(EMPTY_BODY)
CALM_DOWN = 11


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
    async with open_pair() as pair:
        async with open_raw(pair.server.address) as attacker:
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


def test_the_attacks_are_listed() -> None:
    found = attacks()
    assert {"rapid-reset", "ping-flood", "empty-frames"} <= set(found)
    assert all(callable(module.run) and module.ABOUT for module in found.values())
