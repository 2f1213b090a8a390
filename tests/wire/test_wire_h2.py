"""Frames that `WireH2` reads and writes itself, against h2's own way with the same."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from h2 import connection, frame_buffer, stream, windows
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

import hostler
from hostler.wire import http2
from hostler.wire.buffers import Buffer
from hostler.wire.http2 import ServerH2, WireH2

from ..shape import House

STREAMS = 1, 3
REQUEST = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
SIZED = [*REQUEST, ("content-length", "100")]
RESPONSE = [(":status", "200")]


def _config(*, client: bool) -> H2Configuration:
    return H2Configuration(client_side=client, header_encoding="latin-1")


class Twin(WireH2):
    """What `WireH2` would be if it left all frames to h2."""

    def send_parts(self, stream_id: int, parts: Sequence[Buffer], size: int) -> None:
        self.send_data(stream_id, b"".join(parts))

    def read(self, data: bytes, reader: http2.DataReader) -> list[Event]:
        return self.receive_data(data)


class Events(list[Event]):
    """All that came, as h2 tells it."""

    def data_received(self, stream_id: int, data: Buffer, flow_size: int) -> None:
        piece = bytes(data)
        self.append(DataReceived(stream_id=stream_id, data=piece, flow_controlled_length=flow_size))


def read(h2: WireH2, data: bytes) -> list[Event]:
    events = Events()
    rest = h2.read(data, events)
    return events + rest


class End:
    """One end of a connection; with ``twin``, h2's own way, which gets and does the same."""

    def __init__(self, *, client: bool, max_frame: int, window: int) -> None:
        self.quiet = WireH2(_config(client=client))
        self.twin = Twin(_config(client=client))
        for h2 in (self.quiet, self.twin):
            h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
            h2.local_settings[SettingCodes.MAX_FRAME_SIZE] = max_frame
            h2.local_settings.acknowledge()
            h2.max_inbound_frame_size = max_frame
            h2.initiate_connection()
        self.broken = False
        self.check()

    def act(self, action: Callable[[WireH2], None]) -> None:
        assert _outcome(action, self.quiet) == _outcome(action, self.twin)
        self.check()

    def get(self, data: bytes, rest: bytearray | None = None) -> None:
        """Have both read ``data``, and of ``rest`` what is missing of a frame that has come in
        part, and tell of the same: h2 does when it has all of a frame."""
        mine, theirs = _outcome(read, self.quiet, data), _outcome(read, self.twin, data)
        while rest and self.quiet.missing:
            more = bytes(rest[: min(self.quiet.missing, 5000)])
            del rest[: len(more)]
            mine, theirs = mine + read(self.quiet, more), theirs + _outcome(read, self.twin, more)
        if self.quiet.missing:
            self.broken = True  # nothing to compare any more
            return
        assert _joined(mine) == _joined(theirs)
        self.broken = self.broken or isinstance(mine, type)
        self.check()

    def output(self) -> bytes:
        data = b"".join(self.quiet.output())
        assert data == self.twin.data_to_send()
        return data

    def check(self) -> None:
        assert _state(self.quiet) == _state(self.twin)


def _outcome(action: Callable[..., Any], *args: Any) -> Any:
    try:
        result = action(*args)
    except (H2Error, AssertionError, KeyError) as error:
        return type(error)
    return result


def _joined(outcome: Any) -> Any:
    """What is told of, with pieces of data that follow each other as one."""
    if not isinstance(outcome, list):
        return outcome
    events: list[Any] = []
    for event in outcome:
        last = events[-1] if events else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and last.stream_id == event.stream_id
            and not last.stream_ended
        ):
            last.data = bytes(last.data) + bytes(event.data)
            last.flow_controlled_length += event.flow_controlled_length
            last.stream_ended = event.stream_ended
            continue
        if isinstance(event, DataReceived):
            event.data = bytes(event.data)
        events.append(event)
    return [_told(event) for event in events]


def _told(event: Any) -> Any:
    values = {name: value for name, value in vars(event).items() if value is not None}
    ended = values.pop("stream_ended", None)
    return type(event).__name__, ended is not None, repr(values)


def _state(h2: H2Connection) -> Any:
    """All that is known of a connection, as far as data changes it."""
    whole = h2._inbound_flow_control_window_manager
    return (
        h2.state_machine.state,
        h2.outbound_flow_control_window,
        h2.max_outbound_frame_size,
        (whole.current_window_size, whole._bytes_processed),
        bytes(h2.incoming_buffer._data),
        {
            number: (
                stream.state_machine.state,
                stream.outbound_flow_control_window,
                stream._inbound_window_manager.current_window_size,
                stream._inbound_window_manager._bytes_processed,
                stream._actual_content_length,
            )
            for number, stream in h2.streams.items()
        },
    )


stream_ids = st.sampled_from(STREAMS)
sizes = st.sampled_from([0, 1, 9, 100, 1000, 16384, 20000, 70000])
actions = st.one_of(
    st.tuples(st.just("data"), stream_ids, sizes, st.none() | st.integers(0, 9), st.booleans()),
    st.tuples(st.just("data"), stream_ids, sizes, st.none(), st.just(False)),
    st.tuples(st.just("headers"), stream_ids, st.booleans(), st.booleans()),
    st.tuples(st.just("reset"), stream_ids),
    st.tuples(st.just("ack"), stream_ids, st.sampled_from([1, 1000, 50000])),
    st.tuples(st.just("window"), st.just(0) | stream_ids, st.sampled_from([1, 2**30])),
    st.tuples(st.just("ping")),
    st.tuples(st.just("settings"), st.sampled_from([0, 100, 65535, 2**20])),
)


def _perform(h2: WireH2, kind: str, *args: Any) -> None:
    if kind == "data":
        number, size, padding, ended = args
        if padding is None and not ended:
            h2.send_parts(number, [b"x" * (size // 3), b"y" * (size - size // 3)], size)
        else:
            h2.send_data(number, b"x" * size, end_stream=ended, pad_length=padding)
    elif kind == "headers":
        number, sized, ended = args
        request = SIZED if sized else REQUEST
        h2.send_headers(number, request if h2.config.client_side else RESPONSE, end_stream=ended)
    elif kind == "reset":
        h2.reset_stream(args[0], ErrorCodes.CANCEL)
    elif kind == "ack":
        h2.acknowledge_received_data(args[1], args[0])
    elif kind == "window":
        h2.increment_flow_control_window(args[1], args[0] or None)
    elif kind == "ping":
        h2.ping(b"12345678")
    else:
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: args[0]})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), actions), max_size=30),
    st.lists(st.integers(1, 40000), min_size=1, max_size=5),
    st.sampled_from([16384, 131072]),
    st.sampled_from([100, 65535, 262144]),
)
def test_a_connection_is_in_the_state_that_h2_has_it_in(
    steps: list[tuple[bool, tuple[Any, ...]]], cuts: list[int], max_frame: int, window: int
) -> None:
    client = End(client=True, max_frame=max_frame, window=window)
    server = End(client=False, max_frame=max_frame, window=window)
    pending = {client: bytearray(), server: bytearray()}

    def deliver(cut: int) -> None:
        for here, there in ((client, server), (server, client)):
            waiting = pending[there]
            waiting += here.output()
            data = bytes(waiting[:cut])
            del waiting[:cut]
            if not there.broken:
                there.get(data, waiting)

    client.act(lambda h2: h2.send_headers(1, REQUEST))
    deliver(10**6)
    for number, (of_client, action) in enumerate(steps):
        (client if of_client else server).act(lambda h2, a=action: _perform(h2, *a))  # type: ignore[misc]
        deliver(cuts[number % len(cuts)])
    deliver(10**9)
    deliver(10**9)


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=4))
def test_any_bytes_are_taken_as_h2_takes_them(data: bytes, cuts: list[int]) -> None:
    client = End(client=True, max_frame=16384, window=65535)
    server = End(client=False, max_frame=16384, window=65535)
    client.act(lambda h2: h2.send_headers(1, REQUEST))
    server.get(client.output())
    for cut in (*cuts, 60):
        if not server.broken:
            server.get(data[:cut])
        data = data[cut:]


def _open() -> tuple[End, End]:
    client = End(client=True, max_frame=16384, window=65535)
    server = End(client=False, max_frame=16384, window=65535)
    client.act(lambda h2: h2.send_headers(1, REQUEST))
    server.get(client.output())
    server.act(lambda h2: h2.send_headers(1, RESPONSE))
    client.get(server.output())
    server.get(client.output())
    return client, server


def test_plain_data_is_read_and_written_without_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = _open()
    taken: list[bytes] = []
    for method in ("send_data", "receive_data"):
        monkeypatch.setattr(H2Connection, method, lambda *_: taken.append(b""))
    client.quiet.send_parts(1, [b"o", b"ne"], 3)
    client.quiet.send_parts(1, [memoryview(b"two")], 3)
    events = read(server.quiet, b"".join(client.quiet.output()))
    assert [event.data for event in events if isinstance(event, DataReceived)] == [b"one", b"two"]
    assert not taken


def test_what_comes_after_a_connection_was_closed_is_left_to_h2() -> None:
    client, server = _open()
    for data in (b"one", b"two"):
        client.quiet.send_data(1, data)

    class Closing(Events):
        def data_received(self, stream_id: int, data: Buffer, flow_size: int) -> None:
            super().data_received(stream_id, data, flow_size)
            server.quiet.close_connection()

    seen = Closing()
    with pytest.raises(ProtocolError):
        server.quiet.read(client.quiet.data_to_send(), seen)
    assert [event.data for event in seen if isinstance(event, DataReceived)] == [b"one"]


def test_data_between_headers_and_their_continuation_is_an_error() -> None:
    client, server = _open()
    client.act(lambda h2: h2.send_data(1, b"x"))
    data = client.output()
    begin = (1).to_bytes(3, "big") + b"\x01\x00" + (3).to_bytes(4, "big") + b"\x82"
    server.get(begin)
    server.get(data)
    assert server.broken


def test_a_stream_that_is_reset_in_the_midst_of_a_frame_harms_no_other() -> None:
    client, server = _open()
    client.act(lambda h2: h2.send_headers(3, REQUEST))
    server.get(client.output())
    client.act(lambda h2: h2.send_parts(1, [b"x" * 100], 100))
    client.act(lambda h2: h2.send_parts(3, [b"next"], 4))
    data = client.output()
    quiet = server.quiet
    window = quiet.inbound_flow_control_window
    assert [bytes(event.data) for event in _data(read(quiet, data[:59]))] == [b"x" * 50]
    quiet.reset_stream(1, ErrorCodes.CANCEL)
    rest, other = _data(read(quiet, data[59:]))
    assert (rest.stream_id, bytes(rest.data)) == (1, b"x" * 50)
    assert (other.stream_id, bytes(other.data)) == (3, b"next")
    assert quiet.inbound_flow_control_window == window - 104


def _data(events: Sequence[object]) -> list[DataReceived]:
    return [event for event in events if isinstance(event, DataReceived)]


def _begin_server(h2: H2Connection, max_frame: int) -> None:
    h2.local_settings[SettingCodes.MAX_FRAME_SIZE] = max_frame
    h2.local_settings.acknowledge()
    h2.max_inbound_frame_size = max_frame
    h2.initiate_connection()


def _stepped(h2: ServerH2, data: bytes, cuts: list[int]) -> list[Event]:
    """All that came in pieces, as a server's connection reads it."""
    events = Events()
    kept = b""
    for cut in (*cuts, len(data)):
        kept, data = kept + data[:cut], data[cut:]
        at = 0
        while True:
            stop, found = h2.step(kept, at, events)
            events += found
            if stop in (at, len(kept)):
                break
            at = stop
        kept = kept[stop:]
    return events


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value, "latin-1")


def _comparable(events: Sequence[Any]) -> list[Any]:
    """Headers as texts, data as one, and what only h2 tells left out."""
    for event in events:
        if isinstance(event, RequestReceived):
            event.headers = [tuple(map(_text, pair)) for pair in event.headers]  # type: ignore[misc]
            event.priority_updated = None
    return cast(list[Any], _joined(list(events)))


@settings(max_examples=100, deadline=None)
@given(st.lists(actions, max_size=25), st.lists(st.integers(1, 30000), max_size=8))
async def test_a_server_reads_frame_by_frame_what_h2_reads(
    steps: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    client = H2Connection(_config(client=True))
    client.initiate_connection()
    client.increment_flow_control_window(10**6)
    client.send_headers(1, REQUEST)
    for kind, *args in steps:
        with contextlib.suppress(H2Error, AssertionError, KeyError):
            if kind == "data":
                number, size, padding, ended = args
                client.send_data(number, b"x" * size, end_stream=ended, pad_length=padding)
            elif kind != "ack":
                _perform(client, kind, *args)  # type: ignore[arg-type]
    data = client.data_to_send()
    mine = ServerH2(_config(client=False))
    theirs = H2Connection(_config(client=False))
    for h2 in (mine, theirs):
        _begin_server(h2, 16384)
    expected = _outcome(theirs.receive_data, data)
    found = _outcome(_stepped, mine, data, cuts)
    if isinstance(expected, type):
        assert found is expected
        return
    assert _comparable(found) == _comparable(expected)
    assert _state(mine)[:4] == _state(theirs)[:4]
    assert b"".join(mine.output()) == theirs.data_to_send()


READ_IN = "5709233227812df3b17201618abbb8ace945dbe4f880d28aef08db92c4714f11"
"""Digest of what `hostler.wire.http2` stands in for, in the version of its docstring."""


def test_h2_is_the_one_that_was_read() -> None:
    of_connection, of_stream = connection.H2Connection, stream.H2Stream
    code = "".join(
        inspect.getsource(one)
        for one in (
            of_connection.acknowledge_received_data,
            of_connection.data_to_send,
            of_connection.receive_data,
            of_connection.reset_stream,
            of_connection.send_data,
            of_connection._begin_new_stream,
            of_connection._get_stream_by_id,
            of_connection._open_streams,
            of_connection._prepare_for_sending,
            of_connection._receive_data_frame,
            of_connection._receive_frame,
            of_connection._receive_goaway_frame,
            of_connection._receive_headers_frame,
            of_connection._receive_rst_stream_frame,
            of_connection._terminate_connection,
            connection._decode_headers,
            of_stream.receive_data,
            of_stream.receive_headers,
            of_stream.send_data,
            of_stream._initialize_content_length,
            of_stream._track_content_length,
            stream.H2StreamStateMachine,
            frame_buffer.FrameBuffer,
            windows.WindowManager,
        )
    )
    digest = hashlib.sha256(re.sub(r"\s", "", code).encode()).hexdigest()

    assert digest == READ_IN, "h2's code has changed: see the docstring of hostler.wire.http2"


def test_the_private_names_of_h2_are_listed() -> None:
    assert http2.__doc__
    listed = set(re.findall(r"``(_\w+)``", http2.__doc__))
    home = House(Path(hostler.__file__).parent).foreign_private_uses()["grpclib"]

    assert {module: names - {"_data"} for module, names in home.items()} == {
        "hostler.wire.http2": listed - {"_data"}
    }
