"""Calls that share a stream: when they do, what they share, and what they don't."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler import wire
from hostler.engagement import EngagementFailed, GRPCStatus, NotSent, ServerEngagement
from hostler.errors import ProtocolError
from hostler.frames import Data, Reserved, ResultStart, TryCall
from hostler.wire import _codec as codec
from hostler.wire._client_stream import receive
from hostler.wire._envelope import CallEnd, Envelope, decode_batch, encode
from hostler.wire._server import _Streams
from hostler.wire._shared_call import CALL_WINDOW
from hostler.wire._stream import WireStream

from .leaks import settle
from .services import EMPTY_BODY, SUCCESS, TRY, Pair, Service, body_of, call, open_pair, read_call
from .test_wire_connections import Gate

LARGE = b"x" * 40_000


def paths(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the streams that the client opens from now on."""
    opened: list[str] = []
    make = pair.client._request_headers

    def headers(method: str, request_id: str = "") -> list[tuple[str, str]]:
        opened.append(method)
        return make(method, request_id)

    monkeypatch.setattr(pair.client, "_request_headers", headers)
    return opened


# --- which calls do ---


async def test_small_calls_do_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        opened = paths(pair, monkeypatch)
        for _ in range(3):
            assert body_of(await call(pair.client, b"hi")) == b"hi"
        assert opened == ["EngageMany"]


async def test_others_have_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        opened = paths(pair, monkeypatch)
        assert body_of(await call(pair.client, LARGE)) == LARGE
        async with pair.client.engage(TryCall("x" * 40_000), first=EMPTY_BODY) as engagement:
            await engagement.receive()
        async with pair.client.engage(TRY) as engagement:  # its body is still to come
            await engagement.send(EMPTY_BODY)
            await engagement.receive()
        async with pair.client.engage(TRY, first=Data(b"a")) as engagement:
            await engagement.send(EMPTY_BODY)
            await engagement.receive()
        assert opened == ["Engage"] * 4


@pytest.mark.parametrize("end", ["runner", "lb"])
async def test_none_do_where_an_end_does_not_know_of_it(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"shared_calls": 0} if end == "runner" else {}
    client: dict[str, Any] = {"share_limit": 0} if end == "lb" else {}
    async with open_pair(server_options=server, **client) as pair:
        opened = paths(pair, monkeypatch)
        assert body_of(await call(pair.client, b"hi")) == b"hi"
        assert opened == ["Engage"]


async def test_a_runner_without_it_has_no_such_method() -> None:
    async with open_pair(server_options={"shared_calls": 0}) as pair:
        with pytest.raises(EngagementFailed, match="unknown method") as info:
            await pair.client._unary("EngageMany", b"")
        assert info.value.status == 12


async def test_those_over_the_limit_of_the_runner_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service, server_options={"shared_calls": 3}) as pair:
        opened = paths(pair, monkeypatch)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, pair.client)
            await settle(lambda: service.running, 5)
            assert opened == ["EngageMany", "Engage", "Engage"]
            gate.open.set()


# --- what they share ---


async def test_calls_of_one_turn_are_one_write_and_one_message() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        server = next(iter(pair.server.connections)).connection
        client = pair.client._pool._slots[0].protocol.connection
        with _counted(client) as requests, _counted(server) as answers:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call, pair.client, b"x" * 100)
        # The first one does not know of the others.
        assert len(requests) <= 3
        assert len(answers) <= 6
        assert sum(requests) > 20 * 100


@contextmanager
def _counted(connection: Any) -> Iterator[list[int]]:
    """The sizes of the writes to a connection."""
    sizes: list[int] = []
    write = connection.transport.write

    def counted(data: bytes) -> None:
        sizes.append(len(data))
        write(data)

    connection.transport.write = counted
    try:
        yield sizes
    finally:
        del connection.transport.write


async def test_ends_of_calls_leave_nothing_behind() -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            for size in range(0, 30_000, 1000):
                nursery.start_soon(call, pair.client, bytes(size))
        shared = pair.client._pool._slots[0].shared
        assert shared is not None
        assert (len(shared.calls), shared.unread) == (0, 0)


# --- what they don't ---


async def test_a_long_answer_that_nobody_reads_does_not_stop_the_others() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        _, body = await read_call(engagement)
        await engagement.send(ResultStart(200))
        await engagement.send(Data(body * 100_000))
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair:
        first = Data(b"x" * 100, eof=True)
        async with pair.client.engage(TRY, first=first) as stuck:
            await trio.testing.wait_all_tasks_blocked(0.1)
            shared = pair.client._pool._slots[0].shared
            assert shared is not None
            assert CALL_WINDOW < shared.unread < 2 * CALL_WINDOW
            assert len(body_of(await call(pair.client, b"x"))) == 100_000
            got = 0
            while (frame := await stuck.receive()) is not None:
                got += len(frame.data) if isinstance(frame, Data) else 0
            assert got == 10_000_000
            assert shared.unread == 0


async def test_cancelling_one_leaves_the_others() -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        results: list[object] = []

        async def one() -> None:
            results.append((await call(pair.client))[-1])

        nursery.start_soon(one)
        await settle(lambda: service.running, 1)
        with trio.move_on_after(0) as scope:
            async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
                await settle(lambda: service.running, 2)
                scope.cancel()
                await engagement.receive()
        await settle(lambda: service.running, 1)
        assert results == []
        gate.open.set()
        await settle(lambda: results, [SUCCESS])


# --- the ends of streams and connections ---


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
            client = wire.GrpcRunnerClient(server.address, loop=loop, connect_timeout=5)
            for _ in range(3):
                nursery.start_soon(one, client)
            await settle(lambda: service.running, 3)
        await settle(lambda: len(failures), 3)
        await client.aclose()
    assert {(one.status, one.text) for one in failures} == {(14, "the server is shutting down")}
    assert len(failures) == 3


async def test_calls_that_come_after_a_server_has_ended_are_refused() -> None:
    """The client has not read yet that the server goes: its calls may go elsewhere."""
    service = Service()
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        assert body_of(await call(pair.client, b"hi")) == b"hi"
        (slot,) = pair.client._pool._slots
        slot.protocol.connection.transport.pause_reading()
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
        slot.protocol.connection.transport.resume_reading()
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
                            TRY, first=EMPTY_BODY, on_commit=lambda: commits.append(True)
                        ):
                            raise AssertionError
                    else:
                        await other.commit(None, on_commit=lambda: commits.append(True))

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
                TRY, first=EMPTY_BODY, on_commit=lambda: committed.append(True)
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
        monkeypatch.setattr(WireStream, "can_send", lambda stream: False)
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
            shared._stream.reset_received(int(ErrorCodes.ENHANCE_YOUR_CALM))
            with pytest.raises(EngagementFailed, match="ENHANCE_YOUR_CALM") as info:
                await engagement.receive()
            assert info.value.status == 8
        gate.open.set()
        await service.wait_idle()
        assert await call(pair.client) == [SUCCESS]
        assert opened == ["EngageMany", "Engage"]
    assert len(logs.with_event("runner ended a shared stream")) == 1


# --- peers that break the protocol ---


def batch(*envelopes: Envelope) -> bytes:
    return codec.with_prefix(b"".join(map(encode, envelopes)))


def begin(number: int, *frames: bytes) -> Envelope:
    return Envelope(number, [codec.encode_client(TRY), *frames])


async def answers(stream: WireStream) -> Sequence[Envelope]:
    message = await receive(stream, "runner")
    assert message is not None
    return decode_batch(message)


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
        await stream.send(codec.with_prefix(b"\x0a\x02\x20\x01"))
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
        open_pair(service, server_options={"shared_calls": 3}) as pair,
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
        open_pair(never_reads, server_options={"shared_calls": 2}) as pair,
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
    st.binary(max_size=30).map(codec.with_prefix),
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


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
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
