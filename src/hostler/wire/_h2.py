"""h2's state machine of a connection, where it is not what the wire needs."""

from __future__ import annotations

import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated
from h2.events import Event as H2Event
from hyperframe.frame import DataFrame, Frame, GoAwayFrame


class _Data(DataFrame):
    """Without the text that h2 makes of each frame, all of its data in hex, for a log that is off:
    a tenth of what a large body costs."""

    def __repr__(self) -> str:
        return "DataFrame"


class QuietH2(H2Connection):
    """Makes no texts of frames (`_Data`), and goes on after a GOAWAY: h2 closes its state machine
    then, so that nothing could be sent or received."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._frame_dispatch_table[_Data] = self._receive_data_frame

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
    return size.to_bytes(3, "big") + frame[3:] + struct.pack(">HI", number, value)
