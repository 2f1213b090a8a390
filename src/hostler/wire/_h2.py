"""h2's state machine of a connection, where it is not what the wire needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import ConnectionTerminated
from h2.events import Event as H2Event
from h2.stream import StreamState
from hyperframe.frame import DataFrame, Frame, GoAwayFrame

from ._buffers import LARGE, Buffer, piece_of

_HEAD = Struct(">IBI")
"""Of a frame: the length with the type below it, which is 0 for DATA; flags; the stream."""
_SETTING = Struct(">HI")
_OPEN = ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN
_CLOSED, _STREAM_OPEN, _STREAM_CLOSED = (
    ConnectionState.CLOSED,
    StreamState.OPEN,
    StreamState.CLOSED,
)
"""(To find a member in its enum takes as long as all else that is asked of a stream.)"""


class _Data(DataFrame):
    """Without the text that h2 makes of each frame, all of its data in hex, for a log that is off:
    a tenth of what a large body costs."""

    def __repr__(self) -> str:
        return "DataFrame"


class QuietH2(H2Connection):
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

    def read(self, data: bytes, on_data: Callable[[int, Buffer, int], None]) -> list[H2Event]:
        """As `receive_data`, but that plain DATA at the beginning is given to ``on_data``, with its
        stream before it and its size behind, before the rest is looked at: as if it came alone.
        A frame that has come in part is given on as far as it came: its reader has a stream of
        bytes, and does not mind where frames end."""
        at, end = 0, len(data)
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


def with_setting(frame: bytes, number: int, value: int) -> bytes:
    """A SETTINGS frame with one more setting. (hyperframe 6 writes the low 8 bits of a number.)"""
    size = int.from_bytes(frame[:3], "big") + 6
    return size.to_bytes(3, "big") + frame[3:] + _SETTING.pack(number, value)
