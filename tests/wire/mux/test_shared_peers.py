"""Peers that break the protocol of streams that calls share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler import wire
from hostler.errors import ProtocolError
from hostler.protocol import Data, EngagementFailed, GRPCStatus, ServerEngagement
from hostler.wire.codec import messages as codec
from hostler.wire.codec.messages import with_prefix
from hostler.wire.connection import WireStream
from hostler.wire.connection_pool import receive
from hostler.wire.mux.envelope import CallEnd, Envelope, decode_batch
from hostler.wire.mux.stream import CALL_WINDOW

from ..leaks import settle
from ..services import EMPTY_BODY, SUCCESS, TRY, Gate, Service, call, encoded, open_pair, read_call

pytestmark = pytest.mark.fast


def batch(*envelopes: Envelope) -> bytes:
    return with_prefix(b"".join(map(encoded, envelopes)))


def begin(number: int, *frames: bytes) -> Envelope:
    return Envelope(number, [codec.encode_client(TRY), *frames])


async def answers(stream: WireStream) -> Sequence[Envelope]:
    message = await receive(stream, "runner")
    assert message is not None
    return decode_batch(bytes(message))


async def end_of(stream: WireStream) -> Envelope:
    """The envelope with the end of the one call that runs."""
    while True:
        for answer in await answers(stream):
            if answer.end is not None:
                return answer


async def test_calls_without_number_end_the_stream_and_only_it(logs: Any) -> None:
    service = Service(Gate())
    async with open_pair(service) as pair, pair.client._stream("EngageMany") as stream:
        await stream.send(batch(begin(1)))
        await settle(lambda: service.running, 1)
        await stream.send(with_prefix(b"\x0a\x02\x20\x01"))
        with pytest.raises(EngagementFailed, match="failed to unmarshal") as info:
            await answers(stream)
        assert info.value.status == 13
        await service.wait_idle()
        service.on_engage = read_call  # type: ignore[assignment]
        assert await call(pair.client) == []
    assert len(logs.with_event("undecodable message")) == 1


async def test_a_half_closed_stream_ends_after_its_calls() -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair, pair.client._stream("EngageMany") as stream:
        await stream.send(batch(begin(1, codec.encode_client(EMPTY_BODY))))
        await settle(lambda: service.running, 1)
        stream.end_now()
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.open.set()
        answer = await end_of(stream)
        assert (answer.call, answer.end) == (1, CallEnd())
        assert await receive(stream, "runner") is None


async def test_envelopes_for_calls_that_are_over_mean_nothing() -> None:
    async with open_pair() as pair, pair.client._stream("EngageMany") as stream:
        await stream.send(batch(begin(5, codec.encode_client(EMPTY_BODY))))
        assert (await end_of(stream)).call == 5
        late = Envelope(5, [codec.encode_client(EMPTY_BODY)], credit=10, reset=8)
        never = Envelope(4, [codec.encode_client(TRY)])  # numbers only grow
        await stream.send(batch(late, never, begin(6, codec.encode_client(EMPTY_BODY))))
        answer = await end_of(stream)
        assert (answer.call, answer.end) == (6, CallEnd())
        assert pair.service.started == 2


async def test_a_call_that_comes_with_its_reset_is_not_looked_at() -> None:
    taken: list[object] = []

    async def play(engagement: ServerEngagement) -> None:
        taken.append(await read_call(engagement))
        await engagement.send(SUCCESS)

    async with open_pair(play) as pair, pair.client._stream("EngageMany") as stream:
        body = codec.encode_client(EMPTY_BODY)
        await stream.send(batch(begin(1, body), Envelope(1, reset=8), begin(2, body)))
        assert (await end_of(stream)).call == 2
        assert len(taken) == 1


async def test_what_comes_too_late_for_a_call_leaves_the_next_of_its_task_alone() -> None:
    gate = Gate()
    begun: list[tuple[trio.lowlevel.Task, Any]] = []

    async def play(engagement: Any) -> None:
        begun.append((trio.lowlevel.current_task(), engagement._call))
        await read_call(engagement)
        if len(begun) == 2:
            await gate.open.wait()
        await engagement.send(SUCCESS)

    service = Service(play)
    async with open_pair(service) as pair, pair.client._stream("EngageMany") as stream:
        body = codec.encode_client(EMPTY_BODY)
        await stream.send(batch(begin(1, body)))
        assert (await end_of(stream)).call == 1
        await stream.send(batch(begin(2, body)))
        await settle(lambda: len(begun), 2)
        (task, first), (same, _) = begun
        assert task is same
        first.expire()
        gate.open.set()
        answer = await end_of(stream)
        assert (answer.call, answer.end) == (2, CallEnd())


async def test_a_client_that_ignores_credit_loses_the_call() -> None:
    service = Service(Gate())

    async def never_reads(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    service.on_engage = never_reads
    async with open_pair(service) as pair, pair.client._stream("EngageMany") as stream:
        await stream.send(batch(begin(1), begin(2)))
        await settle(lambda: service.running, 2)
        frame = codec.encode_client(Data(bytes(60_000)))
        for _ in range(CALL_WINDOW // 60_000 + 2):
            await stream.send(batch(Envelope(1, [frame])))
        (answer,) = await answers(stream)
        assert (answer.call, answer.reset) == (1, ErrorCodes.FLOW_CONTROL_ERROR)
        await settle(lambda: service.running, 1)


async def test_empty_frames_take_credit_too() -> None:
    async def never_reads(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with open_pair(never_reads) as pair, pair.client._stream("EngageMany") as stream:
        await stream.send(batch(begin(1)))
        for _ in range(CALL_WINDOW // 32 // 1000 + 1):
            await stream.send(batch(Envelope(1, [b""] * 1000)))
        (answer,) = await answers(stream)
        assert (answer.call, answer.reset) == (1, ErrorCodes.FLOW_CONTROL_ERROR)


async def test_calls_over_the_limit_are_refused_and_too_many_end_the_stream(logs: Any) -> None:
    service = Service(Gate())
    async with (
        open_pair(service, server_options=wire.ServerOptions(shared_calls=3)) as pair,
        pair.client._stream("EngageMany") as stream,
    ):
        await stream.send(batch(*map(begin, range(1, 6))))
        refused = await answers(stream)
        assert [(one.call, one.reset) for one in refused] == [(4, 7), (5, 7)]
        assert service.running == 3
        await stream.send(batch(*map(begin, range(6, 20))))
        with pytest.raises(EngagementFailed, match="more than 3 calls at once") as info:
            await answers(stream)
        assert info.value.status == 8
        await service.wait_idle()
    assert len(logs.with_event("peer sends too much")) == 1


async def test_a_client_that_fills_all_its_calls_is_stopped(logs: Any) -> None:
    async def never_reads(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with (
        open_pair(never_reads, server_options=wire.ServerOptions(shared_calls=2)) as pair,
        pair.client._stream("EngageMany") as stream,
    ):
        await stream.send(batch(begin(1), begin(2)))
        large = codec.encode_client(Data(bytes(1_000_000)))
        await stream.send(batch(Envelope(1, [large])))
        with pytest.raises(EngagementFailed, match="bytes of calls that nobody has read"):
            await answers(stream)
        await pair.service.wait_idle()
    assert len(logs.with_event("peer sends too much")) == 1


async def test_a_runner_that_answers_what_was_never_asked(logs: Any) -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair:
        async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
            await settle(lambda: service.running, 1)
            (protocol,) = pair.server.connections
            (stream,) = protocol.processor.streams.values()
            stream.put(batch(Envelope(9, [b"x"])))
            with pytest.raises(EngagementFailed, match="failed to unmarshal") as info:
                await engagement.receive()
            assert info.value.status == 13
        await service.wait_idle()
        gate.open.set()
        assert await call(pair.client) == [SUCCESS]
    assert logs.with_event("undecodable message")[0]["reason"] == "call 9 has never begun"


pieces = st.one_of(
    st.binary(max_size=30).map(with_prefix),
    st.builds(
        Envelope,
        st.integers(1, 6),
        st.lists(
            st.sampled_from([codec.encode_client(TRY), codec.encode_client(EMPTY_BODY), b"", b"?"]),
            max_size=4,
        ),
        credit=st.integers(0, 2**32 - 1),
        end=st.none() | st.builds(CallEnd, st.integers(0, 600)),
        reset=st.sampled_from([0, 0, 0, 8, 2**32 - 1]),
    ).map(batch),
)


async def _tolerant(engagement: ServerEngagement) -> None:
    try:
        while (frame := await engagement.receive()) is not None:
            if isinstance(frame, Data) and frame.eof:
                await engagement.send(SUCCESS)
                return
    except ProtocolError as error:
        raise GRPCStatus(2, str(error)) from error


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(pieces, max_size=8), min_size=1, max_size=4))
def test_whatever_a_client_sends_others_are_served(streams: list[list[bytes]]) -> None:
    async def main() -> None:
        async with open_pair(_tolerant) as pair:
            for parts in streams:
                async with pair.client._stream("EngageMany") as stream:
                    stream.put(b"".join(parts))
                    await trio.testing.wait_all_tasks_blocked()
            assert await call(pair.client, b"hi") == [SUCCESS]
            await pair.service.wait_idle()
            assert len(pair.server.connections) == 1

    trio.run(main)
