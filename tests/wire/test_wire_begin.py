"""Calls that begin without a wait: when they can, and that nothing of it is lost or sent twice."""

from __future__ import annotations

import pytest
import trio

from hostler._fast import BegunEngagement, CallSource
from hostler.protocol import (
    Data,
    EngagementFailed,
    NotSent,
    ResultStart,
    ServerEngagement,
    TryCall,
)
from hostler.wire.connection import STREAM_WINDOW

from .services import SUCCESS, TRY, Gate, Pair, Service, call, collect, open_pair, read_call

pytestmark = pytest.mark.fast

BODY = Data(b"abc", eof=True)


class Begun(CallSource):
    """A call that is to begin now."""

    def __init__(self, pair: Pair, first: Data = BODY, try_call: TryCall = TRY) -> None:
        self.commits = 0
        self.made = 0
        self._try_call = try_call
        self.engagement = pair.client.begin(self, first=first, request_id="r\n1")

    @property
    def running(self) -> BegunEngagement:
        assert self.engagement is not None
        return self.engagement

    def try_call(self) -> TryCall:
        self.made += 1
        return self._try_call

    def committed(self) -> None:
        self.commits += 1


async def test_a_call_begins_at_once_and_is_committed() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        begun = Begun(pair)
        assert begun.commits == 1
        frames = await collect(begun.running)
        begun.running.leave()
        assert frames == [
            ResultStart(200, (("X-Call", TRY.models_call_json), ("X-Request", "r?1"))),
            Data(b"abc"),
            SUCCESS,
        ]
        assert pair.client.statistics().streams == 0


async def test_many_that_begin_at_once_go_out_together() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        begun = [Begun(pair) for _ in range(20)]
        assert [one.commits for one in begun] == [1] * 20
        for one in begun:
            assert len(await collect(one.running)) == 3
            one.running.leave()
        assert pair.client.statistics().streams == 0
        assert pair.service.started == 21


async def test_frames_that_are_here_need_no_wait() -> None:
    async def play(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await engagement.send_all([ResultStart(200), Data(b"abc"), SUCCESS], last=True)

    async with open_pair(play) as pair:
        await call(pair.client)
        begun = Begun(pair)
        assert begun.running.receive_ready() is None
        assert isinstance(await begun.running.receive(), ResultStart)
        assert begun.running.receive_ready() == Data(b"abc")
        assert begun.running.receive_ready() == SUCCESS
        assert begun.running.receive_ready() is None
        assert await begun.running.receive() is None
        begun.running.leave()


@pytest.mark.parametrize("share_limit", [0, 32 * 1024])
async def test_without_a_connection_or_a_shared_stream_somebody_has_to_wait(
    share_limit: int,
) -> None:
    async with open_pair(share_limit=share_limit) as pair:
        if share_limit == 0:
            await call(pair.client)
        begun = Begun(pair)
        assert (begun.engagement, begun.commits, begun.made) == (None, 0, 0)
        assert pair.client.statistics().streams == 0
        assert len(await call(pair.client)) == 3


async def test_large_calls_have_to_wait() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        assert Begun(pair, Data(bytes(40_000), eof=True)).engagement is None
        model = TryCall(models_call_json="x" * 40_000)
        assert Begun(pair, try_call=model).engagement is None
        assert pair.client.statistics().streams == 0


async def test_what_does_not_fit_into_the_window_has_to_wait() -> None:
    gate = Gate()
    async with open_pair(Service(gate)) as pair, trio.open_nursery() as nursery:
        gate.open.set()
        await call(pair.client)
        gate.open = trio.Event()
        body = Data(bytes(20_000), eof=True)
        begun: list[Begun] = []
        while (one := Begun(pair, body)).engagement is not None:
            begun.append(one)
        # The window of a stream of hostler's servers, which all calls of this turn share.
        assert STREAM_WINDOW // 21_000 <= len(begun) <= STREAM_WINDOW // 20_000
        nursery.start_soon(call, pair.client, body.data)  # which waits, and comes after them
        gate.open.set()
        for one in begun:
            assert await collect(one.running) == [SUCCESS]
            one.running.leave()


async def test_one_that_is_left_in_its_turn_is_never_sent() -> None:
    gate = Gate()
    async with open_pair(Service(gate)) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(call, pair.client)
        nursery.start_soon(call, pair.client)
        while pair.service.started < 2:
            await pair.service.busy.wait()
            await trio.testing.wait_all_tasks_blocked(0.001)
        begun = Begun(pair)
        begun.running.leave()
        gate.open.set()
        assert await call(pair.client) == [SUCCESS]
        assert pair.service.started == 3


async def test_a_connection_that_breaks_before_it_was_sent_proves_it() -> None:
    gate = Gate()
    async with open_pair(Service(gate)) as pair:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(_failing, pair)
            while pair.service.started < 2:
                await pair.service.busy.wait()
                await trio.testing.wait_all_tasks_blocked(0.001)
            begun = Begun(pair)
            for slot in pair.client._pool._slots:
                slot.protocol.abort("gone")
        with pytest.raises(NotSent, match="did not look at the call: gone"):
            await begun.running.receive()
        begun.running.leave()


async def _failing(pair: Pair) -> None:
    with pytest.raises(EngagementFailed, match="gone"):
        await call(pair.client)


async def test_cutting_one_ends_it_at_both_ends() -> None:
    cancelled = trio.Event()

    async def play(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.receive()
        await engagement.send(ResultStart(200))
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with open_pair(Service()) as pair:
        await call(pair.client)
        pair.service.on_engage = play
        begun = Begun(pair)
        assert isinstance(await begun.running.receive(), ResultStart)
        begun.running.cut()
        with pytest.raises(EngagementFailed, match="cut off"):
            await begun.running.receive()
        begun.running.leave()
        await cancelled.wait()
        await pair.service.wait_idle()
        assert pair.client.statistics().streams == 0


async def test_an_error_of_who_makes_the_call_leaves_nothing_behind() -> None:
    class Bad(CallSource):
        def try_call(self) -> TryCall:
            raise ValueError("bad model")

    async with open_pair() as pair:
        await call(pair.client)
        with pytest.raises(ValueError, match="bad model"):
            pair.client.begin(Bad(), first=BODY)
        assert pair.client.statistics().streams == 0
