"""h2's state machine with the differences that the wire needs, flood budgets included.

h2's private names are used in this module only. Read in h2 4.4.1:

* of `H2Connection`: ``_closed_streams``, ``_data_to_send``, ``_frame_dispatch_table``,
  ``_inbound_flow_control_window_manager``, ``_open_streams``, ``_prepare_for_sending``,
  ``_receive_data_frame``, ``_receive_frame``, ``_receive_goaway_frame``, ``_terminate_connection``
* of `H2Stream`: ``_actual_content_length``, ``_expected_content_length``,
  ``_inbound_window_manager``, ``_initialize_content_length``
* of its buffer of frames: ``_data``, ``_headers_buffer``, ``_preamble_len``
* of ``h2.connection``: ``_decode_headers``

``tests/wire/test_wire_h2.py`` has a digest of the code of h2 that this module stands in for. It
fails with another version of that code: read the new one, then renew the digest and this list.

Flood budgets: a frame that asks for nothing, or a stream that is reset before it was answered,
costs the peer next to nothing and the server a lot. HTTP/2 servers are attacked in this way (rapid
reset, CVE-2023-44487, and the floods of CVE-2019-9511 to 9518). Good peers send such frames, too,
but in proportion to useful work.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Protocol

import trio
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, RequestReceived
from h2.events import Event as H2Event
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, WindowUpdateFrame

from .buffers import LARGE, Buffer, piece_of

_HEAD = Struct(">IBI")
"""Of a frame: the length with the type below it, which is 0 for DATA; flags; the stream."""

_SETTING = Struct(">HI")

_DATA, _HEADERS, _RST_STREAM, _WINDOW_UPDATE = 0, 1, 3, 8
"""Types of frames."""

_WITHOUT_HEADS = frozenset({_DATA, _RST_STREAM, _WINDOW_UPDATE})
"""Those that can't change the table of the compression."""

_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
"""Flags of them."""

_NO_ERROR = bytes(4)
_OPEN = ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN

_CLOSED, _STREAM_OPEN, _STREAM_CLOSED = (
    ConnectionState.CLOSED,
    StreamState.OPEN,
    StreamState.CLOSED,
)
"""(To find a member in its enum takes as long as all else that is asked of a stream.)"""

SENT_EARNS = 3
"""Useless frames that are fine from a peer for each frame of data that it was sent, beside one for
each 4 KiB in it; see `ServerH2`."""


class _Data(DataFrame):
    """Without the text that h2 makes of each frame, all of its data in hex, for a log that is off:
    a tenth of what a large body costs."""

    def __repr__(self) -> str:
        return "DataFrame"


class DataReader(Protocol):
    """What reads the bytes that come on streams, and does not mind where frames end."""

    def data_received(self, stream_id: int, data: Buffer, flow_size: int) -> None: ...


class WireH2(H2Connection):
    """What is different from h2's:

    * It makes no texts of frames (`_Data`).
    * It goes on after a GOAWAY: h2 closes its state machine then, so that nothing could be sent or
      received.
    * DATA without flags on a stream that is open, which is nearly all that comes and goes, is read
      and written here, without an object of each frame, and without a copy of large ones. All that
      is known of the connection stays in h2's own variables, except what is to be sent. What is not
      as simple as that is left to h2.
    """

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._frame_dispatch_table[_Data] = self._receive_data_frame
        self._output: list[Buffer] = []
        """What goes out before h2's own."""
        self._within = 0
        """The stream of the frame that has come in part, and was given on as far as it came."""
        self.missing = 0
        """Bytes that are still to come of it."""
        self.earned = 0
        """Useless frames that are fine for what was sent since the last one."""

    def read(self, data: bytes, reader: DataReader) -> list[H2Event]:
        """As `receive_data`, but that plain DATA at the beginning is given to ``reader`` before the
        rest is looked at: as if it came alone. A frame that has come in part is given on as far as
        it came."""
        at, end = 0, len(data)
        on_data = reader.data_received
        if self.missing:
            at = min(self.missing, end)
            self.missing -= at
            on_data(self._within, piece_of(data, 0, at), at)
        buffer = self.incoming_buffer
        if buffer._data or buffer._headers_buffer or buffer._preamble_len:
            return self.receive_data(data)
        while at + 9 < end:
            size, flags, stream_id = _HEAD.unpack_from(data, at)
            begin = at + 9
            stop = begin + (size >> 8)
            if flags or size & 0xFF or not self._consume(stream_id, stop - begin):
                break
            if stop > end:
                self._within, self.missing = stream_id, stop - end
                stop = end
            on_data(stream_id, piece_of(data, begin, stop), stop - begin)
            at = stop
        return self.receive_data(data[at:]) if at < end else []

    def _consume(self, stream_id: int, size: int) -> bool:
        """Account for ``size`` bytes that came on a stream, if they may come there."""
        stream = self.streams.get(stream_id)
        if stream is None or not 0 < size <= self.max_inbound_frame_size:
            return False
        machine = stream.state_machine
        window = stream._inbound_window_manager
        window_of_all = self._inbound_flow_control_window_manager
        if (
            self.state_machine.state not in _OPEN
            or machine.state is not _STREAM_OPEN
            or not machine.headers_received
            or stream._expected_content_length is not None
            or size > window.current_window_size
            or size > window_of_all.current_window_size
        ):
            return False
        window.current_window_size -= size
        window_of_all.current_window_size -= size
        stream._actual_content_length += size
        return True

    def send_parts(self, stream_id: int, parts: Sequence[Buffer], size: int) -> None:
        """Like `send_data` with all ``parts``, which have ``size`` bytes together."""
        if not self.send_whole(stream_id, parts, size):
            self.send_data(stream_id, b"".join(parts))
            self.earned += SENT_EARNS + (size >> 12)

    def send_whole(self, stream_id: int, parts: Sequence[Buffer], size: int) -> bool:
        """Send ``parts`` if they are not empty and can go in one frame, now; whether they were
        sent."""
        stream = self.streams.get(stream_id)
        if (
            stream is None
            or stream.state_machine.state is not _STREAM_OPEN
            or self.state_machine.state not in _OPEN
            or not 0 < size <= self.max_outbound_frame_size
            or size > stream.outbound_flow_control_window
            or size > self.outbound_flow_control_window
        ):
            return False
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        self.earned += SENT_EARNS + (size >> 12)
        head = _HEAD.pack(size << 8, 0, stream_id)
        if self._data_to_send:
            self._output.append(super().data_to_send())
        if size >= LARGE:
            self._output += (head, *parts)
        else:
            self._output.append(b"".join((head, *parts)))
        return True

    def output(self) -> list[Buffer]:
        """What is to be sent now, in order. In the place of `data_to_send`."""
        output, self._output = self._output, []
        if self._data_to_send:
            output.append(super().data_to_send())
        return output

    def room(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream in one frame; none if not positive."""
        return min(self.window(stream_id), self.max_outbound_frame_size)

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream; none if not positive, as on one that is closed."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.state_machine.state is _STREAM_CLOSED:
            return 0
        if self.state_machine.state is _CLOSED:
            return 0
        window: int = stream.outbound_flow_control_window
        of_all = self.outbound_flow_control_window
        return window if window < of_all else of_all

    def has_stream(self, stream_id: int) -> bool:
        """Whether the stream is there and not closed, at both ends."""
        stream = self.streams.get(stream_id)
        return (
            stream is not None
            and stream.state_machine.state is not _STREAM_CLOSED
            and self.state_machine.state is not _CLOSED
        )

    def _receive_frame(self, frame: Frame) -> list[H2Event]:
        if type(frame) is DataFrame:
            frame.__class__ = _Data
        return super()._receive_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[H2Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


USELESS_BURST, USELESS_RATE = 2000.0, 200.0
"""Frames that a client may send for nothing: at once, and for each second. Those of good clients
are pings (each 10 s, or one for each round trip that brings them data) and window updates."""

END_EARNS = 4
"""Such frames that are fine for each stream that was answered."""

_MAX_HEADS = 32

SMALL = 256
"""Bytes below which DATA that nobody wants counts as well."""


class ServerH2(WireH2):
    """A server's end, which reads frame by frame: so what one frame brings is known to the next,
    and whoever reads may stop in between. Frames that ask for nothing are counted, and those of
    streams that have ended are dropped here, which takes a tenth of h2's time."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.useless = FloodBudget(
            "frames that ask for nothing", burst=USELESS_BURST, rate=USELESS_RATE
        )
        self._heads: dict[bytes, list[tuple[str, str]]] = {}
        """What header blocks mean as long as the table of the compression is the same."""
        self._sweep_at = 64
        """Streams, with those that have ended, from which on they are looked through."""

    @property
    def open_inbound_streams(self) -> int:
        """How many there are at most. h2 looks through all of them for each new one."""
        count = len(self.streams)
        if count < self._sweep_at:
            return count
        count = self._open_streams(1)
        self._sweep_at = min(2 * count + 64, self.local_settings.max_concurrent_streams)
        return count

    def step(self, data: bytes, at: int, reader: DataReader) -> tuple[int, list[H2Event]]:
        """Read on at ``at``: plain DATA as `read`, up to the next other frame, and that.

        Returns where to go on, and the events of that frame. The same place as before: the next
        frame has not come as a whole; it is to be given again, with the rest. Raises
        `ProtocolError` and `Flooded`."""
        end = len(data)
        on_data = reader.data_received
        if self.missing:
            piece = min(self.missing, end - at)
            self.missing -= piece
            on_data(self._within, piece_of(data, at, at + piece), piece)
            at += piece
        buffer = self.incoming_buffer
        if buffer._preamble_len:
            preamble = min(buffer._preamble_len, end - at)
            self.receive_data(data[at : at + preamble])
            at += preamble
        while at + 9 <= end:
            size, flags, stream_id = _HEAD.unpack_from(data, at)
            kind = size & 0xFF
            size >>= 8
            begin = at + 9
            stop = begin + size
            if (
                kind == _DATA
                and not flags
                and begin < end
                and not buffer._headers_buffer
                and self._consume(stream_id, size)
            ):
                if stop > end:
                    self._within, self.missing = stream_id, stop - end
                    stop = end
                on_data(stream_id, piece_of(data, begin, stop), stop - begin)
                at = stop
                continue
            if size > self.max_inbound_frame_size:
                self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
                raise FrameTooLargeError(f"a frame of {size} bytes")
            if stop > end:
                return at, []
            if self._is_useless(kind, size, flags, stream_id):
                self.note_useless()
            if not buffer._headers_buffer and self._is_late(kind, size, flags, stream_id):
                at = stop
                continue
            if kind == _HEADERS and flags == _END_HEADERS and self._opens(stream_id):
                return stop, [self._open(stream_id, data[begin:stop])]
            if kind not in _WITHOUT_HEADS:
                self._heads.clear()
            return stop, self.receive_data(data[at:stop])
        return at, []

    def note_useless(self) -> None:
        """The client has sent something that asks for nothing. Raises `Flooded`."""
        self.useless.earn(self.earned)
        self.earned = 0
        self.useless.spend()

    def _opens(self, stream_id: int) -> bool:
        """Whether a head on this stream opens it as expected."""
        return (
            stream_id > self.highest_inbound_stream_id
            and stream_id % 2 == 1
            and self.state_machine.state in _OPEN
            and not self.incoming_buffer._headers_buffer
            and self.open_inbound_streams < self.local_settings.max_concurrent_streams
        )

    def _open(self, stream_id: int, block: bytes) -> H2Event:
        """What h2 does for a head, without the objects of its frame and of each step."""
        stream = H2Stream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self.remote_settings.initial_window_size,
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        machine = stream.state_machine
        machine.client, machine.headers_received, machine.state = False, True, _STREAM_OPEN
        try:
            headers = self._heads.get(block) or self._decode(block)
            for name, value in headers:
                if name == "content-length":
                    stream._initialize_content_length([(name.encode(), value.encode())])
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise
        self.streams[stream_id] = stream
        self.highest_inbound_stream_id = stream_id
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        event = RequestReceived(stream_id=stream_id)
        event.headers = headers  # type: ignore[assignment]  # (texts, as for all of our events)
        return event

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        """Those that only refer to what was sent before are remembered until there is another."""
        found = _decode_headers(self.decoder, block)
        headers = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in found]
        if min(block, default=0) < 0x80 or len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        if min(block, default=0) >= 0x80:
            self._heads[block] = headers
        return headers

    def _is_useless(self, kind: int, size: int, flags: int, stream_id: int) -> bool:
        """Whether a frame asks for nothing, as far as can be seen."""
        if kind == _HEADERS:
            return stream_id <= self.highest_inbound_stream_id
        if kind == _DATA:
            if not size:
                return not flags & _END_STREAM or not self.has_stream(stream_id)
            return size < SMALL and (flags & _PADDED > 0 or not self.has_stream(stream_id))
        return kind != _RST_STREAM or not self.has_stream(stream_id)

    def _is_late(self, kind: int, size: int, flags: int, stream_id: int) -> bool:
        """Drop what the client has sent on a stream before it knew that this end has reset it. (h2
        tells it again for each frame.)"""
        if (
            kind not in (_DATA, _RST_STREAM, _WINDOW_UPDATE)
            or self.state_machine.state not in _OPEN
        ):
            return False
        if self._closed_by(stream_id) is not StreamClosedBy.SEND_RST_STREAM:
            return False
        if kind == _DATA:
            window = self._inbound_flow_control_window_manager
            if size > window.current_window_size:
                return False
            window.window_consumed(size)
            self.take_back(size)
        return kind == _DATA or size == 4

    def _closed_by(self, stream_id: int) -> StreamClosedBy | None:
        stream = self.streams.get(stream_id)
        if stream is None:
            return self._closed_streams.get(stream_id)
        machine = stream.state_machine
        return machine.stream_closed_by if machine.state is _STREAM_CLOSED else None

    def take_back(self, size: int) -> None:
        """Credit the connection, not a stream, for so many bytes."""
        if more := self._inbound_flow_control_window_manager.process_bytes(size):
            frame = WindowUpdateFrame(0)
            frame.window_increment = more
            self._prepare_for_sending([frame])

    def answer(self, stream_id: int, head: bytes, body: bytes, tail: bytes) -> bool:
        """Answer a stream, of which nothing was answered, with all that there is to say, and end it
        at both ends; whether that can be done at once. ``head`` and ``tail`` are header blocks that
        leave the compression as it is."""
        stream = self.streams.get(stream_id)
        size = len(body)
        if (
            stream is None
            or stream.state_machine.state is not _STREAM_OPEN
            or self.state_machine.state not in _OPEN
            or self.encoder.table_size_changes
            or not size <= self.max_outbound_frame_size
            or size > stream.outbound_flow_control_window
            or size > self.outbound_flow_control_window
        ):
            return False
        self.outbound_flow_control_window -= size
        if self._data_to_send:
            self._output.append(super().data_to_send())
        self._output.append(
            b"".join(
                (
                    _HEAD.pack(len(head) << 8 | _HEADERS, _END_HEADERS, stream_id),
                    head,
                    _HEAD.pack(size << 8, 0, stream_id),
                    body,
                    _HEAD.pack(len(tail) << 8 | _HEADERS, _END_HEADERS | _END_STREAM, stream_id),
                    tail,
                    # RFC 9113, section 8.1: the client is to send no more.
                    _HEAD.pack(4 << 8 | _RST_STREAM, 0, stream_id),
                    _NO_ERROR,
                )
            )
        )
        stream.state_machine.state = _STREAM_CLOSED
        del self.streams[stream_id]
        self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        self.useless.earn(END_EARNS)
        return True


def with_setting(frame: bytes, number: int, value: int) -> bytes:
    """A SETTINGS frame with one more setting. (hyperframe 6 writes the low 8 bits of a number.)"""
    size = int.from_bytes(frame[:3], "big") + 6
    return size.to_bytes(3, "big") + frame[3:] + _SETTING.pack(number, value)


class Flooded(Exception):
    """The peer has used up its budget. The text says of what."""


class FloodBudget:
    """A token bucket (ITU-T I.371) that work fills, too.

    It holds ``burst`` tokens at most, is full at first, and gets ``rate`` tokens a second beside
    those that are `earn`ed. ``what`` is spent, for the text of the `Flooded`."""

    def __init__(self, what: str, *, burst: float, rate: float) -> None:
        self._what = what
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._filled_at = trio.current_time()

    def earn(self, tokens: float) -> None:
        """The peer has had useful work done. Synchronous."""
        self._tokens = min(self._burst, self._tokens + tokens)

    def spend(self, tokens: int = 1) -> None:
        """Take ``tokens``. Synchronous. Raises `Flooded` if there are fewer."""
        if not self.take(tokens):
            raise Flooded(f"too many {self._what}")

    def take(self, tokens: int) -> bool:
        """Take ``tokens``, as a debt if there are fewer; whether there were so many."""
        self._tokens -= tokens
        return self._tokens >= 0 or self.wait_for(0) == 0

    def wait_for(self, tokens: int) -> float:
        """Seconds until there are ``tokens``, if none are spent meanwhile."""
        if self._tokens < tokens:
            now = trio.current_time()
            self.earn((now - self._filled_at) * self._rate)
            self._filled_at = now
        return max(0.0, (tokens - self._tokens) / self._rate)
