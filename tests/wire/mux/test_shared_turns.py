"""What comes for a shared stream between two turns: its service ends, its window is taken back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from hostler._concurrency.alarm import SharedTimer
from hostler.wire.codec import messages as codec
from hostler.wire.connection import STREAM_WINDOW, WireStream
from hostler.wire.http2 import ServerH2
from hostler.wire.mux.envelope import Envelope, decode_batch
from hostler.wire.mux.server import serve_shared
from hostler.wire.serving import ServerContext
from tests.support.observers import OnCommit

from ..services import EMPTY_BODY, TRY, Gate, Pair, Service, call, collect, encoded, open_pair

pytestmark = pytest.mark.fast


class Line:
    """In the place of the stream below a shared one: takes all, and brings what a test says."""

    def __init__(self) -> None:
        self.on_input: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.broken = None
        self.ended = False
        self.connection = SimpleNamespace(
            call_soon=lambda callback: callback(),
            h2=ServerH2(H2Configuration(client_side=False)),
            is_closing=lambda: False,
            is_cut=False,
            note_answered=lambda: None,
            note_reset=lambda opened_at, *, begun: None,
            waiting=0,
        )
        self.said: list[Envelope] = []
        self._coming: list[bytes] = []

    def bring(self, envelope: Envelope) -> None:
        self._coming.append(encoded(envelope))
        if self.on_input is not None:
            self.on_input()

    def receive_nowait(self) -> bytes | None:
        return self._coming.pop(0) if self._coming else None

    def start_response(self, headers: object) -> None:
        pass

    def room(self) -> int:
        return 1_000_000

    def put(self, message: bytes) -> None:
        self.said += decode_batch(message[5:])


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("busy", [True, False])
async def test_a_call_that_comes_while_a_service_is_cancelled_is_refused(
    busy: bool, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(deadlines: SharedTimer) -> None:  # which takes some turns to end
        try:
            await trio.sleep_forever()
        finally:
            for _ in range(10):
                await trio.lowlevel.cancel_shielded_checkpoint()

    monkeypatch.setattr(SharedTimer, "watch", watch)
    line = Line()
    serving = ServerContext(Service(Gate()), shared_calls=10)
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            await serve_shared(serving, cast(WireStream, line), "peer", "client")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        if busy:
            line.bring(Envelope(1, [codec.encode_client(TRY)]))
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        line.bring(Envelope(2, [codec.encode_client(TRY)]))
    assert line.on_input is None
    told = {said.call: said.reset for said in line.said}
    assert told[2] == ErrorCodes.REFUSED_STREAM


async def _set_window(pair: Pair, size: int) -> None:
    """Have the server say another one for all streams of its connection."""
    (protocol,) = pair.server.connections
    protocol.connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
    protocol.connection.flush()
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_no_more_calls_are_handed_over_than_the_window_has_room_for() -> None:
    """The others wait where they can be withdrawn: a runner that is frozen never takes them."""
    commits: list[int] = []

    async with open_pair() as pair, trio.open_nursery() as nursery:
        await call(pair.client)
        shared = pair.client._pool._slots[0].shared
        assert shared is not None
        stream = shared.stream
        used = STREAM_WINDOW - stream.connection.h2.window(stream.known_id)
        await _set_window(pair, used)

        async def engage(number: int) -> None:
            def commit() -> None:
                commits.append(number)

            async with pair.client.engage(
                TRY, first=EMPTY_BODY, observer=OnCommit(commit)
            ) as engagement:
                await collect(engagement)

        for number in range(10):
            nursery.start_soon(engage, number)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert commits == []
        await _set_window(pair, used + 100)
        sent = len(commits)
        assert 1 <= sent <= 4
        nursery.cancel_scope.cancel()


async def test_a_call_is_not_handed_over_into_a_window_that_was_taken_back() -> None:
    commits: list[int] = []

    async with open_pair() as pair, trio.open_nursery() as nursery:
        await call(pair.client, bytes(1000))  # for which the server has given no new credit yet
        shared = pair.client._pool._slots[0].shared
        assert shared is not None
        await _set_window(pair, 10)
        stream = shared.stream
        assert stream.connection.h2.window(stream.known_id) < 0
        assert stream.room() == 0

        async def engage(number: int) -> None:
            def commit() -> None:
                commits.append(number)

            with scopes[number]:
                async with pair.client.engage(
                    TRY, first=EMPTY_BODY, observer=OnCommit(commit)
                ) as engagement:
                    await collect(engagement)

        scopes = [trio.CancelScope(), trio.CancelScope()]
        nursery.start_soon(engage, 0)
        nursery.start_soon(engage, 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert commits == []
        scopes[0].cancel()  # and so it is never sent
        await _set_window(pair, STREAM_WINDOW)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert commits == [1]
    assert pair.service.started == 2
