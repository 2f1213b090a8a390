"""Frames of the kind WINDOW_UPDATE, as fast as they are taken."""

from __future__ import annotations

from tests.support.http2 import WINDOW_UPDATE, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "sends 200 000 window updates that nobody needs"
FRAME = frame(WINDOW_UPDATE, bytes((0, 0, 0, 1)))


def run(address: str, *, count: int = 200_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    return flood("window-update-flood", address, one_frame, count=count, seconds=seconds)


def one_frame(peer: Peer) -> bytes:
    return FRAME
